"""Whose key each operation takes, what its request looks like, and which of its values name somebody's things."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

C, A, O = "customer", "annotator", "admin"  # noqa: E741 - an operator
# Whose key each operation takes: whoever adds a route says so here.
TAKES: dict[str, set[str]] = {
    "create_job": {C},
    "list_jobs": {C, O},
    "get_job": {C, O},
    "get_job_instructions": {C, O},
    "follow_jobs": {C, O},
    "preview_job": {C},
    "get_job_timeline": {C, O},
    "list_delivered_objects": {C, O},
    "cancel_job": {C, O},
    "deliver_job": {C, O},
    "wipe_job_credentials": {C, O},
    "delete_job": {C, O},
    "exclude_annotator": {C, O},
    "get_job_history": {C, O},
    "export_job": {C, O},
    "list_bad_lines": {C, O},
    "get_job_quality": {C, O},
    "list_label_changes": {C, O},
    "list_disagreements": {C, O},
    "create_task": {C},
    "create_tasks": {C},
    "get_task": {C, O},
    "get_task_result": {C, O},
    "create_webhook": {C},
    "list_webhooks": {C, O},
    "delete_webhook": {C},
    "rotate_webhook_secret": {C},
    "rotate_default_secret": {C},
    "list_webhook_deliveries": {C, O},
    "replay_webhook_delivery": {C, O},
    "list_audit_log": {C, O},
    "list_keys": {C, O},
    "create_key": {C, O},
    "create_sign_in_link": {C, O},
    "revoke_key": {C, O},
    "claim_tasks": {A},
    "list_leases": {A},
    "submit_labels": {A},
    "submit_reviews": {A},
    "renew_leases": {A},
    "release_tasks": {A},
    "get_me": {A},
    "list_own_labels": {A},
    "get_own_label": {A},
    "list_open_jobs": {A},
    "get_job_to_label": {A},
    "list_review_queues": {A},
    "list_customers": {O},
    "get_operations": {O},
    "retry_job": {O},
    "change_job": {O},
    "pause_job": {O},
    "resume_job": {O},
    "get_customer": {O},
    "change_customer": {O},
    "pause_customer": {O},
    "resume_customer": {O},
    "list_customer_loads": {O},
    "list_stream_loads": {O},
    "list_runs": {O},
    "get_session": {C, A, O},
    "sign_out": {C, A, O},
}


class Things(msgspec.Struct, frozen=True, kw_only=True):
    """The ids of one customer's things, and of what their annotator and their reviewer hold."""

    customer_id: str
    job_id: str
    task_id: str  # the reviewer holds it, to label it
    review_id: str  # the reviewer holds it, to decide it
    labelled_id: str  # the reviewer has labelled it
    annotator_id: str
    webhook_id: str
    delivery_id: str
    key_id: str


# Parameters and fields that name a thing; a new one of such a name is probed by itself.
_NAMES = {"annotator": "annotator_id", "customer": "customer_id", "task_ids": "task_id"} | {
    name: name for name in Things.__struct_fields__
}
# A cursor is the id of the last thing of a page, or a place that says nothing without its list (None).
_OTHERWISE: Mapping[tuple[str, str], str | None] = {
    ("list_jobs", "cursor"): "job_id",
    ("list_keys", "cursor"): "key_id",
    ("list_webhooks", "cursor"): "webhook_id",
    ("list_webhook_deliveries", "cursor"): "delivery_id",
    ("list_leases", "cursor"): "task_id",
    ("list_audit_log", "cursor"): None,
    ("list_customer_loads", "cursor"): None,
    ("list_stream_loads", "cursor"): None,
    ("list_runs", "cursor"): None,
    ("list_delivered_objects", "cursor"): None,
    ("list_disagreements", "cursor"): None,
    ("list_own_labels", "cursor"): None,
    ("get_own_label", "task_id"): "labelled_id",
    ("submit_reviews", "task_id"): "review_id",
}
# Ids of a store at Amazon.
_NOT_OURS = {"access_key_id", "kms_key_id"}

_JOB = {
    "manifest_url": "s3://manifests/one.jsonl",
    "label_spec": {"question": "What is it?", "options": ["cat", "dog"]},
}
_TASK = {
    "type": "image_classification",
    "data_url": "https://images.example/1.jpg",
    "label_spec": _JOB["label_spec"],
}
_BODIES: Mapping[str, Callable[[Things], dict[str, Any]]] = {
    "create_job": lambda _: _JOB,
    "preview_job": lambda _: _JOB | {"task_type": "unknown"},  # it would ask Amazon
    "deliver_job": lambda _: {},
    "create_task": lambda _: _TASK,
    "create_tasks": lambda _: {"tasks": [_TASK]},
    "change_customer": lambda _: {"runs": 3},
    "change_job": lambda _: {"priority": 7},
    "create_webhook": lambda _: {"callback_url": "https://127.0.0.1:1/new"},
    "rotate_webhook_secret": lambda _: {},
    "rotate_default_secret": lambda _: {},
    "create_key": lambda things: {"customer_id": things.customer_id},
    "claim_tasks": lambda things: {
        "limit": 1, "job_id": things.job_id, "annotator_id": things.annotator_id,
    },
    "submit_labels": lambda things: {"labels": [{"task_id": things.task_id, "label": "cat"}]},
    "submit_reviews": lambda things: {"reviews": [{"task_id": things.review_id, "label": "cat"}]},
    "renew_leases": lambda things: {"task_ids": [things.task_id]},
    "release_tasks": lambda things: {"task_ids": [things.task_id]},
}  # fmt: skip
_ALWAYS = {"claim_tasks": {"queue": "review"}, "follow_jobs": {"unknown": "1"}}  # it never ends


class Slot(msgspec.Struct, frozen=True):
    """A place of a request for the id of a thing, which is a field of `Things`."""

    place: str  # path, query or body
    name: str
    thing: str


class Operation(msgspec.Struct, frozen=True):
    """An operation under `/v1` that takes a key."""

    name: str
    method: str
    path: str
    slots: list[Slot]

    @property
    def takes(self) -> set[str]:
        assert self.name in TAKES, "say above whose key it takes"
        return TAKES[self.name]

    @property
    def is_safe(self) -> bool:
        return self.method == "GET"

    def request(self, things: Things, asked: Slot | None = None) -> dict[str, Any]:
        """The arguments of a request for somebody's things; in the query there is `asked` alone."""
        ids = {slot.name: getattr(things, slot.thing) for slot in self.slots}
        params = dict(_ALWAYS.get(self.name, {}))
        if asked and asked.place == "query":
            params[asked.name] = ids[asked.name]
        found: dict[str, Any] = {
            "method": self.method, "url": self.path.format_map(ids), "params": params,
        }  # fmt: skip
        if self.name in _BODIES:
            found["json"] = _BODIES[self.name](things)
        return found


def read_operations(document: Mapping[str, Any]) -> list[Operation]:
    """The operations of an OpenAPI document: those that read first, then those that end things.

    A job is cancelled last of all: one that has ended can be deleted only once.
    """
    found = [
        Operation(
            each["operationId"],
            method.upper(),
            path,
            list(_slots(document, each["operationId"], each)),
        )
        for path, item in document["paths"].items()
        for method, each in item.items()
        if path.startswith("/v1/") and each["operationId"] != "sign_in"
    ]
    order = ("GET", "PATCH", "POST", "DELETE")
    return sorted(found, key=lambda each: (each.name == "cancel_job", order.index(each.method)))


def _slots(document: Mapping[str, Any], name: str, operation: Mapping[str, Any]) -> Iterator[Slot]:
    named = [(each["in"], each["name"]) for each in operation.get("parameters", ())]
    for content in operation.get("requestBody", {}).get("content", {}).values():
        assert name in _BODIES, f"say above what a request of {name} looks like"
        named += [("body", field) for field in sorted(_fields(document, content["schema"]))]
    for place, field in named:
        if field in _NOT_OURS or place == "header":
            continue
        thing = _OTHERWISE.get((name, field), _NAMES.get(field))
        is_id = place == "path" or field == "cursor" or field.endswith(("_id", "_ids"))
        assert thing or (name, field) in _OTHERWISE or not is_id, (
            f"{name}: what is {field} the id of?"
        )
        if thing:
            yield Slot(place, field, thing)


def _fields(
    document: Mapping[str, Any], schema: Any, seen: frozenset[str] = frozenset()
) -> set[str]:
    """The names of all fields within a schema."""
    if isinstance(schema, list):
        return {name for each in schema for name in _fields(document, each, seen)}
    if not isinstance(schema, Mapping):
        return set()
    ref = schema.get("$ref", "").rpartition("/")[2]
    if ref and ref not in seen:
        return _fields(document, document["components"]["schemas"][ref], seen | {ref})
    inner = {name for each in schema.values() for name in _fields(document, each, seen)}
    properties = schema.get("properties", {})
    return inner | set(properties)
