"""Which requests the command line tries again, and what it makes of any answer."""

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import msgspec
import pytest

from api.cli.client import Client, path
from api.cli.exits import CommandFailed, Exit, Unreachable, UsageError
from api.cli.profiles import Profile

Step = httpx.Response | Exception
GOOD = httpx.Response(200, json={"a": 1})


class Api:
    """Answers with one step after the other, and then well; it counts the requests and the waits."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.steps: list[Step] = []
        self.requests: list[httpx.Request] = []
        self.waits: list[float] = []
        patch.setattr("time.sleep", self.waits.append)
        self.client = Client(Profile("http://api.example", "sk_x"))
        self.client._http = httpx.Client(
            base_url="http://api.example", transport=httpx.MockTransport(self._answer)
        )

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        step = self.steps.pop(0) if self.steps else GOOD
        if isinstance(step, Exception):
            raise step
        return step


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    found = Api(monkeypatch)
    with found.client:
        yield found


def refused(status: int, **headers: str) -> httpx.Response:
    return httpx.Response(status, json={"error": "Not now."}, headers=headers)


STEPS: dict[str, Callable[[], Step]] = {
    "not connected": lambda: httpx.ConnectError("refused"),
    "429": lambda: refused(429),
    "reset": lambda: httpx.ReadError("reset"),
    "late": lambda: httpx.ReadTimeout("late"),
    "closed": lambda: httpx.RemoteProtocolError("closed"),
    "not gzip": lambda: httpx.DecodingError("not gzip"),
    "502": lambda: refused(502),
    "503": lambda: refused(503),
    "504": lambda: refused(504),
}
UNTRIED = {"not connected", "429"}


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("step", STEPS)
def test_a_request_is_tried_again_where_nothing_can_happen_twice(
    step: str, again: bool, api: Api
) -> None:
    api.steps = [STEPS[step]() for _ in range(4)]
    if again or step in UNTRIED:
        assert api.client.post("/v1/x", {}, again=again) == {"a": 1}
        assert len(api.requests) == 5
    else:
        with pytest.raises(Unreachable):
            api.client.post("/v1/x", {}, again=again)
        assert len(api.requests) == 1


@pytest.mark.parametrize("step", STEPS)
def test_there_are_five_tries_with_growing_waits(step: str, api: Api) -> None:
    api.steps = [STEPS[step]() for _ in range(9)]
    with pytest.raises(Unreachable):
        api.client.get("/v1/x")
    assert len(api.requests) == 5
    for nth, wait_s in enumerate(api.waits, start=1):
        assert 0.125 <= wait_s / 2**nth <= 0.25


@pytest.mark.parametrize("status", [500, 501])
def test_a_fault_of_the_api_is_not_tried_again(status: int, api: Api) -> None:
    api.steps = [refused(status)]
    with pytest.raises(Unreachable, match="Not now"):
        api.client.get("/v1/x")
    assert len(api.requests) == 1


@pytest.mark.parametrize(
    "header, wait_s",
    [("7", 7), ("3600", 60), ("0", None), ("soon", None), ("-5", None), ("²", None)],
)
def test_the_api_says_when_within_a_minute(header: str, wait_s: float | None, api: Api) -> None:
    headers = {"Retry-After": header.encode()}
    api.steps = [httpx.Response(503, headers=headers)]  # type: ignore[arg-type]
    assert api.client.get("/v1/x") == {"a": 1}
    (waited_s,) = api.waits
    assert waited_s == wait_s if wait_s else waited_s < 1


@pytest.mark.parametrize(
    "content",
    [b"", b"<html>", b"[1]", b"null", b"\xff", b"[" * 100_000, b'{"a": 1'],
)
def test_what_is_no_object_is_not_the_api(content: bytes, api: Api) -> None:
    api.steps = [httpx.Response(200, content=content)]
    with pytest.raises(Unreachable, match="is not Refinery's API"):
        api.client.get("/v1/x")


def test_an_answer_without_a_field_is_of_another_version(api: Api) -> None:
    api.steps = [httpx.Response(200, json={"jobs": [{"a": 1}]})]
    with pytest.raises(CommandFailed, match="has no 'status'") as failure:
        assert api.client.get("/v1/x")["jobs"][0]["status"]
    assert failure.value.exit_code == Exit.UNREACHABLE


@pytest.mark.parametrize(
    "content, said",
    [
        (b"", "The API answered 404."),
        (b"<html>", "The API answered 404."),
        (b"[]", "The API answered 404."),
        (b'{"error": 1}', "The API answered 404."),
        (b'{"error": "x", "details": [1]}', "The API answered 404."),
        (b'{"error": "No.", "details": [{"field": "a", "message": "b"}]}', "No.\n  a: b"),
    ],
)
def test_any_refusal_is_a_sentence(content: bytes, said: str, api: Api) -> None:
    api.steps = [httpx.Response(404, content=content)]
    with pytest.raises(CommandFailed) as failure:
        api.client.get("/v1/x")
    assert (failure.value.message, failure.value.exit_code) == (said, Exit.NOT_FOUND)


def test_what_cannot_be_sent_is_wrong_usage(api: Api) -> None:
    api.steps = [httpx.LocalProtocolError("Illegal header value")]
    with pytest.raises(UsageError, match="cannot be sent: Illegal header value"):
        api.client.get("/v1/x")
    with pytest.raises(UnicodeEncodeError):  # `refinery` says which text it is
        api.client.post("/v1/x", {"a": "\udcff"})
    assert len(api.requests) == 1


def test_a_body_is_sent_as_it_was_written(api: Api) -> None:
    body: dict[str, Any] = {"a": "é", "tasks": [msgspec.Raw(b'{"n":  1e400}')]}
    api.client.post("/v1/x", body)
    (request,) = api.requests
    assert request.content == '{"a":"é","tasks":[{"n":  1e400}]}'.encode()
    assert request.headers["Content-Type"] == "application/json"


def test_an_id_is_one_part_of_a_path() -> None:
    assert path("jobs", "../x?y#z/é") == "/v1/jobs/..%2Fx%3Fy%23z%2F%C3%A9"
    with pytest.raises(UsageError):
        path("jobs", "")
