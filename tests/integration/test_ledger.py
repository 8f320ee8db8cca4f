"""Every line that was read is in exactly one place, or the job fails: it never completes."""

import gzip
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pytest

from blocks.domain.model import JobStatus
from blocks.lines.validated_lines import Batch
from blocks.store import chunks
from flows.process_job import process_job
from flows.reading.fast_path import validate_lines
from flows.reading.ranges import plan_ranges
from tests.support.flow_world import FlowShop, run
from tests.support.manifests import make_manifest

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

MANIFEST = make_manifest(1500, bad_share=0.02)


@pytest.fixture
def shop(flow_shop: FlowShop) -> FlowShop:
    return flow_shop


def submit(shop: FlowShop, data: bytes, name: str = "m.jsonl", **changes: Any) -> str:
    shop.put_as(name, data)
    return shop.submit(manifest_url=f"s3://{shop.bucket}/{name}", **changes)


def lose_rows(batches: Iterator[Batch]) -> Iterator[Batch]:
    for batch in batches:
        yield Batch(batch.lines, batch.tasks.head(-1), batch.bad, batch.blank)


def lose_lines(batches: Iterator[Batch]) -> Iterator[Batch]:
    for batch in batches:
        yield Batch(batch.lines - 1, batch.tasks.head(-1), batch.bad, batch.blank)


def lose_bad_lines(batches: Iterator[Batch]) -> Iterator[Batch]:
    for batch in batches:
        yield Batch(batch.lines, batch.tasks, batch.bad[1:], batch.blank)


def call_blank(batches: Iterator[Batch]) -> Iterator[Batch]:
    for batch in batches:
        yield Batch(batch.lines, batch.tasks, batch.bad, batch.blank + 1)


@pytest.mark.parametrize("spoil", [lose_rows, lose_lines, lose_bad_lines, call_blank])
@pytest.mark.parametrize("name", ["m.jsonl", "m.jsonl.gz"])
def test_a_chunk_whose_lines_do_not_add_up_is_not_committed(
    shop: FlowShop,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    spoil: Callable[[Iterator[Batch]], Iterator[Batch]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(
        "flows.reading.ingestion.validate_lines",
        lambda *text, **more: spoil(validate_lines(*text, **more)),
    )
    data = gzip.compress(MANIFEST.data) if name.endswith(".gz") else MANIFEST.data
    job_id = submit(shop, data, name)
    assert run(process_job, job_id).is_failed()
    job = shop.job(job_id)
    assert (job.status, job.error_code, job.total_tasks) == (
        JobStatus.FAILED,
        "ledger_mismatch",
        0,
    )
    (record,) = [r for r in caplog.records if "ledger.mismatch" in r.getMessage()]
    assert record.levelname == "ERROR"


def lose_a_chunk(found: Iterator[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    return (limits for n, limits in enumerate(found) if n != 2)


def lose_the_tail(found: Iterator[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    return iter(list(found)[:-1])


def leave_a_gap(found: Iterator[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    return ((start + (100 if n == 1 else 0), end) for n, (start, end) in enumerate(found))


@pytest.mark.parametrize("spoil", [lose_a_chunk, lose_the_tail, leave_a_gap])
def test_a_part_of_the_manifest_that_nobody_read_fails_the_job(
    shop: FlowShop,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[Iterator[tuple[int, int]]], Iterator[tuple[int, int]]],
) -> None:
    monkeypatch.setattr(
        "flows.reading.ingestion.plan_ranges", lambda *plan_of: spoil(plan_ranges(*plan_of))
    )
    job_id = submit(shop, MANIFEST.data)
    assert run(process_job, job_id).is_failed()
    assert shop.job(job_id).error_code == "ledger_mismatch"


def test_a_chunk_that_is_gone_by_the_end_fails_the_job(
    shop: FlowShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    tally = chunks.count_ingested

    def lose_then_count(tx: Any, job_no: int) -> chunks.IngestionCounts:
        tx.execute("delete from chunks where job_no = %s and chunk_no = 1", [job_no])
        return tally(tx, job_no)

    monkeypatch.setattr(chunks, "count_ingested", lose_then_count)
    job_id = submit(shop, gzip.compress(MANIFEST.data), "m.gz")
    assert run(process_job, job_id).is_failed()
    assert shop.job(job_id).error_code == "ledger_mismatch"


LONG = b'{"data_url": "https://a.example/1.jpg", "metadata": {"x": "' + b"x" * 1_100_000 + b'"}}'
GOOD = b'{"data_url": "https://a.example/1.jpg"}'


@pytest.mark.parametrize(
    "data, tasks, bad",
    [
        (b"", 0, 0),
        (b"\n\n \n", 0, 0),
        (GOOD, 1, 0),
        (GOOD + b"\n" + LONG + b"\n" + GOOD, 2, 1),
        (b"\xef\xbb\xbf" + GOOD + b"\r\n\r\n" + LONG, 1, 1),
        ((b" " * 19_999 + b"\n") * 3 + GOOD + b"\n", 1, 0),
    ],
    ids=["empty", "blank", "no line feed", "too long", "too long at the end", "cut at line feeds"],
)
@pytest.mark.parametrize("name", ["m.jsonl", "m.jsonl.zst"])
def test_odd_manifests_are_in_balance(
    shop: FlowShop, name: str, data: bytes, tasks: int, bad: int
) -> None:
    packed = pa.compress(data, "zstd", asbytes=True) if name.endswith(".zst") else data
    job_id = submit(shop, packed, name)
    state = run(process_job, job_id)
    assert state.is_completed(), state.message
    job = shop.job(job_id)
    assert (job.total_tasks - job.tasks_failed, job.tasks_failed) == (tasks, bad)


def test_no_line_of_a_gzip_object_without_its_ending_is_lost(shop: FlowShop) -> None:
    data = gzip.compress(MANIFEST.data)
    lines = data.count(b"\n") + (not data.endswith(b"\n"))
    job_id = submit(shop, data)
    assert run(process_job, job_id).is_failed()
    job = shop.job(job_id)
    assert job.error_code == "manifest_not_jsonl"
    assert "It begins like gzip; name the object .gz." in (job.error_message or "")
    assert job.tasks_failed == job.total_tasks
    assert lines - 5 <= job.total_tasks <= lines  # one that is blank is no bad line


def test_lines_that_begin_like_a_compressed_file_are_bad_lines_and_no_more(shop: FlowShop) -> None:
    magics = [b"x^2 + y^2", b"\x1f\x8b\x08\x00", b"\x28\xb5\x2f\xfd", b"PAR1"]
    for magic in magics:
        data = b"\n".join([magic, MANIFEST.data, magic, magic])
        job_id = submit(shop, data)
        assert run(process_job, job_id).is_completed()
        job = shop.job(job_id)
        assert job.tasks_failed == len(MANIFEST.bad) + 3
        assert job.total_tasks - job.tasks_failed == len(MANIFEST.good)


def test_a_manifest_of_which_no_line_is_usable_says_why(shop: FlowShop) -> None:
    data = b'\n{"image": "https://a.example/1.jpg"}\nx\n{"data_url": 1}\n{"data_url": 2}\n'
    job_id = submit(shop, data)
    assert run(process_job, job_id).is_failed()
    job = shop.job(job_id)
    message = job.error_message or ""
    assert (job.error_code, job.tasks_failed) == ("no_valid_lines", 4)
    assert message.startswith("None of the 4 lines of the manifest is usable (")
    assert "(invalid_data_url 2, malformed_json 1, missing_data_url 1). The first" in message
    assert message.endswith("data_url is missing; the line has image. Did you mean that?")


def test_a_blank_manifest_is_completed(shop: FlowShop) -> None:
    job_id = submit(shop, b"\n \n", delivery=None)
    assert run(process_job, job_id).is_completed()
    assert shop.job(job_id).status is JobStatus.COMPLETED


def test_a_key_with_an_asterisk_is_read_and_no_pattern_is(shop: FlowShop) -> None:
    job_id = submit(shop, MANIFEST.data, "in/we*ird.jsonl")
    assert run(process_job, job_id).is_completed()
    job_id = shop.submit(manifest_url=f"s3://{shop.bucket}/in/*.jsonl")
    assert run(process_job, job_id).is_failed()
    job = shop.job(job_id)
    assert job.error_code == "object_not_found"
    assert "patterns are not supported" in (job.error_message or "")
