"""Examples of what the console asks for, for the OpenAPI document."""

from datetime import UTC, datetime
from uuid import UUID

import msgspec

from api.http.document import Answer, Answers, Requests, Taken
from api.routes.delivered import DeliveredPage
from api.routes.job_preview import BadLinePreview, JobPreview, TaskPreview
from api.routes.job_progress import Alive, Begun, JobProgress
from api.routes.job_timeline import TimelineView
from api.routes.job_views import LabelSpec
from api.routes.operations import OperationsView
from blocks.bodies.jobs import JobBody
from blocks.domain.model import DeliveryStatus, JobStatus, LineCode, TaskType
from blocks.store.counts import Queue
from blocks.store.delivered_objects import RecordedObject
from blocks.store.operations import CustomerShare, WorkInHand
from blocks.store.timeline import Point, Series

_PROGRESS = JobProgress(
    job_id="job_0s2m8x4c7v1bq9kd6hzt5n",
    status=JobStatus.PROCESSING,
    total_tasks=1000,
    tasks_done=997,
    tasks_failed=3,
    progress_percent=99.9,
    lines_read=1000,
    delivery_status=DeliveryStatus.DELIVERING,
    completed_at=None,
    waiting_for=None,
)


def _event(number: int, name: str, content: msgspec.Struct) -> str:
    data = msgspec.json.encode(content).decode()
    return f"id: 5b1f09ac.{number}\nevent: {name}\ndata: {data}\n\n"


_STREAM = "retry: 2000\n\n" + "".join(
    [
        _event(0, "begin", Begun(resumed=False)),
        _event(1, "job", _PROGRESS),
        _event(1, "alive", Alive(datetime(2026, 11, 28, 10, 0, 15, tzinfo=UTC))),
    ]
)

_CUSTOMER_ID = "cust_9x7c1v5bq43f8k2md6hzt5"
_JOB_ID = "job_0s2m8x4c7v1bq9kd6hzt5n"
_PREVIEW = JobPreview(
    task_type=TaskType.IMAGE_CLASSIFICATION,
    label_spec=LabelSpec("Is this a cat or a dog?", ["cat", "dog"]),
    tasks=[
        TaskPreview(
            line=1,
            data_url="https://images.example/cats/1.jpg",
            metadata=msgspec.Raw(b'{"page":4}'),
        )
    ],
    bad_lines=[
        BadLinePreview(
            line=2,
            code=LineCode.MISSING_DATA_URL,
            message="data_url is missing; the line has source-ref. Did you mean that?",
            raw='{"source-ref": "s3://images/7.jpg"}',
        )
    ],
)
_TIMELINE = TimelineView(
    job_id=_JOB_ID,
    lines=Series(1, [Point(datetime(2026, 11, 28, 9, 0, 3, tzinfo=UTC), 1000)]),
    labels=Series(60, [Point(datetime(2026, 11, 28, 10, 1, tzinfo=UTC), 412)]),
    bad_lines={"missing_data_url": 3},
)
_OBJECT = RecordedObject(
    object_no=1,
    key=f"labels/{_JOB_ID}/part-00001.jsonl",
    rows=997,
    bytes=251_244,
    sha256="9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
)

_OPERATIONS = OperationsView(
    prefect_ui_url="http://127.0.0.1:4200",
    queues=[Queue("outbox", 0, None), Queue("runs_waiting", 2, 1.5)],
    customers=[
        CustomerShare(customer_id=_CUSTOMER_ID, name="Acme", under_way=1, waiting=2, oldest_s=1.5)
    ],
    runs=[
        WorkInHand(
            kind="process_job",
            job_id=_JOB_ID,
            customer_id=_CUSTOMER_ID,
            launched_at=datetime(2026, 11, 28, 9, 0, 1, tzinfo=UTC),
            flow_run_id=UUID("0193f1f2-7c3b-7d2a-9a3e-5b1f09ac7e21"),
            launches=1,
            tries=0,
            reason=None,
        )
    ],
    outbox=[],
    failing_endpoints=[],
    reconciled=[],
)

CONSOLE_REQUESTS: Requests = {
    "preview_job": Taken(
        JobBody,
        {
            "manifest_url": "s3://manifests/cats.jsonl",
            "label_spec": {"question": "Is this a cat or a dog?", "options": ["cat", "dog"]},
        },
    )
}
CONSOLE_ANSWERS: Answers = {
    "follow_jobs": (Answer(200, _STREAM, "Server-sent events, for as long as they are read."),),
    "preview_job": (Answer(200, _PREVIEW),),
    "get_job_timeline": (Answer(200, _TIMELINE),),
    "get_operations": (Answer(200, _OPERATIONS),),
    "list_delivered_objects": (Answer(200, DeliveredPage([_OBJECT], None)),),
}
