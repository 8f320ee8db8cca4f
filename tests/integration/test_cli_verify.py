"""`refinery verify`: a delivered folder that is whole, and every way in which one is not."""

import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from blocks.delivery_manifest import DeliveryManifest
from blocks.domain.model import Compression, ResultFormat
from blocks.lines.result_lines import to_json_lines
from deployments.embedded.object_stores import ObjectStoreAddress
from flows.writing.folder import Layout, write_object, write_parts
from tests.support.made_results import make_results, row
from tests.support.memory_bucket import MemoryBucket
from tests.support.s3_files import open_s3
from tests.support.verifying import put, run

pytestmark = pytest.mark.integration
LAYOUTS = [
    Layout(ResultFormat.JSONL, Compression.NONE),
    Layout(ResultFormat.JSONL, Compression.GZIP),
    Layout(ResultFormat.JSONL, Compression.ZSTD),
    Layout(ResultFormat.PARQUET, Compression.ZSTD),
]


def delivered(layout: Layout) -> dict[str, bytes]:
    """The objects of a delivery, by name."""
    bucket = MemoryBucket()
    results = [make_results(row(n)) for n in range(100)]
    is_parquet = layout.format is ResultFormat.PARQUET
    rows = results if is_parquet else [to_json_lines(each) for each in results]
    objects = write_parts(bucket, "f", rows, layout=layout, part_bytes_max=10_000)
    objects.append(write_object(bucket, "f/errors.jsonl", [b'{"line":7}\n']))
    manifest = DeliveryManifest(
        job_id="job_1",
        format=layout.format,
        compression=layout.compression,
        total_tasks=101,
        tasks_done=100,
        tasks_failed=1,
        objects=objects,
    )
    bucket.create("f/manifest.json", msgspec.json.encode(manifest))
    return {key.removeprefix("f/"): data for key, data in bucket.objects.items()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    put(tmp_path, delivered(LAYOUTS[0]))
    return tmp_path


@pytest.mark.parametrize(
    "layout", LAYOUTS, ids=lambda layout: f"{layout.format} {layout.compression}"
)
def test_a_whole_folder_is_found_whole(tmp_path: Path, layout: Layout) -> None:
    put(tmp_path, delivered(layout))
    code, said = run(str(tmp_path), "--json")
    report = json.loads(said)
    assert (code, report["whole"], report["problems"]) == (0, True, [])
    assert (report["job_id"], report["rows"]) == ("job_1", 101)


def alter(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[50] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "damage, said",
    [
        (lambda f: (f / "part-00001.jsonl").unlink(), "part-00001.jsonl: It is missing."),
        (
            lambda f: (f / "part-00000.jsonl").write_bytes(b"{}\n"),
            "part-00000.jsonl: It has 3 bytes",
        ),
        (lambda f: alter(f / "part-00000.jsonl"), "part-00000.jsonl: Its content is another"),
        (lambda f: (f / "errors.jsonl").unlink(), "errors.jsonl: It is missing."),
        (lambda f: (f / "part-00099.jsonl").touch(), "part-00099.jsonl: It does not belong"),
    ],
)
def test_what_is_wrong_is_said_of_its_object(
    folder: Path, damage: Callable[[Path], object], said: str
) -> None:
    damage(folder)
    code, output = run(str(folder))
    assert code == 1
    assert said in output
    assert "not whole" in output


def test_rows_are_counted(folder: Path) -> None:
    manifest = msgspec.json.decode((folder / "manifest.json").read_bytes(), type=DeliveryManifest)
    first, *others = manifest.objects
    first = msgspec.structs.replace(first, rows=first.rows + 1)
    changed = msgspec.structs.replace(manifest, objects=[first, *others])
    (folder / "manifest.json").write_bytes(msgspec.json.encode(changed))
    code, output = run(str(folder))
    assert code == 1
    assert f"rows instead of {first.rows}" in output
    assert "101 results, and the job counted 100" in output


@pytest.mark.parametrize("manifest", [None, b"rubbish", b"{}"])
def test_what_cannot_be_checked_is_said(tmp_path: Path, manifest: bytes | None) -> None:
    if manifest is not None:
        (tmp_path / "manifest.json").write_bytes(manifest)
    code, output = run(str(tmp_path))
    assert code == 2
    assert "manifest.json" in output


def test_a_manifest_of_any_size_is_not_read(folder: Path) -> None:
    with (folder / "manifest.json").open("ab") as file:
        file.truncate(16 * 1024**2 + 1)
    code, said = run(str(folder))
    assert (code, "16,777,217 bytes" in said) == (2, True)


def test_a_folder_in_a_bucket_is_checked(object_store: ObjectStoreAddress) -> None:
    s3 = open_s3(object_store)
    s3.mkdir("verified")
    objects = delivered(LAYOUTS[3])
    for name, data in objects.items():
        s3.pipe_file(f"verified/out/job_1/{name}", data)
    environment = {
        "AWS_ACCESS_KEY_ID": object_store.access_key_id,
        "AWS_SECRET_ACCESS_KEY": object_store.secret_access_key,
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    place = ("s3://verified/out/job_1/", "--endpoint-url", object_store.endpoint_url)
    assert run(*place, **environment)[0] == 0
    s3.rm("verified/out/job_1/part-00000.parquet")
    code, output = run(*place, **environment)
    assert (code, "part-00000.parquet: It is missing." in output) == (1, True)
    code, output = run(*place, **environment | {"AWS_SECRET_ACCESS_KEY": "wrong"})
    assert code == 2
