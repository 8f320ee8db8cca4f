"""Deliveries: try a failed one again, or deliver a job that asked for none."""

from collections.abc import Iterator
from typing import Any

import msgspec
from litestar import Request, post
from litestar.di import NamedDependency
from litestar.params import JSONBody

from api.auth import ADMINS_TOO, actor
from api.http.errors import ApiError, conflict, invalid_request, not_found
from api.http.parameters import JobId
from api.http.refusals import refusals
from api.routes.job_views import JobView
from api.routes.jobs import find_job, show
from blocks.bodies.fields import Body, Fault, RawObject, struct_faults, value_of
from blocks.bodies.jobs import CredentialsBody, DeliveryBody, RawDelivery, s3_only_faults
from blocks.domain.model import DeliveryStatus, JobStatus
from blocks.secrets.credentials import credentials_type
from blocks.secrets.vault import Vault
from blocks.store import audit, jobs
from blocks.store.audit import Action
from blocks.store.customers import Principal
from blocks.store.database import Database
from blocks.store.jobs import DeliveryTarget, Job

_Request = Request[Principal, Any, Any]


class DeliverBody(Body, frozen=True, kw_only=True):
    """Changes to the recorded delivery. A field that is left out stays as it was.

    Another `type`, `bucket`, `prefix`, `kms_key_id` or `acl` than the recorded one needs `credentials`.
    """

    credentials: CredentialsBody | None = None
    """Used for the delivery instead of those that the job has."""
    delivery: DeliveryBody | None = None
    """Where to write to instead of the recorded place."""

    @classmethod
    def related_faults(cls, raw: RawObject) -> Iterator[Fault]:
        """Yield the fields that are for S3 only."""
        delivery = value_of(raw.get("delivery"), RawDelivery)
        if delivery is not None:
            yield from s3_only_faults(delivery.store, delivery)


def _conflict(status: JobStatus, delivery: DeliveryStatus | None = None) -> ApiError:
    match status:
        case JobStatus.FAILED | JobStatus.CANCELLED:
            what = "has failed" if status is JobStatus.FAILED else "was cancelled"
            return conflict(f"job_{status}", f"job {what}; it is not delivered")
        case JobStatus.COMPLETED if delivery is DeliveryStatus.DELIVERED:
            return conflict("already_delivered", "job was delivered already")
        case JobStatus.COMPLETED:
            return conflict("delivery_under_way", "job is being delivered just now")
    return conflict("job_not_completed", "job is not completed yet; it is delivered when it is")


@post(
    "/{job_id:str}/deliver",
    operation_id="deliver_job",
    summary="Deliver again",
    opt=ADMINS_TOO,
    responses=refusals(
        not_found("job"),
        _conflict(JobStatus.PROCESSING),
        _conflict(JobStatus.FAILED),
        _conflict(JobStatus.CANCELLED),
        _conflict(JobStatus.COMPLETED, DeliveryStatus.DELIVERED),
        _conflict(JobStatus.COMPLETED, DeliveryStatus.DELIVERING),
        takes=DeliverBody,
    ),
    status_code=202,
    sync_to_thread=True,
)
def deliver(
    request: _Request,
    job_id: JobId,
    data: JSONBody[DeliverBody],
    database: NamedDependency[Database],
    vault: NamedDependency[Vault],
) -> JobView:
    """Try a delivery that failed once more, with other credentials, or with those elsewhere."""
    job = find_job(request, job_id, database)
    _check_due(job)
    target, credentials = _wanted(job, data)
    with database.transaction() as tx:
        accepted = jobs.redeliver(tx, job, target, credentials, vault)
        if accepted:
            audit.record(
                tx,
                actor(request),
                Action.DELIVERY_BEGUN,
                audit.job(job),
                elsewhere=target != job.delivery,
                new_credentials=credentials is not None,
            )
    job = find_job(request, job_id, database)
    if not accepted:
        raise _conflict(job.status, job.delivery_status)
    return show(job, database)


def _wanted(job: Job, data: DeliverBody) -> tuple[DeliveryTarget, bytes | None]:
    target = data.delivery.to_target() if data.delivery else job.delivery
    if target is None:
        message = "The job asked for no delivery; say where to."
        raise invalid_request([Fault("delivery", message)])
    if data.credentials is None:
        if job.delivery is None or target.place != job.delivery.place:
            message = (
                "A delivery to another place than the recorded one brings its own credentials: those "
                "that the job has are for that place alone."
            )
            raise invalid_request([Fault("credentials", message)])
        if job.credentials_wiped_at and not job.credentials:
            message = "The job's credentials were wiped; give some for this delivery."
            raise invalid_request([Fault("credentials", message)])
        return target, None
    store = target.type
    given = msgspec.json.decode(
        msgspec.json.encode(data.credentials.list_given()), type=dict[str, msgspec.Raw]
    )
    faults = list(struct_faults(given, credentials_type(store), "credentials"))
    if faults:
        raise invalid_request(faults)
    return target, data.credentials.encode(store)


def _check_due(job: Job) -> None:
    if job.status is not JobStatus.COMPLETED or job.delivery_status not in {
        None,
        DeliveryStatus.FAILED,
    }:
        raise _conflict(job.status, job.delivery_status)


HANDLERS = [deliver]
