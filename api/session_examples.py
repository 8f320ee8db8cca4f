"""Examples of what the routes for sessions and operators take and answer, for the OpenAPI document."""

from datetime import UTC, datetime

from api.http.document import Answer, Answers, Requests, Taken
from api.routes.customers import Customers, CustomerView
from api.routes.session import SessionView, SignedIn, SignInBody

_ANNOTATOR_ID = "ann_5bq43f8k2m9x7c1vd6hzt5"
_CSRF_TOKEN = "0f3c5a7e9b1d2f4860718293a4b5c6d7"  # noqa: S105 - of nobody
_ENDS_AT = datetime(2026, 11, 28, 21, tzinfo=UTC)

SESSION_REQUESTS: Requests = {
    "sign_in": Taken(SignInBody, {"key": "ak_dGhpcyBpcyBhbiBleGFtcGxlIG9mIGEga2V5IG9mIG91cnM"}),
}
SESSION_ANSWERS: Answers = {
    "list_customers": (
        Answer(200, Customers([CustomerView("cust_3w9t5k1m7x2c8v4bq6hz0r", "Acme", _ENDS_AT, 2)])),
    ),
    "sign_in": (Answer(200, SignedIn("annotator", _ANNOTATOR_ID, "Ann", _CSRF_TOKEN, _ENDS_AT)),),
    "get_session": (
        Answer(200, SessionView("annotator", _ANNOTATOR_ID, "Ann", _CSRF_TOKEN), name="a session"),
        Answer(200, SessionView("annotator", _ANNOTATOR_ID, "Ann", None), name="a key"),
    ),
}
