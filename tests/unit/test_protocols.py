"""The protocols of chunks and of deliveries hold in every state that they can reach, and their checkers find faults."""

from collections.abc import Iterator

import pytest

from tests.support.chunk_protocol import ChunkProtocol
from tests.support.chunk_protocol import Fault as ChunkFault
from tests.support.delivery_protocol import DeliveryProtocol
from tests.support.delivery_protocol import Fault as DeliveryFault
from tests.support.state_space import Explored, Violation, explore

STATES_MIN = 100_000


class Counter:
    """Counts to 3; with a trap, it may slip from 1, and then stands still or goes in circles."""

    def __init__(self, trap: str = "") -> None:
        self._trap = trap

    def begin(self) -> int:
        return 0

    def steps(self, state: int) -> Iterator[tuple[str, int]]:
        if 0 <= state < 3:
            yield "counts", state + 1
        if state == 1 and self._trap:
            yield "slips", -1
        if state == -1 and self._trap == "circle":
            yield "circles", state

    def find_wrong(self, state: int) -> str | None:
        del state
        return None

    def is_end(self, state: int) -> bool:
        return state == 3


def test_each_state_and_step_is_visited_once() -> None:
    assert explore(Counter()) == Explored(states=4, steps=3, ends=1)


@pytest.mark.parametrize("trap", ["standstill", "circle"])
def test_a_state_from_which_the_end_cannot_be_reached_is_found(trap: str) -> None:
    with pytest.raises(Violation, match=r"for ever, or stands still, by:\s+counts\s+slips$"):
        explore(Counter(trap))


def test_chunks_are_recorded_once_by_twins_that_are_killed_and_cut_off() -> None:
    assert explore(ChunkProtocol(chunks=4, kills=4, cuts=2)).states >= STATES_MIN
    explore(ChunkProtocol(runs=3, chunks=2))


def test_deliveries_are_whole_by_twins_that_are_killed_and_get_no_answer() -> None:
    assert explore(DeliveryProtocol(runs=3, kills=2, cuts=1)).states >= STATES_MIN
    explore(DeliveryProtocol(conditional=False))


@pytest.mark.parametrize(
    "fault, what",
    [
        (ChunkFault.CLAIM_COMMITS, "A chunk is recorded without its tasks"),
        (ChunkFault.CLAIM_LOOKS, "Tasks are doubled"),
        (ChunkFault.CLAIM_PASSES, "A run counts fewer lines than it read"),
        (ChunkFault.JOB_UNLOCKED, "Tasks were added after the job's end"),
        (ChunkFault.COMMITS_ANEW, "Tasks are doubled"),
    ],
)
def test_a_fault_in_the_protocol_of_chunks_is_found(fault: ChunkFault, what: str) -> None:
    with pytest.raises(Violation) as found:
        explore(ChunkProtocol(fault=fault))
    assert found.value.what == what


@pytest.mark.parametrize(
    "fault, what",
    [
        (DeliveryFault.SIZE_OF_THE_RUN, "The manifest describes objects that do not stand there"),
        (DeliveryFault.MANIFEST_FIRST, "The manifest describes objects that do not stand there"),
        (DeliveryFault.FINISHED_FIRST, "The delivery is recorded without a manifest"),
        (DeliveryFault.EXISTING_REFUSED, "The delivery is refused, and nothing stands in its way"),
        (DeliveryFault.GONE_IS_FINAL, "The delivery is refused, and nothing stands in its way"),
    ],
)
def test_a_fault_in_the_protocol_of_deliveries_is_found(fault: DeliveryFault, what: str) -> None:
    with pytest.raises(Violation) as found:
        explore(DeliveryProtocol(fault=fault))
    assert found.value.what == what
