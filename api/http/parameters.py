"""Parameters that several routes have."""

from typing import Annotated

from litestar.params import PathParameter, QueryParameter

JobId = Annotated[str, PathParameter(description="The `job_id` of one of your jobs.")]
TaskId = Annotated[str, PathParameter(description="The `task_id` of one of your tasks.")]
WebhookId = Annotated[str, PathParameter(description="The `webhook_id` of one of your endpoints.")]
DeliveryId = Annotated[
    str,
    PathParameter(description="The `delivery_id` of a notification, from the log of its endpoint."),
]
Cursor = Annotated[str | None, QueryParameter(description="The `next_cursor` of the page before.")]
PAGE_LIMIT = "How many a page has at most."
