"""Chunks are cut into few groups of even size, and a group that fails says so wherever it ran."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.domain.errors import ObjectNotFound
from flows.reading.groups import GroupFailed, cut_groups
from flows.reading.ingestion import Range
from flows.running.monitor import ChunkSeen


def ranges(count: int) -> list[Range]:
    return [(n, n * 10, n * 10 + 10) for n in range(1, count + 1)]


@given(st.integers(0, 1200), st.integers(1, 70))
def test_every_range_is_in_one_group_and_the_groups_are_few_and_even(
    count: int, in_flight: int
) -> None:
    groups = cut_groups(ranges(count), in_flight)
    assert [each for group in groups for each in group] == ranges(count)
    sizes = {len(group) for group in groups}
    assert max(sizes, default=1) - min(sizes, default=1) <= 1
    assert min(count, in_flight) <= len(groups) <= 4 * in_flight


@pytest.mark.parametrize(
    "count, groups", [(0, 0), (1, 1), (2, 2), (3, 3), (16, 3), (47, 3), (48, 6), (95, 9), (999, 12)]
)
def test_a_group_has_eight_chunks_or_more_if_all_are_kept_busy(count: int, groups: int) -> None:
    assert len(cut_groups(ranges(count), 3)) == groups


def test_a_failure_comes_from_another_process_with_what_was_done() -> None:
    seen = [ChunkSeen(1, 10, 20, 5, 0, 0.1, 0)]
    failed = pickle.loads(pickle.dumps(GroupFailed(ObjectNotFound("It is gone."), seen)))
    assert (failed.message, failed.seen) == ("It is gone.", seen)
    assert isinstance(failed.error, ObjectNotFound)


def test_the_text_of_an_error_of_ours_is_not_shown() -> None:
    assert str(GroupFailed(ValueError("secret bytes"), [])) == "ValueError"
