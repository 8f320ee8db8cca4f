"""Ask Prefect once for a deployment or a flow that a worker reads several times for each run."""

import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import Flow
from prefect.client.schemas.responses import DeploymentResponse

# An operator who has edited a deployment and then starts a run by hand takes longer.
_DEPLOYMENT_S = 2.0
# Only the name and the labels of a flow are used, and these do not change.
_FLOW_S = 600.0
_REMEMBERED_MAX = 100

_T = TypeVar("_T")


class RememberingClient:
    """Be a `PrefectClient` that answers `read_deployment` and `read_flow` from memory for a while."""

    def __init__(self, client: PrefectClient) -> None:
        self._client = client
        self._remembered: dict[UUID, tuple[float, Any]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def read_deployment(self, deployment_id: UUID) -> DeploymentResponse:
        """Return a deployment as it was at most 2 s ago; raises as Prefect's client does."""
        found = await self._read(deployment_id, _DEPLOYMENT_S, self._client.read_deployment)
        return found.model_copy(deep=True)  # the worker merges the variables of a run into it

    async def read_flow(self, flow_id: UUID) -> Flow:
        """Return a flow as it was at most ten minutes ago; raises as Prefect's client does."""
        return await self._read(flow_id, _FLOW_S, self._client.read_flow)

    async def _read(self, key: UUID, within_s: float, read: Callable[[UUID], Awaitable[_T]]) -> _T:
        now_s = time.monotonic()
        read_s, found = self._remembered.get(key, (-within_s, None))
        if now_s - read_s < within_s:
            remembered: _T = found
            return remembered
        if len(self._remembered) >= _REMEMBERED_MAX:
            self._remembered.clear()
        answer = await read(key)
        self._remembered[key] = (now_s, answer)
        return answer
