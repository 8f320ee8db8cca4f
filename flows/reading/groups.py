"""Read the chunks of a manifest in groups: in Prefect, a task run costs more than a small chunk."""

import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from prefect.context import FlowRunContext
from tenacity import RetryCallState

from blocks.domain.errors import RefineryError, RunEnded, Terminal, Transient
from flows.reading import ingestion
from flows.reading.ingestion import Range
from flows.reading.ranges import ReadAhead
from flows.running.deadlines import Deadline
from flows.running.monitor import ChunkSeen, run_log, see_chunk
from flows.running.policy import step_retries
from flows.running.resources import AlreadyDone, UnknownJob
from flows.running.setbacks import PROCESS_JOB

# A group has so many chunks or more, unless too few are left to keep all that may be in flight busy.
_CHUNKS_A_GROUP_MIN = 8
# With several groups for each chunk in flight, none waits long for the last group of a wave.
_GROUPS_FOR_EACH_IN_FLIGHT_MAX = 4


class GroupFailed(RefineryError):
    """A chunk of a group could not be recorded; `seen` are the chunks that were, `error` says why."""

    code = "group_failed"

    def __init__(self, error: Exception, seen: Sequence[ChunkSeen]) -> None:
        super().__init__(_reason(error))
        self.error = error
        self.seen = seen

    def __reduce__(self) -> tuple[Any, ...]:
        # It comes back from other processes, too.
        return type(self), (self.error, self.seen)


def cut_groups(ranges: Sequence[Range], in_flight: int) -> list[Sequence[Range]]:
    """Cut ranges into groups, in order, whose sizes differ by one at most."""
    for_each = len(ranges) // (in_flight * _CHUNKS_A_GROUP_MIN)
    for_each = min(max(for_each, 1), _GROUPS_FOR_EACH_IN_FLIGHT_MAX)
    groups = min(in_flight * for_each, len(ranges))
    cuts = [len(ranges) * n // groups for n in range(groups + 1)] if groups else []
    return [ranges[start:end] for start, end in pairwise(cuts)]


def create_tasks(job_id: str, ranges: Sequence[Range], deadline: Deadline) -> list[ChunkSeen]:
    """Record the lines of each range, one after the other, and return the chunks.

    Each chunk is tried again by itself, and the others are tried even if it fails, so that a rerun has
    less to do. If an operator has paused the run, no further chunk is begun.

    Raises:
        GroupFailed: a chunk failed, by a store, by the database or for good; or no time is left.
    """
    seen: list[ChunkSeen] = []
    failed: Exception | None = None
    has_waited = False
    ahead = ReadAhead(ranges[-1][2])
    for chunk in ranges:
        if _is_paused():
            break
        try:
            deadline.check()
            seen.append(_create(job_id, chunk, ahead, is_tried_again=not has_waited))
        except (Terminal, AlreadyDone, UnknownJob, RunEnded) as error:
            failed = error
            break
        except Exception as error:  # noqa: BLE001 - it is raised when the other chunks were tried
            run_log(job_id=job_id).warning("chunk.failed", chunk=chunk[0], reason=_reason(error))
            has_waited = has_waited or isinstance(error, Transient)
            failed = failed or error
    if failed:
        raise GroupFailed(failed, seen) from failed
    return seen


def _create(job_id: str, chunk: Range, ahead: ReadAhead, *, is_tried_again: bool) -> ChunkSeen:
    chunk_no, start, end = chunk
    began_s = time.monotonic()
    retries = 0

    def tell(state: RetryCallState) -> None:
        nonlocal retries
        retries += 1
        error = state.outcome.exception() if state.outcome else None
        run_log(job_id=job_id).warning(
            "chunk.tried_again", chunk=chunk_no, reason=_reason(error), in_s=state.upcoming_sleep
        )

    create = ingestion.create_tasks
    if is_tried_again:
        create = step_retries(job_id, PROCESS_JOB, tell=tell).wraps(create)
    made = create(job_id, chunk_no, start, end, ahead)
    return see_chunk(job_id, chunk_no, made, began_s, limits=(start, end), retries=retries)


def _reason(error: BaseException | None) -> str:
    # The text of an error of ours may quote customers' data.
    return error.message if isinstance(error, RefineryError) else type(error).__name__


def _is_paused() -> bool:
    """Return True if an operator has paused the run; other processes of the run are not told."""
    run = FlowRunContext.get()
    return run is not None and run.flow_run_suspension_request.is_requested()
