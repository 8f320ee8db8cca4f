"""The consensus rule, the arrows between states, and ids."""

import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blocks.domain.ids import new_id, new_secret, parse_task_id, task_id
from blocks.domain.model import JOB_ARROWS, NOT_JSON, JobStatus, LineCode
from tests.support.consensus import decide, exhausted

ACCEPTED, PROCESSING = JobStatus.ACCEPTED, JobStatus.PROCESSING
ENDS = {JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED}


@pytest.mark.parametrize(
    "threshold, votes, winner",
    [
        (1, [0, 1], 1),
        (2, [1, 0], None),
        (2, [2, 0], 0),
        (2, [1, 1], None),
        (2, [1, 2], 1),
        (2, [2, 2], None),
        (3, [2, 0], None),  # two agree, but the third has not been asked
        (3, [2, 1], 0),
        (3, [1, 2], 1),
        (3, [3, 0], 0),
        (3, [1, 1, 1], None),
        (3, [1, 2, 1], 1),
        (3, [2, 2, 1], None),
        (4, [2, 2], None),
        (4, [2, 1, 1], None),  # 4 needs 3
        (4, [3, 1], 0),
        (5, [2, 2, 1], None),
        (5, [0, 2, 3], 2),
        (5, [4, 0], None),
        (5, [3, 3, 0], None),
        (5, [3, 3, 4], 2),
        (7, [4, 2], None),
        (7, [4, 3], 0),
        (7, [3, 2, 2], None),
        (7, [1, 3, 4], 2),
        (10, [5, 5], None),
        (10, [6, 4], 0),
        (10, [5, 3, 2], None),
    ],
)
def test_a_task_settles_by_the_rule_of_the_contract(
    threshold: int, votes: list[int], winner: int | None
) -> None:
    assert decide(votes, threshold) == winner


@pytest.mark.parametrize(
    "threshold, needed",
    [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (6, 4), (7, 4), (8, 5), (9, 5), (10, 6)],
)
def test_as_many_have_to_agree_as_the_contract_says(threshold: int, needed: int) -> None:
    others = [1] * (threshold - needed)
    assert decide([needed, *others], threshold) == 0
    assert decide([needed - 1, 1, *others], threshold) != 0


@pytest.mark.parametrize(
    "threshold, votes, winner",
    [
        (1, [0, 1], 1),
        (2, [1, 0], None),
        (2, [2, 0], 0),
        (3, [2, 0], 0),
        (3, [1, 1], None),
        (5, [3, 1], 0),
        (5, [2, 1], None),
        (7, [0, 4], 1),
        (3, [2, 2], None),
    ],
)
def test_stop_early_does_not_wait_for_labels_that_cannot_matter(
    threshold: int, votes: list[int], winner: int | None
) -> None:
    assert decide(votes, threshold, stop_early=True) == winner


_THRESHOLDS = st.integers(1, 10)


@settings(max_examples=500)
@given(_THRESHOLDS, st.data())
def test_stop_early_never_changes_the_winner_at_the_threshold(
    threshold: int, data: st.DataObject
) -> None:
    options = data.draw(st.integers(2, 4))
    # Few different options, weighted to the first, so that most draws have an early winner.
    ballot = st.sampled_from([0] * 4 + list(range(options)))
    labels = data.draw(st.lists(ballot, min_size=threshold, max_size=threshold))
    full = decide([labels.count(option) for option in range(options)], threshold)
    for asked in range(threshold + 1):
        early = decide(
            [labels[:asked].count(option) for option in range(options)], threshold, stop_early=True
        )
        assert early is None or early == full


@given(st.lists(st.integers(0, 10), min_size=2, max_size=5), _THRESHOLDS)
def test_a_winner_has_strictly_more_votes_than_any_other(votes: list[int], threshold: int) -> None:
    winner = decide(votes, threshold)
    needed = threshold // 2 + 1
    best = [n for n, count in enumerate(votes) if count == max(votes)]
    expected = sum(votes) >= threshold and len(best) == 1 and max(votes) >= needed
    assert winner == (best[0] if expected else None)


@pytest.mark.parametrize("threshold", range(1, 11))
def test_twice_the_threshold_is_the_last_label(threshold: int) -> None:
    assert not exhausted(2 * threshold - 1, threshold)
    assert exhausted(2 * threshold, threshold)
    assert exhausted(2 * threshold + 1, threshold)


LEGAL = {
    (ACCEPTED, PROCESSING),
    (ACCEPTED, JobStatus.FAILED),
    (ACCEPTED, JobStatus.CANCELLED),
    (PROCESSING, JobStatus.COMPLETED),
    (PROCESSING, JobStatus.FAILED),
    (PROCESSING, JobStatus.CANCELLED),
}


@pytest.mark.parametrize("before, after", list(itertools.product(JobStatus, JobStatus)))
def test_a_job_goes_along_the_arrows_of_the_contract_and_no_others(
    before: JobStatus, after: JobStatus
) -> None:
    assert (after in JOB_ARROWS[before]) == ((before, after) in LEGAL)


@pytest.mark.parametrize("status", JobStatus)
def test_a_job_has_ended_where_no_arrow_leaves(status: JobStatus) -> None:
    assert status.has_ended == (status in ENDS)


def test_the_codes_of_bad_lines_are_the_closed_list_of_the_contract() -> None:
    assert [str(code) for code in LineCode] == [
        "malformed_json",
        "not_an_object",
        "missing_data_url",
        "invalid_data_url",
        "invalid_metadata",
        "duplicate_key",
        "invalid_utf8",
        "line_too_long",
        "unknown_field",
        "invalid_text",  # an extension of it
    ]
    assert {"malformed_json", "invalid_utf8"} == NOT_JSON


def test_ids_are_opaque_url_safe_and_prefixed() -> None:
    ids = {new_id("job") for _ in range(1000)}
    assert len(ids) == 1000
    assert all(re.fullmatch("job_[0-9a-hjkmnp-tv-z]{22}", text) for text in ids)


def test_secrets_have_256_bits() -> None:
    secrets = {new_secret("sk") for _ in range(100)}
    assert len(secrets) == 100
    assert all(re.fullmatch("sk_[A-Za-z0-9_-]{43}", text) for text in secrets)


@given(st.integers(0, 10**18 - 1))
def test_a_task_id_gives_back_the_job_and_the_place_of_its_line(task_no: int) -> None:
    job_id = new_id("job")
    made = task_id(job_id, task_no)
    assert made.startswith("tsk_")
    assert parse_task_id(made) == (job_id, task_no)


def test_the_same_line_has_the_same_id_and_every_other_another() -> None:
    job_id = new_id("job")
    assert task_id(job_id, 10) == task_id(job_id, 10)
    made = {task_id(job, at) for job in (job_id, new_id("job")) for at in range(300)}
    assert len(made) == 600


JOB = "0123456789abcdefghjkmn"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tsk_",
        "tsk_" + JOB,
        "tsk_" + JOB + "G",
        "tsk_" + JOB + "A",
        "tsk_" + JOB + "-1",
        "tsk_" + JOB + "1" * 19,
        "tsk_" + JOB[:-1] + "ü1",
        "tsk_" + JOB[:-1] + "i1",
        "TSK_" + JOB + "1",
        "job_" + JOB + "1",
        " tsk_" + JOB + "1",
        "tsk_" + JOB + "1\n",
        "tsk_" + JOB + "1\x00",
        "tsk_" + JOB + "\u0661",
    ],
)
def test_what_is_not_one_of_our_task_ids_is_none(text: str) -> None:
    assert parse_task_id(text) is None
    assert parse_task_id("tsk_" + JOB + "1") == ("job_" + JOB, 1)


@pytest.mark.parametrize("offset", ["00", "01", "000000000000001"])
def test_a_task_has_one_spelling_of_its_id(offset: str) -> None:
    assert parse_task_id("tsk_" + JOB + offset) is None
