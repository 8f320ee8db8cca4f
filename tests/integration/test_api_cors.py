"""Web pages of origins in the settings may ask the API, and no others."""

from collections.abc import Callable, Iterator

import msgspec
import pytest
from httpx import Response
from litestar.testing import TestClient

from blocks.settings import Settings
from tests.support.api_world import Api, make_app
from tests.support.store_shop import Shop

pytestmark = pytest.mark.integration

OURS, THEIRS = "https://labels.example.com", "https://evil.example.com"
ASKED = "authorization,content-type,idempotency-key,if-none-match"


@pytest.fixture
def open_to(api_settings: Settings, shop: Shop) -> Iterator[Callable[[str], Api]]:
    """An API whose settings name these origins."""
    clients = []

    def start(origins: str) -> Api:
        settings = msgspec.structs.replace(api_settings, cors_origins=origins)
        client = TestClient(make_app(settings))
        clients.append(client)
        return Api(client.__enter__(), shop)

    yield start
    for client in clients:
        client.__exit__(None, None, None)


def preflight(api: Api, origin: str, path: str, method: str, headers: str = ASKED) -> Response:
    return api.client.options(
        path,
        headers={
            "Origin": origin,
            "Access-Control-Request-Method": method,
            "Access-Control-Request-Headers": headers,
        },
    )


def cors_headers(answer: Response) -> dict[str, str]:
    return {k: v for k, v in answer.headers.items() if k.startswith("access-control-")}


def test_without_the_setting_nothing_is_said_to_pages_of_other_origins(api: Api) -> None:
    answers = [
        preflight(api, OURS, "/v1/jobs", "POST"),
        api.get("/v1/jobs", Origin=OURS),
        api.client.get("/health/live", headers={"Origin": OURS}),
        api.client.get("/v1/jobs", headers={"Origin": OURS}),
    ]
    assert [cors_headers(answer) for answer in answers] == [{}] * 4


def test_a_page_of_an_origin_that_is_named_may_ask(open_to: Callable[[str], Api]) -> None:
    api = open_to(f"http://localhost:5173, {OURS}")
    for path, method in (
        ("/v1/jobs", "POST"),
        ("/v1/jobs/job_x", "GET"),
        ("/v1/jobs/job_x/credentials", "DELETE"),
        ("/v1/annotation/claim", "POST"),
    ):
        answer = preflight(api, OURS, path, method)
        assert answer.status_code == 204, (path, answer.text)
        assert answer.headers["access-control-allow-origin"] == OURS
        assert method in answer.headers["access-control-allow-methods"].split(", ")
        allowed = answer.headers["access-control-allow-headers"].lower().split(", ")
        assert set(ASKED.split(",")) <= set(allowed)
        assert "access-control-allow-credentials" not in answer.headers
    submitted = api.submit(Origin=OURS)
    assert (submitted.status_code, submitted.headers["access-control-allow-origin"]) == (202, OURS)
    shown = submitted.headers["access-control-expose-headers"].lower().split(", ")
    assert {"location", "etag", "retry-after", "ratelimit"} <= set(shown)


def test_a_page_may_read_why_it_was_refused(open_to: Callable[[str], Api]) -> None:
    api = open_to(OURS)
    headers = {"Origin": OURS}
    answers = [
        api.client.get("/v1/jobs", headers=headers),
        api.client.get("/v1/nothing", headers=headers),
        api.client.post("/v1/jobs", headers={**api.customer, **headers}, json={}),
        api.client.get("/v1/jobs", headers={**api.annotator, **headers}),
    ]
    assert [answer.status_code for answer in answers] == [401, 404, 400, 403]
    assert {answer.headers["access-control-allow-origin"] for answer in answers} == {OURS}


@pytest.mark.parametrize(
    "origin",
    [
        THEIRS,
        "null",
        OURS.replace("https", "http"),
        f"{OURS}:8443",
        f"{OURS}.example.org",
        OURS.replace(".", "x", 1),
    ],
)
def test_a_page_of_another_origin_may_not(open_to: Callable[[str], Api], origin: str) -> None:
    api = open_to(OURS)
    assert preflight(api, origin, "/v1/jobs", "GET").status_code == 400
    answers = (preflight(api, origin, "/v1/jobs", "GET"), api.get("/v1/jobs", Origin=origin))
    assert not any("access-control-allow-origin" in answer.headers for answer in answers)


def test_a_star_is_every_origin_and_still_needs_a_key(open_to: Callable[[str], Api]) -> None:
    api = open_to("*")
    assert preflight(api, THEIRS, "/v1/jobs", "POST").headers["access-control-allow-origin"] == "*"
    refused = api.client.get("/v1/jobs", headers={"Origin": THEIRS})
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, "*")
    assert "access-control-allow-credentials" not in refused.headers


def test_every_path_says_without_a_key_which_methods_it_has(api: Api) -> None:
    document = api.client.get("/schema/openapi.json").json()
    for path in document["paths"]:
        answer = api.client.options(path.replace("{", "").replace("}", ""))
        assert (answer.status_code, "OPTIONS" in answer.headers["allow"]) == (204, True), path
