"""The protocol by which runs deliver a job: flows/writing/delivery.py and folder.py, blocks/store/sql/jobs.sql.

Some runs deliver one job at once, twins that Prefect or an operator has started. Any is killed at any moment, and
started again, perhaps by a worker with other settings; answers of the store and of the database are lost; the customer
cancels the job. A step is one request to the store or one transaction.

Results make two parts or one, by the size of parts that is in force; behind them comes the object of lines without a
result. What stands in an object is told by that size: two deliveries of one size have the same bytes.
"""

from collections.abc import Iterator
from enum import StrEnum
from itertools import pairwise
from typing import NamedTuple

SIZES = (1, 2)
"""Sizes of parts, by how many parts they make of the results."""
ERRORS = 2
"""The place of the lines without a result in `State.objects`; the parts are in those before."""


class At(StrEnum):
    """Which step a run is in."""

    BEGIN = "begin"
    FIND = "find"
    PARTS = "parts"
    ERRORS = "errors"
    MANIFEST = "manifest"
    TIDY = "tidy"
    FINISH = "finish"
    REFUSE = "refuse"
    DONE = "done"


class Doing(StrEnum):
    """How far it is within its step."""

    NOTHING = "nothing yet"
    NEXT = "about to send an object"
    SENDING = "sending an object"
    GONE = "sending an object whose upload was aborted"
    LOOKED = "about to write a manifest where none stood"
    ABORTED = "about to remove parts"


class Run(NamedTuple):
    """A run: its step, how far it is, the size of its parts, and the object that comes next."""

    at: At = At.BEGIN
    doing: Doing = Doing.NOTHING
    size: int = 0
    place: int = 0


class State(NamedTuple):
    """The job's row, the objects of its folder, and the runs."""

    status: str
    size: int
    """The size of parts that the job's row names; 0 before its first run."""
    objects: tuple[int, ...]
    """What stands in the parts and behind them; 0 for nothing."""
    manifest: int
    """The size of parts of the delivery that the manifest describes; 0 without one."""
    runs: tuple[Run, ...]
    kills: int
    cuts: int


class Fault(StrEnum):
    """What could have been built instead, and is wrong."""

    SIZE_OF_THE_RUN = "each run makes parts by its own setting"
    MANIFEST_FIRST = "the manifest is written before the objects"
    FINISHED_FIRST = "the delivery is recorded before the manifest is written"
    EXISTING_REFUSED = "a manifest that stands there refuses the delivery"
    GONE_IS_FINAL = "an upload that is gone refuses the delivery"


_ORDER = (At.PARTS, At.ERRORS, At.MANIFEST, At.TIDY, At.FINISH, At.DONE)
_ORDERS = {
    Fault.MANIFEST_FIRST: (At.MANIFEST, At.PARTS, At.ERRORS, At.TIDY, At.FINISH, At.DONE),
    Fault.FINISHED_FIRST: (At.PARTS, At.ERRORS, At.FINISH, At.MANIFEST, At.TIDY, At.DONE),
}
_DUE = ("pending", "delivering")


class DeliveryProtocol:
    """One delivery by several runs; `kills` and `cuts` (answers that are lost) happen at most.

    Without `conditional`, the store cannot write on condition that nothing is there.
    """

    def __init__(
        self,
        *,
        runs: int = 2,
        kills: int = 2,
        cuts: int = 2,
        conditional: bool = True,
        fault: Fault | None = None,
    ) -> None:
        self._runs, self._kills, self._cuts = runs, kills, cuts
        self._conditional, self._fault = conditional, fault
        order = _ORDERS.get(fault, _ORDER) if fault else _ORDER
        self._first, self._after = order[0], dict(pairwise(order))

    def begin(self) -> State:
        return State("pending", 0, (0, 0, 0), 0, (Run(),) * self._runs, self._kills, self._cuts)

    def find_wrong(self, state: State) -> str | None:
        if state.manifest and not _stands(state, state.manifest):
            return "The manifest describes objects that do not stand there"
        if state.status == "delivered" and not state.manifest:
            return "The delivery is recorded without a manifest"
        if state.status == "refused":
            return "The delivery is refused, and nothing stands in its way"
        return None

    def is_end(self, state: State) -> bool:
        over = state.status in ("delivered", "cancelled")
        return over and all(run.at is At.DONE for run in state.runs)

    def steps(self, state: State) -> Iterator[tuple[str, State]]:
        for n, run in enumerate(state.runs):
            if run.at is At.DONE:
                continue
            for step, following in self._go_on(state, n, run):
                yield f"{n}: {step}", following
            if state.kills and run != Run():
                yield f"{n}: is killed", _move(state, n, Run())._replace(kills=state.kills - 1)
        if state.status in _DUE:
            yield "the customer cancels", state._replace(status="cancelled")

    def _go_on(self, state: State, n: int, run: Run) -> Iterator[tuple[str, State]]:
        if (
            run.doing is Doing.NOTHING
            and run.at not in (At.FINISH, At.REFUSE)
            and state.status not in _DUE
        ):
            yield "finds nothing to do", _move(state, n, Run(At.DONE))
            return
        match run.at:
            case At.BEGIN:
                yield from self._begin(state, n)
            case At.FIND:
                yield "looks for a manifest", _move(state, n, self._find(state, run))
            case At.PARTS | At.ERRORS:
                yield from self._write(state, n, run)
            case At.MANIFEST:
                yield from self._describe(state, n, run)
            case At.TIDY:
                yield from self._tidy(state, n, run)
            case At.FINISH:
                yield from self._finish(state, n, run)
            case _:
                status = "refused" if state.status == "delivering" else state.status
                yield "refuses the delivery", _move(state._replace(status=status), n, Run(At.DONE))

    def _begin(self, state: State, n: int) -> Iterator[tuple[str, State]]:
        """Begin by any setting: the first run records its own, which the others take."""
        recorded = () if self._fault is Fault.SIZE_OF_THE_RUN else (state.size,) * bool(state.size)
        for size in recorded or SIZES:
            begun = state._replace(status="delivering", size=state.size or size)
            yield f"begins, with {size} parts", _move(begun, n, Run(At.FIND, size=size))

    def _find(self, state: State, run: Run) -> Run:
        if not state.manifest:
            return Run(self._first, size=run.size)
        if not _stands(state, state.manifest):
            return Run(At.REFUSE)
        return Run(At.TIDY, size=state.manifest)

    def _write(self, state: State, n: int, run: Run) -> Iterator[tuple[str, State]]:
        if run.doing is Doing.NOTHING:
            place = ERRORS if run.at is At.ERRORS else 0
            yield "looks at the job", _move(state, n, run._replace(doing=Doing.NEXT, place=place))
        elif run.doing is Doing.NEXT:
            yield f"begins object {run.place}", _move(state, n, run._replace(doing=Doing.SENDING))
        else:
            yield from self._complete(state, n, run)

    def _complete(self, state: State, n: int, run: Run) -> Iterator[tuple[str, State]]:
        again = run._replace(doing=Doing.NOTHING, place=0)
        if run.doing is Doing.GONE:
            final = self._fault is Fault.GONE_IS_FINAL
            yield "finds its upload gone", _move(state, n, Run(At.REFUSE) if final else again)
            return
        objects = list(state.objects)
        objects[run.place] = _content(run.place, run.size)
        sent = state._replace(objects=tuple(objects))
        more = run.at is At.PARTS and run.place + 1 < run.size
        following = (
            run._replace(doing=Doing.NEXT, place=run.place + 1) if more else self._follow(run)
        )
        yield f"completes object {run.place}", _move(sent, n, following)
        if state.cuts:
            cut = sent._replace(cuts=state.cuts - 1)
            yield f"completes object {run.place}, and loses the answer", _move(cut, n, again)

    def _describe(self, state: State, n: int, run: Run) -> Iterator[tuple[str, State]]:
        following = self._follow(run)
        if state.manifest and run.doing is Doing.NOTHING:
            wrong = self._fault is Fault.EXISTING_REFUSED or state.manifest != run.size
            yield "finds a manifest", _move(state, n, Run(At.REFUSE) if wrong else following)
        elif run.doing is Doing.NOTHING and not self._conditional:
            yield "finds no manifest", _move(state, n, run._replace(doing=Doing.LOOKED))
        else:
            written = state._replace(manifest=run.size)
            yield "writes the manifest", _move(written, n, following)
            if state.cuts:
                cut = written._replace(cuts=state.cuts - 1)
                again = run._replace(doing=Doing.NOTHING)
                yield "writes the manifest, and loses the answer", _move(cut, n, again)

    def _tidy(self, state: State, n: int, run: Run) -> Iterator[tuple[str, State]]:
        if run.doing is Doing.NOTHING:
            aborted = state._replace(runs=tuple(map(_aborted, state.runs)))
            yield "aborts uploads", _move(aborted, n, run._replace(doing=Doing.ABORTED))
        else:
            yield (
                "removes other parts",
                _move(_without_others(state, run.size), n, self._follow(run)),
            )

    def _finish(self, state: State, n: int, run: Run) -> Iterator[tuple[str, State]]:
        status = "delivered" if state.status == "delivering" else state.status
        done = state._replace(status=status)
        yield "records the delivery", _move(done, n, self._follow(run))
        if state.cuts:
            yield "records it, and loses the answer", done._replace(cuts=state.cuts - 1)

    def _follow(self, run: Run) -> Run:
        at = self._after[run.at]
        return Run(at) if at is At.DONE else Run(at, size=run.size)


def _move(state: State, n: int, run: Run) -> State:
    return state._replace(runs=(*state.runs[:n], run, *state.runs[n + 1 :]))


def _aborted(run: Run) -> Run:
    return run._replace(doing=Doing.GONE) if run.doing is Doing.SENDING else run


def _without_others(state: State, size: int) -> State:
    """Remove the parts that a delivery of that size has not."""
    kept = _places(size)
    return state._replace(
        objects=tuple(each if place in kept else 0 for place, each in enumerate(state.objects))
    )


def _places(size: int) -> tuple[int, ...]:
    return (*range(size), ERRORS)


def _content(place: int, size: int) -> int:
    """Return what stands in an object: the lines without a result are the same by any size."""
    return 1 if place == ERRORS else size


def _stands(state: State, size: int) -> bool:
    """Return whether all objects of a delivery of that size stand there."""
    return all(state.objects[place] == _content(place, size) for place in _places(size))
