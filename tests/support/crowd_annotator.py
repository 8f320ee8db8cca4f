"""An annotator who does at random what annotators do: late, twice, not at all, and without a word."""

import http.client
import json
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from blocks.domain.ids import parse_task_id
from tests.support.records import Grant, Record, Release, Vote

_ANSWER_S_MAX = 30.0
_NOTHING_TO_DO_S = 0.03
# All short: what is lost with an annotator or with the API has to come back while the test runs.
_LEASES_S = (1, 1, 2, 4)
_LIMITS = (1, 3, 10, 40)
_BATCHES = (1, 4, 15, 40)
_FATES = {"label": 76, "again": 8, "hang_up": 6, "pocket": 6, "crash": 4}

Labels = list[tuple[str, str]]


class Wire:
    """A connection to the API that is opened when it is needed."""

    def __init__(self, url: str, key: str, *, answer_s_max: float = _ANSWER_S_MAX) -> None:
        address = urlsplit(url)
        assert address.hostname
        kind = (
            http.client.HTTPSConnection if address.scheme == "https" else http.client.HTTPConnection
        )
        self._http = kind(address.hostname, address.port, timeout=answer_s_max)
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """The answer; None if there was none, or if the service was not available."""
        try:
            self._http.request("POST", path, json.dumps(body), self._headers)
            response = self._http.getresponse()
            text = response.read()
        except (OSError, http.client.HTTPException):
            self.close()
            return None
        if response.status == http.HTTPStatus.SERVICE_UNAVAILABLE:
            return None
        assert response.status == http.HTTPStatus.OK, f"{path}: {response.status} {text!r}"
        return json.loads(text)

    def post_and_hang_up(self, path: str, body: Mapping[str, Any]) -> None:
        """Send it, and do not wait for what comes back."""
        try:
            self._http.request("POST", path, json.dumps(body), self._headers)
        except (OSError, http.client.HTTPException):
            pass  # which is the same to somebody who does not look
        finally:
            self.close()

    def close(self) -> None:
        self._http.close()


def choose_any(task: Mapping[str, Any], annotator_no: int, dice: random.Random) -> str:
    """Any option of a task."""
    option: str = dice.choice(task["label_spec"]["options"])
    return option


@dataclass
class Floor:
    """What all annotators share: which tasks there are, whether the API is up, when to stop.

    Without a `task_type` they ask for one job or another, and never for whatever there is. `choose` has
    the label that an annotator of a number gives a task.
    """

    job_ids: Sequence[str]
    task_type: str | None = None
    leases_s: Sequence[int] = _LEASES_S
    limits: Sequence[int] = _LIMITS
    choose: Callable[[Mapping[str, Any], int, random.Random], str] = choose_any
    api_is_up: threading.Event = field(default_factory=threading.Event)
    stopping: threading.Event = field(default_factory=threading.Event)
    counted: int = 0
    changed: threading.Condition = field(default_factory=threading.Condition)

    def count(self, labels: int) -> None:
        """So many new labels were taken."""
        with self.changed:
            self.counted += labels
            self.changed.notify_all()


class RestlessAnnotator:
    """One of the crowd. It writes down what it was told, and forgets what it was doing."""

    def __init__(self, floor: Floor, wire: Wire, annotator_no: int, seed: str) -> None:
        self.record = Record()
        self.wire = wire
        self._floor = floor
        self._no = annotator_no
        self._dice = random.Random(seed)
        # Labels to be late with, and when their leases have run out.
        self._pocket: list[tuple[float, Labels]] = []

    def work(self) -> None:
        """Until the crowd is told to stop."""
        while not self._floor.stopping.is_set():
            self._empty_pocket()
            tasks = self._claim()
            labels = [
                (task["task_id"], self._floor.choose(task, self._no, self._dice))
                for task in tasks
                if self._dice.random() < 0.9
            ]
            self._dice.shuffle(labels)
            # Some of them are labelled all the same, without a lease.
            back = [task["task_id"] for task in tasks if self._dice.random() < 0.3]
            if back and self._dice.random() < 0.15:
                self._release(back)
            self._label_in_batches(labels)
            if not tasks:
                self._floor.stopping.wait(_NOTHING_TO_DO_S)

    def _claim(self) -> list[dict[str, Any]]:
        # One job, or whatever there is of the type.
        which = (
            {"job_id": self._dice.choice(self._floor.job_ids)}
            if self._floor.task_type is None or self._dice.random() < 0.5
            else {"task_types": [self._floor.task_type]}
        )
        limit = self._dice.choice(self._floor.limits)
        lease_s = self._dice.choice(self._floor.leases_s)
        body = {"limit": limit, "lease_seconds": lease_s, **which}
        sent = time.time()
        answer = self._post("claim", body)
        answered = time.time()
        tasks: list[dict[str, Any]] = answer["tasks"] if answer else []
        distinct = {task["task_id"] for task in tasks}
        assert len(distinct) == len(tasks) <= limit, f"{len(distinct)} tasks for {body}: {tasks}"
        for task in tasks:
            key = parse_task_id(task["task_id"])
            assert key, task
            assert key[0] in self._floor.job_ids, f"not a task of this test: {task}"
            expires_at = datetime.fromisoformat(task["lease_expires_at"]).timestamp()
            grant = Grant(self._no, task["task_id"], sent, answered, expires_at)
            self.record.grants.append(grant)
        return tasks

    def _label_in_batches(self, labels: Labels) -> None:
        while labels:
            size = self._dice.choice(_BATCHES)
            batch, labels = labels[:size], labels[size:]
            (fate,) = self._dice.choices(list(_FATES), list(_FATES.values()))
            if fate == "crash":
                self._pocket.clear()
                self.wire.close()
                return
            if fate == "pocket":
                self._pocket.append((self.record.grants[-1].expires_at, batch))
                continue
            if fate == "hang_up":
                self._label_and_hang_up(batch)
                if self._dice.random() < 0.5:
                    return
            self._label(batch)
            if fate == "again":
                self._label(batch)

    def _label(self, batch: Labels) -> None:
        """Mostly until there is an answer."""
        while not self._label_once(batch):
            if self._dice.random() < 0.3 or self._floor.stopping.is_set():
                return

    def _label_once(self, batch: Labels) -> bool:
        """Whether there was an answer."""
        votes, body = self._write_down(batch)
        answer = self._post("labels", body)
        if answer is None:
            return False
        answered = time.time()
        for vote, result in zip(votes, answer["results"], strict=True):
            assert result["task_id"] == vote.task_id
            vote.answered, vote.outcome = answered, result["outcome"]
        self._floor.count(sum(vote.counted for vote in votes))
        return True

    def _label_and_hang_up(self, batch: Labels) -> None:
        _, body = self._write_down(batch)
        self.wire.post_and_hang_up("/v1/annotation/labels", body)

    def _write_down(self, batch: Labels) -> tuple[list[Vote], dict[str, Any]]:
        """Before it is sent, so that a label that nobody answers for is known as well."""
        sent = time.time()
        votes = [Vote(self._no, task_id, option, sent) for task_id, option in batch]
        self.record.votes += votes
        return votes, {"labels": [{"task_id": task, "label": option} for task, option in batch]}

    def _empty_pocket(self) -> None:
        now = time.time()
        late = [batch for due, batch in self._pocket if due < now]
        self._pocket = [(due, batch) for due, batch in self._pocket if due >= now]
        for batch in late:
            self._label(batch)

    def _release(self, task_ids: list[str]) -> None:
        sent = time.time()
        self.record.releases += [Release(self._no, task_id, sent) for task_id in task_ids]
        self._post("release", {"task_ids": task_ids})

    def _post(self, what: str, body: Mapping[str, Any]) -> Any:
        answer = self.wire.post(f"/v1/annotation/{what}", body)
        if answer is None:
            self._floor.api_is_up.wait(_ANSWER_S_MAX)
        return answer
