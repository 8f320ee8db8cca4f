"""Hear from the launcher that Prefect has a new run, so that a worker need not wait for its next look.

PostgreSQL carries the word, as it does to the launcher. A worker that has no database of its own, or has
lost it, looks for runs as often as ever. One that does not work with the database's schema is stopped.
"""

import asyncio
import threading

from blocks.domain.errors import RefineryError, Transient
from blocks.logs import get_logger
from blocks.settings import Settings, SettingsError
from blocks.store import migrations, runs
from blocks.store.database import Database, DatabaseUnavailable
from blocks.store.interrupts import Interrupt
from blocks.store.migrations import MigrationChanged
from blocks.store.schema_versions import WrongSchema

logger = get_logger(__name__)

_CHECK_S = 60.0
_RECONNECT_S = 2.0


def check_schema() -> None:
    """Pass if this version works with the database's schema, or there is no database to be asked.

    Raises:
        MigrationChanged, WrongSchema: it does not.
    """
    try:
        migrations.check(Settings.from_environment().database_url)
    except (WrongSchema, MigrationChanged):
        raise
    except (SettingsError, DatabaseUnavailable) as error:
        logger.info("wake.schema_unknown", reason=str(error))


class Waker:
    """Listen in a thread, and wake the event loop that has called `start`."""

    def __init__(self) -> None:
        self.is_listening = False
        self.refusal: WrongSchema | None = None
        """Why the worker has to stop, once `wait` has returned."""
        self._stopping = threading.Event()
        self._listening = Interrupt()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to listen, and return at once."""
        self._loop = asyncio.get_running_loop()
        self._woken = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="wake", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Listen no more, without waiting."""
        self._stopping.set()
        self._listening.fire()

    async def wait(self) -> None:
        """Return when there may be a new run since the last call."""
        await self._woken.wait()
        self._woken.clear()

    def _run(self) -> None:
        try:
            database = Database(Settings.from_environment().database_url, connections_max=1)
        except RefineryError as error:
            logger.info("wake.no_database", reason=str(error))
            return
        while not self._stopping.is_set():
            try:
                self._listen(database)
            except WrongSchema as error:
                self.refusal = error
                self._loop.call_soon_threadsafe(self._woken.set)
                return
            except Transient as error:
                logger.debug("wake.database_lost", reason=error.message)
            finally:
                self.is_listening = False
            self._stopping.wait(_RECONNECT_S)

    def _listen(self, database: Database) -> None:
        words = database.listen(runs.LAUNCHED, timeout_s=_CHECK_S, interrupt=self._listening)
        for _ in words:
            if self._stopping.is_set():
                return
            self.is_listening = True
            self._loop.call_soon_threadsafe(self._woken.set)
