"""Ask the service through its balancer all the time, and keep what was not answered well."""

import threading
import time
from collections.abc import Callable
from typing import Any

import httpx

_READERS, _WRITERS = 3, 2
_PAUSE_S = 0.02
_ANSWER_S_MAX = 30.0


class Load:
    """Read jobs as a customer and claim tasks as an annotator, until it is stopped."""

    def __init__(self, url: str, customer_key: str, annotator_key: str) -> None:
        self.requests = 0
        self.slowest_s = 0.0
        self.failures: list[str] = []
        self._url = url
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        kinds = [self._reader(customer_key)] * _READERS + [self._writer(annotator_key)] * _WRITERS
        self._threads = [
            threading.Thread(target=self._run, args=(key, ask), daemon=True) for key, ask in kinds
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    @staticmethod
    def _reader(key: str) -> tuple[str, Callable[[httpx.Client], httpx.Response]]:
        return key, lambda http: http.get("/v1/jobs", params={"limit": 5})

    @staticmethod
    def _writer(key: str) -> tuple[str, Callable[[httpx.Client], httpx.Response]]:
        body: dict[str, Any] = {"limit": 1}
        return key, lambda http: http.post("/v1/annotation/claim", json=body)

    def _run(self, key: str, ask: Callable[[httpx.Client], httpx.Response]) -> None:
        headers = {"Authorization": f"Bearer {key}"}
        with httpx.Client(base_url=self._url, headers=headers, timeout=_ANSWER_S_MAX) as http:
            while not self._stopping.is_set():
                begin_s = time.monotonic()
                what = ""
                try:
                    status = ask(http).status_code
                    what = str(status) if status >= httpx.codes.BAD_REQUEST else ""
                except httpx.TransportError as error:
                    what = type(error).__name__
                self._note(begin_s, what)
                self._stopping.wait(_PAUSE_S)

    def _note(self, begin_s: float, what: str) -> None:
        now_s = time.monotonic()
        with self._lock:
            self.requests += 1
            self.slowest_s = max(self.slowest_s, now_s - begin_s)
            if what:
                self.failures.append(what)
