"""Messages of an endpoint that is never there are given up, and do not keep old ones of others in the log."""

import pytest

from blocks import housekeeping
from blocks.settings import Settings
from blocks.store import webhook_messages
from tests.support.store_shop import Shop

pytestmark = pytest.mark.integration

# A message an hour for each endpoint, the oldest ones first.
FILL = """
insert into notifications (webhook_no, job_no, message_id, event, body, status, not_before, expires_at, created_at)
select webhook_named(%s, url), 1, random_id('msg'), 'job.completed', '{}', status, t, t + interval '3 days', t
from (
    select now() - make_interval(hours => hours) as t, url, status
    from generate_series(%s, 1, -1) hours, unnest(%s::text[], %s::text[]) as endpoint (url, status)
    order by hours desc, url
) messages
"""


def count(shop: Shop, status: str) -> int:
    found: int = shop.value("select count(*) from notifications where status = %s", status)
    return found


def test_messages_that_have_waited_for_three_days_are_given_up(
    shop: Shop, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More of them than are looked at for a purge, and with lower numbers than all others."""
    monkeypatch.setattr(housekeeping, "_BATCH", 300)
    urls = ["https://gone.example/1", "https://gone.example/2", "https://here.example/"]
    shop.run(FILL, shop.customer_id, 1000, urls, ["pending", "pending", "delivered"])
    shop.run("update webhooks set failures = 1 where callback_url like '%%gone%%'")
    tidied = housekeeping.keep_house(shop.database, settings)
    assert tidied.notifications_expired == 2 * (1000 - 71)
    assert count(shop, "pending") == 2 * 71
    # 30 days are 720 hours, and the log has been kept for so long.
    assert tidied.notifications_purged == 3 * (1000 - 719)
    assert (count(shop, "failed"), count(shop, "delivered")) == (2 * (719 - 71), 719)


def test_an_endpoint_that_does_not_fail_is_asked_with_each_after_an_outage_of_ours(
    shop: Shop, settings: Settings
) -> None:
    shop.run(FILL, shop.customer_id, 100, ["https://here.example/"], ["pending"])
    assert housekeeping.keep_house(shop.database, settings).notifications_expired == 0


def test_messages_that_wait_are_found_without_a_look_at_the_others(shop: Shop) -> None:
    shop.run(FILL, shop.customer_id, 3000, ["https://here.example/"], ["delivered"])
    shop.run(FILL, shop.customer_id, 71, ["https://slow.example/"], ["pending"])
    shop.run("analyze notifications")
    with shop.database.transaction() as tx:
        values = {"after": 0, "looks_max": 100, "limit": 100}
        statement = webhook_messages._SQL["expire"].as_string(tx)
        plan = tx.cursor().execute(f"explain (analyze, buffers, costs off) {statement}", values)
        lines = [row["QUERY PLAN"] for row in plan.fetchall()]
    assert any("notifications_due" in line for line in lines), lines
    assert not any("Seq Scan" in line for line in lines), lines
