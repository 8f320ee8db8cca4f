"""How long to wait before what has failed is tried again."""

import random

_DOUBLINGS_MAX = 1000  # a float has room for so many


def backoff_s(failures: int, *, first_s: float, max_s: float) -> float:
    """Return the seconds to wait after so many failures in a row: they double up to `max_s`.

    With `first_s` 0.5 and `max_s` 3, that is 0.5, 1, 2, 3, 3, … for 1, 2, 3, 4, 5, … failures.
    """
    doublings = min(max(failures - 1, 0), _DOUBLINGS_MAX)
    return min(first_s * 2.0**doublings, max_s)


def backoff_steps(*, first_s: float, max_s: float) -> list[float]:
    """Return the waits of `backoff_s` in their order, up to the first that is `max_s`."""
    steps: list[float] = []
    while not steps or steps[-1] < max_s:
        steps.append(backoff_s(len(steps) + 1, first_s=first_s, max_s=max_s))
    return steps


def jitter(delay_s: float, *, share: float = 0.5) -> float:
    """Return a wait that is up to `share` shorter, so that those who failed together spread out."""
    return delay_s * random.uniform(1 - share, 1)  # noqa: S311 - no secret
