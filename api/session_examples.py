"""Examples for the OpenAPI document: what the routes of sessions, keys and operators take and answer."""

from datetime import UTC, datetime

import msgspec

from api.http.document import Answer, Answers, Requests, Taken
from api.routes.audit import AuditActor, AuditLine, AuditPage, AuditTarget
from api.routes.customer_limits import LimitsBody
from api.routes.customers import Customers, CustomerView
from api.routes.job_changes import JobChangeBody
from api.routes.keys import KeyBody, KeysPage, KeyView, NewKeyView, RevokedKeyView, SignInLink
from api.routes.operations_lists import CustomerLoads, StreamLoads, WorkPage
from api.routes.session import SessionView, SignedIn, SignInBody
from blocks.store.audit import Action, ActorRole, TargetKind
from blocks.store.customer_limits import Limits
from blocks.store.keys import KeyRole
from blocks.store.loads import CustomerLoad, StreamLoad, Work, WorkStatus
from blocks.store.pauses import CustomerState

_ANNOTATOR_ID = "ann_5bq43f8k2m9x7c1vd6hzt5"
_CSRF_TOKEN = "0f3c5a7e9b1d2f4860718293a4b5c6d7"  # noqa: S105 - of nobody
_ENDS_AT = datetime(2026, 11, 28, 21, tzinfo=UTC)

_MADE_AT = datetime(2026, 11, 20, 9, tzinfo=UTC)
_KEY = KeyView(
    key_id="key_5f2a90c41be7d3860a9c",
    role=KeyRole.CUSTOMER,
    owner_id="cust_3w9t5k1m7x2c8v4bq6hz0r",
    customer_id="cust_3w9t5k1m7x2c8v4bq6hz0r",
    name="nightly export",
    customer_ids=None,
    prefix="sk_7aQf",
    created_at=_MADE_AT,
    last_used_at=_ENDS_AT,
    revoked_at=None,
    current=False,
)
_LINK = "https://labels.example.com/#in_dGhpcyBpcyBhbiBleGFtcGxlIG9mIGEgbGluayBvZiBvdXJz"

SESSION_REQUESTS: Requests = {
    "change_customer": Taken(LimitsBody, {"runs": 8, "jobs": None}),
    "change_job": Taken(JobChangeBody, {"priority": 8}),
    "create_key": Taken(KeyBody, {"name": "nightly export"}),
    "sign_in": Taken(SignInBody, {"key": "ak_dGhpcyBpcyBhbiBleGFtcGxlIG9mIGEga2V5IG9mIG91cnM"}),
}
_AUDIT_LINE = AuditLine(
    audit_id="aud_0f3c5a7e9b1d2f4860718293a4b5c6d7",
    at=_ENDS_AT,
    actor=AuditActor(ActorRole.CUSTOMER, _KEY.key_id, _KEY.name),
    action=Action.KEY_REVOKED,
    target=AuditTarget(TargetKind.KEY, "key_0a1b2c3d4e5f60718293"),
    customer_id=_KEY.customer_id,
    details={"role": "customer"},
)
_CUSTOMER_LOAD = CustomerLoad(
    customer_id="cust_3w9t5k1m7x2c8v4bq6hz0r",
    name="Acme",
    paused_at=None,
    jobs={"accepted": 0, "processing": 2, "completed": 14, "failed": 1, "cancelled": 0},
    runs_under_way=1,
    runs_waiting=1,
    oldest_s=12.5,
    open_tasks=812,
)
_PAUSED_CUSTOMER = CustomerState(
    customer_id=_CUSTOMER_LOAD.customer_id,
    name=_CUSTOMER_LOAD.name,
    paused_at=_ENDS_AT,
    limits=Limits(runs=8),
)
_STREAM_LOAD = StreamLoad(
    customer_id="cust_3w9t5k1m7x2c8v4bq6hz0r",
    stream="daily",
    started_at=_MADE_AT,
    latest_at=_ENDS_AT,
    open=1,
    failed=0,
)
_WORK = Work(
    status=WorkStatus.WAITING,
    kind="process_job",
    job_id="job_0s2m8x4c7v1bq9kd6hzt5n",
    customer_id="cust_3w9t5k1m7x2c8v4bq6hz0r",
    waiting_since=_ENDS_AT,
    launched_at=None,
    flow_run_id=None,
    launches=0,
    tries=0,
    reason=None,
)
SESSION_ANSWERS: Answers = {
    "list_customer_loads": (Answer(200, CustomerLoads([_CUSTOMER_LOAD], None)),),
    "list_stream_loads": (Answer(200, StreamLoads([_STREAM_LOAD], None)),),
    "get_customer": (Answer(200, _PAUSED_CUSTOMER),),
    "change_customer": (Answer(200, msgspec.structs.replace(_PAUSED_CUSTOMER, paused_at=None)),),
    "pause_customer": (Answer(200, _PAUSED_CUSTOMER),),
    "resume_customer": (Answer(200, msgspec.structs.replace(_PAUSED_CUSTOMER, paused_at=None)),),
    "list_runs": (Answer(200, WorkPage([_WORK], None)),),
    "list_audit_log": (Answer(200, AuditPage([_AUDIT_LINE], None)),),
    "list_keys": (Answer(200, KeysPage([_KEY], None)),),
    "create_key": (
        Answer(
            201,
            NewKeyView(
                **msgspec.structs.asdict(msgspec.structs.replace(_KEY, last_used_at=None)),
                key="sk_7aQfcyBpcyBhbiBleGFtcGxlIG9mIGEga2V5IG9mIG91cnM",
                sign_in_link=_LINK,
            ),
        ),
    ),
    "create_sign_in_link": (Answer(201, SignInLink(_KEY.key_id, _LINK)),),
    "revoke_key": (
        Answer(
            200,
            RevokedKeyView(
                **msgspec.structs.asdict(msgspec.structs.replace(_KEY, revoked_at=_ENDS_AT)),
                tasks_returned=0,
            ),
        ),
    ),
    "list_customers": (
        Answer(200, Customers([CustomerView("cust_3w9t5k1m7x2c8v4bq6hz0r", "Acme", _ENDS_AT, 2)])),
    ),
    "sign_in": (Answer(200, SignedIn("annotator", _ANNOTATOR_ID, "Ann", _CSRF_TOKEN, _ENDS_AT)),),
    "get_session": (
        Answer(200, SessionView("annotator", _ANNOTATOR_ID, "Ann", _CSRF_TOKEN), name="a session"),
        Answer(200, SessionView("annotator", _ANNOTATOR_ID, "Ann", None), name="a key"),
    ),
}
