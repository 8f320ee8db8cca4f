"""Run work in a thread when the database says that there is some."""

import threading
from collections.abc import Callable

from blocks import logs
from blocks.domain.errors import Transient
from blocks.store.database import Database
from blocks.store.interrupts import Interrupt

logger = logs.get_logger("refinery.listener")

_POLL_S = 2.0  # for what becomes due without a notification
_RECONNECT_S = 1.0


class Listener:
    """Calls `work` until it returns False, after each NOTIFY on `channel` and every two seconds.

    `prepare` is called before that, with True where the connection is new: notifications may have been
    lost with the one before. Errors of both are logged, and the thread connects anew a second later.
    """

    def __init__(
        self,
        name: str,
        channel: str,
        database: Database,
        *,
        work: Callable[[], bool],
        prepare: Callable[[bool], None] = lambda _: None,
    ) -> None:
        self._name = name
        self._channel = channel
        self._database = database
        self._work = work
        self._prepare = prepare
        self._stopping = threading.Event()
        self._listening = Interrupt()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def is_stopping(self) -> bool:
        """Return True from `stop_soon` on, so that `work` and `prepare` can end early."""
        return self._stopping.is_set()

    def start(self) -> None:
        """Begin to listen; the thread connects."""
        self._thread.start()

    def stop_soon(self) -> None:
        """Begin nothing more, without waiting."""
        self._stopping.set()
        self._listening.fire()

    def stop(self, within_s: float) -> None:
        """Begin nothing more, and wait up to `within_s` seconds for the work that is under way."""
        self.stop_soon()
        self._thread.join(timeout=within_s)

    def _run(self) -> None:
        while not self.is_stopping:
            try:
                self._listen()
            except Transient as error:
                if self._stopping.wait(_RECONNECT_S):
                    return
                logger.warning("listener.database_lost", listener=self._name, reason=error.message)
            except Exception:
                logger.exception("listener.failed", listener=self._name)
                self._stopping.wait(_RECONNECT_S)

    def _listen(self) -> None:
        is_new = True
        for _ in self._database.listen(self._channel, timeout_s=_POLL_S, interrupt=self._listening):
            self._prepare(is_new)
            is_new = False
            while not self.is_stopping and self._work():
                pass
            if self.is_stopping:
                return
