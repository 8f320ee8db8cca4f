"""Measure ingestion by the number of chunks that a manifest is cut into."""

import math
import statistics
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import ours
from benchmarks.manifest import Manifest
from benchmarks.servers import running

COUNTS = (8, 32, 128, 512)
_MB = 1e6


def measure(
    folder: Path,
    manifest: Manifest,
    rounds: int,
    console: Console,
    counts: Sequence[int] = COUNTS,
) -> Table:
    """Return a table of medians; each count has a stack of its own, as chunk size is a setting."""
    table = Table(
        title=f"Ingestion of {manifest.lines:,} lines by number of chunks", title_justify="left"
    )
    for column in ("chunks", "MB a chunk", "s from the POST", "s of the flow", "lines/s"):
        table.add_column(column, justify="right")
    for count in counts:
        chunk_bytes = math.ceil(manifest.size / count)
        sizes = {f"REFINERY_CHUNK_BYTES_{bound}": str(chunk_bytes) for bound in ("MIN", "MAX")}
        runs: list[ours.Ingestion] = []
        with running(folder, console, sizes) as servers:
            for number in range(1, rounds + 1):
                servers.clear()
                with console.status(f"{count} chunks: round {number} of {rounds}"):
                    runs.append(ours.ingest(servers, manifest))
            with servers.connect() as connection:
                row = connection.execute("select count(*) from chunks").fetchone()
        assert row is not None  # an aggregate returns one row
        whole_s = statistics.median(run.whole_s for run in runs)
        flow_s = statistics.median(run.flow_s for run in runs)
        table.add_row(
            str(row[0]),
            f"{chunk_bytes / _MB:.2f}",
            f"{whole_s:.2f}",
            f"{flow_s:.2f}",
            f"{manifest.lines / whole_s:,.0f}",
        )
    return table
