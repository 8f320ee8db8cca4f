"""Tell which options there are, where somebody has chosen another one."""

from collections.abc import Iterable
from itertools import islice

from blocks.domain.ids import parse_task_id
from blocks.domain.wrong_values import HINTS_MAX, did_you_mean, shorten
from blocks.store import labelling
from blocks.store.database import Transaction

_JOBS_TOLD_MAX = 20  # a job may have 100 kB of options


class OptionHints:
    """The options of the first jobs of some tasks; asks the database only if there are tasks."""

    def __init__(self, tx: Transaction, task_ids: Iterable[str]) -> None:
        jobs = dict.fromkeys(map(_job_id, task_ids))
        told = list(islice(jobs, _JOBS_TOLD_MAX))
        self._options = labelling.list_options(tx, told) if told else {}
        self._hints = iter(range(HINTS_MAX))

    def of(self, task_id: str, label: str) -> str:
        """Return why a label cannot be one of a task: a sentence with the options."""
        options = self._options.get(_job_id(task_id))
        if options is None:
            return "This is none of the options in the task's label_spec."
        hint = did_you_mean(label, options, self._hints)
        return f"The options are {shorten(', '.join(options))}.{hint}"


def _job_id(task_id: str) -> str:
    key = parse_task_id(task_id)
    assert key is not None  # its job is known, and has other options
    return key[0]
