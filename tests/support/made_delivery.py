"""Deliveries with single labels, made without a database: what is in them follows from the labels."""

import hashlib
import io
import json
import random
from datetime import timedelta
from typing import Any

import msgspec
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from blocks.delivery_manifest import DeliveredLabels, DeliveredRule, DeliveryManifest
from blocks.domain.consensus import (
    ALL,
    confidence,
    confidence_of,
    majority_outcome,
    weight,
    weighted_outcome,
)
from blocks.domain.model import Compression, ConsensusMethod, ResultFormat
from blocks.lines.result_lines import (
    RESULT_COLUMNS,
    SINGLE_LABEL_COLUMNS,
    Ballot,
    Extras,
    Results,
    to_json_lines,
)
from flows.writing.folder import Layout, write_object, write_parts
from tests.support.made_results import CREATED_AT, SETTLED_AT, row
from tests.support.memory_bucket import MemoryBucket

OPTIONS = ["cat", 'a "dog"', "fox"]
RULES = {
    "weighted": DeliveredRule(
        method=ConsensusMethod.WEIGHTED, target_confidence=0.9, labels_min=2, labels_max=9
    ),
    "majority": DeliveredRule(method=ConsensusMethod.MAJORITY, threshold=3, stop_early=False),
    "early": DeliveredRule(method=ConsensusMethod.MAJORITY, threshold=5, stop_early=True),
}
Label = tuple[int, int]
"""Option, 1-based, and skill."""


def make_results(rule: str, tasks: int, seed: int, *, after: int = 0) -> Results:
    """Settled tasks in the lines behind `after`: every fifth is gold, every seventh other one reviewed."""
    rng = random.Random(seed)
    rows: list[dict[str, object]] = []
    ballots: list[Ballot] = []
    labels: list[dict[str, object]] = []
    reviewed: set[int] = set()
    while len(rows) < tasks:
        is_gold = len(rows) % 5 == 0
        n = after + len(rows)
        said, outcome, scores = _settle(rule, rng)
        share = confidence(scores)
        if is_gold:
            said, outcome, share = said[: rng.randrange(3)], 1, ALL
        elif n % 7 == 0:
            outcome = rng.randrange(len(OPTIONS)) + 1
            share = confidence_of(scores, outcome)
            reviewed.add(n)
        if not outcome:
            continue
        votes = [sum(option == k + 1 for option, _ in said) for k in range(len(OPTIONS))]
        ballots.append(Ballot(outcome - 1, votes, is_gold))
        rows.append(row(n, line=n + 1, ballot=len(rows)) | {"confidence": share})
        labels += [
            {
                "task_no": n, "annotator": f"ann_{k}", "option": option, "skill": skill,
                "at": SETTLED_AT + timedelta(microseconds=k),
            }
            for k, (option, skill) in enumerate(said)
        ]  # fmt: skip
    frame = pl.DataFrame(labels, schema=SINGLE_LABEL_COLUMNS)
    is_weighted = rule == "weighted"
    if not is_weighted:
        frame = frame.with_columns(skill=pl.lit(None, dtype=pl.UInt16))
    extras = Extras(is_weighted, has_gold=True, has_labels=True)
    table = pl.DataFrame(rows, schema=RESULT_COLUMNS)
    assert CREATED_AT < SETTLED_AT
    is_reviewed = table["task_no"].is_in(reviewed)
    return Results("job_1", OPTIONS, table, ballots, is_reviewed, extras, frame)


def _settle(rule: str, rng: random.Random) -> tuple[list[Label], int, list[int]]:
    """Label a task until it has ended: its labels, outcome, and the scores of the options."""
    said: list[Label] = []
    votes, scores = [0] * len(OPTIONS), [0] * len(OPTIONS)
    outcome = None
    while outcome is None:
        option, skill = rng.choices([1, 2, 3], [6, 2, 1])[0], rng.randrange(9901)
        said.append((option, skill))
        votes[option - 1] += 1
        scores[option - 1] += weight(skill, len(OPTIONS))
        outcome = {
            "weighted": lambda: weighted_outcome(
                scores, len(said), labels_min=2, labels_max=9, target=9000
            ),
            "majority": lambda: majority_outcome(votes, 3),
            "early": lambda: majority_outcome(votes, 5, stop_early=True),
        }[rule]()
    return said, outcome, scores


def make_delivery(rule: str, layout: Layout, *, tasks: int = 40, seed: int = 1) -> dict[str, bytes]:
    """The objects of a delivery of two parts, by name."""
    bucket = MemoryBucket()
    half = tasks // 2
    parts = [make_results(rule, half, seed + n, after=n * half) for n in range(2)]
    blocks: Any = parts
    if layout.format is ResultFormat.JSONL:
        blocks = [to_json_lines(part) for part in parts]
    objects = write_parts(bucket, "f", blocks, layout=layout, part_bytes_max=1)
    objects.append(write_object(bucket, "f/errors.jsonl", []))
    labels = pl.concat([part.labels for part in parts if part.labels is not None])
    manifest = DeliveryManifest(
        job_id="job_1",
        format=layout.format,
        compression=layout.compression,
        total_tasks=tasks,
        tasks_done=tasks,
        tasks_failed=0,
        options=OPTIONS,
        consensus=RULES[rule],
        include_labels=True,
        has_gold=True,
        has_review=True,
        labels=DeliveredLabels.of(len(labels), int(labels["skill"].sum())),
        objects=objects,
    )
    bucket.create("f/manifest.json", msgspec.json.encode(manifest))
    return {key.removeprefix("f/"): bytes(data) for key, data in bucket.objects.items()}


def read_part(layout: Layout, data: bytes) -> list[dict[str, Any]]:
    """The lines of a part."""
    if layout.format is ResultFormat.PARQUET:
        rows: list[dict[str, Any]] = pq.read_table(pa.BufferReader(data)).to_pylist()
        return [each | {"votes": dict(each["votes"])} for each in rows]
    codec = {Compression.GZIP: "gzip", Compression.ZSTD: "zstd"}.get(layout.compression)
    if codec:
        data = pa.CompressedInputStream(pa.BufferReader(data), codec).read()
    return [json.loads(line) for line in data.splitlines()]


def forge(
    objects: dict[str, bytes], layout: Layout, name: str, lines: list[dict[str, Any]]
) -> None:
    """Put other lines into a part, with checksums and sizes that are right again."""
    if layout.format is ResultFormat.PARQUET:
        schema = pq.read_schema(pa.BufferReader(objects[name]))
        sink = io.BytesIO()
        rows = [line | {"votes": _pairs(line["votes"])} for line in lines]
        pq.write_table(pa.Table.from_pylist(rows, schema), sink)
        objects[name] = sink.getvalue()
        mend(objects, name)
    else:
        forge_text(objects, layout, name, [msgspec.json.encode(line) for line in lines])


def forge_text(objects: dict[str, bytes], layout: Layout, name: str, lines: list[bytes]) -> None:
    """Put other lines of JSON into a part, with checksums and sizes that are right again."""
    bucket = MemoryBucket()
    write_object(bucket, name, [b"".join(line + b"\n" for line in lines)], layout=layout)
    objects[name] = bytes(bucket.objects[name])
    mend(objects, name)


def _pairs(votes: dict[str, int] | list[tuple[str, int]]) -> list[tuple[str, int]]:
    return list(votes.items()) if isinstance(votes, dict) else votes


def mend(objects: dict[str, bytes], name: str) -> None:
    """Let `manifest.json` say what a part has now."""
    data, manifest = objects[name], json.loads(objects["manifest.json"])
    for each in manifest["objects"]:
        if each["key"].endswith(name):
            each |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    objects["manifest.json"] = json.dumps(manifest).encode()
