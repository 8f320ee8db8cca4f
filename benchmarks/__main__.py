"""Print what ingestion, annotation and results cost, beside floors and peers: `make bench`.

The figures are of one run on one machine; machines differ, ratios less so.
"""

from typing import Annotated

import cyclopts
from rich.console import Console

from benchmarks import suite
from benchmarks.sizes import SMOKE, Sizes
from benchmarks.stacks import NewStacks, SharedStack

# The settings of a contender do not fit into a narrower column.
_WIDTH_MIN = 150
_SIZES = Sizes()

app = cyclopts.App(name="benchmarks", help=__doc__, version_flags=[])


@app.default
def main(
    *,
    only: Annotated[list[suite.Name] | None, cyclopts.Parameter(consume_multiple=True)] = None,
    smoke: Annotated[bool, cyclopts.Parameter(negative=())] = False,
    sizes: Annotated[Sizes, cyclopts.Parameter(name="*")] = _SIZES,
) -> None:
    """Measure, and print tables.

    Parameters
    ----------
    only
        What to measure, instead of everything.
    smoke
        Run everything once on one stack at the least size, to see that it runs: figures mean nothing,
        other sizes are not heeded, and peers that would have to be installed are left out.
    sizes
        How much is measured.
    """
    console = Console()
    console.width = max(console.width, _WIDTH_MIN)
    if smoke:
        with SharedStack(console) as shared:
            for table in suite.measure(only or suite.installed(), shared, SMOKE, console):
                console.print(table)
    else:
        for table in suite.measure(only or suite.ALL, NewStacks(console), sizes, console):
            console.print(table)


if __name__ == "__main__":
    app()
