"""Which jobs an operator means: by ids, or by filters over the jobs of all customers."""

import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from cyclopts import Parameter

from api.cli.client import Client, path
from api.cli.exits import UsageError
from api.cli.times import AGO, read_time
from blocks.domain.model import JobStatus, WaitsFor
from blocks.domain.wrong_values import shorten

_PAGE = 100
Job = Mapping[str, Any]


@Parameter(name="*")
@dataclass(frozen=True)
class Filters:
    """Filters of jobs: all of those that are given."""

    customer: Annotated[
        str | None, Parameter(name="--customer", help="Jobs of this customer alone, by id.")
    ] = None
    status: Annotated[
        str | None,
        Parameter(
            name="--status",
            help="Jobs in this state alone.",
            choices=[each.value for each in JobStatus],
        ),
    ] = None
    search: Annotated[
        str | None,
        Parameter(
            name="--search", help="Jobs with this text in their id, question or manifest URL."
        ),
    ] = None
    stream: Annotated[
        str | None,
        Parameter(
            name="--stream",
            help="Jobs alone that streams of this name have made, the latest for each manifest.",
        ),
    ] = None
    older_than: Annotated[
        str | None, Parameter(name="--older-than", help=f"Jobs submitted before this: {AGO}.")
    ] = None
    waiting_for: Annotated[
        str | None,
        Parameter(
            name="--waiting-for",
            help="Jobs that wait for this alone.",
            choices=[each.value for each in WaitsFor],
        ),
    ] = None
    stuck: Annotated[
        bool,
        Parameter(
            name="--stuck",
            negative=(),
            help="Jobs alone that wait for Prefect or a store, or whose delivery has failed.",
        ),
    ] = False

    def find(self, client: Client) -> Iterator[Job]:
        """Yield the jobs that these filters leave, the newest first, as they are read page by page."""
        before = read_time(self.older_than)
        submitted_before = datetime.fromisoformat(before) if before else None
        asked = {
            "customer": self.customer,
            "status": self.status,
            "search": self.search,
            "stream": self.stream,
        }
        cursor = None
        while True:
            page = client.get(path("jobs"), **asked, limit=_PAGE, cursor=cursor)
            yield from (job for job in page["jobs"] if self._takes(job, submitted_before))
            cursor = page["next_cursor"]
            if cursor is None:
                return

    def _takes(self, job: Job, before: datetime | None) -> bool:
        waits_for = job["waiting_for"]["what"] if job["waiting_for"] else None
        return (
            (before is None or datetime.fromisoformat(job["created_at"]) < before)
            and self.waiting_for in (None, waits_for)
            and (not self.stuck or is_stuck(job))
        )


FILTERS = Filters()
_STUCK = {WaitsFor.PREFECT, WaitsFor.STORE, WaitsFor.DELIVERY}


def is_stuck(job: Job) -> bool:
    """Return whether a job waits for something that somebody may have to mend."""
    return waits_for_run(job) or has_failed_delivery(job)


def waits_for_run(job: Job) -> bool:
    """Return whether a job waits for Prefect or a store."""
    return bool(job["waiting_for"]) and job["waiting_for"]["what"] in _STUCK


def has_work_left(job: Job) -> bool:
    """Return whether a job has not ended, or is to be delivered."""
    delivery = (job["delivery"] or {}).get("status")
    return not JobStatus(job["status"]).has_ended or delivery in ("pending", "delivering")


def has_failed_delivery(job: Job) -> bool:
    """Return whether the delivery of a job was refused."""
    return (
        job["status"] == JobStatus.COMPLETED and (job["delivery"] or {}).get("status") == "failed"
    )


def read_ids(given: Iterable[str]) -> list[str]:
    """Return ids of jobs without those that come twice; `-` stands for all on standard input.

    Raises:
        UsageError: one of them is no id, such as an option that is not there: `--dryrun`.
    """
    ids: list[str] = []
    for each in given:
        ids += sys.stdin.read().split() if each == "-" else [each]
    for each in ids:
        if not each.startswith("job_"):
            raise UsageError(f"{shorten(each)!r} is not the id of a job: those begin with job_.")
    return list(dict.fromkeys(ids))
