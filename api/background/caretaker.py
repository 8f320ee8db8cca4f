"""Keep house, and start `reconcile` where it is needed.

A run of `reconcile` leaves 75 kB in Prefect and a row in the list of runs, so it is started only if it
has something to do. Any number of caretakers may run: of those that find the same, one starts a run.
"""

import random
import threading
import time

from blocks import housekeeping, logs
from blocks.domain.errors import Transient
from blocks.prefect import reconciler
from blocks.prefect.api import PrefectApi
from blocks.settings import Settings
from blocks.store.database import Database
from blocks.store.runs import OURS
from deployments import names

logger = logs.get_logger("refinery.caretaker")

# A run that died must go on within two minutes: this time, the start of `reconcile` and the start of the
# next run together.
_LOOK_EVERY_S = 20.0
_JITTER = 0.2
_STOP_S = 10.0


class Caretaker:
    """A thread that looks three times a minute."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings
        self._database = database
        self._prefect = PrefectApi(settings)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="caretaker", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End after the look that is under way."""
        self._stopping.set()
        self._thread.join(timeout=_STOP_S)
        self._prefect.close()

    def _run(self) -> None:
        # The jitter keeps processes apart that were started together.
        while not self._stopping.wait(_LOOK_EVERY_S * random.uniform(1 - _JITTER, 1 + _JITTER)):  # noqa: S311 - no secret
            try:
                self._look()
            except Transient as error:
                logger.warning("caretaker.postponed", reason=error.message)
            except Exception:
                logger.exception("caretaker.failed")

    def _look(self) -> None:
        housekeeping.keep_house(self._database, self._settings)
        if not reconciler.is_needed(self._database, self._prefect, self._settings):
            return
        flow, _, _ = names.RECONCILE.partition("/")
        if self._prefect.is_begun(flow):
            return
        flow_run_id = self._prefect.create_run(
            names.RECONCILE,
            name=flow,
            parameters={},
            tags=[],
            idempotency_key=f"{OURS}{flow}-{time.time() // _LOOK_EVERY_S:.0f}",
        )
        logger.info("caretaker.started", flow_run_id=flow_run_id)
