"""Prefect's HTTP API, as much of it as we need: importing Prefect costs seconds and 150 MB."""

import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import lru_cache
from types import TracebackType
from typing import Any, Self
from uuid import UUID

import httpx
import msgspec

from blocks.errors import Transient
from blocks.settings import Settings

# Of a run that has not ended. https://docs.prefect.io/v3/concepts/states
UNDER_WAY = ("SCHEDULED", "PENDING", "RUNNING", "PAUSED", "CANCELLING")
_TIMEOUT_S = 10.0
_PROBE_TIMEOUT_S = 2.0


class PrefectUnavailable(Transient):
    """Prefect's server cannot be reached, or answers something else than it should."""

    code = "prefect_unavailable"


@contextmanager
def _understood() -> Iterator[None]:
    """What is taken from an answer is in it; a proxy may answer with something of its own."""
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        raise PrefectUnavailable(f"Prefect answered with something else: {error!r}") from error


class RunState(msgspec.Struct, frozen=True):
    """What became of a run: `type` is Prefect's, RUNNING for one; `since` when."""

    type: str
    since: datetime


class Deployment(msgspec.Struct, frozen=True):
    """When it was made first, and what its runs are given."""

    created_at: datetime
    parameters: dict[str, Any]


class PrefectApi:
    """A client, safe to use from several threads. Every method raises `PrefectUnavailable`."""

    def __init__(self, settings: Settings) -> None:
        auth = settings.prefect_api_auth_string.partition(":")
        self._http = httpx.Client(
            base_url=settings.prefect_api_url,
            auth=(auth[0], auth[2]) if auth[1] else None,
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
        """Whether the server answers."""
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
    ) -> str:
        """The id of a run of `<flow>/<deployment>`: that of the key, if it was used before."""
        path = f"/deployments/{self._deployment_id(deployment)}/create_flow_run"
        body = {
            "name": name,
            "parameters": parameters,
            "tags": list(tags),
            "idempotency_key": idempotency_key,
        }
        try:
            with _understood():
                return str(self._ask("POST", path, body)["id"])
        except PrefectUnavailable:
            self._deployment_ids.pop(deployment, None)  # it may have been deleted and made again
            raise

    @_understood()
    def cancel_runs(self, tag: str) -> list[str]:
        """Stop every run that has the tag and has not ended; their names.

        Prefect makes one Cancelled at once where no process has been started yet.
        """
        under_way = [kind for kind in UNDER_WAY if kind != "CANCELLING"]
        runs = {"tags": {"all_": [tag]}, "state": {"type": {"any_": under_way}}}
        found = self._filter(runs)
        for run in found:
            state = {"state": {"type": "CANCELLING", "name": "Cancelling"}}
            self._ask("POST", f"/flow_runs/{run['id']}/set_state", state)
        return [run["name"] for run in found]

    @_understood()
    def states(self, flow_run_ids: Sequence[UUID]) -> dict[UUID, RunState]:
        """Where each of up to 200 runs is; one that Prefect does not know is missing."""
        ids = [str(each) for each in flow_run_ids]
        return {UUID(run["id"]): _state(run) for run in self._filter({"id": {"any_": ids}})}

    @_understood()
    def deployment(self, deployment_id: str) -> Deployment:
        """The deployment of that id."""
        found = self._ask("GET", f"/deployments/{deployment_id}")
        return Deployment(datetime.fromisoformat(found["created"]), found["parameters"])

    def emit(self, events: Sequence[dict[str, Any]]) -> None:
        """Have automations hear of events; one with an id that was seen already is ignored.

        https://docs.prefect.io/v3/concepts/events
        """
        with _understood():
            if (answer := self._ask("POST", "/events", list(events))) is not None:
                raise TypeError(answer)

    def _filter(self, runs: dict[str, Any]) -> list[dict[str, Any]]:
        found = self._ask("POST", "/flow_runs/filter", {"flow_runs": runs})
        if not isinstance(found, list):
            raise TypeError(
                found
            )  # an object without entries would say that there are no such runs
        return found

    @_understood()
    def _deployment_id(self, deployment: str) -> str:
        if deployment not in self._deployment_ids:
            found = self._ask("GET", f"/deployments/name/{deployment}")
            self._deployment_ids[deployment] = str(found["id"])
        return self._deployment_ids[deployment]

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        try:
            answer = self._http.request(method, path, json=body).raise_for_status()
            # A proxy may answer 200 with a page of its own.
            return answer.json() if answer.content else None
        except (httpx.HTTPError, ValueError) as error:
            raise PrefectUnavailable(f"Prefect is not available: {error!r}") from error


@lru_cache(maxsize=1)
def _trusted() -> ssl.SSLContext:
    """The authorities that httpx trusts; to read them takes longer than many a request."""
    return httpx.create_ssl_context()


def _state(run: dict[str, Any]) -> RunState:
    state = run["state"] or {"type": "SCHEDULED", "timestamp": run["created"]}
    return RunState(state["type"], datetime.fromisoformat(state["timestamp"]))
