"""The HTTP API as the command line uses it: retried where that is safe, errors as exit codes."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from importlib import metadata
from typing import Annotated, Any, NoReturn
from urllib.parse import quote

import httpx
import msgspec
from cyclopts import Parameter
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt

from api.cli import profiles
from api.cli.exits import CommandFailed, Exit, Unreachable, UsageError
from api.cli.output import note
from blocks.domain.backoff import backoff_s, jitter
from blocks.settings import ClientSettings

_CONNECT_S = 10.0
_READ_S = 90.0  # longer than the API lets anybody wait
_TRIES = 5
_BACKOFF_S = 0.5
_BACKOFF_S_MAX = 4.0
_RETRY_AFTER_S_MAX = 60.0
_SILENT_S = 2.0  # people are told of a longer wait
_TRY_AGAIN = {
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
}
_EXITS: dict[int, Exit] = {
    HTTPStatus.UNAUTHORIZED: Exit.UNAUTHORIZED,
    HTTPStatus.FORBIDDEN: Exit.UNAUTHORIZED,
    HTTPStatus.NOT_FOUND: Exit.NOT_FOUND,
    HTTPStatus.CONFLICT: Exit.CONFLICT,
}


@Parameter(name="*")
@dataclass(frozen=True)
class Common:
    """Options of every command of the client."""

    as_json: Annotated[
        bool, Parameter(name="--json", negative=(), help="Print what the API answered, as JSON.")
    ] = False
    profile: Annotated[
        str | None, Parameter(help="Use this profile, whatever the environment says.")
    ] = None

    @contextmanager
    def client(self) -> Iterator["Client"]:
        """Yield the API that the environment or a profile names."""
        found = profiles.chosen(ClientSettings.from_environment(), self.profile)
        with Client(found) as client:
            yield client

    @contextmanager
    def annotator(self) -> Iterator["Client"]:
        """Yield the API to an annotator, whose key has a variable of its own."""
        settings = ClientSettings.from_environment()
        own = msgspec.structs.replace(settings, api_key=settings.annotator_key or settings.api_key)
        with Client(profiles.chosen(own, self.profile)) as client:
            yield client


COMMON = Common()


class _TryAgain(Unreachable):
    """One try has failed as another one may not. `untried`: the API has surely done nothing."""

    def __init__(self, message: str, *, untried: bool, wait_s: float = 0.0) -> None:
        super().__init__(message)
        self.untried = untried
        self.wait_s = wait_s


class _Answer(dict[str, Any]):
    """An object that the API answered; a field that is not there fails with a sentence."""

    def __missing__(self, field: str) -> NoReturn:
        message = (
            f"The API's answer has no {field!r}: it may be of another version, or not Refinery's."
        )
        raise CommandFailed(message, Exit.UNREACHABLE)


class Client:
    """Requests to one API by one customer. Every failure is a `CommandFailed`."""

    def __init__(self, profile: profiles.Profile) -> None:
        profiles.check(profile)
        headers = {
            "Authorization": f"Bearer {profile.api_key}",
            "User-Agent": f"refinery-cli/{metadata.version('refinery-jobs')}",
        }
        timeout = httpx.Timeout(_READ_S, connect=_CONNECT_S)
        try:
            self._http = httpx.Client(base_url=profile.api_url, headers=headers, timeout=timeout)
        except (httpx.InvalidURL, ValueError) as error:  # httpx raises ValueError for a proxy's URL
            raise UsageError(f"{profile.api_url}, or that of a proxy: {error}.") from error

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def get(self, path: str, **params: Any) -> Any:
        """Return what is there, decoded."""
        given = {name: value for name, value in params.items() if value is not None}
        return self.decoded(self.request("GET", path, params=given))

    def post(self, path: str, body: Any = None, *, again: bool = False, **options: Any) -> Any:
        """Return the answer, decoded. `again`: it may be sent twice, since it has an idempotency key.

        What `body` has as `msgspec.Raw` is sent as it was written.
        """
        content = msgspec.json.encode({} if body is None else body)
        headers = {"Content-Type": "application/json"} | options.pop("headers", {})
        response = self.request(
            "POST", path, again=again, content=content, headers=headers, **options
        )
        return self.decoded(response)

    def patch(self, path: str, body: Any) -> Any:
        """Return the answer, decoded. It may be sent twice, as the second time changes nothing."""
        headers = {"Content-Type": "application/json"}
        content = msgspec.json.encode(body)
        return self.decoded(
            self.request("PATCH", path, again=True, content=content, headers=headers)
        )

    def decoded(self, response: httpx.Response) -> Any:
        """Return the JSON object that was answered.

        Raises:
            Unreachable: it is none, so that this is not the API.
        """
        try:
            found = response.json(object_hook=_Answer)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise Unreachable(f"What answers at {self._http.base_url} is not Refinery's API.")
        return found

    def request(
        self, method: str, path: str, *, again: bool = True, **options: Any
    ) -> httpx.Response:
        """Return a good answer; try again while that may help, and cannot do anything twice.

        That takes at most five tries. The API says by `Retry-After` when to try, up to a minute later.

        Raises:
            CommandFailed: the API refused.
            Unreachable: it does not answer, or not now.
        """
        retrying = Retrying(
            retry=retry_if_exception(
                lambda error: isinstance(error, _TryAgain) and (again or error.untried)
            ),
            wait=_wait_s,
            stop=stop_after_attempt(_TRIES),
            before_sleep=_note_wait,
            reraise=True,
        )
        return retrying(self._try, method, path, **options)

    def _try(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            response = self._http.request(method, path, **options)
        except httpx.LocalProtocolError as error:  # such as for a line break in a header
            raise UsageError(f"This cannot be sent: {error}.") from error
        except httpx.RequestError as error:
            untried = isinstance(error, httpx.ConnectError)
            raise _TryAgain(_broken(self._http.base_url, error), untried=untried) from error
        if response.status_code in _TRY_AGAIN:
            untried = response.status_code == HTTPStatus.TOO_MANY_REQUESTS
            raise _TryAgain(_said(response), untried=untried, wait_s=_retry_after_s(response))
        return _checked(response)

    @contextmanager
    def stream(self, path: str, **params: Any) -> Iterator[httpx.Response]:
        """Yield an answer whose body is read as it comes, and not asked for again.

        Raises:
            Unreachable: the API cannot be reached, or the body breaks off.
            CommandFailed: the API refused.
        """
        try:
            with self._http.stream("GET", path, params=params) as response:
                if response.is_error:
                    response.read()
                yield _checked(response)
        except httpx.RequestError as error:
            raise Unreachable(_broken(self._http.base_url, error)) from error


def path(*parts: str) -> str:
    """Return where something is, whatever its id is made of.

    Raises:
        UsageError: an id is empty, so that it would be the place of a list.
    """
    if not all(parts):
        raise UsageError("An id is empty.")
    return "/v1/" + "/".join(quote(part, safe="") for part in parts)


def _wait_s(state: RetryCallState) -> float:
    error = state.outcome and state.outcome.exception()
    asked_s = error.wait_s if isinstance(error, _TryAgain) else 0.0
    delay_s = backoff_s(state.attempt_number, first_s=_BACKOFF_S, max_s=_BACKOFF_S_MAX)
    return max(asked_s, jitter(delay_s))


def _note_wait(state: RetryCallState) -> None:
    if state.outcome and state.upcoming_sleep >= _SILENT_S:
        wait = f"trying again in {state.upcoming_sleep:.0f} s"
        note(f"{state.outcome.exception()}; {wait}", style="dim")


def _checked(response: httpx.Response) -> httpx.Response:
    if not response.is_error:
        return response
    if response.is_server_error or response.status_code in _TRY_AGAIN:
        raise Unreachable(_said(response))
    raise CommandFailed(_said(response), _EXITS.get(response.status_code, Exit.REFUSED))


def _said(response: httpx.Response) -> str:
    """Return what the API said, and on a line each the details that it does not hold."""
    try:
        body = response.json()
        details = [f"{each['field']}: {each['message']}" for each in body.get("details", [])]
        lines = [body["error"], *(f"  {each}" for each in details if each not in body["error"])]
        return "\n".join(lines)
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"The API answered {response.status_code}."


def _broken(url: httpx.URL, error: httpx.RequestError) -> str:
    return f"The API at {url} cannot be reached: {str(error) or type(error).__name__}"


def _retry_after_s(response: httpx.Response) -> float:
    text = response.headers.get("Retry-After", "")
    return min(float(text), _RETRY_AFTER_S_MAX) if text.isdecimal() else 0.0
