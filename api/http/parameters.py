"""Parameters that several routes have."""

from typing import Annotated

from litestar.params import PathParameter, QueryParameter

from api.http.errors import invalid_request
from blocks.bodies.fields import Fault
from blocks.domain.ids import is_annotator_id, is_customer_id, is_job_id

JobId = Annotated[str, PathParameter(description="The `job_id` of one of your jobs.")]
TaskId = Annotated[str, PathParameter(description="The `task_id` of one of your tasks.")]
WebhookId = Annotated[str, PathParameter(description="The `webhook_id` of one of your endpoints.")]
DeliveryId = Annotated[
    str,
    PathParameter(description="The `delivery_id` of a notification, from the log of its endpoint."),
]
Cursor = Annotated[str | None, QueryParameter(description="The `next_cursor` of the page before.")]
PAGE_LIMIT = "How many a page has at most."


def check_annotator_id(annotator_id: str) -> None:
    """Pass if this may be somebody's id.

    Raises:
        ValueError: it is none.
    """
    if not is_annotator_id(annotator_id):
        raise ValueError("This must be an annotator_id: ann_ and 22 characters.")


def check_annotator(annotator: str | None) -> None:
    """Pass if the query parameter `annotator` is not given, or may be somebody's id.

    Raises:
        ApiError: 400, it is no id.
    """
    if annotator is None:
        return
    try:
        check_annotator_id(annotator)
    except ValueError as error:
        raise invalid_request([Fault("annotator", str(error))]) from None


def check_customer(customer: str | None) -> None:
    """Pass if the query parameter `customer` is not given, or may be somebody's id.

    Raises:
        ApiError: 400, it is no id.
    """
    if customer is not None and not is_customer_id(customer):
        raise invalid_request(
            [Fault("customer", "This must be a customer_id: cust_ and 22 characters.")]
        )


def check_job(job_id: str | None) -> None:
    """Pass if the query parameter `job_id` is not given, or may be a job's id.

    Raises:
        ApiError: 400, it is no id.
    """
    if job_id is not None and not is_job_id(job_id):
        raise invalid_request([Fault("job_id", "This must be a job_id: job_ and 22 characters.")])
