"""Which endpoints are sent to now, and how much: a slow or a failing one must not have all threads."""

import pytest

from api.background.dispatcher import choose
from blocks.store.webhooks import DueEndpoint


def endpoint(number: int, *, failing: bool = False, is_due: bool = True) -> DueEndpoint:
    return DueEndpoint(number, failing, is_due)


@pytest.mark.parametrize(
    "seen, in_flight, room, limits",
    [
        ([], {}, 32, {}),
        ([endpoint(1)], {}, 32, {1: 4}),
        ([endpoint(1)], {1: 3}, 32, {1: 1}),
        ([endpoint(1)], {1: 4}, 32, {}),
        ([endpoint(1)], {2: 4}, 2, {1: 2}),
        ([endpoint(1)], {}, 0, {}),
        ([endpoint(1, failing=True)], {}, 32, {1: 1}),
        ([endpoint(1, failing=True)], {1: 1}, 32, {}),
        ([endpoint(1, failing=True)], {1: 4}, 32, {}),  # it began to fail with four under way
        ([endpoint(1, is_due=False), endpoint(2)], {}, 32, {2: 4}),
        ([endpoint(1), endpoint(2), endpoint(3)], {}, 6, {1: 4, 2: 2}),
    ],
)
def test_each_endpoint_has_what_it_may_and_all_have_the_room(
    seen: list[DueEndpoint], in_flight: dict[int, int], room: int, limits: dict[int, int]
) -> None:
    assert choose(seen, in_flight, room) == limits
