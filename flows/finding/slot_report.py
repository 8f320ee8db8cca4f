"""Report to operators what a slot has found: a table in the Prefect UI, and a sentence."""

import hashlib
import re
from collections import Counter
from collections.abc import Sequence

from prefect.artifacts import create_table_artifact

from blocks.prefect import markdown
from blocks.store import streams
from blocks.store.streams import Stream
from flows.finding.slot_work import FoundManifest
from flows.running.monitor import ui_update
from flows.running.resources import database

_ROWS_MAX = 500
_LEFT_ROWS_MAX = 100
_NOT_IN_A_KEY = re.compile("[^a-z0-9]+")


@ui_update
def show(stream: Stream, found: Sequence[FoundManifest], *, dry_run: bool) -> None:
    """Make a table of what was found, under the stream's name, where it differs from the last one."""
    if not found:
        return
    table = _table_of(found)
    digest = hashlib.sha256(repr(table).encode()).digest()
    with database().transaction() as tx:
        if not dry_run and not streams.record_shown(tx, stream, digest):
            return
        name = f"manifests {stream.customer_id} {stream.stream}".lower()
        create_table_artifact(
            key=_NOT_IN_A_KEY.sub("-", name).strip("-"),
            table=table,
            description=f"Found in the stream {markdown.text(stream.stream)}: {len(found)}, "
            f"of which {len(table)} are shown",
        )


def _table_of(found: Sequence[FoundManifest]) -> list[dict[str, str | int]]:
    begun = [each for each in found if each.job_id]
    left = [each for each in found if not each.job_id]
    return [
        {
            "manifest": each.manifest.url,
            "version": each.manifest.version,
            "bytes": each.bytes,
            "outcome": each.outcome,
            "job": each.job_id or "",
        }
        for each in [*begun[:_ROWS_MAX], *left[:_LEFT_ROWS_MAX]]
    ]


def summary(found: Sequence[FoundManifest], notes: Sequence[str], *, dry_run: bool) -> str:
    """Return how many manifests had which outcome, and the notes, without a full stop."""
    counts = Counter(each.outcome for each in found)
    outcomes = [f"{count} {outcome}" for outcome, count in counts.items()] or ["no new manifests"]
    prefix = "Dry run: " if dry_run else ""
    return f"{prefix}{'; '.join([', '.join(outcomes), *notes])}"
