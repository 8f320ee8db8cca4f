"""Waits double from the first to the last, whoever asks, and however often it failed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.domain.backoff import backoff_s, backoff_steps, jitter

SECONDS = st.floats(0.001, 1e6)


@pytest.mark.parametrize(
    "failures, delay_s", [(0, 10), (1, 10), (2, 20), (7, 640), (8, 900), (10**9, 900)]
)
def test_the_wait_doubles_up_to_its_bound(failures: int, delay_s: float) -> None:
    assert backoff_s(failures, first_s=10, max_s=900) == delay_s


def test_the_steps_end_with_the_bound() -> None:
    assert backoff_steps(first_s=10, max_s=900) == [10, 20, 40, 80, 160, 320, 640, 900]
    assert backoff_steps(first_s=1, max_s=8) == [1, 2, 4, 8]
    assert backoff_steps(first_s=5, max_s=2) == [2]


@given(first_s=SECONDS, max_s=SECONDS, failures=st.integers(1, 100))
def test_a_step_is_what_the_formula_says(first_s: float, max_s: float, failures: int) -> None:
    steps = backoff_steps(first_s=first_s, max_s=max_s)

    expected = backoff_s(failures, first_s=first_s, max_s=max_s)
    assert steps[min(failures, len(steps)) - 1] == expected
    assert steps[-1] == max_s


@given(delay_s=SECONDS, share=st.floats(0, 1))
def test_jitter_only_shortens(delay_s: float, share: float) -> None:
    assert delay_s * (1 - share) <= jitter(delay_s, share=share) <= delay_s
