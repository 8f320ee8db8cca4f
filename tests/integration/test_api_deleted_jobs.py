"""DELETE /v1/jobs/{id}, and the command that sends it."""

import sys
from types import ModuleType

import pytest

from api.routes import inference, job_results, quality
from blocks.store import deleted_jobs, jobs
from tests.support.api_world import Api
from tests.support.cli import Cli
from tests.support.mixed_job import make_mixed_job
from tests.support.store_shop import DELIVERY, Shop

pytestmark = pytest.mark.integration


def cancelled(api: Api, **more: str) -> str:
    job_id: str = api.submit(**more).json()["job_id"]
    assert api.post(f"/v1/jobs/{job_id}/cancel", None).status_code == 202
    return job_id


def drop(api: Api, job_id: str, headers: dict[str, str] | None = None) -> tuple[int, str | None]:
    answer = api.client.delete(f"/v1/jobs/{job_id}", headers=headers or api.customer)
    return answer.status_code, answer.json()["code"] if answer.content else None


def test_a_customer_deletes_a_job_that_has_ended(api: Api) -> None:
    job_id = cancelled(api, **{"Idempotency-Key": "once"})
    assert drop(api, job_id, api.new_customer()) == (404, "job_not_found")
    assert drop(api, job_id) == (204, None)
    assert drop(api, job_id) == (404, "job_not_found")
    for rest in ("", "/export", "/errors", "/quality", "/timeline", "/history", "/instructions"):
        assert api.get(f"/v1/jobs/{job_id}{rest}").status_code == 404, rest
    assert api.get("/v1/jobs").json()["jobs"] == []
    again = api.submit(**{"Idempotency-Key": "once"})
    assert again.status_code == 202
    assert again.json()["job_id"] != job_id


def test_a_job_that_has_not_ended_is_not_deleted(api: Api) -> None:
    job_id = api.submit().json()["job_id"]
    assert drop(api, job_id) == (409, "job_not_ended")
    job = make_mixed_job(api.shop, "completed", options=3)
    assert api.shop.do(jobs.redeliver, job, DELIVERY, b"{}", api.shop.vault)
    assert drop(api, job.job_id) == (409, "delivery_under_way")


def test_the_log_of_an_endpoint_has_nothing_of_a_deleted_job(api: Api) -> None:
    hook = {"callback_url": "https://hooks.example/1", "events": ["job.cancelled"]}
    webhook_id = api.post("/v1/webhooks", hook).json()["webhook_id"]
    job_id = cancelled(api)
    log = f"/v1/webhooks/{webhook_id}/deliveries"
    (entry,) = api.get(log).json()["deliveries"]
    drop(api, job_id)
    assert api.get(log).json()["deliveries"] == []
    replay = f"/v1/webhooks/deliveries/{entry['delivery_id']}/replay"
    assert api.post(replay, None).status_code == 404


def test_the_command_asks_first_at_a_terminal(
    cli: Cli, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = shop.submit()
    assert cli("jobs", "delete", job.job_id).code == 7
    shop.do(jobs.cancel, job.job_no)

    class Terminal:
        def isatty(self) -> bool:
            return True

        def readline(self) -> str:
            return "n\n"

    monkeypatch.setattr(sys, "stdin", Terminal())
    refused = cli("jobs", "delete", job.job_id)
    assert (refused.code, shop.job(job).job_id) == (1, job.job_id)
    cli.done("jobs", "delete", job.job_id, "--yes")
    assert cli("jobs", "delete", job.job_id, "--yes").code == 6


@pytest.mark.parametrize(
    "module, what",
    [
        (job_results, "export"),
        (job_results, "errors"),
        (job_results, "errors?format=manifest"),
        (quality, "quality"),
        (quality, "quality?method=one_coin"),
        (inference, "quality/changes?method=one_coin"),
    ],
)
def test_a_job_that_is_deleted_while_it_is_asked_for_is_not_there(
    api: Api, monkeypatch: pytest.MonkeyPatch, module: ModuleType, what: str
) -> None:
    job = api.shop.job(make_mixed_job(api.shop, "completed", options=3))
    api.shop.do(deleted_jobs.delete, [job.job_no])
    missing = api.get(f"/v1/jobs/{job.job_id}")
    monkeypatch.setattr(module, "find_job", lambda *_: job)
    answer = api.get(f"/v1/jobs/{job.job_id}/{what}")
    assert (answer.status_code, answer.content) == (404, missing.content)
