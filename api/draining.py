"""Go on working for a while after SIGTERM, so that a balancer notices before it is refused."""

import asyncio
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Draining:
    """Put off the end of the process by some seconds, in which it says that it is not ready.

    A server that closes its port resets connections that it has not accepted or has read nothing from
    yet. Requests that were sent on them are lost: a proxy repeats no POST. So the proxy is told first.
    """

    def __init__(self, seconds: int) -> None:
        """Where `seconds` is 0, the process ends at once."""
        self.has_begun = False
        self._seconds = seconds

    @contextmanager
    def heeding_sigterm(self) -> Iterator[None]:
        """Stand before the server's own handler of SIGTERM; a second signal goes to that at once."""
        handler = signal.getsignal(signal.SIGTERM)
        is_main = threading.current_thread() is threading.main_thread()
        if not self._seconds or not is_main or not callable(handler):
            yield
            return
        end, loop = handler, asyncio.get_running_loop()

        def begin(number: int, frame: FrameType | None) -> None:
            if self.has_begun:
                end(number, frame)
                return
            self.has_begun = True
            # A handler runs within the loop's thread, but while the loop is at anything.
            loop.call_soon_threadsafe(loop.call_later, self._seconds, end, number, None)

        signal.signal(signal.SIGTERM, begin)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, handler)
