"""The arrows between states, and the codes of bad lines."""

import itertools

import pytest

from blocks.domain.model import JOB_ARROWS, NOT_JSON, JobStatus, LineCode

ACCEPTED, PROCESSING = JobStatus.ACCEPTED, JobStatus.PROCESSING
ENDS = {JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED}


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
        "invalid_gold",  # another one
    ]
    assert {"malformed_json", "invalid_utf8"} == NOT_JSON
