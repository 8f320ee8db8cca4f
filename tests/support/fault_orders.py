"""The jobs of one trial, the annotators at work on them, and whoever watches over the API meanwhile."""

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.support.crowd_annotator import Floor, RestlessAnnotator, Wire
from tests.support.ledger import opinion
from tests.support.manifests import Manifest

ASK_S_MAX = 2.0
POLL_S = 0.1


@dataclass
class Order:
    """One job of a trial: its manifest, and when what happened to it (monotonic seconds)."""

    name: str
    manifest: Manifest
    body: dict[str, Any]
    job_id: str = ""
    seen: dict[str, Any] = field(default_factory=dict)
    read_at: float | None = None
    completed_at: float | None = None

    @property
    def lines(self) -> int:
        return len(self.manifest.good) + len(self.manifest.bad)

    def look(self, customer: httpx.Client) -> None:
        """Ask for the job, and note since when it is read and completed."""
        with contextlib.suppress(httpx.HTTPError):
            answer = customer.get(f"/v1/jobs/{self.job_id}", timeout=ASK_S_MAX).raise_for_status()
            self.seen = answer.json()
            now = time.monotonic()
            if self.read_at is None and self.seen["total_tasks"] == self.lines:
                self.read_at = now
            if self.completed_at is None and self.seen["status"] == "completed":
                self.completed_at = now


@dataclass
class PacedFloor(Floor):
    """A floor of whose jobs some come later, with work that lasts until it is wanted quickly."""

    job_ids: list[str] = field(default_factory=list)
    pace_s: float = 0.2
    hurry: threading.Event = field(default_factory=threading.Event)


class SteadyAnnotator(RestlessAnnotator):
    """The nth of four, who does all that they claim, and tells it until somebody has heard it."""

    def __init__(self, floor: PacedFloor, wire: Wire, number: int, nth: int, seed: str) -> None:
        super().__init__(floor, wire, number, seed)
        self._paced = floor
        self._opinion = opinion(nth)

    def work(self) -> None:
        """Until the trial is over."""
        while not self._floor.stopping.is_set():
            tasks = self._claim()
            labels = [(task["task_id"], self._opinion(task)) for task in tasks]
            while labels and not self._label_once(labels) and not self._floor.stopping.is_set():
                pass
            if not tasks:
                self._floor.stopping.wait(POLL_S)
            elif not self._paced.hurry.is_set():
                self._paced.hurry.wait(self._paced.pace_s)

    def _post(self, what: str, body: Mapping[str, Any]) -> Any:
        answer = self.wire.post(f"/v1/annotation/{what}", body)
        if answer is None:
            self._floor.stopping.wait(POLL_S)
        return answer


class Gap:
    """The longest time in seconds that a request went without a good answer, asked for all the time."""

    def __init__(self, ask: Callable[[], httpx.Response]) -> None:
        self.longest_s = 0.0
        self._ask = ask
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        good_at = time.monotonic()
        while not self._stopping.is_set():
            with contextlib.suppress(httpx.HTTPError):
                if self._ask().is_success:
                    good_at = time.monotonic()
            self._stopping.wait(POLL_S)
            self.longest_s = max(self.longest_s, time.monotonic() - good_at)

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()


class Latecomer:
    """A customer who posts a job while all goes wrong, again and again until it is accepted."""

    def __init__(self, url: str, headers: Mapping[str, str], order: Order) -> None:
        self._url, self._order = url, order
        self._headers = {**headers, "Idempotency-Key": f"late {time.monotonic_ns()}"}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.said: list[tuple[float, int]] = []
        self._thread.start()

    def _run(self) -> None:
        ids = [self._post(), self._post()]  # the second time as somebody who heard no answer
        assert ids[0] == ids[1], f"one key made two jobs: {ids}"

    def _post(self) -> str:
        while not self._stopping.is_set():
            with contextlib.suppress(httpx.TransportError):
                answer = httpx.post(
                    f"{self._url}/v1/jobs",
                    json=self._order.body,
                    headers=self._headers,
                    timeout=ASK_S_MAX,
                )
                if answer.status_code == httpx.codes.ACCEPTED:
                    self._order.job_id = answer.json()["job_id"]
                    return self._order.job_id
                assert answer.status_code == httpx.codes.SERVICE_UNAVAILABLE, answer.text
                assert answer.headers["Retry-After"]
            self._stopping.wait(POLL_S)
        raise AssertionError("nobody accepted the job")

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()
