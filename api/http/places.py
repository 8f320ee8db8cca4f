"""Places for the requests that work with the database: bounded, shared, and given up in time.

A request takes a place when its handler goes into a thread, and there are as many places as connections.
So no request waits inside the pool, and none waits here for ever: where the server hangs, or somebody
has forgotten a lock, the requests that need it are answered 503, and the others go on.
"""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from api.http import requesters
from api.http.hangups import ClientGone
from api.http.requesters import GONE_S, Requester
from blocks.domain.errors import Transient
from blocks.store.interrupts import Interrupt

_T = TypeVar("_T")

_WAITING_MAX = 512
_WAIT_S_MAX = 5.0


class Overloaded(Transient):
    """More requests wait than can be answered soon."""

    code = "overloaded"


class _Call:
    """One function that waits for a place, or has one."""

    def __init__(self, function: Callable[[], Any], requester: Requester) -> None:
        self.requester = requester
        self.shares = requester.shares
        self.future: Future[Any] = Future()
        self.since_s = time.monotonic()  # since when it waits; later, since when it has a place
        self._function = function
        self.interrupt = Interrupt()

    def run(self) -> None:
        """Call the function, and pass its result or its error to the future."""
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            result = self.interrupt.over(self._function)
        except BaseException as error:  # noqa: BLE001 - whoever waits for it is told
            self.future.set_exception(_gone() if self.requester.has_gone(0) else error)
        else:
            self.future.set_result(result)

    def refuse(self, error: Exception) -> None:
        """Fail the call without having made it."""
        if self.future.set_running_or_notify_cancel():
            self.future.set_exception(error)


class Places(ThreadPoolExecutor):
    """An executor of `places` threads, whose calls may take `call_s_max` seconds each.

    A name that has its share of the places leaves the rest to others, however many of its calls wait.
    """

    def __init__(self, name: str, places: int, *, call_s_max: float) -> None:
        super().__init__(places, thread_name_prefix=name)
        self._places = places
        self._call_s_max = call_s_max
        self._lock = threading.Lock()
        self._running: set[_Call] = set()
        self._waiting: dict[_Call, None] = {}  # a set in order of arrival
        self._running_by: Counter[str] = Counter()
        self._waiting_by: Counter[str] = Counter()

    def submit(self, fn: Callable[..., _T], /, *args: Any, **kwargs: Any) -> Future[_T]:
        """Call `fn` as soon as there is a place for this requester.

        Raises:
            Overloaded: too many calls wait already, in all or of one name.
        """
        call = _Call(partial(fn, *args, **kwargs) if args or kwargs else fn, requesters.current())
        with self._lock:
            has_room = self._has_room(call)
            if has_room:
                self._enter(call)
            else:
                self._queue(call)
        if has_room:
            super().submit(self._work, call)
        return call.future

    async def run(self, function: Callable[..., _T], *arguments: object) -> _T:
        """Call `function` in one of the places, and return its result."""
        return await asyncio.wrap_future(self.submit(function, *arguments))

    def give_up(self) -> None:
        """End the calls that take too long, or whose client has gone."""
        now_s = time.monotonic()
        with self._lock:
            overdue = [
                call
                for call in self._running
                if call.since_s + max(self._call_s_max, call.interrupt.needs_s) < now_s
                or call.requester.has_gone(GONE_S)
            ]
            left = [call for call in self._waiting if call.requester.has_gone(0)]
            late = [call for call in self._waiting if call.since_s + _WAIT_S_MAX < now_s]
            for call in {*left, *late}:
                self._unqueue(call)
        for call in overdue:
            call.interrupt.fire()
        for call in left:
            call.refuse(_gone())
        for call in set(late) - set(left):
            call.refuse(Overloaded(f"There was no place within {_WAIT_S_MAX:g} s."))

    def close(self) -> None:
        """Take no more calls, and end those that are under way."""
        self.shutdown(wait=False)
        for call in self._running.copy():
            call.interrupt.fire()

    def _work(self, call: _Call | None) -> None:
        while call:
            call.run()
            with self._lock:
                self._leave(call)
                call = next((each for each in self._waiting if self._has_room(each)), None)
                if call:
                    self._unqueue(call)
                    self._enter(call)

    def _has_room(self, call: _Call) -> bool:
        return len(self._running) < self._places and all(
            self._running_by[name] < max(1, int(share * self._places))
            for name, share in call.shares.items()
        )

    def _enter(self, call: _Call) -> None:
        self._running.add(call)
        _add(self._running_by, call)
        call.since_s = time.monotonic()

    def _leave(self, call: _Call) -> None:
        self._running.remove(call)
        _subtract(self._running_by, call)

    def _queue(self, call: _Call) -> None:
        if len(self._waiting) >= _WAITING_MAX or any(
            self._waiting_by[name] >= max(1, int(share * _WAITING_MAX))
            for name, share in call.shares.items()
        ):
            raise Overloaded(f"{len(self._waiting)} requests wait already.")
        self._waiting[call] = None
        _add(self._waiting_by, call)

    def _unqueue(self, call: _Call) -> None:
        del self._waiting[call]
        _subtract(self._waiting_by, call)


def _add(counter: Counter[str], call: _Call) -> None:
    for name in call.shares:
        counter[name] += 1


def _subtract(counter: Counter[str], call: _Call) -> None:
    for name in call.shares:
        counter[name] -= 1
        if not counter[name]:
            del counter[name]


def _gone() -> ClientGone:
    return ClientGone("The client has closed the connection.")
