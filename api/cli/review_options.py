"""Options that say what reviewers decide."""

from dataclasses import dataclass
from typing import Annotated, Any

from cyclopts import Parameter

from api.cli.fields import field_option
from blocks.bodies.jobs import JobBody


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Review:
    """Which tasks go to reviewers."""

    review_no_consensus: Annotated[
        bool | None,
        Parameter(negative=(), help="Reviewers decide tasks without a consensus."),
    ] = None
    review_confidence_below: Annotated[
        float | None,
        field_option(JobBody, "review_confidence_below", "Reviewers decide what is less sure."),
    ] = None
    review_share: Annotated[
        float | None,
        field_option(JobBody, "review_share", "Reviewers decide this share of tasks, as a sample."),
    ] = None
    review_flagged: Annotated[
        bool | None,
        Parameter(negative=(), help="Reviewers decide tasks that would fail by skips."),
    ] = None
    review_deadline: Annotated[
        float | None,
        field_option(JobBody, "review_deadline", "Hours that a task waits for them at the most."),
    ] = None

    def body(self) -> dict[str, Any]:
        """Return the fields of the API that were given."""
        return {name: value for name, value in vars(self).items() if value is not None}


REVIEW = Review()
