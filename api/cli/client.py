"""The HTTP API as the command line uses it: retried where that is safe, errors as exit codes."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from importlib import metadata
from typing import Annotated, Any
from urllib.parse import quote

import httpx
import msgspec
from cyclopts import Parameter, validators

from api.cli import profiles
from api.cli.exits import CommandFailed, Exit, Unreachable
from blocks.domain.backoff import backoff_s, jitter
from blocks.settings import ClientSettings

AtLeastOne = Annotated[int, Parameter(validator=validators.Number(gte=1))]

_CONNECT_S = 10.0
_READ_S = 90.0  # longer than the API lets anybody wait
_TRIES = 5
_BACKOFF_S = 0.5
_BACKOFF_S_MAX = 4.0
_RETRY_AFTER_S_MAX = 60.0
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
    """What every command of the client takes."""

    as_json: Annotated[
        bool, Parameter(name="--json", negative=(), help="Print what the API answered, as JSON.")
    ] = False
    profile: Annotated[
        str | None, Parameter(help="Use this profile, whatever the environment says.")
    ] = None

    @contextmanager
    def client(self) -> Iterator["Client"]:
        """The API, by the environment or a profile."""
        found = profiles.chosen(ClientSettings.from_environment(), self.profile)
        with Client(found) as client:
            yield client

    @contextmanager
    def annotator(self) -> Iterator["Client"]:
        """The API as an annotator, whose key has a variable of its own."""
        settings = ClientSettings.from_environment()
        own = msgspec.structs.replace(settings, api_key=settings.annotator_key or settings.api_key)
        with Client(profiles.chosen(own, self.profile)) as client:
            yield client


COMMON = Common()


class Client:
    """Requests to one API by one customer. Every failure is a `CommandFailed`."""

    def __init__(self, profile: profiles.Profile) -> None:
        profiles.check(profile)
        self._http = httpx.Client(
            base_url=profile.api_url,
            headers={
                "Authorization": f"Bearer {profile.api_key}",
                "User-Agent": f"refinery-cli/{metadata.version('refinery-jobs')}",
            },
            timeout=httpx.Timeout(_READ_S, connect=_CONNECT_S),
        )

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def get(self, path: str, **params: Any) -> Any:
        """What is there, decoded."""
        given = {name: value for name, value in params.items() if value is not None}
        return self.request("GET", path, params=given).json()

    def post(self, path: str, body: Any = None, *, again: bool = False, **options: Any) -> Any:
        """The answer, decoded. `again`: it may be sent twice, since it has an idempotency key."""
        body = {} if body is None else body
        return self.request("POST", path, again=again, json=body, **options).json()

    def request(
        self, method: str, path: str, *, again: bool = True, **options: Any
    ) -> httpx.Response:
        """The answer, if it is a good one; tried again while that may help.

        Raises:
            CommandFailed: the API refused.
            Unreachable: it does not answer, or not now.
        """
        for nth in range(1, _TRIES + 1):
            wait_s = 0.0
            try:
                response = self._http.request(method, path, **options)
            except httpx.TransportError as error:
                failure = _broken(self._http.base_url, error)
                untried = isinstance(error, httpx.ConnectError)
            else:
                if response.status_code not in _TRY_AGAIN:
                    return _checked(response)
                failure = Unreachable(_said(response))
                untried = response.status_code == HTTPStatus.TOO_MANY_REQUESTS
                wait_s = _retry_after_s(response)
            if nth == _TRIES or not (again or untried):
                raise failure
            delay_s = jitter(backoff_s(nth, first_s=_BACKOFF_S, max_s=_BACKOFF_S_MAX))
            time.sleep(max(wait_s, delay_s))
        raise AssertionError("There is at least one try.")

    @contextmanager
    def stream(self, path: str, **params: Any) -> Iterator[httpx.Response]:
        """A body that is read as it comes, and not asked for again.

        Raises:
            Unreachable: the API cannot be reached, or the body breaks off.
            CommandFailed: the API refused.
        """
        try:
            with self._http.stream("GET", path, params=params) as response:
                if response.is_error:
                    response.read()
                yield _checked(response)
        except httpx.TransportError as error:
            raise _broken(self._http.base_url, error) from error


def path(*parts: str) -> str:
    """Where something is, whatever its id is made of.

    Raises:
        CommandFailed: an id is empty, so that it would be the place of a list.
    """
    if not all(parts):
        raise CommandFailed("An id is empty.", Exit.USAGE)
    return "/v1/" + "/".join(quote(part, safe="") for part in parts)


def _checked(response: httpx.Response) -> httpx.Response:
    if not response.is_error:
        return response
    if response.is_server_error or response.status_code in _TRY_AGAIN:
        raise Unreachable(_said(response))
    raise CommandFailed(_said(response), _EXITS.get(response.status_code, Exit.REFUSED))


def _said(response: httpx.Response) -> str:
    """What the API said, with each detail that it does not hold on a line."""
    try:
        body = response.json()
        details = [f"{each['field']}: {each['message']}" for each in body.get("details", [])]
        lines = [body["error"], *(f"  {each}" for each in details if each not in body["error"])]
    except (ValueError, KeyError, TypeError):
        lines = [f"The API answered {response.status_code}."]
    return "\n".join(lines)


def _broken(url: httpx.URL, error: httpx.TransportError) -> Unreachable:
    reason = str(error) or type(error).__name__
    return Unreachable(f"The API at {url} cannot be reached: {reason}")


def _retry_after_s(response: httpx.Response) -> float:
    text = response.headers.get("Retry-After", "")
    return min(float(text), _RETRY_AFTER_S_MAX) if text.isdecimal() else 0.0
