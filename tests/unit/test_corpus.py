"""Nasty manifests come to what was written down for them by hand: in the product and the reference."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from tests.support import validation
from tests.support.reference import BOM, LINE_BYTES_MAX, Bad, Good, Outcome, judge, judge_line

FOLDER = Path(__file__).parents[1] / "corpus"
NAMES = sorted(path.stem for path in FOLDER.glob("*.jsonl"))

# A chunk costs the product about a millisecond, so only small manifests are cut in every way.
SMALL_BYTES_MAX = 150
SIZES_OF_LARGE_BYTES = (61, 127, 1021, 4093)
CHUNKS_OF_LARGE_MAX = 60
MIB = 1024 * 1024


def manifest(name: str) -> bytes:
    return (FOLDER / f"{name}.jsonl").read_bytes()


def entries(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((FOLDER / f"{name}.expected.json").read_text())
    return found


def raw_line(data: bytes, byte_offset: int) -> bytes:
    """The line that begins there, as it is kept when it is bad."""
    line = data[byte_offset:].split(b"\n")[0].removesuffix(b"\r")
    return line.removeprefix(BOM) if byte_offset == 0 else line


def expected(name: str) -> Outcome:
    data = manifest(name)
    found = Outcome(data.count(b"\n") + bool(data and not data.endswith(b"\n")), [], [])
    for entry in entries(name):
        line, at = entry["line"], entry["byte_offset"]
        if "code" in entry:
            found.bad.append(Bad(at, line, entry["code"], raw_line(data, at)))
        else:
            found.good.append(Good(at, line, entry["data_url"], entry["metadata"]))
    return found


SMALL = [name for name in NAMES if len(manifest(name)) <= SMALL_BYTES_MAX]
LARGE = [name for name in NAMES if name not in SMALL]


def test_every_manifest_has_its_expectation_and_every_expectation_its_manifest() -> None:
    others = {path.name for path in FOLDER.iterdir()} - {"README.md"}
    assert others == {f"{name}.{end}" for name in NAMES for end in ("jsonl", "expected.json")}
    assert len(SMALL) > 10


@pytest.mark.parametrize("name", NAMES)
def test_each_line_that_is_not_blank_is_expected_once_and_where_it_begins(name: str) -> None:
    pieces = manifest(name).split(b"\n")
    offsets = itertools.accumulate((len(piece) + 1 for piece in pieces), initial=0)
    places = [
        (line, at)
        for line, (piece, at) in enumerate(zip(pieces, offsets, strict=False), 1)
        if (piece.removeprefix(BOM) if line == 1 else piece).strip(b" \t\r")
    ]
    assert [(entry["line"], entry["byte_offset"]) for entry in entries(name)] == places


@pytest.mark.parametrize("name", NAMES)
def test_the_product_reads_it_as_it_was_written_down(name: str) -> None:
    assert validation.outcome(manifest(name)) == expected(name)


@pytest.mark.parametrize("name", NAMES)
def test_the_exact_path_alone_reads_it_as_it_was_written_down(name: str) -> None:
    data, wanted = manifest(name), expected(name)
    lines: list[Good | Bad] = [*wanted.good, *wanted.bad]
    for line in lines:
        raw = data[line.byte_offset :].split(b"\n")[0]
        raw = raw.removeprefix(BOM) if line.byte_offset == 0 else raw
        assert validation.exact(raw) == line._replace(byte_offset=0, line=1)


@pytest.mark.parametrize("name", NAMES)
def test_the_reference_reads_it_as_it_was_written_down(name: str) -> None:
    assert judge(manifest(name)) == expected(name)


@pytest.mark.parametrize("name", SMALL)
def test_chunks_of_every_size_come_to_the_same_as_the_whole(name: str) -> None:
    data, wanted = manifest(name), expected(name)
    for chunk_bytes in range(1, len(data) + 2):
        assert validation.outcome(data, chunk_bytes) == wanted, chunk_bytes


@pytest.mark.parametrize("name", LARGE)
def test_chunks_of_a_few_sizes_come_to_the_same_as_the_whole(name: str) -> None:
    data, wanted = manifest(name), expected(name)
    sizes = [n for n in SIZES_OF_LARGE_BYTES if len(data) / n <= CHUNKS_OF_LARGE_MAX]
    for chunk_bytes in [*sizes, len(data) // 2, len(data) - 1, len(data), len(data) + 1]:
        assert validation.outcome(data, chunk_bytes) == wanted, chunk_bytes


@pytest.mark.parametrize("name", NAMES)
def test_batches_of_any_size_come_to_the_same_as_the_whole(name: str) -> None:
    data, wanted = manifest(name), expected(name)
    for bytes_max, lines_max in [(1, 1), (100, 64), (1000, 3)]:
        found = validation.outcome_in_batches(data, bytes_max=bytes_max, lines_max=lines_max)
        assert found == wanted, (bytes_max, lines_max)


@pytest.mark.parametrize("name", ["mixed", "utf8_invalid", "json_surrogates", "fields_duplicate"])
def test_a_byte_order_mark_and_crlf_change_nothing_but_the_offsets(name: str) -> None:
    data, wanted = manifest(name).removeprefix(BOM), judge(manifest(name))
    changed = BOM + data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    found = validation.outcome(changed)
    assert found == judge(changed)
    assert [line[1:] for line in found.good] == [line[1:] for line in wanted.good]
    assert [line[1:] for line in found.bad] == [line[1:] for line in wanted.bad]


HEAD = b'{"data_url": "https://img.example.com/a.jpg", "metadata": '


def of_length(size: int) -> bytes:
    """A good line of that many bytes."""
    head, tail = HEAD + b'{"x": "', b'"}}'
    return head + b"a" * (size - len(head) - len(tail)) + tail


@pytest.mark.parametrize("before", [b"", BOM, b"{}\n"], ids=["first", "BOM", "second"])
@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n", b"\r"], ids=["none", "LF", "CRLF", "CR"])
@pytest.mark.parametrize("extra", [-1, 0, 1])
def test_a_line_of_1_mib_is_a_task_and_one_byte_more_is_too_long(
    before: bytes, end: bytes, extra: int
) -> None:
    line = of_length(LINE_BYTES_MAX + extra)
    after = HEAD + b"{}}" if end.endswith(b"\n") else b""
    data = before + line + end + after
    at = 0 if before == BOM else len(before)
    number = 1 + before.count(b"\n")
    wanted = Outcome(number + bool(after), [], [])
    if before == b"{}\n":
        wanted.bad.append(Bad(0, 1, "missing_data_url", b"{}"))
    if extra > 0:
        wanted.bad.append(Bad(at, number, "line_too_long", line[:1024]))
    else:
        metadata = line[len(HEAD) : -1].decode()
        wanted.good.append(Good(at, number, "https://img.example.com/a.jpg", metadata))
    if after:
        place = len(before + line + end)
        wanted.good.append(Good(place, number + 1, "https://img.example.com/a.jpg", "{}"))
    assert judge(data) == wanted
    for chunk_bytes in (None, MIB):
        assert validation.outcome(data, chunk_bytes) == wanted, chunk_bytes


@pytest.mark.parametrize("extra", [0, 1, 5000])
@pytest.mark.parametrize(
    "filler, before, after",
    [
        (b" ", b'{"data_url": "https://a.com/x",', b'"metadata": {"a": 1}}'),
        (b" ", b'{"metadata": {"a": 1},', b'"data_url": "https://a.com/x"}'),
        (b" ", b'{"metadata": {"a": 1}, "data_url":', b'"https://a.com/x"}'),
        (b" ", b'{"metadata":', b'{"a": 1}, "data_url": "https://a.com/x"}'),
        (b"a", b'{"metadata": {"a": "', b'"},   "data_url": "https://a.com/x"}'),
    ],
)
def test_a_line_is_measured_as_it_was_written(
    filler: bytes, before: bytes, after: bytes, extra: int
) -> None:
    line = before + filler * (LINE_BYTES_MAX + extra - len(before) - len(after)) + after
    data = (b" " * 1023 + b"\n") * 1024 + line + b"\n{}\n"  # a MiB of blank lines, few of them
    wanted = judge(data)
    assert (len(wanted.good), len(wanted.bad)) == ((0, 2) if extra else (1, 1))
    for chunk_bytes in (None, MIB):
        assert validation.outcome(data, chunk_bytes) == wanted, chunk_bytes


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b" " * (LINE_BYTES_MAX + 1), id="spaces"),
        pytest.param(b"\xff" * (LINE_BYTES_MAX + 1), id="not UTF-8"),
        pytest.param(b"\r" * (LINE_BYTES_MAX + 2), id="carriage returns"),
        pytest.param(b" " * LINE_BYTES_MAX + HEAD + b"{}}", id="a good line behind spaces"),
        pytest.param("é".encode() * (LINE_BYTES_MAX // 2) + b"x", id="not ASCII"),
        pytest.param(b"x" * (4 * MIB), id="4 MiB"),
    ],
)
def test_a_line_that_is_too_long_is_nothing_else(line: bytes) -> None:
    data = b"\n" + line + b"\n[]\n"
    wanted = [
        Bad(1, 2, "line_too_long", line[:1024]),
        Bad(len(line) + 2, 3, "not_an_object", b"[]"),
    ]
    assert judge(data) == Outcome(3, [], wanted)
    assert validation.outcome(data) == Outcome(3, [], wanted)
    assert validation.outcome(data, MIB) == Outcome(3, [], wanted)


@pytest.mark.parametrize(
    "opening, closing, levels",
    [
        (b"[", b"]", 1_000),
        (b'{"a":', b"}", 1_000),
        (b'[{"a":', b"}]", 1_000),
        (b"[", b"]", 100_000),
        (b'{"a":', b"}", 100_000),
    ],
)
def test_nesting_has_no_limit(opening: bytes, closing: bytes, levels: int) -> None:
    deep = b'{"x":' + opening * levels + b"1" + closing * levels + b"}"
    good, bad = HEAD + deep + b"}", HEAD + deep[:-1] + b"}"
    wanted = Outcome(
        2,
        [Good(0, 1, "https://img.example.com/a.jpg", deep.decode())],
        [Bad(len(good) + 1, 2, "malformed_json", bad)],
    )
    assert judge(good + b"\n" + bad) == wanted
    assert validation.outcome(good + b"\n" + bad) == wanted


@pytest.mark.parametrize("start", ["https://img.example.com/", "http://a?", "s3://bucket/"])
@pytest.mark.parametrize("filler", ["a", "é", "日", "😀"])
@pytest.mark.parametrize("form", ['{{"data_url": "{}"}}', '{{"metadata": {{}}, "data_url": "{}"}}'])
def test_the_length_of_a_url_counts_in_characters(start: str, filler: str, form: str) -> None:
    for size in (2047, 2048, 2049):
        url = start + filler * (size - len(start))
        line = form.format(url).encode()
        found = validation.outcome(line)
        assert [good.data_url for good in found.good] == ([url] if size <= 2048 else [])
        assert [bad.code for bad in found.bad] == (["invalid_data_url"] if size > 2048 else [])
        assert judge_line(line) == [*found.good, *found.bad][0]
