"""Examples of what the routes take and answer, for the OpenAPI document."""

from datetime import UTC, datetime

import msgspec

from api.console_examples import CONSOLE_ANSWERS, CONSOLE_REQUESTS
from api.http.document import Answer, Answers, Requests, Taken
from api.lead_examples import LEAD_ANSWERS
from api.own_work_examples import CASE, OWN_WORK_ANSWERS, OWN_WORK_REQUESTS
from api.routes.annotation import (
    ClaimBody,
    ClaimedTasks,
    HeldTasks,
    Release,
    ReleaseBody,
    Releases,
)
from api.routes.claimed_views import Claimed, InstructionsToRead
from api.routes.deliveries import DeliverBody
from api.routes.health import Live, Ready
from api.routes.job_annotators import Happening, HistoryLine, HistoryView
from api.routes.job_control import JobInstructions, JobsPage
from api.routes.job_views import Consensus, Delivery, JobView, LabelSpec, Manifest, PaceView
from api.routes.jobs import JobAccepted
from api.routes.task_bodies import TaskBody, TasksBody
from api.routes.task_views import (
    BatchAccepted,
    StillLabelled,
    TaskAccepted,
    TaskResult,
    TaskView,
)
from api.routes.webhook_messages import DeliveriesPage, DeliveryView, Replayed
from api.routes.webhooks import (
    NewWebhookView,
    SecretBody,
    SecretView,
    WebhookBody,
    WebhooksPage,
    WebhookView,
)
from api.session_examples import SESSION_ANSWERS, SESSION_REQUESTS
from blocks.bodies.jobs import JobBody
from blocks.domain.ids import task_id
from blocks.domain.model import (
    Compression,
    ConsensusMethod,
    DeliveryStatus,
    JobStatus,
    ReleaseOutcome,
    ResultFormat,
    SkipReason,
    TaskStatus,
    TaskType,
    WaitsFor,
)
from blocks.domain.object_urls import StoreType
from blocks.store.exclusions import Exclusion
from blocks.store.results import LineError
from blocks.store.tasks import Skip
from blocks.store.waits import Waiting
from blocks.store.webhook_messages import Attempt, MessageStatus
from blocks.store.webhooks import Event

_JOB_ID = "job_0s2m8x4c7v1bq9kd6hzt5n"
_TASK_KEY = 0
_CUSTOMER_ID = "cust_3w9t5k1m7x2c8v4bq6hz0r"
_ANNOTATOR_ID = "ann_5bq43f8k2m9x7c1vd6hzt5"
_TASK_IDS = [task_id(_JOB_ID, _TASK_KEY, task_no) for task_no in (0, 1)]
_DATA_URL = "https://images.example/cats/1.jpg"
_QUESTION, _OPTIONS = "Is this a cat or a dog?", ["cat", "dog"]
_MANIFEST_URL = "s3://manifests/cats.jsonl"
_INSTRUCTIONS = "# Cats and dogs\n\nIf there are both, take the **larger** one.\n"
_INSTRUCTIONS_VERSION = "5f0c1d8e9a7b3c42"
_HOOK = "https://hooks.example/refinery"
_SECRET = "whsec_cmVmaW5lcnktam9icy1leGFtcGxlLXNlY3JldA=="  # noqa: S105 - of nobody


def _at(clock: str) -> datetime:
    return datetime.fromisoformat(f"2026-11-28T{clock}").replace(tzinfo=UTC)


# What routes take
_LABEL_SPEC = {
    "question": _QUESTION,
    "options": _OPTIONS,
    "option_details": [
        {"option": "cat", "description": "Domestic cats alone; no lynx.", "hotkey": "c"},
        {"option": "dog", "hotkey": "d"},
    ],
}
_CREDENTIALS = {
    "access_key_id": "AKIAIOSFODNN7EXAMPLE",
    "secret_access_key": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    "region": "eu-central-1",
}
_DELIVERY = {"type": "s3", "bucket": "results", "prefix": "cats", "compression": "gzip"}
_TASK = {
    "type": "image_classification",
    "data_url": _DATA_URL,
    "label_spec": _LABEL_SPEC,
    "metadata": {"page": 4},
    "instructions": _INSTRUCTIONS,
}

REQUESTS: Requests = {
    **CONSOLE_REQUESTS,
    **OWN_WORK_REQUESTS,
    **SESSION_REQUESTS,
    "create_job": Taken(
        JobBody,
        {
            "manifest_url": _MANIFEST_URL,
            "label_spec": _LABEL_SPEC,
            "callback_url": _HOOK,
            "credentials": _CREDENTIALS,
            "delivery": _DELIVERY,
            "metadata": {"team": "vision"},
            "instructions": _INSTRUCTIONS,
            "sign_urls": True,
        },
    ),
    "deliver_job": Taken(DeliverBody, {"credentials": _CREDENTIALS, "delivery": _DELIVERY}),
    "create_task": Taken(TaskBody, _TASK),
    "create_tasks": Taken(TasksBody, {"tasks": [_TASK], "callback_url": _HOOK}),
    "claim_tasks": Taken(ClaimBody, {"limit": 10, "lease_seconds": 600}),
    "release_tasks": Taken(ReleaseBody, {"task_ids": _TASK_IDS[1:]}),
    "create_webhook": Taken(WebhookBody, {"callback_url": _HOOK, "events": ["job.completed"]}),
    "rotate_webhook_secret": Taken(SecretBody, {"secret": _SECRET}),
    "rotate_default_secret": Taken(SecretBody, {"secret": _SECRET}),
}

# What routes answer

_LABEL_SPEC_VIEW = msgspec.convert(_LABEL_SPEC, LabelSpec)
_DELIVERY_VIEW = Delivery(
    type=StoreType.S3,
    bucket="results",
    prefix="cats",
    compression=Compression.GZIP,
    format=ResultFormat.JSONL,
    status=None,
    objects=None,
    delivered_at=None,
    code=None,
    message=None,
)
_JOB = JobView(
    job_id=_JOB_ID,
    customer_id=_CUSTOMER_ID,
    status=JobStatus.PROCESSING,
    total_tasks=1000,
    tasks_done=240,
    tasks_failed=3,
    progress_percent=24.3,
    created_at=_at("09:00:00"),
    started_at=_at("09:00:02"),
    completed_at=None,
    manifest=Manifest(_MANIFEST_URL, 91_204, '"5d41402abc4b2a76b9719d911017c592"', 1000),
    delivery=_DELIVERY_VIEW,
    label_spec=_LABEL_SPEC_VIEW,
    consensus_threshold=3,
    consensus=Consensus(method=ConsensusMethod.MAJORITY),
    gold_share=0.1,
    min_accuracy=None,
    min_gold_seen=10,
    include_labels=False,
    review_no_consensus=True,
    review_confidence_below=None,
    review_share=0.02,
    review_flagged=False,
    review_deadline=168.0,
    task_type=TaskType.IMAGE_CLASSIFICATION,
    callback_url=_HOOK,
    priority=5,
    stop_early=False,
    skips_max=3,
    failure_threshold_percent=100.0,
    metadata=msgspec.Raw(b'{"team":"vision"}'),
    show_metadata=True,
    sign_urls=True,
    instructions_version=_INSTRUCTIONS_VERSION,
    error=None,
    paused_at=None,
    waiting_for=Waiting(
        what=WaitsFor.ANNOTATORS,
        reason="2 more annotators are needed: there are tasks that want labels of more people than "
        "there are.",
        since=_at("10:00:00"),
        annotators=2,
    ),
)
_PAUSE = Waiting(
    what=WaitsFor.OPERATOR,
    reason="An operator has paused the job; nothing new is begun until they resume it.",
    since=_at("10:30:00"),
)
_PAUSED = msgspec.structs.replace(_JOB, paused_at=_PAUSE.since, waiting_for=_PAUSE)
_PACE = PaceView(412.5, 2284, _at("17:10:00"))
_ENDED = msgspec.structs.replace(_JOB, completed_at=_at("11:30:00"), waiting_for=None)
_CANCELLED = msgspec.structs.replace(
    _ENDED, status=JobStatus.CANCELLED, tasks_failed=760, progress_percent=100.0
)
_DELIVERING = msgspec.structs.replace(
    _ENDED,
    status=JobStatus.COMPLETED,
    tasks_done=997,
    progress_percent=100.0,
    delivery=msgspec.structs.replace(_DELIVERY_VIEW, status=DeliveryStatus.PENDING),
)
_EXCLUSION = Exclusion(
    annotator_id=_ANNOTATOR_ID,
    excluded_at=_at("10:20:00"),
    reason="customer",
    labels_set_aside=120,
    tasks_reopened=37,
    is_under_way=False,
    done_at=_at("10:20:01"),
)
_HISTORY = HistoryView(
    _JOB_ID,
    [
        HistoryLine(at=_at("09:00:00"), event=Happening.SUBMITTED),
        HistoryLine(
            at=_at("10:20:00"),
            event=Happening.ANNOTATOR_EXCLUDED,
            annotator_id=_ANNOTATOR_ID,
            reason="customer",
        ),
        HistoryLine(
            at=_at("10:20:01"),
            event=Happening.LABELS_SET_ASIDE,
            annotator_id=_ANNOTATOR_ID,
            labels_set_aside=120,
            tasks_reopened=37,
        ),
    ],
)
_CLAIMED = Claimed(
    task_id=_TASK_IDS[0],
    data_url="s3://images/cats/1.jpg",
    signed_url="https://images.s3.eu-central-1.amazonaws.com/cats/1.jpg?X-Amz-Algorithm=AWS4-HMAC-SHA256"
    "&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20261128%2Feu-central-1%2Fs3%2Faws4_request"
    "&X-Amz-Date=20261128T100000Z&X-Amz-Expires=660&X-Amz-SignedHeaders=host&X-Amz-Signature=3f8c…",
    metadata=msgspec.Raw(b'{"page":4}'),
    task_type=TaskType.IMAGE_CLASSIFICATION,
    label_spec=_LABEL_SPEC_VIEW,
    instructions=InstructionsToRead(_JOB_ID, _INSTRUCTIONS_VERSION),
    lease_expires_at=_at("10:10:00"),
)
_SKIP = Skip(SkipReason.UNCLEAR, "It is too dark.", _at("10:00:12"))
_RESULT = TaskResult(
    task_id=_TASK_IDS[0],
    line=1,
    data_url=_DATA_URL,
    metadata=msgspec.Raw(b'{"page":4}'),
    status=TaskStatus.SETTLED,
    consensus_label="cat",
    confidence=2 / 3,
    worker_count=3,
    agreement_count=2,
    votes={"cat": 2, "dog": 1},
    created_at=_at("09:00:03"),
    settled_at=_at("10:01:30"),
)
_BAD_LINE = LineError(
    line=7,
    byte_offset=512,
    code="missing_data_url",
    message="data_url is missing; the line has source-ref. Did you mean that?",
    raw=b'{"source-ref": "s3://images/7.jpg"}',
)
_WEBHOOK = WebhookView(
    webhook_id="whk_3f8k2m9x7c1v5bq4d6hzt5",
    customer_id=_CUSTOMER_ID,
    callback_url=_HOOK,
    registered=True,
    events=[Event.JOB_COMPLETED],
    disabled_at=None,
    created_at=_at("08:00:00"),
)
_MESSAGE = DeliveryView(
    delivery_id="msg_5a0e6c2f4b7d4e0c9a1b3d5f7e9c2b4a",
    event=Event.JOB_COMPLETED,
    status=MessageStatus.DELIVERED,
    body='{"type":"job.completed","timestamp":"2026-11-28T11:30:00Z","data":{"job_id":"'
    f'{_JOB_ID}","status":"completed","total_tasks":1000,"tasks_done":997,"tasks_failed":3,'
    '"metadata":null,"error":null,"delivery":null,"created_at":"2026-11-28T09:00:00Z",'
    '"completed_at":"2026-11-28T11:30:00Z"}}',
    created_at=_at("11:30:00"),
    next_attempt_at=None,
    attempts=[
        Attempt(
            attempt=1,
            attempted_at=_at("11:30:01"),
            duration_ms=84,
            status_code=204,
            error=None,
            response=None,
        )
    ],
)
_READY = Ready("ready", "ok", "ok")

ANSWERS: Answers = {
    **CONSOLE_ANSWERS,
    **LEAD_ANSWERS,
    **OWN_WORK_ANSWERS,
    **SESSION_ANSWERS,
    "health_live": (Answer(200, Live(version="0.2.0")),),
    "health_ready": (
        Answer(200, _READY),
        Answer(503, Ready("not_ready", "unreachable", "ok"), "The database takes no writes."),
    ),
    "metrics": (Answer(200, "refinery_claimed_tasks_total 12.0\n", "The metrics."),),
    "create_job": (Answer(202, JobAccepted(_JOB_ID, JobStatus.ACCEPTED)),),
    "list_jobs": (Answer(200, JobsPage([_JOB], None)),),
    "get_job": (Answer(200, msgspec.structs.replace(_JOB, pace=_PACE)),),
    "get_job_instructions": (Answer(200, JobInstructions(_INSTRUCTIONS_VERSION, _INSTRUCTIONS)),),
    "cancel_job": (Answer(202, _CANCELLED),),
    "retry_job": (Answer(202, _JOB),),
    "change_job": (Answer(200, _JOB),),
    "pause_job": (Answer(200, _PAUSED),),
    "resume_job": (Answer(200, _JOB),),
    "deliver_job": (Answer(202, _DELIVERING),),
    "exclude_annotator": (Answer(202, _EXCLUSION),),
    "get_job_history": (Answer(200, _HISTORY),),
    "export_job": (
        Answer(200, msgspec.json.encode(_RESULT).decode() + "\n", "One settled task per line."),
    ),
    "list_bad_lines": (
        Answer(
            200,
            _BAD_LINE.to_json().decode(),
            "One JSON object for each line of the manifest that has no result.",
        ),
    ),
    "create_task": (
        Answer(202, TaskAccepted(_TASK_IDS[0], TaskStatus.PENDING, _at("09:00:03"))),
        Answer(
            200,
            TaskAccepted(_TASK_IDS[0], TaskStatus.SETTLED, _at("09:00:03"), idempotent=True),
            "The task that has this key already.",
        ),
    ),
    "create_tasks": (Answer(202, BatchAccepted("bat_9x7c1v5bq43f8k2md6hzt5", 1, _TASK_IDS[:1])),),
    "get_task": (
        Answer(
            200,
            TaskView(
                task_id=_TASK_IDS[0],
                status=TaskStatus.IN_PROGRESS,
                reason=None,
                type=TaskType.IMAGE_CLASSIFICATION,
                data_url=_DATA_URL,
                label_spec=_LABEL_SPEC_VIEW,
                consensus_threshold=3,
                consensus=Consensus(method=ConsensusMethod.MAJORITY),
                stop_early=False,
                skips_max=3,
                labels=1,
                skips=[_SKIP],
                metadata=msgspec.Raw(b'{"page":4}'),
                callback_url=None,
                job_id=_JOB_ID,
                line=1,
                batch_id=None,
                created_at=_at("09:00:03"),
                settled_at=None,
                instructions_version=_INSTRUCTIONS_VERSION,
            ),
        ),
    ),
    "get_task_result": (
        Answer(200, _RESULT, "The task is settled or failed."),
        Answer(202, StillLabelled()),
    ),
    "claim_tasks": (
        Answer(200, ClaimedTasks([_CLAIMED]), name="tasks"),
        Answer(
            200,
            ClaimedTasks([msgspec.structs.replace(_CLAIMED, review=CASE)]),
            name="tasks under review",
        ),
        Answer(200, ClaimedTasks([], 5), name="nothing now"),
        Answer(200, ClaimedTasks([], None), name="nothing left of the job"),
    ),
    "list_leases": (Answer(200, HeldTasks([_CLAIMED], None)),),
    "release_tasks": (Answer(200, Releases([Release(_TASK_IDS[1], ReleaseOutcome.RELEASED)])),),
    "create_webhook": (
        Answer(201, NewWebhookView(**msgspec.structs.asdict(_WEBHOOK), secret=_SECRET)),
    ),
    "list_webhooks": (Answer(200, WebhooksPage([_WEBHOOK], None)),),
    "rotate_webhook_secret": (Answer(200, SecretView(None)),),
    "rotate_default_secret": (Answer(200, SecretView(None)),),
    "list_webhook_deliveries": (Answer(200, DeliveriesPage([_MESSAGE], None)),),
    "replay_webhook_delivery": (Answer(202, Replayed(_MESSAGE.delivery_id)),),
}
