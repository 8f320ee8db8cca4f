"""Options on what a job asks, with the limits that the API has."""

from typing import Annotated

from cyclopts import Parameter

from blocks.domain import limits

Options = Annotated[
    tuple[str, ...],
    Parameter(help=f"Once for each; {limits.OPTIONS_MIN} to {limits.OPTIONS_MAX}."),
]
Threshold = Annotated[
    int | None,
    Parameter(
        help="Labels before agreement is looked at: "
        f"{limits.CONSENSUS_THRESHOLD_MIN} to {limits.CONSENSUS_THRESHOLD_MAX}, "
        f"by default {limits.CONSENSUS_THRESHOLD_DEFAULT}."
    ),
]
Priority = Annotated[
    int | None,
    Parameter(
        help=f"{limits.PRIORITY_MIN} to {limits.PRIORITY_MAX}, by default {limits.PRIORITY_DEFAULT}; "
        "tasks of jobs with a higher one are given out first."
    ),
]
FailureThreshold = Annotated[
    float | None,
    Parameter(
        help="Fail the job once more than this share of its lines is bad; by default "
        f"{limits.FAILURE_THRESHOLD_PERCENT_DEFAULT:.0f}, which is never."
    ),
]
