"""What `refinery verify` finds wrong with a folder, without one."""

from collections.abc import Mapping

import msgspec
import pytest

from api.cli.recompute import Problem, Unreadable
from api.cli.verify import Content, find_problems
from blocks.delivery_manifest import DeliveredObject, DeliveryManifest
from blocks.domain.model import Compression, ResultFormat

PARTS = [
    DeliveredObject("f/part-00000.jsonl", rows=3, bytes=30, sha256="a"),
    DeliveredObject("f/part-00001.jsonl", rows=2, bytes=20, sha256="b"),
    DeliveredObject("f/errors.jsonl", rows=1, bytes=10, sha256="c"),
]
MANIFEST = DeliveryManifest(
    job_id="job_1",
    format=ResultFormat.JSONL,
    compression=Compression.NONE,
    total_tasks=6,
    tasks_done=5,
    tasks_failed=1,
    objects=PARTS,
)
SIZES = {"manifest.json": 500, "part-00000.jsonl": 30, "part-00001.jsonl": 20, "errors.jsonl": 10}
CONTENTS = {
    "part-00000.jsonl": Content("a", 3),
    "part-00001.jsonl": Content("b", 2),
    "errors.jsonl": Content("c", 1),
}


def found(
    manifest: DeliveryManifest = MANIFEST,
    sizes: Mapping[str, int | None] | None = None,
    contents: Mapping[str, Content] | None = None,
) -> list[Problem]:
    changed = {name: size for name, size in {**SIZES, **(sizes or {})}.items() if size is not None}
    return list(find_problems(manifest, changed, {**CONTENTS, **(contents or {})}.__getitem__))


def test_a_whole_folder_has_no_problem() -> None:
    assert found() == []


@pytest.mark.parametrize(
    "size, content, said",
    [
        (None, None, "It is missing."),
        (29, None, "It has 29 bytes instead of 30."),
        (30, Content("x", 3), "Its content is another: the SHA-256 differs."),
        (30, Content("x", 0, "bad"), "Its content is another: the SHA-256 differs."),
        (30, Content("a", 0, "CRC check failed"), "It cannot be read: CRC check failed."),
        (30, Content("a", 2), "It has 2 rows instead of 3."),
    ],
)
def test_each_object_has_one_problem_at_most(
    size: int | None, content: Content | None, said: str
) -> None:
    name = "part-00000.jsonl"
    contents = {name: content} if content else {}
    (problem,) = found(sizes={name: size}, contents=contents)
    assert (problem.object, problem.message) == (name, said)
    assert isinstance(problem, Unreadable) is ("cannot be read" in said)


def test_an_object_of_another_size_is_not_read() -> None:
    manifest = msgspec.structs.replace(MANIFEST, objects=PARTS[:1], tasks_done=3, tasks_failed=0)
    assert (
        len(
            list(find_problems(manifest, {"part-00000.jsonl": 1}, dict[str, Content]().__getitem__))
        )
        == 1
    )


def test_strangers_are_named_in_order_and_the_manifest_is_none() -> None:
    assert [each.object for each in found(sizes={"z": 1, "a/b": 2})] == ["a/b", "z"]


@pytest.mark.parametrize(
    "done, failed, said",
    [(6, 1, "5 results, and the job counted 6"), (5, 0, "1 errors, and the job counted 0")],
)
def test_the_objects_have_what_the_job_counted(done: int, failed: int, said: str) -> None:
    changed = msgspec.structs.replace(MANIFEST, tasks_done=done, tasks_failed=failed)
    (problem,) = found(changed)
    assert (problem.object, said in problem.message) == ("manifest.json", True)
