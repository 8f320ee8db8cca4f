"""What comes out of a job is what went in, with the consensus beside it."""

import json
from typing import Any

import msgspec
import pytest

from blocks.domain.ids import task_no
from blocks.domain.model import BadLine, GoodLine, LineCode
from blocks.store import chunks, jobs, results
from blocks.store.jobs import Job
from blocks.store.results import LineError
from tests.support import row_results
from tests.support.mixed_job import METADATA, make_mixed_job
from tests.support.row_results import RowResults
from tests.support.side import Side
from tests.support.store_shop import Chunk, Shop, make_chunk

pytestmark = pytest.mark.integration


def export(shop: Shop, job: Job, after: int = 0) -> list[bytes]:
    """The lines of an export, without their line feeds."""
    with shop.database.long_read() as tx:
        data = b"".join(results.export(tx, job.job_no, after=after))
    assert data == b"" or data.endswith(b"\n")
    return data.split(b"\n")[:-1]


def errors(shop: Shop, job: Job) -> list[LineError]:
    with shop.database.long_read() as tx:
        return list(results.list_line_errors(tx, job.job_no))


def settle(shop: Shop, job: Job, votes: tuple[str, ...] = ("cat", "cat", "dog")) -> None:
    """Have as many annotators as votes label every task."""
    for vote in votes:
        shop.answer(shop.annotator(), vote, limit=500)
    assert shop.job(job).status == "completed"


def metadata_chunk() -> Chunk:
    tasks = [
        GoodLine(n * 1000, n + 1, f"https://x.example.com/{n}?a=b&c=%20é", text)
        for n, text in enumerate(METADATA)
    ]
    return Chunk(len(tasks), tasks, [])


class Raw(msgspec.Struct):
    """An export line with its metadata as bytes."""

    task_id: str
    metadata: msgspec.Raw


def test_each_line_has_the_fields_of_the_contract(shop: Shop) -> None:
    job = shop.processing(make_chunk(1))
    settle(shop, job)
    (line,) = export(shop, job)
    found: dict[str, Any] = json.loads(line)
    assert list(found) == [
        "task_id", "line", "data_url", "metadata", "status", "consensus_label", "confidence",
        "worker_count", "agreement_count", "votes", "created_at", "settled_at",
    ]  # fmt: skip
    created, settled = found.pop("created_at"), found.pop("settled_at")
    assert found == {
        "task_id": job.task_id(0),
        "line": 1,
        "data_url": "https://img.example.com/0.jpg",
        "metadata": None,
        "status": "settled",
        "consensus_label": "cat",
        "confidence": 2 / 3,
        "worker_count": 3,
        "agreement_count": 2,
        "votes": {"cat": 2, "dog": 1, "fox": 0},
    }
    assert created.endswith("Z")
    assert created < settled


def test_times_are_utc_whatever_the_time_zone_of_the_database(shop: Shop) -> None:
    name = shop.value("select current_database()")
    shop.run(f"alter database {name} set timezone = 'Asia/Kolkata'")
    job = shop.processing(make_chunk(1))
    settle(shop, job)
    (line,) = export(shop, job)
    expected = shop.value(
        "select to_char(labelled_at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') from tallies"
    )
    assert json.loads(line)["settled_at"] == expected


def test_metadata_comes_out_byte_for_byte(shop: Shop) -> None:
    job = shop.processing(metadata_chunk(), consensus_threshold=2)
    settle(shop, job, ("cat", "cat"))
    lines = export(shop, job)
    assert [msgspec.json.decode(line)["line"] for line in lines] == list(range(1, len(lines) + 1))
    found = [bytes(msgspec.json.decode(line, type=Raw).metadata) for line in lines]
    assert found == [(text or "null").encode() for text in METADATA]


def test_annotators_are_given_metadata_byte_for_byte(shop: Shop) -> None:
    shop.processing(metadata_chunk())
    claimed = shop.claim(shop.annotator())
    assert [task.metadata for task in claimed] == METADATA


def test_options_of_any_text_come_out_as_json(shop: Shop) -> None:
    options = [
        '"quoted"',
        "back\\slash",
        "tab\tline\nfeed\r",
        "🦊",
        "control\x01\x02\x1f\x7f",
        "</x>",
    ]
    job = shop.processing(make_chunk(len(options)), options=options, consensus_threshold=2)
    for annotator in shop.annotators(2):
        claimed = shop.claim(annotator)
        labels = zip((task.task_id for task in claimed), options, strict=True)
        assert len(set(shop.label(annotator, *labels))) == 1
    lines = [json.loads(line) for line in export(shop, job)]
    assert [line["consensus_label"] for line in lines] == options
    assert [line["votes"] for line in lines] == [
        {option: 2 if option == winner else 0 for option in options} for winner in options
    ]


def test_lines_are_in_the_order_of_the_manifest_though_chunks_came_in_any(shop: Shop) -> None:
    job = shop.processing(ingested=False, consensus_threshold=2)
    for chunk_no in (2, 0, 1):
        shop.do(chunks.commit, job.job_no, chunk_no, make_chunk(30, start=chunk_no * 10_000), None)
    shop.run("update jobs set ingested_at = now()")
    settle(shop, job, ("dog", "dog"))
    lines = [json.loads(line) for line in export(shop, job)]
    assert [line["line"] for line in lines] == list(range(1, 91))
    numbers = [task_no(chunk_no, n) for chunk_no in range(3) for n in range(30)]
    assert [line["task_id"] for line in lines] == [job.task_id(number) for number in numbers]


def test_line_numbers_count_blank_and_bad_lines_of_earlier_chunks(shop: Shop) -> None:
    first = Chunk(
        10,
        [GoodLine(0, 2, "https://x.example.com/a", None)],
        [BadLine(50, 9, LineCode.MALFORMED_JSON, "Bad.", b"x")],
    )
    blank = Chunk(7, [], [])
    last = Chunk(
        4,
        [GoodLine(900, 1, "https://x.example.com/b", None)],
        [BadLine(950, 4, LineCode.NOT_AN_OBJECT, "Bad.", b"[]")],
    )
    job = shop.processing(first, blank, last, consensus_threshold=2)
    settle(shop, job, ("cat", "cat"))
    assert [json.loads(line)["line"] for line in export(shop, job)] == [2, 18]
    assert [line.line for line in errors(shop, job)] == [9, 21]


def test_an_export_goes_on_after_any_line(shop: Shop) -> None:
    job = shop.processing(make_chunk(60), make_chunk(60, start=10_000), consensus_threshold=2)
    settle(shop, job, ("cat", "cat"))
    whole = export(shop, job)
    assert len(whole) == 120
    for after in (0, 1, 59, 119, 120, 10**30):
        assert export(shop, job, after) == whole[after:]


def test_an_export_of_many_blocks_has_only_whole_lines(shop: Shop) -> None:
    tasks = [
        GoodLine(n * 10**5, n + 1, f"https://x.example.com/{n}", '{\r"pad":"' + "x" * 90_000 + '"}')
        for n in range(500)
    ]
    job = shop.processing(Chunk(500, tasks, []), consensus_threshold=2)
    settle(shop, job, ("cat", "cat"))
    with shop.database.long_read() as tx:
        blocks = list(results.export(tx, job.job_no))
    assert len(blocks) > 2
    assert all(block.endswith(b"\n") for block in blocks)
    assert [json.loads(line)["line"] for line in b"".join(blocks).split(b"\n")[:-1]] == [
        *range(1, 501)
    ]


def test_tasks_without_a_consensus_are_left_out(shop: Shop) -> None:
    options = ["cat", "dog", "fox", "owl"]
    job = shop.processing(make_chunk(2), consensus_threshold=2, options=options)
    good, split = (job.task_id(number) for number in range(2))
    for option in options:
        annotator = shop.annotator()
        shop.claim(annotator)
        shop.label(annotator, (good, "cat"), (split, option))
    assert shop.job(job).tasks_failed == 1
    assert [json.loads(line)["task_id"] for line in export(shop, job)] == [good]


def test_an_export_has_one_job_only(shop: Shop) -> None:
    one = shop.processing(make_chunk(2), consensus_threshold=2)
    other = shop.processing(make_chunk(3), consensus_threshold=2)
    for option in ("cat", "cat"):
        shop.answer(shop.annotator(), option)
    assert len(export(shop, one)) == 2
    assert len(export(shop, other)) == 3


def test_the_export_of_a_job_without_results_is_empty(shop: Shop) -> None:
    assert export(shop, shop.processing(make_chunk(0, bad=3))) == []


def test_bad_lines_are_numbered_up_to_the_first_chunk_that_is_missing(shop: Shop) -> None:
    job = shop.processing(ingested=False)
    for chunk_no in (0, 1, 3, 4):
        chunk = make_chunk(1, bad=1, start=chunk_no * 1000)
        shop.do(chunks.commit, job.job_no, chunk_no, chunk, None)
    assert [(line.line, line.byte_offset) for line in errors(shop, job)] == [(2, 100), (4, 1100)]
    shop.do(chunks.commit, job.job_no, 2, make_chunk(1, bad=1, start=2000), None)
    assert [line.line for line in errors(shop, job)] == [2, 4, 6, 8, 10]


def test_no_bad_line_is_numbered_while_the_first_chunk_is_missing(shop: Shop) -> None:
    job = shop.processing(ingested=False)
    shop.do(chunks.commit, job.job_no, 1, make_chunk(0, bad=1), None)
    assert errors(shop, job) == []


def test_thousands_of_bad_lines_come_in_order(shop: Shop) -> None:
    job = shop.processing(make_chunk(0, bad=2500), make_chunk(0, bad=10, start=10**6))
    assert [line.line for line in errors(shop, job)] == list(range(1, 2511))


def test_a_bad_line_is_shown_cut_at_a_kibibyte_and_as_text(shop: Shop) -> None:
    raws = [b"\xff\x00\x01\r", b"x" * 5000, "é".encode() * 600, b"x" + "é".encode() * 600]
    bad = [
        BadLine(n * 10_000, n + 1, LineCode.INVALID_UTF8, "Bad.", raw) for n, raw in enumerate(raws)
    ]
    job = shop.processing(Chunk(len(bad), [], bad))
    shown = [json.loads(line.to_json()) for line in errors(shop, job)]
    assert [line["line"] for line in shown] == [1, 2, 3, 4]
    assert list(shown[0]) == ["line", "byte_offset", "code", "message", "raw"]
    assert shown[0]["raw"] == "\ufffd\x00\x01\r"
    assert shown[1]["raw"] == "x" * 1024
    assert shown[2]["raw"] == "é" * 512
    assert shown[3]["raw"].startswith("x" + "é" * 511)


def test_who_fails_while_reading_an_export_does_not_wait_for_the_rest_of_it(shop: Shop) -> None:
    """A rollback would: nobody reads the COPY any more that it waits for."""
    job = shop.processing(make_chunk(5000), consensus_threshold=2)
    for _ in range(2):
        shop.answer(shop.annotator(), "cat", 5000)
    kept = []

    def fail() -> None:
        with shop.database.long_read() as tx:
            kept.append(results.export(tx, job.job_no))
            next(kept[0])
            raise KeyError

    with pytest.raises(KeyError):
        Side(fail).join()
    kept[0].close()


def exported_lines(shop: Shop, job: Job) -> list[int | None]:
    with shop.database.transaction() as tx:
        text = b"".join(results.export(tx, job.job_no))
    return [json.loads(row)["line"] for row in text.splitlines()]


def test_a_task_without_consensus_is_an_error_that_tells_the_votes(shop: Shop) -> None:
    good = GoodLine(0, 1, "https://img.example.com/é.jpg", '{"n": 1.10}')
    other = GoodLine(100, 2, "https://img.example.com/2.jpg", None)
    animals = ["cat", "dog", "fox", "owl", "elk"]
    job = shop.processing(
        Chunk(2, [good, other], []), make_chunk(1, bad=1, start=1000),
        options=animals, consensus_threshold=2,
    )  # fmt: skip
    for option in animals[:4]:
        annotator = shop.annotator()
        for task in shop.claim(annotator):
            is_clear = task.data_url not in {good.data_url, other.data_url}
            shop.label(annotator, (task.task_id, "cat" if is_clear else option))
    first, second, bad = errors(shop, job)
    assert (first.line, first.byte_offset, first.code) == (1, 0, "no_consensus")
    assert first.message == "No option won with 4 labels: cat 1, dog 1, fox 1, owl 1."
    assert first.raw.decode() == (
        '{"data_url":"https://img.example.com/é.jpg","metadata":{"n": 1.10}}'
    )
    assert second.raw == b'{"data_url":"https://img.example.com/2.jpg"}'
    assert (bad.line, bad.code) == (4, "malformed_json")
    assert exported_lines(shop, job) == [3]
    done = shop.job(job)
    assert (done.status, done.tasks_done, done.tasks_failed) == ("completed", 1, 3)


@pytest.mark.parametrize("end", ["cancelled", "job_failed"])
def test_what_is_open_of_a_job_that_ends_early_is_an_error(shop: Shop, end: str) -> None:
    job = shop.processing(make_chunk(3, bad=1), ingested=False)
    shop.do(chunks.commit, job.job_no, 2, make_chunk(1, bad=1, start=2000), None)
    for _ in range(3):
        shop.answer(shop.annotator(), "cat", 1)  # the first is settled
    shop.answer(shop.annotator(), "cat", 2)  # the second and the third are open
    assert [row.code for row in errors(shop, job)] == ["malformed_json"]
    if end == "cancelled":
        shop.do(jobs.cancel, job.job_no)
    else:
        shop.do(jobs.fail, job.job_no, "manifest_changed", "It changed.")
    found = [(row.line, row.byte_offset, row.code) for row in errors(shop, job)]
    assert found == [
        (2, 100, end), (3, 200, end), (4, 300, "malformed_json"),
        (None, 2000, end), (None, 2100, "malformed_json"),
    ]  # fmt: skip
    assert shop.job(job).tasks_failed == len(found)


@pytest.mark.parametrize("end", ["completed", "cancelled", "failed", "processing"])
@pytest.mark.parametrize("options", [2, 11])
def test_results_are_what_they_were_when_each_task_had_a_row(
    shop: Shop, end: str, options: int
) -> None:
    """PostgreSQL's own functions for JSON, numbers and times are the oracle."""
    job = make_mixed_job(shop, end, options)
    with row_results.connect(shop) as connection:
        rows = RowResults(shop, connection)
        for after in (0, 1, 77, 10**6):
            found = b"".join(line + b"\n" for line in export(shop, job, after))
            assert found == rows.export(job, after)
            assert found or after
        assert errors(shop, job) == rows.errors(job)
