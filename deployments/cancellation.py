"""Cancel runs that are Cancelling now, and not those that once were.

Prefect's observer listens for events named Cancelling, and is handed those of the last minute when it
begins. Each process of a run has an observer of its own, so a run that is cancelled and then retried
within the minute would be handed its old event, and be cancelled again.
"""

from uuid import UUID

import httpx
from prefect.client.orchestration import PrefectClient
from prefect.exceptions import ObjectNotFound, PrefectException
from prefect.logging import get_logger

from deployments.prefect_internals import FlowRunExecutorContext

logger = get_logger("refinery.cancellation")


async def is_cancelling(client: PrefectClient, flow_run_id: UUID) -> bool:
    """Return whether Prefect has the run as Cancelling at this moment; False if it is deleted."""
    try:
        run = await client.read_flow_run(flow_run_id)
    except ObjectNotFound:
        return False
    return run.state is not None and run.state.is_cancelling()


class CancellableContext(FlowRunExecutorContext):
    """Start a run's process, and stop it while its run is Cancelling."""

    async def __aenter__(self) -> "CancellableContext":
        await super().__aenter__()
        self._observer.on_cancelling = self.cancel_if_asked
        return self

    def cancel_if_asked(self, flow_run_id: UUID) -> None:
        """Begin to stop the run's process, if the run is to be cancelled."""
        self._cancellation_task_group.start_soon(self._cancel_if_asked, flow_run_id)

    async def _cancel_if_asked(self, flow_run_id: UUID) -> None:
        try:
            if await is_cancelling(self.client, flow_run_id):
                await self._cancellation_manager.cancel_by_id(flow_run_id)
                return
        except (httpx.HTTPError, PrefectException) as error:
            # An error raised here would end the process. The observer polls when it is cut off.
            logger.warning("Could not ask whether '%s' is Cancelling: %r", flow_run_id, error)
        if flow_run_id in self.process_manager.flow_run_ids():
            # The observer hands on one event of each run that it is told to watch, so tell it again.
            self._observer.remove_in_flight_flow_run_id(flow_run_id)
            self._observer.add_in_flight_flow_run_id(flow_run_id)
