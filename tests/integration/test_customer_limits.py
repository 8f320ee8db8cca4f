"""An operator sets limits of one customer at run time: every process goes by them, without a restart."""

from typing import Any

import pytest
from litestar.testing import TestClient

from blocks.settings import Settings
from blocks.store import customer_limits, customers
from blocks.store.quotas import Quota, QuotaExceeded, Quotas
from tests.support.api_world import Api, make_app
from tests.support.cli import Cli
from tests.support.side import Side, at_once, wait_until
from tests.support.store_shop import Shop, take

pytestmark = pytest.mark.integration


def change(shop: Shop, **limits: int | None) -> dict[str, int | None]:
    new: dict[str, int | None] = shop.do(customer_limits.change, shop.customer_id, limits)
    return new


def test_launchers_go_by_a_customers_own_limit_at_once(shop: Shop) -> None:
    another = shop.do(customers.add_customer, "Another")
    for customer_id in (shop.customer_id, another):
        for _ in range(4):
            shop.submit(customer_id=customer_id)
    change(shop, runs=3)
    launched = [launch.customer_id for launch in iter(lambda: take(shop, per_customer_max=1), None)]
    assert (launched.count(shop.customer_id), launched.count(another)) == (3, 1)
    assert change(shop, runs=3) == {}
    assert change(shop, runs=1) == {"runs": 1}
    assert take(shop, per_customer_max=9, runs_max=99) is not None  # of the other one
    shop.run("update runs set launched_at = null, flow_run_id = null")
    assert change(shop, runs=None) == {"runs": None}
    launched = [launch.customer_id for launch in iter(lambda: take(shop, per_customer_max=2), None)]
    assert launched.count(shop.customer_id) == 2


def test_work_that_has_failed_has_half_of_a_customers_own_limit(shop: Shop) -> None:
    for _ in range(5):
        shop.submit()
    shop.run("update runs set failing_since = now() - interval '1 hour'")
    change(shop, runs=4)
    assert len(list(iter(lambda: take(shop, per_customer_max=1), None))) == 2


def test_a_quota_of_their_own_comes_before_that_of_the_settings(shop: Shop) -> None:
    seconds = 0.0
    quotas = Quotas(lambda: seconds)

    def check(most: int = 2) -> None:
        shop.do(quotas.check, shop.customer_id, Quota.JOBS, most)

    for _ in range(3):
        shop.submit()
    with pytest.raises(QuotaExceeded):
        check()
    change(shop, jobs=3)
    seconds += 1
    check()
    change(shop, jobs=0)
    seconds += 1
    check()
    change(shop, jobs=1)
    seconds += 1
    with pytest.raises(QuotaExceeded, match="At most 1 of your jobs"):
        check(most=0)
    change(shop, jobs=None)
    seconds += 1
    check(most=0)


def test_of_operators_at_once_none_undoes_the_others_change(shop: Shop) -> None:
    at_once(
        lambda: change(shop, runs=2), lambda: change(shop, jobs=7), lambda: change(shop, keys=3)
    )
    assert shop.do(customer_limits.get, shop.customer_id) == {"runs": 2, "jobs": 7, "keys": 3}
    with shop.held() as first:
        customer_limits.change(first, shop.customer_id, {"runs": None})
        second = Side(lambda: change(shop, runs=2))
        shop.wait_for_waiters(1)
    assert second.join() == {"runs": 2}  # by then it was not


def test_every_api_process_goes_by_it_within_seconds(
    api: Api, shop: Shop, settings: Settings
) -> None:
    admin = api.bearer(shop.do(customers.add_admin_key, "Ona"))
    path = f"/v1/operations/customers/{shop.customer_id}"

    def limit(**changes: Any) -> Any:
        return api.client.patch(path, json=changes, headers=admin)

    with TestClient(make_app(settings)) as client:
        other = Api(client, shop)
        other.customer = api.customer
        processes = (api, other)

        def policies() -> list[bool]:
            return [
                '"key";q=1000;w=60' in each.get("/v1/jobs").headers["ratelimit-policy"]
                for each in processes
            ]

        assert policies() == [False, False]
        assert limit(requests_per_minute=1000, jobs=1).status_code == 200
        wait_until(lambda: all(policies()))
        assert [each.submit().status_code for each in processes] == [202, 429]
        limit(requests_per_minute=1)
        wait_until(lambda: all(each.get("/v1/jobs").status_code == 429 for each in processes))
        assert limit(requests_per_minute=None, jobs=None).json()["limits"]["jobs"] is None
        wait_until(lambda: all(each.get("/v1/jobs").status_code == 200 for each in processes))
        wait_until(lambda: all(each.submit().status_code == 202 for each in processes))


def test_limits_are_refused_that_are_none_and_changes_are_in_the_log(
    api: Api, cli: Cli, shop: Shop
) -> None:
    key = shop.do(customers.add_admin_key, "Ona")
    admin = api.bearer(key)
    path = f"/v1/operations/customers/{shop.customer_id}"
    refused: list[Any] = [
        {"runs": 0},
        {"jobs": -1},
        {"keys": 10**16},
        {"run": 3},
        {"jobs": "3"},
        [],
    ]
    for wrong in refused:
        answer = api.client.patch(path, json=wrong, headers=admin)
        assert answer.status_code == 400, wrong
    for headers in (api.customer, api.annotator):
        assert api.client.patch(path, json={"runs": 3}, headers=headers).status_code == 403
        assert api.get(path, headers).status_code == 403
    nobody = f"/v1/operations/customers/cust_{'0' * 22}"
    assert api.client.patch(nobody, json={"runs": 3}, headers=admin).status_code == 404
    assert api.client.patch(path, json={}, headers=admin).status_code == 200
    cli.say(REFINERY_API_KEY=key)
    command = ("ops", "limits", shop.customer_id)
    done = cli.done(*command, "--runs", "8", "--jobs", "0", "--json").json
    assert done == api.get(path, admin).json()
    assert {k: v for k, v in done["limits"].items() if v is not None} == {"runs": 8, "jobs": 0}
    shown = cli.done(*command, "--default", "runs")
    assert "as the settings say" in shown.out
    assert cli(*command, "--default", "runs", "--runs", "3").code == 2
    lines = shop.run(
        "select details, target_id, actor_name from audit_log "
        "where action = 'customer_limits_changed' order by audit_no"
    )
    assert [line["details"] for line in lines] == [{"runs": 8, "jobs": 0}, {"runs": None}]
    assert {(line["target_id"], line["actor_name"]) for line in lines} == {
        (shop.customer_id, "Ona")
    }
