"""Run the annotators of a measurement in a process of their own: `python -m benchmarks.annotators`.

Writes a line once it can begin, reads a `Plan` as JSON from standard input, and writes `Counts` to
standard output. Each annotator is
a thread that claims, answers every task that was claimed, and claims again: at once, or at its time.
"""

import itertools
import random
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import msgspec

from benchmarks.wire import Connection

ACCURACY = 0.9
_TAKEN = ("accepted", "settled")


class RanDry(Exception):
    """A claim came back empty, though there must be tasks that nobody was handed."""


class NotTaken(Exception):
    """A label was refused, though its annotator had claimed the task."""


class Plan(msgspec.Struct, frozen=True):
    """Say what to do until when, by the monotonic clock, which all processes of a machine share.

    The loops run from the start of the process to `end_s`. Requests that are answered between `begin_s`
    and `end_s` count; those before warm connections, caches and plans.

    With `period_s` each annotator begins a claim every so many seconds, and hands its labels in half a
    period later. One who is late does not wait, and the latency of a claim is counted from the time at
    which it was due, so a slow server does not have fewer requests to answer.
    """

    host: str
    port: int
    keys: list[str]
    options: list[str]
    batch: int
    begin_s: float
    end_s: float
    period_s: float = 0.0


class Counts(msgspec.Struct):
    """Collect the latencies in seconds of the requests that count, and their results.

    `settled` counts tasks, `cpu_s` the processor time of this process between begin and end. The claims
    of `late_claims_s` are those of the last tenth of the time.
    """

    claims_s: list[float] = []
    late_claims_s: list[float] = []
    labels_s: list[float] = []
    labels: int = 0
    settled: int = 0
    cpu_s: float = 0.0

    def add(self, other: "Counts") -> None:
        self.claims_s += other.claims_s
        self.late_claims_s += other.late_claims_s
        self.labels_s += other.labels_s
        self.labels += other.labels
        self.settled += other.settled


class _Task(msgspec.Struct, frozen=True):
    task_id: str


class _Claimed(msgspec.Struct, frozen=True):
    tasks: list[_Task]


class _Outcome(msgspec.Struct, frozen=True):
    outcome: str


class _Outcomes(msgspec.Struct, frozen=True):
    results: list[_Outcome]


_claimed = msgspec.json.Decoder(_Claimed)
_outcomes = msgspec.json.Decoder(_Outcomes)


def main() -> None:
    """Run a plan."""
    print(flush=True)
    plan = msgspec.json.decode(sys.stdin.buffer.read(), type=Plan)
    failed = threading.Event()
    counts = Counts()
    with ThreadPoolExecutor(len(plan.keys)) as threads:
        loops = [threads.submit(_Annotator(plan, n, failed).run) for n in range(len(plan.keys))]
        _sleep_until(plan.begin_s)
        cpu_s = time.process_time()
        _sleep_until(plan.end_s)
        counts.cpu_s = time.process_time() - cpu_s
        for loop in loops:
            counts.add(loop.result())
    sys.stdout.buffer.write(msgspec.json.encode(counts))


def _sleep_until(moment_s: float) -> None:
    time.sleep(max(0.0, moment_s - time.monotonic()))


def true_option(task_id: str, options: Sequence[str]) -> str:
    """Return the right option of a task, which follows from its id."""
    return options[sum(task_id.encode()) % len(options)]


def answer(task_id: str, options: Sequence[str], generator: random.Random) -> str:
    """Return the right option in `ACCURACY` of all cases, else any other."""
    true = true_option(task_id, options)
    if generator.random() < ACCURACY:
        return true
    return generator.choice([option for option in options if option != true])


class _Annotator:
    """Work in one loop, with one key and one connection; the first that fails ends all loops."""

    def __init__(self, plan: Plan, number: int, failed: threading.Event) -> None:
        self._plan = plan
        self._key = plan.keys[number]
        self._failed = failed
        self._random = random.Random(self._key)
        self._counts = Counts()
        self._claim_body = msgspec.json.encode({"limit": plan.batch})
        # The annotators' times are spread evenly over a period.
        self._first_s = time.monotonic() + plan.period_s * number / len(plan.keys)

    def run(self) -> Counts:
        """Work to the end, and return the counts of this annotator.

        Raises:
            NotOk: the API answered anything but 200.
            RanDry: there was nothing to claim.
            NotTaken: a label was refused.
        """
        try:
            with Connection(self._plan.host, self._plan.port, self._key) as connection:
                for due_s in self._due_times():
                    tasks = self._claim(connection, due_s)
                    _sleep_until(due_s + self._plan.period_s / 2)
                    self._answer(connection, tasks)
        except BaseException:
            self._failed.set()
            raise
        return self._counts

    def _due_times(self) -> Iterator[float]:
        """Yield when each claim is due, at that time or later, until the end."""
        for n in itertools.count():
            due_s = self._first_s + n * self._plan.period_s
            if self._plan.period_s:
                _sleep_until(min(due_s, self._plan.end_s))
            else:
                due_s = time.monotonic()
            if time.monotonic() >= self._plan.end_s or self._failed.is_set():
                return
            yield due_s

    def _claim(self, connection: Connection, due_s: float) -> list[_Task]:
        content = connection.post("/v1/annotation/claim", self._claim_body)
        end_s = time.monotonic()
        tasks = _claimed.decode(content).tasks
        if not tasks:
            raise RanDry("A claim came back empty.")
        if self._counts_at(end_s):
            self._counts.claims_s.append(end_s - due_s)
            if end_s > self._plan.end_s - (self._plan.end_s - self._plan.begin_s) / 10:
                self._counts.late_claims_s.append(end_s - due_s)
        return tasks

    def _answer(self, connection: Connection, tasks: list[_Task]) -> None:
        labels = [
            {
                "task_id": task.task_id,
                "label": answer(task.task_id, self._plan.options, self._random),
            }
            for task in tasks
        ]
        body = msgspec.json.encode({"labels": labels})
        begin_s = time.monotonic()
        content = connection.post("/v1/annotation/labels", body)
        end_s = time.monotonic()
        outcomes = [result.outcome for result in _outcomes.decode(content).results]
        if len(outcomes) != len(tasks) or any(each not in _TAKEN for each in outcomes):
            raise NotTaken(f"{len(tasks)} labels were answered by {outcomes}")
        if self._counts_at(end_s):
            self._counts.labels_s.append(end_s - begin_s)
            self._counts.labels += len(outcomes)
            self._counts.settled += outcomes.count("settled")

    def _counts_at(self, moment_s: float) -> bool:
        return self._plan.begin_s <= moment_s <= self._plan.end_s


if __name__ == "__main__":
    main()
