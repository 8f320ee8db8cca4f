"""What operators see of streams: a page is read at a time, however many streams there are."""

import json
from itertools import pairwise
from typing import cast

import pytest

from blocks.store import streams
from blocks.store.database import Transaction
from blocks.store.streams import StreamCounts
from deployments.cli import build
from tests.support.plans import Explained
from tests.support.servers import KEY
from tests.support.store_shop import Shop, make_chunk

pytestmark = pytest.mark.integration

STREAMS = 230
MANIFESTS_EACH = 20
# Its row, its job and its later versions, by their indexes: 21 pages.
PAGES_FOR_MANIFEST = 25


@pytest.fixture
def crowded(shop: Shop) -> Shop:
    """A shop with many streams of two customers."""
    job = shop.processing(make_chunk(1))
    shop.run("insert into customers (customer_id, name) values ('cust_zzz', 'Last')")
    shop.run(
        "insert into streams (customer_id, stream) "
        "select customer_id, to_char(n, 'FM000') from customers, generate_series(1, %s) n",
        STREAMS // 2,
    )
    shop.run(
        "insert into stream_manifests (customer_id, stream, manifest_url, version, job_no, ignored_at) "
        "select customer_id, stream, 's3://manifests/' || n, '1', %s, case when n = 1 then now() end "
        "from streams, generate_series(1, %s) n",
        job.job_no,
        MANIFESTS_EACH,
    )
    shop.run("analyze streams, stream_manifests, jobs")
    return shop


def test_pages_of_streams_have_each_of_them_once_and_read_no_others(crowded: Shop) -> None:
    found: list[StreamCounts] = []
    with crowded.held() as tx:
        while True:
            after = (found[-1].customer_id, found[-1].stream) if found else ("", "")
            explained = Explained(tx)
            page = streams.list_streams(cast(Transaction, explained), after=after, limit=20)
            explained.check(20 * MANIFESTS_EACH * PAGES_FOR_MANIFEST)
            found += page
            if len(page) < 20:
                break
    names = [(each.customer_id, each.stream) for each in found]
    assert len(names) == STREAMS
    assert all(one < other for one, other in pairwise(names))
    assert {(each.manifests, each.open, each.ignored) for each in found} == {(20, 19, 1)}


def test_the_command_shows_as_many_as_it_is_told(
    crowded: Shop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REFINERY_DATABASE_URL", crowded.url)
    monkeypatch.setenv("ASG_ENCRYPTION_KEY", KEY)

    def show(*arguments: str) -> tuple[int, str]:
        command = ("streams", "list", *arguments, "--json")
        build()(command, exit_on_error=False, result_action="return_value")
        out, err = capsys.readouterr()
        return len(json.loads(out)), err

    assert show() == (100, "There are more: --limit.\n")
    assert show("--limit", str(STREAMS)) == (STREAMS, "")
    assert show("--limit", str(STREAMS - 1)) == (STREAMS - 1, "There are more: --limit.\n")
    assert show("cust_zzz", "--limit", "1000") == (STREAMS // 2, "")
