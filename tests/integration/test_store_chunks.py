"""Chunks are committed exactly once, whole or not at all, and byte for byte."""

from typing import Any

import pytest

from blocks.domain.model import BadLine, GoodLine, LineCode
from blocks.store import chunks, jobs
from tests.support.side import Side, at_once
from tests.support.store_shop import Chunk, Shop, make_chunk

pytestmark = pytest.mark.integration

NASTY = [
    '{"tab":"a\tb"}',
    r'{"backslash":"\\ \\n \\N \\. \t"}',
    r"""{"quote":"\" ' $$ $1 %s"}""",
    r'{"nul":"\u0000"}',
    '{"fox":"🦊","name":"Ł�\u2028"}',
    '{ \r"a" :\r\t1.10 ,\r "b":1e5 }\r',
    r"\N",
    r"\.",
    " ",
    '{"bell":"\x07\x1f\x7f"}',
]


def counts(shop: Shop) -> tuple[int, int, int]:
    """Rows of chunks, tasks and bad lines."""
    chunk, bad = (shop.value(f"select count(*) from {each}") for each in ("chunks", "bad_lines"))
    return chunk, len(shop.tasks()), bad


def test_a_chunk_is_there_with_all_that_is_in_it(shop: Shop) -> None:
    job = shop.processing(ingested=False)
    assert shop.do(chunks.commit, job.job_no, 0, make_chunk(5, bad=2), None)
    (row,) = shop.run("select * from chunks")
    assert (row["lines"], row["tasks"], row["bad_lines"]) == (7, 5, 2)
    (lanes,) = shop.run("select * from lanes")
    assert (lanes["cursors"], lanes["annotators"]) == ([0, 0, 0], [0, 0, 0])
    assert lanes["ends_at"] == 5
    assert counts(shop) == (1, 5, 2)
    assert shop.do(chunks.list_committed, job.job_no) == {0}


def test_a_chunk_without_a_good_line_is_committed_too(shop: Shop) -> None:
    job = shop.processing(ingested=False)
    assert shop.do(chunks.commit, job.job_no, 0, Chunk(3, [], []), None)
    assert shop.do(chunks.commit, job.job_no, 1, make_chunk(0, bad=1), None)
    assert counts(shop) == (2, 0, 1)


def test_three_that_commit_a_chunk_at_once_make_one_set_of_rows(shop: Shop) -> None:
    job = shop.processing(ingested=False)
    for chunk_no in range(10):
        chunk = make_chunk(200, bad=3, start=chunk_no * 100_000)
        created = at_once(
            *[lambda n=chunk_no, c=chunk: shop.do(chunks.commit, job.job_no, n, c, None)] * 3
        )
        assert [bool(made) for made in sorted(created, key=bool)] == [False, False, True]
    assert counts(shop) == (10, 2000, 30)


def test_a_chunk_whose_twin_dies_is_committed_by_the_one_that_waited(shop: Shop) -> None:
    job = shop.processing(ingested=False)
    with shop.given_up() as tx:
        assert chunks.commit(tx, job.job_no, 0, make_chunk(3), None)
        twin = Side(lambda: shop.do(chunks.commit, job.job_no, 0, make_chunk(3), None))
        shop.wait_for_waiters(1)
    assert twin.join()
    assert counts(shop) == (1, 3, 0)


def test_committing_a_chunk_again_changes_nothing(shop: Shop) -> None:
    job = shop.processing(make_chunk(3), ingested=False)
    assert shop.do(chunks.commit, job.job_no, 0, make_chunk(5, bad=5), None) is None
    assert counts(shop) == (1, 3, 0)


def test_the_same_chunk_number_of_another_job_is_another_chunk(shop: Shop) -> None:
    one, other = shop.processing(make_chunk(3)), shop.processing(make_chunk(4))
    assert one.job_no != other.job_no
    assert counts(shop) == (2, 7, 0)


def test_what_fails_in_the_middle_leaves_nothing(shop: Shop) -> None:
    job = shop.processing(ingested=False)
    chunk = make_chunk(1000, bad=10)
    twice = Chunk(chunk.lines, chunk.tasks, [*chunk.bad, chunk.bad[-1]])
    with pytest.raises(Exception, match="duplicate key"):
        shop.do(chunks.commit, job.job_no, 0, twice, None)
    assert counts(shop) == (0, 0, 0)
    assert shop.do(chunks.list_committed, job.job_no) == set()
    assert shop.do(chunks.commit, job.job_no, 0, chunk, None)


def fail(shop: Shop, job_no: int) -> None:
    shop.do(jobs.fail, job_no, "manifest_changed", "It changed.")


def complete(shop: Shop, job_no: int) -> None:
    shop.do(jobs.finish_ingestion, job_no)


@pytest.mark.parametrize("end", [fail, complete])
def test_nothing_is_added_to_a_job_that_has_ended(shop: Shop, end: Any) -> None:
    job = shop.processing(ingested=False)
    end(shop, job.job_no)
    assert shop.job(job).status.has_ended
    assert shop.do(chunks.commit, job.job_no, 0, make_chunk(3), None) is None
    assert counts(shop) == (0, 0, 0)


def test_nothing_is_added_to_a_job_that_has_not_begun(shop: Shop) -> None:
    job = shop.submit()
    assert shop.do(chunks.commit, job.job_no, 0, make_chunk(3), None) is None
    assert counts(shop) == (0, 0, 0)


def test_a_job_does_not_fail_between_a_chunk_and_its_commit(shop: Shop) -> None:
    job = shop.processing(ingested=False)
    with shop.held() as tx:
        assert chunks.commit(tx, job.job_no, 0, make_chunk(3), None)
        failing = Side(lambda: fail(shop, job.job_no))
        shop.wait_for_waiters(1)
    failing.join()
    assert shop.job(job).status == "failed"
    assert counts(shop) == (1, 3, 0)


def test_nasty_text_comes_out_as_it_went_in(shop: Shop) -> None:
    job = shop.processing(ingested=False)
    tasks = [
        GoodLine(n * 10, n + 1, f"https://x.example.com/{text}", text)
        for n, text in enumerate(NASTY)
    ]
    assert shop.do(chunks.commit, job.job_no, 0, Chunk(len(tasks), tasks, []), None)
    rows = shop.tasks()
    assert [row["metadata"] for row in rows] == NASTY
    assert [row["data_url"] for row in rows] == [f"https://x.example.com/{text}" for text in NASTY]


def test_a_line_without_metadata_differs_from_one_with_null(shop: Shop) -> None:
    job = shop.processing(ingested=False)
    tasks = [
        GoodLine(0, 1, "https://x.example.com/a", None),
        GoodLine(9, 2, "https://x.example.com/b", "null"),
    ]
    shop.do(chunks.commit, job.job_no, 0, Chunk(2, tasks, []), None)
    rows = shop.tasks()
    assert [row["metadata"] for row in rows] == [None, "null"]


def test_the_bytes_of_bad_lines_come_out_as_they_went_in(shop: Shop) -> None:
    job = shop.processing(ingested=False)
    raws = [bytes(range(256)), b"", b"\\x00\\.", b"\xff\xfe", b"\r", b"x" * (1024 * 1024), b"\\N"]
    bad = [
        BadLine(n * 10, n + 1, LineCode.INVALID_UTF8, f"Not\tUTF-8\\ {n}: '\U0001f98a'\r\n", raw)
        for n, raw in enumerate(raws)
    ]
    assert shop.do(chunks.commit, job.job_no, 0, Chunk(len(bad), [], bad), None)
    rows = shop.run("select raw, message from bad_lines order by byte_offset")
    assert [row["raw"] for row in rows] == raws
    assert [row["message"] for row in rows] == [line.message for line in bad]


def test_byte_offsets_beyond_32_bits_are_kept(shop: Shop) -> None:
    job = shop.processing(ingested=False)
    assert shop.do(chunks.commit, job.job_no, 0, make_chunk(1, bad=1, start=5 * 2**40), None)
    assert [task["byte_offset"] for task in shop.tasks()] == [5 * 2**40]


def test_the_tally_tells_what_is_not_json_from_what_is_only_wrong(shop: Shop) -> None:
    bad = [BadLine(n, n + 1, code, "Bad.", b"") for n, code in enumerate(LineCode)]
    job = shop.processing(Chunk(len(bad), [], bad), make_chunk(4, start=1000), ingested=False)
    tally = shop.do(chunks.count_ingested, job.job_no)
    assert (tally.tasks, tally.bad_lines, tally.not_json) == (4, len(LineCode), 2)


def test_the_tally_of_a_job_without_chunks_is_zero(shop: Shop) -> None:
    other = shop.processing(make_chunk(4))
    job = shop.processing(ingested=False)
    tally = shop.do(chunks.count_ingested, job.job_no)
    assert other.total_tasks == 4
    assert (tally.tasks, tally.bad_lines, tally.not_json) == (0, 0, 0)
