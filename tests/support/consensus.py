"""The rule of consensus as API.md has it, that `task_outcome` in the schema is held against."""

from collections.abc import Sequence


def decide(votes: Sequence[int], threshold: int, *, stop_early: bool = False) -> int | None:
    """Index of the option that a task settles on, or None while nothing has won.

    `votes` has the count of labels of each option. The rule is API.md's: at least `threshold`
    labels, and one option with at least floor(threshold / 2) + 1 of them and strictly more than
    any other. With `stop_early` the wait for `threshold` labels is dropped: an option with a
    majority of `threshold` can no longer be overtaken within it.
    """
    top = max(votes)
    enough = stop_early or sum(votes) >= threshold
    if enough and top >= threshold // 2 + 1 and list(votes).count(top) == 1:
        return list(votes).index(top)
    return None


def exhausted(labels: int, threshold: int) -> bool:
    """Whether a task without a winner has had its last label: twice the threshold."""
    return labels >= 2 * threshold
