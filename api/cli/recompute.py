"""`refinery verify --recompute`: whether the results of a delivery follow from its single labels."""

import zlib
from collections.abc import Iterator, Set
from itertools import islice
from typing import Any

import msgspec

from api.cli.delivered_lines import Fault, ResultLine, read
from api.cli.exits import UsageError
from api.cli.line_check import LineCheck
from api.cli.line_order import LineOrder
from blocks.delivery_manifest import DeliveredLabels, DeliveryManifest
from blocks.domain.consensus import ALL

_MANIFEST = "manifest.json"
_ERRORS = "errors.jsonl"
_SHOWN_MAX = 100


class NotRecomputable(UsageError):
    """The job was delivered without what its results could be computed from."""

    code = "not_recomputable"


class Problem(msgspec.Struct, frozen=True):
    """What is wrong with one object."""

    object: str
    message: str


class Unreadable(Problem, frozen=True):
    """An object cannot be read to its end."""


class Recomputation:
    """Computes the results of a delivery again, line by line."""

    def __init__(self, manifest: DeliveryManifest) -> None:
        """Take the rule from the manifest.

        Raises:
            NotRecomputable: the job was delivered without its single labels.
        """
        if not manifest.include_labels or manifest.consensus is None:
            raise NotRecomputable(
                f"{manifest.job_id} was delivered without its single labels, so its results cannot be "
                "computed again: submit jobs with `include_labels` for that."
            )
        self._manifest = manifest
        self._check = LineCheck(manifest, manifest.consensus)
        self._order = LineOrder(manifest.job_id)
        self._labels = self._skills = 0
        self._has_read_all = True
        self.lines = 0
        """How many lines were looked at."""

    def find_problems(
        self, fs: Any, folder: str, *, present: Set[str], unreadable: Set[str]
    ) -> Iterator[Problem]:
        """Yield what does not agree: object, line, field; of one object 100 problems at most.

        Of `present` objects, also of those whose checksum is another, every line is looked at; of
        `unreadable` ones as many as can be read, without a word about the rest.
        """
        for each in self._manifest.objects:
            name = each.key.rpartition("/")[2]
            if name not in present:
                self._has_read_all = False
            elif name != _ERRORS:
                for problem in self._problems_of(fs, folder, name):
                    if not (isinstance(problem, Unreadable) and name in unreadable):
                        yield problem
        for name, nth, fault in islice(self._order.list_repeated(), _SHOWN_MAX):
            yield _problem(name, nth, fault)
        said, found = self._manifest.labels, DeliveredLabels.of(self._labels, self._skills)
        if self._has_read_all and said is not None and said != found:
            message = f"labels: It says {_describe(said)}, and the lines have {_describe(found)}."
            yield Problem(_MANIFEST, message)

    def _problems_of(self, fs: Any, folder: str, name: str) -> Iterator[Problem]:
        found, before = 0, self.lines
        self._order.begin(name)
        try:
            for line in read(fs, f"{folder}/{name}"):
                self.lines += 1
                if (fault := self._find_fault(line)) is not None:
                    found += 1
                    if found > _SHOWN_MAX:
                        self._has_read_all = False
                        yield Problem(name, f"More than {_SHOWN_MAX} lines do not agree.")
                        return
                    yield _problem(name, self.lines - before, fault)
        except (OSError, ValueError, EOFError, zlib.error) as error:
            self._has_read_all = False
            yield Unreadable(name, f"Behind line {self.lines - before} it cannot be read: {error}.")

    def _find_fault(self, line: ResultLine | Fault) -> Fault | None:
        """Return the first thing that is wrong with the next line."""
        if not isinstance(line, ResultLine):
            self._order.add(None)
            return line
        self._labels += len(line.labels)
        for each in line.labels:
            if each.skill and 0 < each.skill < 1:
                self._skills += round(each.skill * ALL)
        return self._order.add(line) or next(self._check(line), None)


def _problem(name: str, nth: int, fault: Fault) -> Problem:
    return Problem(name, f"Line {nth}, {fault[0]}: {fault[1]}")


def _describe(labels: DeliveredLabels) -> str:
    return f"{labels.count:,} with skills of {labels.skill_sum:.4f} in sum"
