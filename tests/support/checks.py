"""Results against what they should be, line by line."""

import gzip
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from tests.support.manifests import Manifest

OPTIONS = ["cat", "dog", "other"]


def truth(task: Mapping[str, Any]) -> str:
    """What a task shows, by its address."""
    return OPTIONS[int(task["data_url"].split("/")[3]) % len(OPTIONS)]


def check_counters(job: Mapping[str, Any], manifest: Manifest) -> None:
    """Every line is counted once."""
    assert job["total_tasks"] == len(manifest.good) + len(manifest.bad)
    assert job["tasks_done"] == len(manifest.good)
    assert job["tasks_failed"] == len(manifest.bad)
    assert job["progress_percent"] == 100.0


def check_results(text: bytes, manifest: Manifest, *, labels: int = 3) -> None:
    """Every good line is one result with its own metadata, in order."""
    lines = text.splitlines()
    assert len(lines) == len(manifest.good)
    ids = set()
    for raw, (line, data_url, metadata) in zip(lines, manifest.good, strict=True):
        result = json.loads(raw)
        assert (result["line"], result["data_url"]) == (line, data_url)
        assert f',"metadata":{metadata or "null"},"status":"settled"'.encode() in raw
        assert result["consensus_label"] == truth(result)
        assert sum(result["votes"].values()) == result["worker_count"] >= labels
        assert result["agreement_count"] == result["votes"][result["consensus_label"]]
        assert result["confidence"] == result["agreement_count"] / result["worker_count"]
        ids.add(result["task_id"])
    assert len(ids) == len(lines)


def check_errors(text: bytes, manifest: Manifest) -> None:
    """Every bad line is there with its number, its place and the reason."""
    found = [json.loads(line) for line in text.splitlines()]
    assert [(e["line"], e["byte_offset"], e["code"]) for e in found] == manifest.bad
    for error in found:
        raw = manifest.data[error["byte_offset"] :].split(b"\n", 1)[0].removesuffix(b"\r")
        assert error["raw"] == raw[:1024].decode(errors="replace")
        assert error["message"]


def check_delivery(objects: Mapping[str, bytes], manifest: Manifest, *, labels: int = 3) -> None:
    """The delivered folder is whole by its own `manifest.json`; `objects` are by name."""
    index = json.loads(objects["manifest.json"])
    listed = {entry["key"].rpartition("/")[2]: entry for entry in index["objects"]}
    assert listed.keys() | {"manifest.json"} == objects.keys()
    for name, entry in listed.items():
        assert entry["sha256"] == hashlib.sha256(objects[name]).hexdigest()
        assert entry["bytes"] == len(objects[name])
        assert entry["rows"] == _content(objects[name]).count(b"\n")
    assert index["tasks_done"] == len(manifest.good)
    parts = sorted(name for name in objects if name.startswith("part-"))
    check_results(b"".join(_content(objects[name]) for name in parts), manifest, labels=labels)
    check_errors(objects["errors.jsonl"], manifest)


def _content(data: bytes) -> bytes:
    return gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data
