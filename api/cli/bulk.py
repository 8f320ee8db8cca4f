"""`refinery ops cancel`, `retry`, `pause` and so on: one act for many jobs, a request for each.

All of them can be done again: what is done stays done, so a command that broke off is simply repeated.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

from cyclopts import Parameter

from api.cli.client import COMMON, Client, Common, path
from api.cli.exits import CommandFailed, Exit, Unreachable, UsageError
from api.cli.fields import ranged
from api.cli.job_choice import (
    FILTERS,
    Filters,
    Job,
    has_failed_delivery,
    has_work_left,
    read_ids,
    waits_for_run,
)
from api.cli.output import note, print_json, print_text
from blocks.domain.limits import PRIORITY_MAX, PRIORITY_MIN
from blocks.domain.model import JobStatus

_Ids = Annotated[
    list[str] | None,
    Parameter(help="Ids of jobs; - reads them from standard input.", allow_leading_hyphen=True),
]
_DryRun = Annotated[
    bool, Parameter(negative=(), help="Print which jobs it would be done to, and do nothing.")
]
_Yes = Annotated[
    bool,
    Parameter(negative=(), help="Do it, to however many jobs. On a terminal, two or more want it."),
]


class _Act(NamedTuple):
    """What is done to a job: how it is called, where it is asked for, and for which jobs it can be.

    With `changes` it is a change of the job to these values.
    """

    name: str
    outcome: str
    path: Callable[[str], str]
    may_repeat: bool
    fits: Callable[[Job], bool]
    changes: Mapping[str, int] | None = None

    def ask(self, client: Client, job_id: str) -> None:
        """Ask for it to be done to a job.

        Raises:
            CommandFailed: it is refused, or the job that was resumed is paused with its customer.
        """
        if self.changes is not None:
            client.patch(self.path(job_id), self.changes)
            return
        job = client.post(self.path(job_id), again=self.may_repeat)
        if self.name == "resume" and job["paused_at"]:
            raise CommandFailed("It goes on when its customer is resumed, too.", Exit.FAILED)


_CANCEL = _Act(
    "cancel",
    "cancelled",
    lambda job_id: path("jobs", job_id, "cancel"),
    True,
    lambda job: job["status"] in (JobStatus.ACCEPTED, JobStatus.PROCESSING),
)
_RETRY = _Act(
    "retry",
    "retried",
    lambda job_id: path("operations", "jobs", job_id, "retry"),
    True,
    waits_for_run,
)
_DELIVER = _Act(
    "deliver",
    "is delivered again",
    lambda job_id: path("jobs", job_id, "deliver"),
    False,  # the second request would be refused: it is under way
    has_failed_delivery,
)
_PAUSE = _Act(
    "pause",
    "paused",
    lambda job_id: path("operations", "jobs", job_id, "pause"),
    True,
    lambda job: job["paused_at"] is None and has_work_left(job),
)
_RESUME = _Act(
    "resume",
    "resumed",
    lambda job_id: path("operations", "jobs", job_id, "resume"),
    True,
    lambda job: job["paused_at"] is not None,
)


def cancel(
    job_ids: _Ids = None,
    /,
    *,
    filters: Filters = FILTERS,
    dry_run: _DryRun = False,
    yes: _Yes = False,
    common: Common = COMMON,
) -> None:
    """Stop jobs: those of these ids, or all under way that the filters leave."""
    _do(_CANCEL, job_ids, filters, common, dry_run=dry_run, yes=yes)


def retry(
    job_ids: _Ids = None,
    /,
    *,
    filters: Filters = FILTERS,
    dry_run: _DryRun = False,
    yes: _Yes = False,
    common: Common = COMMON,
) -> None:
    """Start the waiting work of jobs now: of these ids, or of all that wait for Prefect or a store.

    Also where an operator stopped the last run.
    """
    _do(_RETRY, job_ids, filters, common, dry_run=dry_run, yes=yes)


def deliver(
    job_ids: _Ids = None,
    /,
    *,
    filters: Filters = FILTERS,
    dry_run: _DryRun = False,
    yes: _Yes = False,
    common: Common = COMMON,
) -> None:
    """Try deliveries again: of these ids, or all that were refused, as the filters leave them."""
    _do(_DELIVER, job_ids, filters, common, dry_run=dry_run, yes=yes)


def pause(
    job_ids: _Ids = None,
    /,
    *,
    filters: Filters = FILTERS,
    dry_run: _DryRun = False,
    yes: _Yes = False,
    common: Common = COMMON,
) -> None:
    """Begin nothing new for jobs: those of these ids, or all with work left that the filters leave.

    With --customer alone, for the customer: for all that they have, and what they post until they are
    resumed.
    """
    _do_to_jobs_or_customer(_PAUSE, job_ids, filters, common, dry_run=dry_run, yes=yes)


def resume(
    job_ids: _Ids = None,
    /,
    *,
    filters: Filters = FILTERS,
    dry_run: _DryRun = False,
    yes: _Yes = False,
    common: Common = COMMON,
) -> None:
    """Go on with paused jobs: those of these ids, or all that the filters leave.

    With --customer alone, with the customer; jobs that were paused by themselves stay so.
    """
    _do_to_jobs_or_customer(_RESUME, job_ids, filters, common, dry_run=dry_run, yes=yes)


def priority(
    job_ids: _Ids = None,
    /,
    *,
    to: Annotated[int, ranged("The new one, from 0 to 9.", PRIORITY_MIN, PRIORITY_MAX)],
    filters: Filters = FILTERS,
    dry_run: _DryRun = False,
    yes: _Yes = False,
    common: Common = COMMON,
) -> None:
    """Give jobs another priority: those of these ids, or all with work left that the filters leave.

    Their work is begun, and their tasks are handed out, before those of a lower one.
    """
    act = _Act(
        f"go by priority {to}",
        f"has priority {to}",
        lambda job_id: path("operations", "jobs", job_id),
        True,
        lambda job: job["priority"] != to and has_work_left(job),
        {"priority": to},
    )
    _do(act, job_ids, filters, common, dry_run=dry_run, yes=yes)


def _do_to_jobs_or_customer(
    act: _Act,
    given: Sequence[str] | None,
    filters: Filters,
    common: Common,
    *,
    dry_run: bool,
    yes: bool,
) -> None:
    if not given and filters.customer and filters == Filters(customer=filters.customer):
        _do_to_customer(act, filters.customer, common, dry_run=dry_run, yes=yes)
    else:
        _do(act, given, filters, common, dry_run=dry_run, yes=yes)


def _do_to_customer(
    act: _Act, customer_id: str, common: Common, *, dry_run: bool, yes: bool
) -> None:
    if not dry_run and not yes and is_terminal():
        raise UsageError(f"This is for all jobs of {customer_id}: --yes does it.")
    with common.client() as client:
        if not dry_run:
            where = path("operations", "customers", customer_id, act.name)
            client.post(where, again=act.may_repeat)
    outcome = f"would be asked to {act.name}" if dry_run else act.outcome
    if common.as_json:
        print_json({"customer_id": customer_id, "outcome": None if dry_run else "done"})
    else:
        print_text(f"{customer_id}  {outcome}")


def _do(
    act: _Act,
    given: Sequence[str] | None,
    filters: Filters,
    common: Common,
    *,
    dry_run: bool,
    yes: bool,
) -> None:
    if bool(given) == (filters != FILTERS):
        raise UsageError("Say which jobs: by ids, or by filters such as --customer.")
    with common.client() as client:
        ids = read_ids(given) if given else _choose(client, act, filters)
        if dry_run:
            _print([(job_id, f"would be asked to {act.name}") for job_id in ids], common)
            return
        if len(ids) > 1 and not yes and is_terminal():
            raise UsageError(f"This is for {len(ids)} jobs: --dry-run shows them, --yes does it.")
        outcomes = _ask(client, act, ids, common)
    _print_end(outcomes, common)


def is_terminal() -> bool:
    """Return whether somebody types this, or looks at what is printed."""
    return sys.stdin.isatty() or sys.stdout.isatty()


def _choose(client: Client, act: _Act, filters: Filters) -> list[str]:
    return [job["job_id"] for job in filters.find(client) if act.fits(job)]


_Outcome = tuple[str, str | None]


def _ask(client: Client, act: _Act, ids: Sequence[str], common: Common) -> list[_Outcome]:
    """Ask for each job, and print what came of it; return why it was refused, or None.

    Raises:
        Unreachable: the API does not answer; the rest was not asked for.
    """
    outcomes: list[_Outcome] = []
    for job_id in ids:
        reason = None
        try:
            act.ask(client, job_id)
        except Unreachable:
            note(f"{len(outcomes)} of {len(ids)} were asked for; the same command does the rest.")
            raise
        except CommandFailed as error:
            reason = str(error)
        outcomes.append((job_id, reason))
        if not common.as_json:
            print_text(f"{job_id}  {act.outcome if reason is None else reason}")
    return outcomes


def _print(lines: Sequence[tuple[str, str]], common: Common) -> None:
    if common.as_json:
        print_json({"jobs": [{"job_id": job_id, "outcome": None} for job_id, _ in lines]})
        return
    for job_id, what in lines:
        print_text(f"{job_id}  {what}")
    note(f"{len(lines)} jobs")


def _print_end(outcomes: Sequence[_Outcome], common: Common) -> None:
    refused = sum(reason is not None for _, reason in outcomes)
    if common.as_json:
        jobs: list[dict[str, Any]] = [
            {"job_id": job_id, "outcome": "refused" if reason else "done", "message": reason}
            for job_id, reason in outcomes
        ]
        print_json({"jobs": jobs})
    note(f"{len(outcomes) - refused} of {len(outcomes)} jobs")
    if refused:
        raise CommandFailed(f"{refused} of {len(outcomes)} jobs were refused.", Exit.FAILED)
