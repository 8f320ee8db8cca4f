"""Results as objects: whole, in parts of bounded size, the same bytes every time."""

import gzip
import hashlib
import json
import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.buckets.protocol import Bucket, Entry, ObjectFile
from blocks.delivery_manifest import DeliveredObject, folder_of
from blocks.domain.errors import ObjectExists, Transient
from blocks.domain.model import Compression, Pin, ResultFormat
from blocks.lines.result_lines import Ballot, Results, count_line_bytes, to_json_lines
from blocks.store.jobs import Job
from flows.writing import parquet
from flows.writing.folder import (
    Layout,
    encode_manifest,
    find_delivery,
    layout_of,
    tidy,
    write_manifest,
    write_object,
    write_parts,
)
from tests.support.made_results import make_results, row
from tests.support.memory_bucket import MemoryBucket, MemoryFile, make_job

COMPRESSIONS = list(Compression)
EXTENSIONS = {"none": "", "gzip": ".gz", "zstd": ".zst"}


def decompress(data: bytes, compression: Compression) -> bytes:
    match compression:
        case "gzip":
            return gzip.decompress(data)
        case "zstd":
            with pa.CompressedInputStream(pa.BufferReader(data), "zstd") as stream:
                plain: bytes = stream.read()
                return plain
    return data


def lines(count: int, first: int = 0) -> bytes:
    return b"".join(b'{"line":%d,"x":"%d"}\n' % (n, n * n) for n in range(first, first + count))


BLOCKS = [lines(1000), lines(1), lines(500, 7), '{"x":"ä😀"}\n'.encode()]


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_an_object_holds_what_was_written_and_its_description_is_of_what_is_stored(
    compression: Compression,
) -> None:
    bucket: Bucket = (memory := MemoryBucket())
    found = write_object(
        bucket, "a/b.jsonl", iter(BLOCKS), layout=Layout(ResultFormat.JSONL, compression)
    )
    stored = memory.objects["a/b.jsonl"]
    assert decompress(stored, compression) == b"".join(BLOCKS)
    assert found == DeliveredObject(
        "a/b.jsonl", 1502, len(stored), hashlib.sha256(stored).hexdigest()
    )
    assert (len(stored) < len(b"".join(BLOCKS)) / 2) == (compression != "none")


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_nothing_to_write_is_an_object_without_rows(compression: Compression) -> None:
    bucket = MemoryBucket()
    found = write_object(bucket, "errors.jsonl", [], layout=Layout(ResultFormat.JSONL, compression))
    assert decompress(bucket.objects["errors.jsonl"], compression) == b""
    assert found.rows == 0
    assert found.bytes == len(bucket.objects["errors.jsonl"])


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_the_same_rows_give_the_same_bytes_at_any_time(
    compression: Compression, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = MemoryBucket(), MemoryBucket()
    before = write_parts(
        first, "f", BLOCKS, layout=Layout(ResultFormat.JSONL, compression), part_bytes_max=20_000
    )
    monkeypatch.setattr("time.time", lambda: 2_000_000_000.0)
    after = write_parts(
        second, "f", BLOCKS, layout=Layout(ResultFormat.JSONL, compression), part_bytes_max=20_000
    )
    assert first.objects == second.objects
    assert before == after
    assert len(before) == 2


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_and_however_they_are_cut_into_blocks(compression: Compression) -> None:
    data = lines(30_000)
    hashes = set()
    for size in (1000, 4096, 65_537, len(data)):
        blocks = [data[at : at + size] for at in range(0, len(data), size)]
        hashes.add(
            write_object(
                MemoryBucket(), "k", blocks, layout=Layout(ResultFormat.JSONL, compression)
            ).sha256
        )
    assert len(hashes) == 1


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_part_ends_with_the_block_that_takes_it_to_its_size(compression: Compression) -> None:
    bucket = MemoryBucket()
    blocks = [b"x" * 9 + b"\n" for _ in range(7)]
    parts = write_parts(
        bucket, "p/job_1", blocks, layout=Layout(ResultFormat.JSONL, compression), part_bytes_max=25
    )
    assert [part.rows for part in parts] == [3, 3, 1]
    keys = [f"p/job_1/part-{n:05d}.jsonl{EXTENSIONS[compression]}" for n in range(3)]
    assert [part.key for part in parts] == keys == bucket.written
    plain = [decompress(bucket.objects[key], compression) for key in keys]
    assert plain == [b"".join(blocks[:3]), b"".join(blocks[3:6]), blocks[6]]


@pytest.mark.parametrize(
    "part_bytes_max, rows",
    [
        (1, [1, 1, 1, 1]),
        (10, [1, 1, 1, 1]),
        (11, [2, 2]),
        (20, [2, 2]),
        (21, [3, 1]),
        (40, [4]),
        (10**9, [4]),
    ],
)
def test_no_part_is_empty_and_none_is_missing(part_bytes_max: int, rows: list[int]) -> None:
    blocks = [b"x" * 9 + b"\n"] * 4
    parts = write_parts(MemoryBucket(), "f", blocks, part_bytes_max=part_bytes_max)
    assert [part.rows for part in parts] == rows


def test_no_results_are_no_parts() -> None:
    bucket = MemoryBucket()
    assert write_parts(bucket, "f", [], part_bytes_max=100) == []
    assert bucket.objects == {}


@given(st.lists(st.binary(min_size=1, max_size=30)), st.integers(1, 100))
def test_the_parts_together_are_the_blocks(blocks: list[bytes], part_bytes_max: int) -> None:
    bucket = MemoryBucket()
    parts = write_parts(bucket, "f", blocks, part_bytes_max=part_bytes_max)
    assert b"".join(bucket.objects[part.key] for part in parts) == b"".join(blocks)
    assert sum(part.bytes for part in parts) == sum(map(len, blocks))
    assert sum(part.rows for part in parts) == b"".join(blocks).count(b"\n")
    assert all(part.bytes < part_bytes_max + 30 for part in parts)
    assert all(part.bytes >= part_bytes_max for part in parts[:-1])


def test_blocks_are_written_as_they_come_and_not_collected() -> None:
    given_out = 0

    def blocks() -> Iterator[bytes]:
        nonlocal given_out
        for _ in range(100):
            given_out += 1
            yield b"x" * 9 + b"\n"

    class Watching(MemoryBucket):
        @contextmanager
        def write(self, key: str) -> Iterator[ObjectFile]:
            with super().write(key) as file:
                opened.append(given_out)
                yield file

    opened: list[int] = []
    write_parts(Watching(), "f", blocks(), part_bytes_max=100)
    assert opened == list(range(1, 100, 10))


class Broken(Exception):
    """The connection to the database went away."""


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("before", [0, 1, 50])
def test_an_exception_in_the_middle_leaves_no_object(compression: Compression, before: int) -> None:
    def blocks() -> Iterator[bytes]:
        for _ in range(before):
            yield lines(5000)
        raise Broken

    bucket = MemoryBucket()
    with pytest.raises(Broken):
        write_object(
            bucket, "f/errors.jsonl", blocks(), layout=Layout(ResultFormat.JSONL, compression)
        )
    assert bucket.objects == {}


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_an_exception_in_a_later_part_leaves_the_parts_before_it_only(
    compression: Compression,
) -> None:
    def blocks() -> Iterator[bytes]:
        yield from [lines(10), lines(10), lines(10)]
        raise Broken

    bucket = MemoryBucket()
    with pytest.raises(Broken):
        write_parts(
            bucket,
            "f",
            blocks(),
            layout=Layout(ResultFormat.JSONL, compression),
            part_bytes_max=len(lines(10)) + 1,
        )
    name = f"f/part-00000.jsonl{EXTENSIONS[compression]}"
    assert list(bucket.objects) == [name]
    assert decompress(bucket.objects[name], compression) == lines(10) * 2


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_an_upload_that_could_not_be_completed_is_not_delivered(compression: Compression) -> None:
    bucket = MemoryBucket(fails_at_close=True)
    with pytest.raises(Transient):
        write_parts(
            bucket,
            "f",
            [lines(1)],
            layout=Layout(ResultFormat.JSONL, compression),
            part_bytes_max=100,
        )
    assert bucket.objects == {}


@pytest.mark.parametrize(
    "prefix, folder", [("", "job_1"), ("p", "p/job_1"), ("a/b c", "a/b c/job_1")]
)
def test_the_objects_of_a_job_go_to_a_folder_of_its_own(prefix: str, folder: str) -> None:
    assert folder_of(make_job(prefix)) == folder


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_the_manifest_lists_every_object_and_the_counters(compression: Compression) -> None:
    job = make_job(compression=compression)
    objects = [DeliveredObject("p/job_1/part-00000.jsonl", 3, 99, "ab" * 32)]
    encoded = encode_manifest(job, objects)
    assert layout_of(job) == Layout(ResultFormat.JSONL, compression)
    assert json.loads(encoded) == {
        "job_id": "job_1",
        "format": "jsonl",
        "compression": compression,
        "total_tasks": 5,
        "tasks_done": 3,
        "tasks_failed": 2,
        "options": job.options,
        "consensus": {"method": "majority", "threshold": 3, "stop_early": False},
        "include_labels": False,
        "has_gold": False,
        "has_review": False,
        "labels": None,
        "conditional_put": True,
        "objects": [
            {"key": "p/job_1/part-00000.jsonl", "rows": 3, "bytes": 99, "sha256": "ab" * 32}
        ],
    }
    assert encoded.endswith(b"}\n")
    assert encoded == encode_manifest(job, objects)
    assert b"sealed-secret" not in encoded


# A delivery that stands, though nobody has said so


def deliver(bucket: MemoryBucket, job: Job) -> list[DeliveredObject]:
    folder = folder_of(job)
    objects = write_parts(bucket, folder, BLOCKS, part_bytes_max=20_000)
    objects.append(write_object(bucket, f"{folder}/errors.jsonl", [lines(2)]))
    bucket.create(f"{folder}/manifest.json", encode_manifest(job, objects))
    return objects


def test_without_a_manifest_nothing_stands() -> None:
    bucket, job = MemoryBucket(), make_job()
    write_parts(bucket, folder_of(job), BLOCKS, part_bytes_max=20_000)
    assert find_delivery(bucket, job) is None


def test_a_delivery_with_its_manifest_stands() -> None:
    bucket, job = MemoryBucket(), make_job()
    assert deliver(bucket, job) == find_delivery(bucket, job)


def test_a_manifest_of_other_results_is_not_ours() -> None:
    bucket, job = MemoryBucket(), make_job()
    deliver(bucket, job)
    with pytest.raises(ObjectExists, match="other results"):
        find_delivery(bucket, msgspec.structs.replace(job, tasks_done=4))
    bucket.objects["p/job_1/manifest.json"] = b"something else"
    with pytest.raises(ObjectExists, match="Another object"):
        find_delivery(bucket, job)


@pytest.mark.parametrize("lacks", ["knows_no_conditions", "heeds_no_conditions"])
def test_a_store_without_conditions_is_written_down_and_the_delivery_stands(lacks: str) -> None:
    bucket, job = MemoryBucket(), make_job()
    setattr(bucket, lacks, True)
    objects = write_parts(bucket, folder_of(job), BLOCKS, part_bytes_max=20_000)
    for _ in range(2):
        write_manifest(bucket, job, objects)
    assert json.loads(bucket.objects["p/job_1/manifest.json"])["conditional_put"] is False
    assert find_delivery(bucket, job) == objects
    with pytest.raises(ObjectExists):
        write_manifest(bucket, msgspec.structs.replace(job, tasks_done=4), objects)


def test_a_manifest_from_before_it_said_so_is_read() -> None:
    bucket, job = MemoryBucket(), make_job()
    objects = deliver(bucket, job)
    manifest = json.loads(bucket.objects["p/job_1/manifest.json"])
    del manifest["conditional_put"]
    bucket.objects["p/job_1/manifest.json"] = json.dumps(manifest).encode()
    assert find_delivery(bucket, job) == objects


def test_a_manifest_that_is_too_large_for_one_is_not_read() -> None:
    class Unread(MemoryBucket):
        def read(self, key: str, pin: Pin, start: int, end: int) -> bytes:
            raise AssertionError(f"{end - start} bytes of {key} are read")

    bucket, job = Unread(), make_job()
    bucket.objects["p/job_1/manifest.json"] = b" " * (16 * 1024 * 1024 + 1)
    with pytest.raises(ObjectExists, match="16,777,217 bytes"):
        find_delivery(bucket, job)


def test_tidying_up_ends_though_the_listing_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.writing.folder._TIDY_S_MAX", 0.05)

    class Endless(MemoryBucket):
        def entries(self, prefix: str, *, seconds_max: float = 0.0) -> Iterator[Entry]:
            del seconds_max
            while True:
                yield Entry(f"{prefix}part-00000.jsonl", Pin(1, "1"), datetime.now(UTC))

    tidy(Endless(), "p/job_1", [])


def test_a_manifest_whose_objects_are_others_is_not_taken() -> None:
    bucket, job = MemoryBucket(), make_job()
    first, *_ = deliver(bucket, job)
    bucket.objects[first.key] += b"more"
    with pytest.raises(ObjectExists, match="does not describe"):
        find_delivery(bucket, job)


def test_what_earlier_attempts_have_left_is_removed_and_nothing_else() -> None:
    bucket, job = MemoryBucket(), make_job()
    objects = deliver(bucket, job)
    whole = dict(bucket.objects)
    of_others = {
        "p/job_1/notes.txt": b"",
        "p/job_1/part-1.jsonl": b"",
        "p/job_2/part-00009.jsonl": b"",
    }
    left = ("part-00009.jsonl", "part-00000.parquet", "part-00000.jsonl.gz", "part-00001.jsonl.zst")
    bucket.objects |= of_others | {f"p/job_1/{name}": b"x" for name in left}
    tidy(bucket, "p/job_1", objects)
    assert bucket.objects == whole | of_others
    assert bucket.aborted == ["p/job_1/"]


# Parquet


def read_parquet(data: bytes) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(pa.BufferReader(data)).to_pylist()
    return rows


def read_as_lines(parts: Iterable[Results]) -> pa.Table:
    """The rows of export lines as a table, read as JSON line by line."""
    rows = [json.loads(line) for part in parts for line in to_json_lines(part).splitlines()]
    texts = [text for part in parts for text in part.tasks["metadata"]]
    times = ("created_at", "settled_at")
    for each, metadata in zip(rows, texts, strict=True):
        each |= {"metadata": metadata, "votes": list(each["votes"].items())}
        each |= {name: datetime.fromisoformat(each[name]) for name in times}
    return pa.Table.from_pylist(rows, schema=parquet.SCHEMA)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_parquet_has_the_fields_of_the_export(compression: Compression) -> None:
    bucket = MemoryBucket()
    parts = [
        make_results(row(1, '{"a": 1.10}'), row(2)),
        make_results(row(3, '{"ü":"😀"}', line=None)),
    ]
    (part,) = write_parts(
        bucket, "f", parts, layout=Layout(ResultFormat.PARQUET, compression), part_bytes_max=10**6
    )
    assert (part.key, part.rows) == ("f/part-00000.parquet", 3)
    stored = bucket.objects[part.key]
    assert (part.bytes, part.sha256) == (len(stored), hashlib.sha256(stored).hexdigest())
    first, second, third = read_parquet(stored)
    assert first == {
        "task_id": "tsk_11",
        "line": 1,
        "data_url": "https://a.example/1.jpg",
        "text": None,
        "metadata": '{"a": 1.10}',
        "status": "settled",
        "consensus_label": "cat",
        "confidence": 2 / 3,
        "worker_count": 3,
        "agreement_count": 2,
        "votes": [("cat", 2), ("dog", 1)],
        "created_at": datetime(2026, 1, 1, 0, 0, 0, 123456, UTC),
        "settled_at": datetime(2026, 1, 2, tzinfo=UTC),
    }
    assert (second["metadata"], third["metadata"], third["line"]) == (None, '{"ü":"😀"}', None)
    codec = pq.ParquetFile(pa.BufferReader(stored)).metadata.row_group(0).column(0).compression
    assert codec == {"none": "UNCOMPRESSED", "gzip": "GZIP", "zstd": "ZSTD"}[compression]


OPTIONS = ["cat", 'a","status":"settled"', "\n", "ü"]
BALLOTS = st.lists(
    st.lists(st.integers(1, 9), min_size=4, max_size=4).flatmap(
        lambda votes: st.builds(Ballot, st.integers(0, 3), st.just(votes))
    ),
    min_size=1,
    max_size=3,
)
TEXTS = st.text(st.characters(codec="utf-8"), max_size=9)
ROWS = st.lists(
    st.builds(
        row,
        st.integers(0, 10**15),
        st.one_of(st.none(), TEXTS.map(lambda text: json.dumps({"x": text}, ensure_ascii=False))),
        line=st.one_of(st.none(), st.integers(1, 10**15)),
        url=TEXTS.map(lambda text: f"https://a.example/{text}"),
    ),
    min_size=1,
    max_size=9,
)


@given(ROWS, BALLOTS, st.randoms(use_true_random=False))
def test_parquet_and_sizes_are_those_of_the_lines(
    rows: list[dict[str, object]], ballots: list[Ballot], rng: random.Random
) -> None:
    rows = [each | {"ballot": rng.randrange(len(ballots))} for each in rows]
    half = len(rows) // 2
    parts = [
        make_results(*some, options=OPTIONS, ballots=ballots) for some in (rows[:half], rows[half:])
    ]
    for part in parts:
        assert count_line_bytes(part) == len(to_json_lines(part))
    file = MemoryFile()
    assert parquet.write(file, parts, compression=Compression.ZSTD) == len(rows)
    found = pq.read_table(pa.BufferReader(file.getvalue()))
    assert found.schema.equals(parquet.SCHEMA)
    assert found.equals(read_as_lines(parts))


def test_metadata_that_looks_like_the_line_around_it_stays_whole() -> None:
    deceptive = '{"x":1,"metadata":2,"status":"settled","consensus_label":"dog","votes":{}}'
    deep = '{"a":' + "[" * 100_000 + "]" * 100_000 + "}"
    bucket = MemoryBucket()
    results = make_results(row(1, deceptive), row(2, deep, url='","metadata":'))
    write_parts(
        bucket,
        "f",
        [results],
        layout=Layout(ResultFormat.PARQUET, Compression.NONE),
        part_bytes_max=10**9,
    )
    first, second = read_parquet(bucket.objects["f/part-00000.parquet"])
    assert first["metadata"] == deceptive
    assert (second["metadata"], second["data_url"]) == (deep, '","metadata":')


def test_parquet_is_cut_into_parts_and_row_groups_of_bounded_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parquet, "_ROW_GROUP_BYTES", 2000)
    results = [make_results(row(n)) for n in range(100)]
    bucket, of_lines = MemoryBucket(), MemoryBucket()
    layout = Layout(ResultFormat.PARQUET, Compression.ZSTD)
    parts = write_parts(bucket, "f", results, layout=layout, part_bytes_max=10_000)
    assert len(parts) > 2
    assert sum(part.rows for part in parts) == 100
    groups = [
        pq.ParquetFile(pa.BufferReader(bucket.objects[part.key])).num_row_groups for part in parts
    ]
    assert all(2 <= count <= 6 for count in groups[:-1])
    found = [line["line"] for part in parts for line in read_parquet(bucket.objects[part.key])]
    assert found == list(range(100))
    again = MemoryBucket()
    assert parts == write_parts(again, "f", results, layout=layout, part_bytes_max=10_000)
    lines = write_parts(of_lines, "f", map(to_json_lines, results), part_bytes_max=10_000)
    assert [part.rows for part in lines] == [part.rows for part in parts]
