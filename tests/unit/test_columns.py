"""Columns give back the bytes that they were made of, whatever part of another column they are."""

import polars as pl
import pyarrow as pa
import pytest

from blocks.lines import columns

WHOLE = pl.Series("n", range(1000), dtype=pl.UInt32)
PARTS = {
    "all of it": WHOLE,
    "a slice": WHOLE.slice(300, 50),
    "its end": WHOLE.tail(7),
    "a run that a filter leaves": WHOLE.filter(WHOLE.is_between(256, 511)),
    "what a filter leaves": WHOLE.filter(WHOLE % 3 == 0),
    "two chunks": WHOLE.head(3).append(WHOLE.tail(4)),
    "cast to what it is": WHOLE.slice(300, 50).cast(pl.UInt32),
    "nothing": WHOLE.head(0),
}


@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
def test_values_are_those_of_the_part_alone(part: pl.Series) -> None:
    found = columns.values_of(part)
    assert found.cast("I").tolist() == part.to_list() if len(part) else not found
    assert columns.of_values(pa.uint32(), len(part), found).to_list() == part.to_list()


def test_texts_are_joined_and_cut_again() -> None:
    texts = pl.Series(["a", "", "é🦊", None, "x" * 100], dtype=pl.String).slice(1)
    data, ends = columns.join(texts)
    assert bytes(data).decode() == "".join(text or "" for text in texts)
    assert ends.tolist() == [0, 0, 6, 6, 106]
    sizes = texts.str.len_bytes().fill_null(0)
    assert columns.of_parts(pa.large_string(), sizes, data).to_list() == [
        text or "" for text in texts
    ]
