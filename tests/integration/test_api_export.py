"""An export that is broken off leaks nothing, and many slow ones hold up nobody."""

from contextlib import ExitStack

import httpx
import pytest

from blocks.store import customers
from tests.integration.conftest import Shop, make_chunk, wait_until

pytestmark = pytest.mark.integration

ROWS = 80_000  # many times what sockets hold on the way
SLOW_READERS = 30
WAIT_S = 15.0


@pytest.fixture
def export_url(shop: Shop) -> tuple[str, dict[str, str]]:
    """The path of a large export, and the headers of its owner."""
    job = shop.processing(make_chunk(ROWS))
    shop.run(
        "insert into tallies (job_no, byte_offset, labelled_at, chunk_no, latest, threshold, places, outcome, "
        "stop_early, votes, annotators) "
        "select job_no, byte_offset, now(), 0, 1, 3, 3, 1, false, '{3,0,0}', '{1,2,3}' from tasks"
    )
    shop.run("update chunks set settled = tasks")
    shop.run("update jobs set status = 'completed', completed_at = now()")
    with shop.database.transaction() as tx:
        key = customers.add_customer_key(tx, shop.customer_id)
    return f"/v1/jobs/{job.job_id}/export", {
        "Authorization": f"Bearer {key}",
        "Accept-Encoding": "identity",
    }


def exporting(shop: Shop) -> int:
    """How many connections are in the middle of an export."""
    query = (
        "select count(*) from pg_stat_activity where query like '%%copy (%%' "
        "and datname = current_database() and pid <> pg_backend_pid()"
    )
    count: int = shop.value(query)
    return count


def test_a_client_that_hangs_up_leaves_no_connection_to_the_database(
    shop: Shop, server: str, export_url: tuple[str, dict[str, str]]
) -> None:
    path, headers = export_url
    for _ in range(5):
        with httpx.stream("GET", server + path, headers=headers) as answer:
            assert answer.status_code == 200
            blocks = answer.iter_raw()  # hangs up when it is let go of
            next(blocks)
            assert exporting(shop) >= 1
    wait_until(lambda: exporting(shop) == 0)


def test_slow_readers_do_not_keep_others_waiting(
    shop: Shop, server: str, export_url: tuple[str, dict[str, str]]
) -> None:
    path, headers = export_url
    slow = []
    with ExitStack() as exits:
        for _ in range(SLOW_READERS):
            answer = exits.enter_context(httpx.stream("GET", server + path, headers=headers))
            slow.append(answer.iter_raw())
            next(slow[-1])
        assert exporting(shop) == SLOW_READERS
        job = httpx.get(server + path.removesuffix("/export"), headers=headers, timeout=WAIT_S)
        assert job.json()["status"] == "completed"
    wait_until(lambda: exporting(shop) == 0)
