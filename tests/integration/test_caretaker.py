"""The API has `reconcile` run where there is something to do, and keeps house itself."""

import threading
from collections.abc import Callable
from datetime import timedelta
from types import SimpleNamespace

import msgspec
import pytest
from litestar.testing import TestClient

from blocks.prefect import reconciler
from blocks.prefect.api import PrefectApi
from blocks.settings import Settings
from tests.support.api_world import make_app
from tests.support.fake_prefect import FakePrefect
from tests.support.store_shop import Shop, make_chunk

pytestmark = pytest.mark.integration


@pytest.fixture
def api_settings(
    settings: Settings, prefect: FakePrefect, monkeypatch: pytest.MonkeyPatch
) -> Settings:
    monkeypatch.setattr("api.background.caretaker._LOOK_EVERY_S", 0.1)
    monkeypatch.setattr(
        "api.background.launcher.reconcile", lambda *_: None
    )  # it does all that when it starts
    return msgspec.structs.replace(settings, prefect_api_url=prefect.url)


def wait_for(check: Callable[[], bool]) -> None:
    gone = threading.Event()
    for _ in range(500):
        if check():
            return
        gone.wait(0.02)
    raise AssertionError("waited in vain")


def looked(prefect: FakePrefect) -> None:
    """Until the caretaker has looked twice more."""
    seen = prefect.looks
    wait_for(lambda: prefect.looks >= seen + 2)


def start(shop: Shop, prefect: FakePrefect) -> str:
    """Have a job whose run was started; the run's id."""
    shop.submit()
    prefect.run()
    wait_for(lambda: len(prefect.made) == 1)
    (run_id,) = prefect.made
    wait_for(lambda: shop.value("select count(*) from runs where flow_run_id = %s", run_id) == 1)
    return run_id


def lose_run(shop: Shop, prefect: FakePrefect) -> None:
    prefect.move(start(shop, prefect), "CRASHED")


def lose_taken_run(shop: Shop, prefect: FakePrefect) -> None:
    run_id = start(shop, prefect)
    prefect.pools[run_id] = "refinery"
    prefect.move(run_id, "PENDING", ago=timedelta(minutes=2))


def lose_row(shop: Shop, prefect: FakePrefect) -> None:
    start(shop, prefect)
    shop.run("delete from runs")


def forget_job(shop: Shop, prefect: FakePrefect) -> None:
    job = shop.processing(make_chunk(2))
    shop.run("update chunks set settled = tasks where job_no = %s", job.job_no)


@pytest.mark.parametrize("spoil", [lose_run, lose_taken_run, lose_row, forget_job])
def test_what_reconcile_mends_has_one_run_of_it_started_however_many_apis_there_are(
    spoil: Callable[[Shop, FakePrefect], None],
    shop: Shop,
    api_settings: Settings,
    prefect: FakePrefect,
    prefect_api: PrefectApi,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Those who look at the two ends of a period start a run each.
    monkeypatch.setattr("api.background.caretaker.time", SimpleNamespace(time=lambda: 0.0))
    with TestClient(make_app(api_settings)), TestClient(make_app(api_settings)):
        looked(prefect)
        spoil(shop, prefect)
        while (run := prefect.run())["deployment"] != "id-reconcile":
            pass
        looked(prefect)
    assert run["name"] == "reconcile"
    assert [each["flow"] for each in prefect.made.values()].count("reconcile") == 1
    assert reconciler.is_needed(shop.database, prefect_api, api_settings)
    reconciler.reconcile(shop.database, prefect_api, api_settings)
    assert not reconciler.is_needed(shop.database, prefect_api, api_settings)


def test_no_run_is_started_to_find_that_all_is_well(
    shop: Shop, api_settings: Settings, prefect: FakePrefect
) -> None:
    with TestClient(make_app(api_settings)):
        run_id = start(shop, prefect)
        prefect.move(run_id, "RUNNING")
        shop.processing(make_chunk(3))
        looked(prefect)
    assert "reconcile" not in [run["flow"] for run in prefect.made.values()]


def test_house_is_kept_without_a_run_and_without_prefect(
    shop: Shop, api_settings: Settings, prefect: FakePrefect
) -> None:
    prefect.out.set()
    shop.processing(make_chunk(3))
    with TestClient(make_app(api_settings)):
        shop.claim(shop.annotator())
        shop.expire_leases()
        wait_for(lambda: shop.value("select count(*) from leases") == 0)
    assert prefect.made == {}
