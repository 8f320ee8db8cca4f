"""Whether the lines of a delivery are in the order of the manifest, each of a task of its own."""

from array import array
from bisect import bisect_right
from collections.abc import Iterator

from api.cli.delivered_lines import Fault, ResultLine
from blocks.domain.ids import task_ids

_NUMBERS_END = 2**60  # those of tasks are below


class LineOrder:
    """Compares each line with those before it, in whatever objects they are. It keeps 8 bytes a line."""

    def __init__(self, job_id: str) -> None:
        self._prefix = task_ids(job_id)
        self._last_line = 0
        # Of each line the number in its task's id; one that no task has, where there is none.
        self._numbers = array("Q")
        self._starts: list[int] = []
        self._objects: list[str] = []

    def begin(self, name: str) -> None:
        """Go on with the first line of another object."""
        self._starts.append(len(self._numbers))
        self._objects.append(name)

    def add(self, line: ResultLine | None) -> Fault | None:
        """Take the next line, None for one that cannot be read; return what is wrong with its place."""
        number = None if line is None else self._number_of(line.task_id)
        self._numbers.append(_NUMBERS_END + len(self._numbers) if number is None else number)
        if line is None:
            return None
        if number is None:
            return "task_id", f"{line.task_id!r} is no task of this job."
        return self._compare(line.line)

    def list_repeated(self) -> Iterator[tuple[str, int, Fault]]:
        """Yield the lines whose task another one before has: object, line there, and fault."""
        import polars as pl
        import pyarrow as pa

        buffers = [None, pa.py_buffer(self._numbers)]
        numbers = pl.Series(pa.Array.from_buffers(pa.uint64(), len(self._numbers), buffers))
        ordered = numbers.sort()
        repeated = ordered.filter(ordered == ordered.shift(1)).unique()
        if repeated.is_empty():
            return
        known: dict[int, int] = {}
        for at in numbers.is_in(repeated.implode()).arg_true():
            first = known.setdefault(numbers[at], at)
            if first != at:
                name, nth = self._find(at)
                earlier, place = self._find(first)
                fault = f"Line {place} of {earlier} is of the same task."
                yield name, nth, ("task_id", fault)

    def _find(self, at: int) -> tuple[str, int]:
        """Return the object of a line, and its place in that, 1-based."""
        nth = bisect_right(self._starts, at) - 1
        return self._objects[nth], at - self._starts[nth] + 1

    def _number_of(self, task_id: str) -> int | None:
        """Return the number in a task's id; None if it is not of this job."""
        digits = task_id.removeprefix(self._prefix)
        try:
            number = int(digits)
        except ValueError:
            return None
        is_ours = task_id.startswith(self._prefix) and str(number) == digits
        return number if is_ours and 0 <= number < _NUMBERS_END else None

    def _compare(self, line: int | None) -> Fault | None:
        """Compare a line's number with that of the line before; None is a number that nobody knows."""
        if line is None:
            return None
        before, self._last_line = self._last_line, line
        if line > before:
            return None
        return (
            "line",
            f"It says {line:,}, and has to be more than {before:,}, as of the line before.",
        )
