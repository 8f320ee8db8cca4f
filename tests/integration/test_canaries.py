"""Secrets of every kind, handed to the service: none is anywhere afterwards, in whatever form."""

import base64
import secrets

import pytest
from httpx import Response

from api.session_cookies import NAME
from blocks.store import customers
from tests.support.api_world import JOB_BODY, Api
from tests.support.canaries import Place, in_database, places_of
from tests.support.servers import KEY

pytestmark = pytest.mark.integration


class Secrets(dict[str, str]):
    """What must be nowhere, by what it is, and what the service has answered since."""

    def __init__(self, api: Api) -> None:
        super().__init__()
        self._api = api
        self.answers: list[Response] = []

    def new(self, what: str) -> str:
        """A new one, with characters that every form writes in another way."""
        self[what] = f"c/{secrets.token_urlsafe(12)}+&={secrets.token_hex(4)}"
        return self[what]

    def post(self, path: str, body: object, **headers: str) -> Response:
        """Post something, whose answer has no secret but those that are taken out of it at once."""
        answer = self._api.client.post(path, json=body, headers={**self._api.customer, **headers})
        assert answer.is_success, answer.text
        return answer

    def submit_job(self) -> str:
        """A job with credentials, twice; and once so that each is refused."""
        credentials = {
            "access_key_id": self.new("access key id"),
            "secret_access_key": self.new("secret access key"),
            "session_token": self.new("session token"),
            "region": "eu-west-1",
        }
        body = JOB_BODY | {"credentials": credentials, "metadata": {"note": "seen-by-everybody"}}
        for _ in range(2):
            self.answers.append(self.post("/v1/jobs", body, **{"Idempotency-Key": "one"}))
        wrong = self._api.submit(
            body | {"credentials": credentials | {"service_account_json": "{"}}
        )
        self.answers.append(wrong)
        job_id: str = self.answers[0].json()["job_id"]
        return job_id

    def make_keys(self) -> None:
        """A key and its links, signed in with; those of the world too."""
        made = self.post("/v1/keys", {"name": "canary"}, **{"Idempotency-Key": "two"}).json()
        self["API key"] = made["key"]
        self["sign-in link"] = made["sign_in_link"].partition("#")[2]
        link = self.post(f"/v1/keys/{made['key_id']}/sign-in-link", None).json()["sign_in_link"]
        self["second link"] = link.partition("#")[2]
        signed_in = self._api.client.post("/v1/session", json={"link": self["second link"]})
        self["session"], self["CSRF token"] = (
            signed_in.cookies[NAME],
            signed_in.json()["csrf_token"],
        )
        self._api.client.cookies.clear()
        for name in ("customer", "annotator"):
            self[f"{name}'s key"] = getattr(self._api, name)["Authorization"].removeprefix(
                "Bearer "
            )
        self["operator's key"] = self._api.shop.do(customers.add_admin_key, "Ona")

    def make_endpoints(self) -> None:
        """Endpoints with secrets of both kinds, one of them rotated."""
        given = "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode()
        hook = {"callback_url": "https://127.0.0.1:1/hook", "secret": given}
        webhook_id = self.post("/v1/webhooks", hook).json()["webhook_id"]
        self["given webhook secret"] = given.removeprefix("whsec_")
        for path in (f"{webhook_id}/rotate", "default-secret/rotate"):
            made = self.post(f"/v1/webhooks/{path}", {}).json()["secret"]
            self[f"secret of {path}"] = made.removeprefix("whsec_")

    def look_around(self, job_id: str) -> None:
        """Ask for whatever may show one of them."""
        for path in (
            f"jobs/{job_id}", "jobs", f"jobs/{job_id}/history", f"jobs/{job_id}/timeline", "keys",
            "webhooks", "webhooks?all=true", "session", f"jobs/{job_id}/instructions",
        ):  # fmt: skip
            self.answers.append(self._api.get(f"/v1/{path}"))
        operator = self._api.bearer(self["operator's key"])
        self.answers += [
            self._api.get(f"/v1/{path}", operator)
            for path in ("jobs", "keys", "webhooks", "customers", "operations")
        ]
        self.answers += [self._api.get(path) for path in ("/metrics", "/schema/openapi.json")]


def test_no_secret_is_in_the_database_in_a_log_or_in_a_later_answer(
    api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    hidden = Secrets(api)
    job_id = hidden.submit_job()
    hidden.make_keys()
    hidden.make_endpoints()
    hidden.look_around(job_id)
    hidden["encryption key"] = KEY
    places: list[Place] = [
        *in_database(api.shop.url),
        ("log", caplog.text.encode()),
        *(
            (f"answer {n} {a.url.path}", f"{a.headers}{a.text}".encode())
            for n, a in enumerate(hidden.answers)
        ),
    ]
    assert len(hidden) > 12
    assert places_of(hidden, places) == []
    assert [place for place, content in places if bytes.fromhex(KEY) in content] == []
    # Each kind of place would show what is in it.
    seen = places_of({"metadata": "seen-by-everybody", "job": job_id}, places)
    for place in (
        "metadata: jobs.metadata",
        "job: jobs.job_id",
        f"job: answer 3 /v1/jobs/{job_id}",
    ):
        assert [each for each in seen if each.startswith(place)], place
