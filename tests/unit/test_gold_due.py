"""How much gold is due to an annotator: the first early, then at the job's share, without a gap."""

import random
from typing import Any

import pytest

from blocks.store.annotation import _count_due_gold


def given_in(tasks: int, share: int, batch: int, seed: int = 1) -> list[int]:
    """After how many tasks so many of these were gold."""
    random.seed(seed)
    job: dict[str, Any] = {"gold_share": share, "tasks_given": 0, "gold_given": 0}
    found = [0]
    while job["tasks_given"] < tasks:
        job["gold_given"] += _count_due_gold(job, batch)
        job["tasks_given"] += batch
        found += [job["gold_given"]] * batch
    return found


@pytest.mark.parametrize("share", [100, 1000, 5000])
@pytest.mark.parametrize("batch", [1, 10, 100])
def test_the_first_come_early_and_the_others_at_the_share(share: int, batch: int) -> None:
    found = given_in(1000, share, batch)
    assert found[max(10, batch)] >= 4
    for begin in range(max(10, batch), 900, 100):
        gold = found[begin + 100] - found[begin]
        assert abs(gold - share / 100) <= 1, (begin, gold)
