"""Call Prefect's HTTP API, as much of it as we need: importing Prefect costs seconds and 150 MB."""

import ssl
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote
from uuid import UUID

import httpx
import msgspec

from blocks.domain.errors import Transient
from blocks.prefect.auth import PrefectAuth
from blocks.settings import Settings

# The types of states that end no run. https://docs.prefect.io/v3/concepts/states
UNDER_WAY = ("SCHEDULED", "PENDING", "RUNNING", "PAUSED", "CANCELLING")
_TIMEOUT_S = 10.0
# A run of a short flow that began longer ago than this was lost.
_LOST = timedelta(minutes=2)
_LOOKED_AT = 10
_PROBE_TIMEOUT_S = 2.0

_T = TypeVar("_T")


class PrefectUnavailable(Transient):
    """Prefect's server cannot be reached, or does not answer as it should."""

    code = "prefect_unavailable"


class PrefectUnreachable(PrefectUnavailable):
    """Prefect's server did not answer, so further requests now would fail too."""


class UnknownToPrefect(PrefectUnavailable):
    """Prefect answers that it has no such thing: our deployments are not registered yet."""


class RunState(msgspec.Struct, frozen=True):
    """Tell the state of a run: `type` is Prefect's, such as RUNNING; `since` is when it began."""

    type: str
    since: datetime = msgspec.field(name="timestamp")
    is_stranded: bool = False
    """Nobody will take the run: its work pool was deleted, and one of that name does not get it back."""


class UnendedRun(msgspec.Struct, frozen=True):
    """Describe a run that has not ended; `pool` is the name of its work pool."""

    id: UUID
    name: str
    state: RunState
    pool: str | None = msgspec.field(name="work_pool_name", default=None)

    @property
    def type(self) -> str:
        return self.state.type

    @property
    def since(self) -> datetime:
        return self.state.since


class EndedState(msgspec.Struct, frozen=True):
    """Tell how a run ended; `message` is what it said of it."""

    type: str
    at: datetime = msgspec.field(name="timestamp")
    message: str | None = None


class EndedRun(msgspec.Struct, frozen=True):
    """Describe a run that has ended."""

    id: UUID
    state: EndedState


class Deployment(msgspec.Struct, frozen=True):
    """Tell when a deployment was first made, and the parameters of its runs."""

    created_at: datetime = msgspec.field(name="created")
    parameters: dict[str, Any]


class _WithId(msgspec.Struct):
    """Hold the id of anything."""

    id: str


class _Pool(msgspec.Struct):
    """Hold the name of a work pool."""

    name: str


class _Worker(msgspec.Struct):
    """Hold the name of a worker."""

    name: str


class _Stoppable(msgspec.Struct):
    """Identify a run that is to be stopped."""

    id: str
    name: str


class _RunInState(msgspec.Struct):
    """Hold a run and its state."""

    id: UUID
    created: datetime
    state: RunState | None
    pool: str | None = msgspec.field(name="work_pool_name", default=None)


class PrefectApi:
    """Ask Prefect's server, from any thread. Every method raises `PrefectUnavailable`."""

    def __init__(self, settings: Settings) -> None:
        self._http = httpx.Client(
            base_url=settings.prefect_api_url,
            auth=PrefectAuth(settings.prefect_api_auth_string, settings.prefect_api_url),
            timeout=_TIMEOUT_S,
            verify=_trusted(),
        )
        self._deployment_ids: dict[str, str] = {}

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def is_reachable(self) -> bool:
        """Return whether the server answers, within two seconds; raises nothing."""
        try:
            return self._http.get("/health", timeout=_PROBE_TIMEOUT_S).is_success
        except httpx.HTTPError:
            return False

    def create_run(
        self,
        deployment: str,
        *,
        name: str,
        parameters: dict[str, Any],
        tags: Sequence[str],
        idempotency_key: str,
        labels: Mapping[str, str] | None = None,
    ) -> str:
        """Make a run of `<flow>/<deployment>`, or find the one made with this key; return its id."""
        path = f"/deployments/{self._deployment_id(deployment)}/create_flow_run"
        body = {
            "name": name,
            "parameters": parameters,
            "tags": list(tags),
            "idempotency_key": idempotency_key,
        }
        if labels:
            body["labels"] = dict(labels)
        try:
            return self._ask("POST", path, body, answer=_WithId).id
        except PrefectUnavailable:
            self._deployment_ids.pop(deployment, None)  # it may have been deleted and made again
            raise

    def cancel_runs(self, tag: str) -> list[str]:
        """Cancel every run that has the tag and has not ended; return their names.

        A run whose process has not been started is Cancelled at once.
        """
        under_way = [kind for kind in UNDER_WAY if kind != "CANCELLING"]
        runs = {"tags": {"all_": [tag]}, "state": {"type": {"any_": under_way}}}
        found = self._filter(runs, _Stoppable)
        for run in found:
            self.set_state(run.id, "CANCELLING")
        return [run.name for run in found]

    def states(self, flow_run_ids: Sequence[UUID]) -> dict[UUID, RunState]:
        """Return the states of up to 200 runs; one that Prefect does not know is missing."""
        ids = [str(each) for each in flow_run_ids]
        found = self._filter({"id": {"any_": ids}}, _RunInState)
        return {run.id: _state_of(run) for run in found}

    def unended_runs(self, flows: Sequence[str], types: Sequence[str]) -> list[UnendedRun]:
        """Return up to 200 runs of the flows in states of the types, the oldest first."""
        body = {
            "flows": {"name": {"any_": list(flows)}},
            "flow_runs": {"state": {"type": {"any_": list(types)}}},
            "sort": "EXPECTED_START_TIME_ASC",
        }
        return self._ask("POST", "/flow_runs/filter", body, answer=list[UnendedRun])

    def latest_ended_runs(self, flow: str, *, limit: int) -> list[EndedRun]:
        """Return the latest ended runs of the flow, the last one first; wait for two seconds."""
        body = {
            "flows": {"name": {"any_": [flow]}},
            "flow_runs": {"state": {"type": {"any_": ["COMPLETED", "FAILED", "CRASHED"]}}},
            "sort": "END_TIME_DESC",
            "limit": limit,
        }
        path, runs = "/flow_runs/filter", list[EndedRun]
        return self._ask("POST", path, body, answer=runs, timeout_s=_PROBE_TIMEOUT_S)

    def pools_of_type(self, pool_type: str) -> set[str]:
        """Return the names of the work pools of the type."""
        body = {"work_pools": {"type": {"any_": [pool_type]}}}
        return {
            pool.name for pool in self._ask("POST", "/work_pools/filter", body, answer=list[_Pool])
        }

    def workers_online(self, *, pools_max: int) -> dict[str, int]:
        """Return how many workers Prefect takes to be alive, up to 200, in each of the first pools."""
        body = {"limit": pools_max}
        pools = self._ask(
            "POST", "/work_pools/filter", body, answer=list[_Pool], timeout_s=_PROBE_TIMEOUT_S
        )
        return {pool.name: self._count_workers(pool.name) for pool in pools}

    def _count_workers(self, pool: str) -> int:
        path = f"/work_pools/{quote(pool, safe='')}/workers/filter"
        body = {"workers": {"status": {"any_": ["ONLINE"]}}}
        found = self._ask("POST", path, body, answer=list[_Worker], timeout_s=_PROBE_TIMEOUT_S)
        return len(found)

    def set_state(self, run_id: UUID | str, state_type: str, message: str | None = None) -> None:
        """Propose a state for a run; Prefect may reject it."""
        state = {"type": state_type, "name": state_type.capitalize(), "message": message}
        self._ask("POST", f"/flow_runs/{run_id}/set_state", {"state": state}, answer=object)

    def is_begun(self, flow: str) -> bool:
        """Return whether a run of the flow is due or under way, leaving out those that were lost."""
        now = datetime.now(UTC)
        body = {
            "flows": {"name": {"any_": [flow]}},
            "flow_runs": {
                "state": {"type": {"any_": ["SCHEDULED", "PENDING", "RUNNING"]}},
                "expected_start_time": {"before_": now.isoformat()},
            },
            "sort": "EXPECTED_START_TIME_DESC",
            "limit": _LOOKED_AT,
        }
        found = self._ask("POST", "/flow_runs/filter", body, answer=list[_RunInState])
        return any(
            run.state is None or run.state.type == "SCHEDULED" or now - run.state.since < _LOST
            for run in found
        )

    def deployment(self, deployment_id: str) -> Deployment:
        """Return the deployment of that id."""
        return self._ask("GET", f"/deployments/{deployment_id}", answer=Deployment)

    def emit(self, events: Sequence[dict[str, Any]]) -> None:
        """Send events to automations; Prefect ignores one whose id it has seen already.

        https://docs.prefect.io/v3/concepts/events
        """
        self._ask("POST", "/events", list(events), answer=type(None))

    def show(self, key: str, page: str, description: str) -> None:
        """Make a Markdown artifact; of several under one key the UI shows the latest."""
        body = {"key": key, "type": "markdown", "data": page, "description": description}
        self._ask("POST", "/artifacts/", body, answer=object)

    def _filter(self, runs: dict[str, Any], run: type[_T]) -> list[_T]:
        return self._ask("POST", "/flow_runs/filter", {"flow_runs": runs}, answer=list[run])  # type: ignore[valid-type]

    def _deployment_id(self, deployment: str) -> str:
        if deployment not in self._deployment_ids:
            found = self._ask("GET", f"/deployments/name/{deployment}", answer=_WithId)
            self._deployment_ids[deployment] = found.id
        return self._deployment_ids[deployment]

    def _ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        answer: type[_T],
        timeout_s: float | None = None,
    ) -> _T:
        timeout = httpx.USE_CLIENT_DEFAULT if timeout_s is None else timeout_s
        try:
            given = self._http.request(method, path, json=body, timeout=timeout).raise_for_status()
            # A proxy may answer 200 with a page of its own.
            return msgspec.json.decode(given.content or b"null", type=answer)
        except httpx.TransportError as error:
            raise PrefectUnreachable(f"Prefect is not available: {error!r}") from error
        except (httpx.HTTPError, ValueError) as error:
            kind = UnknownToPrefect if _is_not_found(error) else PrefectUnavailable
            raise kind(f"Prefect is not available: {error!r}") from error


def _is_not_found(error: Exception) -> bool:
    if not isinstance(error, httpx.HTTPStatusError):
        return False
    return error.response.status_code == httpx.codes.NOT_FOUND


@lru_cache(maxsize=1)
def _trusted() -> ssl.SSLContext:
    """Return the authorities that httpx trusts; reading them takes longer than many a request."""
    return httpx.create_ssl_context()


def _state_of(run: _RunInState) -> RunState:
    state = run.state or RunState("SCHEDULED", run.created)
    is_stranded = state.type == "SCHEDULED" and run.pool is None
    return msgspec.structs.replace(state, is_stranded=is_stranded)
