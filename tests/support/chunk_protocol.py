"""The protocol by which runs read the chunks of a manifest: flows/reading/ingestion.py, blocks/store/chunks.py.

Some runs read one job at once, twins that Prefect or an operator has started. Any is killed at any moment, and
started again; its connection is lost, and with it the answer to a COMMIT; the customer cancels the job.
A step is a statement or a commit, so everything between two of them can be interrupted.
"""

from collections.abc import Iterator
from enum import StrEnum
from typing import NamedTuple


class At(StrEnum):
    """Where a run is."""

    START = "start"
    READING = "reading"
    CLAIMED = "claimed"
    FILLED = "filled"
    COUNTED = "counted"
    DONE = "done"


class Run(NamedTuple):
    """A run: its place, the chunks that it still has to read (as bits), and the one that it has claimed."""

    at: At = At.START
    todo: int = 0
    chunk: int = -1


class State(NamedTuple):
    """The committed rows of the database, the runs, and the transactions that dead processes have left open."""

    job: str
    rows: tuple[int, ...]
    """Rows of `chunks`, by chunk."""
    tasks: tuple[int, ...]
    """How often the tasks of each chunk are there."""
    late: bool
    """Tasks were committed after the job's end."""
    miscounted: bool
    """A run found fewer chunks than there must be."""
    runs: tuple[Run, ...]
    orphans: tuple[int, ...]
    """The chunks that transactions without a process hold."""
    kills: int
    cuts: int


class Fault(StrEnum):
    """What could have been built instead, and is wrong."""

    CLAIM_COMMITS = "a claim is committed by itself, before the tasks"
    CLAIM_LOOKS = "a claim looks for the chunk's row, and inserts none"
    CLAIM_PASSES = "a claim passes over a chunk that another run holds"
    JOB_UNLOCKED = "a claim does not keep the job from ending"
    COMMITS_ANEW = "a commit whose answer is lost is tried again without a claim"


class ChunkProtocol:
    """Chunks of one job, read by several runs; `kills` and `cuts` (of connections) happen at most."""

    def __init__(
        self,
        *,
        runs: int = 2,
        chunks: int = 3,
        kills: int = 2,
        cuts: int = 1,
        fault: Fault | None = None,
    ) -> None:
        self._runs, self._chunks, self._kills, self._cuts = runs, chunks, kills, cuts
        self._fault = fault

    def begin(self) -> State:
        none = (0,) * self._chunks
        runs = (Run(),) * self._runs
        return State("processing", none, none, False, False, runs, (), self._kills, self._cuts)

    def find_wrong(self, state: State) -> str | None:
        if any(tasks > 1 for tasks in state.tasks):
            return "Tasks are doubled"
        if any(rows and not tasks for rows, tasks in zip(state.rows, state.tasks, strict=True)):
            return "A chunk is recorded without its tasks"
        if state.job == "read" and not all(state.tasks):
            return "Lines are lost"
        if state.late:
            return "Tasks were added after the job's end"
        if state.miscounted:
            return "A run counts fewer lines than it read"
        return None

    def is_end(self, state: State) -> bool:
        return (
            state.job != "processing"
            and not state.orphans
            and all(run.at is At.DONE for run in state.runs)
        )

    def steps(self, state: State) -> Iterator[tuple[str, State]]:
        for n, run in enumerate(state.runs):
            if run.at is At.DONE:
                continue
            for step, following in self._go_on(state, n, run):
                yield f"{n}: {step}", following
            if state.kills:
                yield from self._kill(state, n, run)
        for chunk in state.orphans:
            orphans = list(state.orphans)
            orphans.remove(chunk)
            yield f"the server rolls back chunk {chunk}", state._replace(orphans=tuple(orphans))
        if state.job == "processing" and (
            self._fault is Fault.JOB_UNLOCKED or not _is_locked(state)
        ):
            yield "the customer cancels", state._replace(job="cancelled")

    def _go_on(self, state: State, n: int, run: Run) -> Iterator[tuple[str, State]]:
        is_due = state.job == "processing"
        match run.at:
            case At.START if is_due:
                todo = sum(1 << chunk for chunk, rows in enumerate(state.rows) if not rows)
                yield "lists what is missing", _move(state, n, Run(At.READING, todo))
            case At.READING if is_due and run.todo:
                for chunk in range(self._chunks):
                    if run.todo >> chunk & 1:
                        yield from self._claim(state, n, run, chunk)
            case At.READING if is_due:
                counted = _move(state, n, Run(At.COUNTED))
                yield "counts", counted._replace(miscounted=not all(state.rows))
            case At.CLAIMED:
                yield f"writes chunk {run.chunk}", _move(state, n, run._replace(at=At.FILLED))
            case At.FILLED:
                yield from self._commit(state, n, run)
            case At.COUNTED if is_due:
                if not _is_locked(state):
                    yield "finishes", _move(state, n, Run(At.DONE))._replace(job="read")
            case _:
                yield "finds nothing to do", _move(state, n, Run(At.DONE))

    def _claim(self, state: State, n: int, run: Run, chunk: int) -> Iterator[tuple[str, State]]:
        done = _move(state, n, Run(At.READING, run.todo & ~(1 << chunk)))
        claimed = _move(state, n, run._replace(at=At.CLAIMED, chunk=chunk))
        if self._fault is not Fault.CLAIM_LOOKS and _is_held(state, chunk):
            if self._fault is Fault.CLAIM_PASSES:
                yield f"passes over chunk {chunk}", done
            return  # it waits
        if state.rows[chunk]:
            yield f"finds chunk {chunk} recorded", done
        elif self._fault is Fault.CLAIM_COMMITS:
            yield f"claims chunk {chunk}", claimed._replace(rows=_add(state.rows, chunk))
        else:
            yield f"claims chunk {chunk}", claimed

    def _commit(self, state: State, n: int, run: Run) -> Iterator[tuple[str, State]]:
        chunk = run.chunk
        again = Run(At.READING, run.todo)
        yield (
            f"commits chunk {chunk}",
            self._record(_move(state, n, Run(At.READING, run.todo & ~(1 << chunk))), chunk),
        )
        if state.cuts:
            cut = _move(state, n, run if self._fault is Fault.COMMITS_ANEW else again)._replace(
                cuts=state.cuts - 1
            )
            yield f"loses the answer to its commit of chunk {chunk}", self._record(cut, chunk)
            left = _leave_open(_move(state, n, again), chunk)
            yield f"loses its connection with chunk {chunk}", left._replace(cuts=state.cuts - 1)

    def _kill(self, state: State, n: int, run: Run) -> Iterator[tuple[str, State]]:
        killed = _move(state, n, Run())._replace(kills=state.kills - 1)
        if run.chunk < 0:
            yield f"{n}: is killed", killed
            return
        yield f"{n}: is killed with chunk {run.chunk}", _leave_open(killed, run.chunk)
        if run.at is At.FILLED:
            yield (
                f"{n}: is killed, and chunk {run.chunk} is committed",
                self._record(killed, run.chunk),
            )

    def _record(self, state: State, chunk: int) -> State:
        rows = state.rows if self._fault is Fault.CLAIM_COMMITS else _add(state.rows, chunk)
        return state._replace(
            rows=rows, tasks=_add(state.tasks, chunk), late=state.late or state.job == "cancelled"
        )


def _move(state: State, n: int, run: Run) -> State:
    return state._replace(runs=(*state.runs[:n], run, *state.runs[n + 1 :]))


def _add(numbers: tuple[int, ...], place: int) -> tuple[int, ...]:
    return (*numbers[:place], numbers[place] + 1, *numbers[place + 1 :])


def _leave_open(state: State, chunk: int) -> State:
    """Leave a transaction to the server, which notices after a while that its client is gone."""
    return state._replace(orphans=tuple(sorted((*state.orphans, chunk))))


def _is_held(state: State, chunk: int) -> bool:
    """Return whether a transaction that has inserted the chunk's row is open."""
    return chunk in state.orphans or any(run.chunk == chunk for run in state.runs)


def _is_locked(state: State) -> bool:
    """Return whether a transaction is open that keeps the job from ending."""
    return bool(state.orphans) or any(run.chunk >= 0 for run in state.runs)
