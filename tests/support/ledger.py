"""The ledger of a job: what must have become of each line of its manifest, whatever was killed."""

import gzip
import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow.parquet as pq

from tests.support.checks import truth
from tests.support.manifests import Manifest

DISPUTES = 10  # one in so many is called something else by everybody
OPTIONS = ["cat", "dog", "other", "none"]


def is_disputed(data_url: str) -> bool:
    return int(data_url.rpartition("/")[2].removesuffix(".jpg")) % DISPUTES == 0


def opinion(nth: int) -> Callable[[Mapping[str, Any]], str]:
    """What the nth of four annotators says."""
    return lambda task: OPTIONS[nth] if is_disputed(task["data_url"]) else truth(task)


@dataclass
class Discrepancies:
    """Lines, by their numbers, that did not end in exactly one way, and as they must have."""

    lost: list[int] = field(default_factory=list)
    doubled: list[int] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def compare(results: bytes, errors: bytes, manifest: Manifest) -> Discrepancies:
    """Look for each line that is not blank in an export and its errors; four annotators gave their `opinion`."""
    found: dict[int, Any] = {}
    differences = Discrepancies()
    for line, outcome in [*_settled(results), *_failed(errors)]:
        if line in found:
            differences.doubled.append(line)
        found[line] = outcome
    expected = _expected(manifest)
    differences.lost = sorted(expected.keys() - found.keys())
    differences.wrong = [
        f"line {line}: {found[line]} instead of {expected.get(line)}"
        for line in sorted(found)
        if found[line] != expected.get(line)
    ]
    return differences


def _settled(results: bytes) -> Iterator[tuple[int, Any]]:
    for raw in results.splitlines():
        row = json.loads(raw)
        # Not as JSON: metadata comes out byte for byte.
        metadata = raw.partition(b',"metadata":')[2].rpartition(b',"status":"settled"')[0]
        yield row["line"], ("settled", row["data_url"], metadata, row["consensus_label"])


def _failed(errors: bytes) -> Iterator[tuple[int, Any]]:
    for row in map(json.loads, errors.splitlines()):
        assert row["message"]
        yield row["line"], (row["code"], row["byte_offset"])


def _expected(manifest: Manifest) -> dict[int, Any]:
    offsets, offset = [], 0
    for raw in manifest.data.splitlines(keepends=True):
        offsets.append(offset)
        offset += len(raw)
    expected: dict[int, Any] = {
        line: (code, byte_offset) for line, byte_offset, code in manifest.bad
    }
    for line, data_url, metadata in manifest.good:
        expected[line] = (
            ("no_consensus", offsets[line - 1])
            if is_disputed(data_url)
            else (
                "settled",
                data_url,
                (metadata or "null").encode(),
                truth({"data_url": data_url}),
            )
        )
    return expected


def check_same(objects: Mapping[str, bytes], results: bytes, errors: bytes) -> None:
    """What was delivered is what is exported; `objects` are by name."""
    assert objects["errors.jsonl"] == errors
    parts = [objects[name] for name in sorted(objects) if name.startswith("part-")]
    assert parts
    if parts[0].startswith(b"PAR1"):
        columns = ["task_id", "line", "consensus_label"]
        rows = [
            row for p in parts for row in pq.read_table(io.BytesIO(p), columns=columns).to_pylist()
        ]
        exported = [json.loads(row) for row in results.splitlines()]
        assert rows == [{name: row[name] for name in columns} for row in exported]
    else:
        assert b"".join(map(_content, parts)) == results


def _content(data: bytes) -> bytes:
    return gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data
