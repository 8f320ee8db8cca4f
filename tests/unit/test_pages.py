"""A page gives back the tasks that it was made of, and tells when its bytes have changed."""

import random
from collections.abc import Iterable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.domain.model import GoodLine
from blocks.lines.packing import CorruptContent, count_bytes
from blocks.lines.pages import Page, make_inline_pages, make_pages, read_frame, read_lines
from blocks.lines.validated_lines import task_frame

TASKS_MAX = 256
TEXT_BYTES_MAX = 64 * 1024

texts = st.text(st.characters(codec="utf-8"), max_size=40)
metadata = st.none() | texts.filter(bool)
# The URL and the text: one of the two.
data = st.one_of(st.tuples(texts, st.none()), st.tuples(st.none(), texts))
repeats = st.sampled_from([1, 2, 99, 200])


@st.composite
def tasks_of_a_chunk(draw: st.DrawFn) -> list[GoodLine]:
    """Lines in the order of a manifest, some far apart, as if bad ones stood between them."""
    byte_offset, line = draw(st.integers(0, 2**50)), draw(st.integers(1, 1000))
    few = st.tuples(data, metadata, st.integers(2, 2**31), st.integers(1, 50))
    found = []
    for (url, text), more, bytes_on, lines_on in draw(st.lists(few, max_size=6)) * draw(repeats):
        found.append(GoodLine(byte_offset, line, url, more, text))
        byte_offset += bytes_on
        line += lines_on
    return found


def one_by_one(pages: Iterable[Page]) -> list[GoodLine]:
    return [line for page in pages for line in read_lines(page.content, range(page.tasks))]


@given(tasks_of_a_chunk())
def test_pages_give_back_what_they_were_made_of(tasks: list[GoodLine]) -> None:
    pages = list(make_pages(task_frame(tasks)))
    assert one_by_one(pages) == tasks
    frame = read_frame([page.content for page in pages])
    assert [GoodLine(*row) for row in frame.rows()] == tasks
    assert frame.schema == task_frame(tasks).schema
    assert [page.tasks for page in pages] == [
        min(TASKS_MAX, len(tasks) - at) for at in range(0, len(tasks), TASKS_MAX)
    ]


@given(tasks_of_a_chunk())
def test_inline_tasks_have_pages_too(tasks: list[GoodLine]) -> None:
    nowhere = [msgspec.structs.replace(task, byte_offset=0, line=0) for task in tasks]
    assert one_by_one(make_inline_pages(tasks)) == nowhere


@pytest.mark.parametrize("sizes", [[1], [70_000], [100_000, 5, 70_000], [30_000] * 9, [300] * 700])
def test_a_page_has_a_bounded_text_but_for_a_task_that_has_more(sizes: list[int]) -> None:
    tasks = [GoodLine(n, n + 1, "s3://b/k", "x" * size) for n, size in enumerate(sizes)]
    pages = list(make_pages(task_frame(tasks)))
    assert one_by_one(pages) == tasks
    for page in pages:
        assert page.tasks == 1 or count_bytes(page.content) < TEXT_BYTES_MAX + 20 * TASKS_MAX
    inline = make_inline_pages(tasks)
    assert [page.tasks for page in inline] == [page.tasks for page in pages]


def test_equal_tasks_are_equal_bytes() -> None:
    tasks = task_frame([GoodLine(n * 90, n + 1, f"s3://b/{n}", '{"n":1}') for n in range(300)])
    assert list(make_pages(tasks)) == list(make_pages(tasks))


def test_a_changed_byte_is_noticed_wherever_it_is() -> None:
    (page,) = make_pages(task_frame([GoodLine(0, 1, "https://a.example/x", '{"a":[1,2]}')]))
    for at in range(len(page.content)):
        for bit in range(8):
            changed = bytearray(page.content)
            changed[at] ^= 1 << bit
            with pytest.raises(CorruptContent):
                read_lines(bytes(changed), [0])
            with pytest.raises(CorruptContent):
                read_frame([page.content, bytes(changed)])
    for length in range(len(page.content)):
        with pytest.raises(CorruptContent):
            read_lines(page.content[:length], [0])


def test_a_page_of_like_tasks_takes_a_tenth_of_their_text() -> None:
    rng = random.Random(1)
    tasks = [
        GoodLine(n * 140, n + 1, f"https://cdn.example.com/{n}.jpg", f'{{"n":{rng.randrange(99)}}}')
        for n in range(256)
    ]
    (page,) = make_pages(task_frame(tasks))
    assert len(page.content) < sum(len(t.data_url or "") + len(t.metadata or "") for t in tasks) / 5
