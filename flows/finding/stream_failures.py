"""Report manifests without a result: by the run's name and state, and an event for automations."""

from datetime import UTC, datetime
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

from prefect.client.orchestration import get_client
from prefect.runtime import flow_run

from blocks.prefect.api import PrefectApi
from blocks.store import streams
from blocks.store.streams import Outcome, Stream, StreamManifest
from flows.running.monitor import ui_update
from flows.running.resources import database, settings

EVENT = "refinery.stream.failed"
_LISTED_MAX = 100
_IN_EVENT_MAX = 20


def report_failures(stream: Stream) -> str | None:
    """Report manifests without a result; return a sentence (no full stop), None if there are none."""
    with database().transaction() as tx:
        (counts,) = streams.list_streams(tx, stream.customer_id, stream.stream)
        if not counts.failed:
            return None
        failed = streams.list_manifests(
            tx, stream.customer_id, stream.stream, outcomes=[Outcome.FAILED], limit=_LISTED_MAX
        )
    share = f"{counts.failed} of {counts.manifests}"
    _name_run(f"submit manifests of {stream.stream}: {share} without a result")
    _emit(stream, failed, failed_count=counts.failed, manifests_count=counts.manifests)
    codes = ", ".join(sorted({each.error_code or "unknown" for each in failed}))
    of = f"{stream.customer_id} {stream.stream}"
    return (
        f"{share} manifests have no result ({codes}): `refinery streams failed {of}` lists them, "
        f"`refinery streams resubmit {of}` tries them again"
    )


@ui_update
def _name_run(name: str) -> None:
    with get_client(sync_client=True) as client:
        client.update_flow_run(UUID(flow_run.id), name=name)


@ui_update
def _emit(
    stream: Stream, failed: list[StreamManifest], *, failed_count: int, manifests_count: int
) -> None:
    """Send automations an event, once for each set of failures: its id follows from them."""
    of = f"{stream.customer_id}.{stream.stream}"
    jobs = sorted(f"{each.job_id}/{each.attempts}" for each in failed)
    event: dict[str, Any] = {
        "id": str(uuid5(NAMESPACE_URL, f"{EVENT}/{of}/{' '.join(jobs)}")),
        "event": EVENT,
        "occurred": datetime.now(UTC).isoformat(),
        "resource": {
            "prefect.resource.id": f"refinery.stream.{of}",
            "prefect.resource.name": stream.stream,
            "refinery.customer-id": stream.customer_id,
        },
        "payload": {
            "customer_id": stream.customer_id,
            "stream": stream.stream,
            "failed": failed_count,
            "manifests": manifests_count,
            "job_id": failed[0].job_id,
            "latest": [
                {"manifest": each.manifest_url, "job_id": each.job_id, "error": each.error_code}
                for each in failed[:_IN_EVENT_MAX]
            ],
        },
    }
    with PrefectApi(settings()) as prefect:
        prefect.emit([event])
