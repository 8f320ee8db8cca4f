"""Tasks in the hands of annotators: claimed, listed, renewed, handed back; labels are in `labels`."""

from datetime import datetime
from typing import Annotated, Any, ClassVar

import msgspec
from litestar import Request, Response, get, post
from litestar.di import NamedDependency
from litestar.params import HeaderParameter, JSONBody, QueryParameter
from msgspec import Meta

from api.auth import annotator_no, reviewer_no
from api.http.bodies import digest
from api.http.errors import invalid_request, not_a_reviewer, not_found, unknown_cursor
from api.http.parameters import AN_ANNOTATOR, PAGE_LIMIT, Cursor, check_annotator_id
from api.http.refusals import refusals
from api.metrics import Metrics
from api.routes.claimed_views import Claimed, show_claimed, show_review, show_signed
from api.signing import Signed, UrlSigner, find_sealed
from blocks.bodies.fields import Body, Checks, Fault
from blocks.domain.model import (
    Queue,
    ReleaseOutcome,
    RenewOutcome,
    ReviewReason,
    TaskType,
    UnsignedReason,
)
from blocks.settings import Settings
from blocks.store import annotation, lease_returns, leases, reviews
from blocks.store.annotation import ClaimKey
from blocks.store.customers import Principal
from blocks.store.database import Database, Transaction
from blocks.store.leases import Renewed
from blocks.store.reviews import Wanted

_BATCH_MAX = 500
_PAGE_DEFAULT = 100
_LEASE_S_MAX = 24 * 3600
_RETRY_AFTER_S = 5

_Request = Request[Principal, Any, Any]
_IdempotencyKey = Annotated[
    str | None,
    HeaderParameter(
        name="Idempotency-Key",
        min_length=1,
        max_length=255,
        description="The same key and body gives the same tasks again, as long as they are held.",
    ),
]


_Queue = Annotated[
    Queue,
    QueryParameter(
        description="`review`: tasks under review, to decide. It takes a reviewer's key."
    ),
]


class ClaimBody(Body, frozen=True, kw_only=True):
    """How many tasks, for how long, and which."""

    limit: Annotated[int, Meta(ge=1, le=_BATCH_MAX)]
    """How many tasks to take at most."""
    lease_seconds: Annotated[int, Meta(ge=1, le=_LEASE_S_MAX)] | None = None
    """How long to hold them; null is as long as the service is set to."""
    task_types: Annotated[list[TaskType], Meta(min_length=1, max_length=len(TaskType))] | None = (
        None
    )
    """Only tasks of these types; null is all."""
    job_id: str | None = None
    """Only tasks of this job; null is all."""
    reason: ReviewReason | None = None
    """With `queue=review`: only tasks that are under review for this reason; null is all."""
    annotator_id: Annotated[str, Meta(extra_json_schema=AN_ANNOTATOR)] | None = None
    """With `queue=review`: only tasks that this annotator has labelled or skipped; null is all."""

    checks: ClassVar[Checks] = {"annotator_id": check_annotator_id}

    def for_review(self) -> Wanted:
        """Return which tasks under review are wanted."""
        return Wanted(
            task_types=self.task_types,
            job_id=self.job_id,
            reason=self.reason,
            annotator_id=self.annotator_id,
        )

    def check_is_to_label(self) -> None:
        """Pass if the claim asks for nothing that only tasks under review have.

        Raises:
            ApiError: 400, it does.
        """
        given = {"reason": self.reason, "annotator_id": self.annotator_id}
        faults = [
            Fault(name, "This goes with queue=review alone.")
            for name, value in given.items()
            if value is not None
        ]
        if faults:
            raise invalid_request(faults)


class HeldTasks(msgspec.Struct, frozen=True):
    """A page of what the annotator holds; `next_cursor` is null on the last page."""

    tasks: list[Claimed]
    """What is held, of all claims."""
    next_cursor: str | None
    """The `cursor` of the next page; null on the last one."""


class ClaimedTasks(msgspec.Struct, frozen=True):
    """The tasks of a claim. Without any, `retry_after_s` says whether more may come."""

    tasks: list[Claimed]
    """The tasks to label; empty where there is nothing to do just now."""
    retry_after_s: int | msgspec.UnsetType | None = msgspec.UNSET
    """Only where `tasks` is empty: in how many seconds to ask again, as more may come. Null where the
    `job_id` that was asked for has nothing left for this annotator, now or later."""


class RenewBody(Body, frozen=True, kw_only=True):
    """Tasks that the annotator holds and needs for longer."""

    task_ids: Annotated[list[str], Meta(min_length=1, max_length=_BATCH_MAX)]
    """The tasks to hold on to."""
    lease_seconds: Annotated[int, Meta(ge=1, le=_LEASE_S_MAX)] | None = None
    """How long to hold them from now on; null is as long as the service is set to."""


class Renewal(msgspec.Struct, frozen=True):
    """What became of one task that was to be held for longer."""

    task_id: str
    """The task."""
    outcome: RenewOutcome
    """Whether it is held for longer; `not_held` where it is not the annotator's, or not any more."""
    lease_expires_at: datetime | msgspec.UnsetType = msgspec.UNSET
    """Until when the task is held now; missing where it is not."""
    signed_url: str | msgspec.UnsetType = msgspec.UNSET
    """A new one, for the longer lease, where a claim shows one."""
    unsigned_reason: UnsignedReason | msgspec.UnsetType = msgspec.UNSET
    """Why there is no `signed_url` where the job asks for one; else missing."""


class Renewals(msgspec.Struct, frozen=True):
    """One for each task, in their order."""

    results: list[Renewal]
    """What became of each task."""


class ReleaseBody(Body, frozen=True, kw_only=True):
    """Tasks that the annotator holds and will not label."""

    task_ids: Annotated[list[str], Meta(min_length=1, max_length=_BATCH_MAX)]
    """The tasks to hand back."""


class Release(msgspec.Struct, frozen=True):
    """What became of one task that was handed back."""

    task_id: str
    """The task."""
    outcome: ReleaseOutcome
    """Whether it was handed back; `not_held` where it was not the annotator's."""


class Releases(msgspec.Struct, frozen=True):
    """One for each task, in their order."""

    results: list[Release]
    """What became of each task."""


@post(
    "/claim",
    operation_id="claim_tasks",
    summary="Take tasks",
    responses=refusals(leases.key_conflict(), not_found("job"), not_a_reviewer(), takes=ClaimBody),
    status_code=200,
    sync_to_thread=True,
)
def claim(
    request: _Request,
    data: JSONBody[ClaimBody],
    database: NamedDependency[Database],
    settings: NamedDependency[Settings],
    metrics: NamedDependency[Metrics],
    *,
    url_signer: NamedDependency[UrlSigner],
    queue: _Queue = Queue.LABEL,
    idempotency_key: _IdempotencyKey = None,
) -> Response[ClaimedTasks]:
    """Take tasks to label, for a while; never one that this annotator has labelled or holds.

    Without any, `retry_after_s` says when to ask again, or by null that nothing is left of the job.
    With `queue=review` reviewers take tasks to decide, each with its votes; never one that they have
    labelled or skipped.
    """
    key = ClaimKey(idempotency_key, digest(data)) if idempotency_key else None
    if queue is Queue.REVIEW:
        return _claim_reviews(database, settings, url_signer, reviewer_no(request), data, key=key)
    data.check_is_to_label()
    annotator = annotator_no(request)
    with database.transaction() as tx:
        if key:
            lease_returns.await_claims(tx, annotator)
        earlier = leases.find_claimed(tx, annotator, key) if key else []
        tasks = earlier or annotation.claim(
            tx,
            annotator,
            limit=data.limit,
            lease_s=data.lease_seconds or settings.lease_s,
            task_types=data.task_types,
            job_id=data.job_id,
            key=key,
        )
        sealed = find_sealed(tx, tasks)
        may_come = bool(tasks) or _may_come(tx, annotator, data)
    if may_come is None:
        raise not_found("job")
    metrics.claimed_tasks.inc(0 if earlier else len(tasks))
    signed = url_signer.sign(tasks, sealed)
    shown = [show_claimed(task, signed) for task in tasks]
    return _answer(shown, is_replayed=bool(earlier), may_come=may_come)


def _claim_reviews(
    database: Database,
    settings: Settings,
    url_signer: UrlSigner,
    reviewer: int,
    asked: ClaimBody,
    *,
    key: ClaimKey | None,
) -> Response[ClaimedTasks]:
    with database.transaction() as tx:
        if key:
            lease_returns.await_claims(tx, reviewer)
        earlier = reviews.find_claimed(tx, reviewer, key) if key else []
        found = earlier or reviews.claim(
            tx,
            reviewer,
            limit=asked.limit,
            lease_s=asked.lease_seconds or settings.lease_s,
            wanted=asked.for_review(),
            key=key,
        )
        tasks = [each.task for each in found]
        sealed = find_sealed(tx, tasks)
        may_come: bool | None = True
        if not found and asked.job_id is not None:
            may_come = reviews.may_come(tx, reviewer, asked.job_id)
    if may_come is None:
        raise not_found("job")
    signed = url_signer.sign(tasks, sealed)
    shown = [show_review(each, signed) for each in found]
    return _answer(shown, is_replayed=bool(earlier), may_come=may_come)


def _answer(tasks: list[Claimed], *, is_replayed: bool, may_come: bool) -> Response[ClaimedTasks]:
    if not tasks:
        return Response(ClaimedTasks([], _RETRY_AFTER_S if may_come else None))
    headers = {"Idempotent-Replayed": "true"} if is_replayed else None
    return Response(ClaimedTasks(tasks), headers=headers)


def _may_come(tx: Transaction, annotator: int, asked: ClaimBody) -> bool | None:
    """Return whether tasks may come later; always true without a job, as another may be posted."""
    if asked.job_id is None:
        return True
    return annotation.may_come(tx, annotator, asked.job_id, asked.task_types)


@get(
    "/leases",
    operation_id="list_leases",
    summary="Tasks that are held",
    responses=refusals(not_a_reviewer()),
    sync_to_thread=True,
)
def index(
    request: _Request,
    database: NamedDependency[Database],
    url_signer: NamedDependency[UrlSigner],
    *,
    queue: _Queue = Queue.LABEL,
    limit: Annotated[
        int, QueryParameter(ge=1, le=_BATCH_MAX, description=PAGE_LIMIT)
    ] = _PAGE_DEFAULT,
    cursor: Cursor = None,
) -> HeldTasks:
    """Return a page of the tasks that the annotator has claimed, in all claims, and not labelled yet.

    With `queue=review` those that a reviewer has claimed, and not decided yet.
    """
    if queue is Queue.REVIEW:
        return _list_reviews(database, url_signer, reviewer_no(request), limit, cursor)
    with database.transaction() as tx:
        found = leases.list_page(tx, annotator_no(request), limit=limit, after=cursor)
        if found is None:
            raise unknown_cursor()
        sealed = find_sealed(tx, found.tasks)
    signed = url_signer.sign(found.tasks, sealed)
    return HeldTasks([show_claimed(task, signed) for task in found.tasks], found.last)


def _list_reviews(
    database: Database, url_signer: UrlSigner, reviewer: int, limit: int, cursor: str | None
) -> HeldTasks:
    with database.transaction() as tx:
        found = reviews.list_page(tx, reviewer, limit=limit, after=cursor)
        if found is None:
            raise unknown_cursor()
        tasks = [each.task for each in found.reviews]
        sealed = find_sealed(tx, tasks)
    signed = url_signer.sign(tasks, sealed)
    return HeldTasks([show_review(each, signed) for each in found.reviews], found.last)


@post(
    "/renew",
    operation_id="renew_leases",
    summary="Hold tasks for longer",
    responses=refusals(takes=RenewBody),
    status_code=200,
    sync_to_thread=True,
)
def renew(
    request: _Request,
    data: JSONBody[RenewBody],
    database: NamedDependency[Database],
    settings: NamedDependency[Settings],
    url_signer: NamedDependency[UrlSigner],
) -> Renewals:
    """Hold tasks for longer, with the rest of the claims that they are of; never for a shorter time.

    A lease that has run out is not renewed, even where nobody else was handed the task yet. Tasks that
    are held for review are renewed one by one, up to their deadline.
    """
    lease_s, annotator = data.lease_seconds or settings.lease_s, annotator_no(request)
    renewed: dict[str, Renewed] = {}
    with database.transaction() as tx:
        if request.user.is_reviewer:
            renewed |= reviews.renew(tx, annotator, data.task_ids, lease_s=lease_s)
        renewed |= leases.renew(tx, annotator, data.task_ids, lease_s=lease_s)
        tasks = leases.describe_to_sign(tx, renewed.values())
        sealed = find_sealed(tx, tasks)
    signed = url_signer.sign(tasks, sealed)
    return Renewals([_renewal(id_, renewed.get(id_), signed) for id_ in data.task_ids])


def _renewal(task_id: str, held: Renewed | None, signed: Signed) -> Renewal:
    if held is None:
        return Renewal(task_id, RenewOutcome.NOT_HELD)
    fields = show_signed(signed.get(task_id))
    return Renewal(task_id, RenewOutcome.RENEWED, held.expires_at, **fields)


@post(
    "/release",
    operation_id="release_tasks",
    summary="Hand tasks back",
    responses=refusals(takes=ReleaseBody),
    status_code=200,
    sync_to_thread=True,
)
def release(
    request: _Request, data: JSONBody[ReleaseBody], database: NamedDependency[Database]
) -> Releases:
    """Hand tasks back without a label. Others get them; this annotator does if nothing else is left.

    The same for tasks that are held for review.
    """
    annotator = annotator_no(request)
    released: set[str] = set()
    with database.transaction() as tx:
        if request.user.is_reviewer:
            released |= reviews.release(tx, annotator, data.task_ids)
        released |= annotation.release(tx, annotator, data.task_ids)
    outcomes = {True: ReleaseOutcome.RELEASED, False: ReleaseOutcome.NOT_HELD}
    return Releases([Release(id_, outcomes[id_ in released]) for id_ in data.task_ids])


HANDLERS = [claim, index, renew, release]
