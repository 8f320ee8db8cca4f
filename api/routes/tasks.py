"""Tasks without a manifest: submit them, look at one, read its result."""

from typing import Any

from litestar import Request, Response, get, post
from litestar.di import NamedDependency
from litestar.openapi import ResponseSpec
from litestar.params import JSONBody

from api.auth import ADMINS_TOO, customer_id, tenant
from api.http.errors import not_found
from api.http.parameters import TaskId
from api.http.refusals import refusals
from api.routes.task_bodies import TaskBody, TasksBody
from api.routes.task_views import (
    BatchAccepted,
    StillLabelled,
    TaskAccepted,
    TaskResult,
    TaskView,
    result,
    view,
)
from blocks.domain.ids import new_id
from blocks.domain.model import TaskStatus
from blocks.settings import Settings
from blocks.store import tasks
from blocks.store.customers import Principal
from blocks.store.database import Database
from blocks.store.quotas import Quota, QuotaExceeded, Quotas
from blocks.store.tasks import CreatedTask, NewTask, Task, stored_bytes

_REFUSALS = (tasks.key_conflict("cat-1"), QuotaExceeded(Quota.OPEN_TASKS, 100_000_000))

_Request = Request[Principal, Any, Any]


@post(
    "/",
    operation_id="create_task",
    summary="Submit a task",
    status_code=202,
    responses={
        200: ResponseSpec(TaskAccepted, description="The task that has this key already."),
        **refusals(*_REFUSALS, takes=TaskBody),
    },
    sync_to_thread=True,
)
def create(
    request: _Request,
    data: JSONBody[TaskBody],
    database: NamedDependency[Database],
    settings: NamedDependency[Settings],
) -> Response[TaskAccepted]:
    """Record a task. With an `idempotency_key` that was used before, the answer is 200 and that task."""
    (created,) = _create(request, database, settings, [data.to_task()])
    if not created.replayed:
        accepted = TaskAccepted(created.task_id, TaskStatus.PENDING, created.created_at)
        return Response(accepted, status_code=202)
    task = _task(request, created.task_id, database)
    accepted = TaskAccepted(created.task_id, task.status, created.created_at, idempotent=True)
    return Response(accepted, status_code=200)


@post(
    "/batch",
    operation_id="create_tasks",
    summary="Submit up to 1,000 tasks",
    status_code=202,
    responses=refusals(*_REFUSALS, takes=TasksBody),
    sync_to_thread=True,
)
def create_batch(
    request: _Request,
    data: JSONBody[TasksBody],
    database: NamedDependency[Database],
    settings: NamedDependency[Settings],
) -> BatchAccepted:
    """Record tasks, all of them or none. `task_ids` are in their order."""
    batch_id = new_id("bat")
    created = _create(request, database, settings, data.to_tasks(), batch_id)
    return BatchAccepted(batch_id, len(created), [task.task_id for task in created])


@get(
    "/{task_id:str}",
    operation_id="get_task",
    summary="State of a task",
    opt=ADMINS_TOO,
    responses=refusals(not_found("task")),
    sync_to_thread=True,
)
def read(request: _Request, task_id: TaskId, database: NamedDependency[Database]) -> TaskView:
    """Return a task, submitted inline or from a manifest."""
    return view(_task(request, task_id, database))


@get(
    "/{task_id:str}/result",
    operation_id="get_task_result",
    summary="Result of a task",
    opt=ADMINS_TOO,
    responses={
        200: ResponseSpec(TaskResult, description="The task is settled or failed."),
        202: ResponseSpec(StillLabelled, description="There is no result yet."),
        **refusals(not_found("task")),
    },
    sync_to_thread=True,
)
def read_result(
    request: _Request, task_id: TaskId, database: NamedDependency[Database]
) -> Response[TaskResult | StillLabelled]:
    """Return the fields of an export line once the task is settled or failed; 202 before."""
    task = _task(request, task_id, database)
    if task.status in (TaskStatus.PENDING, TaskStatus.IN_PROGRESS):
        return Response(StillLabelled(), status_code=202)
    return Response(result(task), status_code=200)


def _create(
    request: _Request,
    database: Database,
    settings: Settings,
    new: list[NewTask],
    batch_id: str | None = None,
) -> list[CreatedTask]:
    owner = customer_id(request)
    quotas: Quotas = request.app.state.quotas
    with database.transaction() as tx:
        created = tasks.create(tx, owner, new, settings.vault(), batch_id=batch_id)
        made = [task for task, each in zip(new, created, strict=True) if not each.replayed]
        if made:
            open_max = settings.open_tasks_per_customer_max
            quotas.check(tx, owner, Quota.OPEN_TASKS, open_max, added=len(made))
            bytes_max, added = settings.stored_bytes_per_customer_max, sum(map(stored_bytes, made))
            quotas.check(tx, owner, Quota.STORED_BYTES, bytes_max, added=added)
    return created


def _task(request: _Request, task_id: str, database: Database) -> Task:
    with database.transaction() as tx:
        task = tasks.get(tx, task_id, customer_id=tenant(request))
    if task is None:
        raise not_found("task")
    return task


HANDLERS = [create, create_batch, read, read_result]
