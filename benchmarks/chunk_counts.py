"""Measure ingestion by the number of chunks that a manifest is cut into."""

import math
import statistics

from rich.console import Console
from rich.table import Table

from benchmarks import manifest, ours
from benchmarks.sizes import Sizes
from benchmarks.stacks import Stacks

_MB = 1e6


def measure(stacks: Stacks, sizes: Sizes, console: Console) -> Table:
    """Return a table of medians; each count has a stack of its own, as chunk size is a setting."""
    table = Table(
        title=f"Ingestion of {sizes.lines:,} lines by number of chunks", title_justify="left"
    )
    for column in ("chunks", "MB a chunk", "s from the POST", "s of the flow", "lines/s"):
        table.add_column(column, justify="right")
    size = sum(map(len, manifest.blocks(sizes.lines)))
    for count in sizes.chunk_counts:
        chunk_bytes = math.ceil(size / count)
        settings = {f"REFINERY_CHUNK_BYTES_{bound}": str(chunk_bytes) for bound in ("MIN", "MAX")}
        runs: list[ours.Ingestion] = []
        with stacks.whole(settings) as servers:
            whole = manifest.put(servers.store, sizes.lines)
            for number in range(1, sizes.rounds + 1):
                servers.clear()
                with console.status(f"{count} chunks: round {number} of {sizes.rounds}"):
                    runs.append(ours.ingest(servers, whole))
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
            f"{sizes.lines / whole_s:,.0f}",
        )
    return table
