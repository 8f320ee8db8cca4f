"""Parameters that several routes have."""

from collections.abc import Callable
from typing import Annotated

from litestar.params import PathParameter, QueryParameter

from api.http.errors import invalid_request
from blocks.bodies.fields import Fault
from blocks.domain.ids import (
    ANNOTATOR_ID,
    CUSTOMER_ID,
    JOB_ID,
    is_annotator_id,
    is_customer_id,
    is_job_id,
)

JobId = Annotated[str, PathParameter(description="The `job_id` of one of your jobs.")]
TaskId = Annotated[str, PathParameter(description="The `task_id` of one of your tasks.")]
WebhookId = Annotated[str, PathParameter(description="The `webhook_id` of one of your endpoints.")]
DeliveryId = Annotated[
    str,
    PathParameter(description="The `delivery_id` of a notification, from the log of its endpoint."),
]
Cursor = Annotated[str | None, QueryParameter(description="The `next_cursor` of the page before.")]
AN_ANNOTATOR = {"pattern": f"^{ANNOTATOR_ID}$"}
"""The `schema_extra` of a query parameter that `check_annotator` is for."""
A_CUSTOMER = {"pattern": f"^{CUSTOMER_ID}$"}
"""The same for `check_customer`."""
A_JOB = {"pattern": f"^{JOB_ID}$"}
"""The same for `check_job`."""
PAGE_LIMIT = "How many a page has at most."


_AN_ANNOTATOR_ID = "This must be an annotator_id: ann_ and 22 characters."


def check_annotator_id(annotator_id: str) -> None:
    """Pass if this may be somebody's id.

    Raises:
        ValueError: it is none.
    """
    if not is_annotator_id(annotator_id):
        raise ValueError(_AN_ANNOTATOR_ID)


def check_annotator(annotator: str | None) -> None:
    """Pass if the query parameter `annotator` is not given, or may be somebody's id.

    Raises:
        ApiError: 400, it is no id.
    """
    _check("annotator", annotator, is_annotator_id, _AN_ANNOTATOR_ID)


def check_customer(customer: str | None) -> None:
    """Pass if the query parameter `customer` is not given, or may be somebody's id.

    Raises:
        ApiError: 400, it is no id.
    """
    message = "This must be a customer_id: cust_ and 22 characters."
    _check("customer", customer, is_customer_id, message)


def check_job(job_id: str | None) -> None:
    """Pass if the query parameter `job_id` is not given, or may be a job's id.

    Raises:
        ApiError: 400, it is no id.
    """
    _check("job_id", job_id, is_job_id, "This must be a job_id: job_ and 22 characters.")


def _check(name: str, given: str | None, is_id: Callable[[str], bool], message: str) -> None:
    if given is not None and not is_id(given):
        raise invalid_request([Fault(name, message)])
