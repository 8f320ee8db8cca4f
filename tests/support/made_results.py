"""Results as columns, without a database."""

from collections.abc import Sequence
from datetime import UTC, datetime

import polars as pl

from blocks.lines.result_lines import RESULT_COLUMNS, Ballot, Results

CREATED_AT = datetime(2026, 1, 1, 0, 0, 0, 123456, UTC)
SETTLED_AT = datetime(2026, 1, 2, tzinfo=UTC)


def row(
    n: int, metadata: str | None = None, *, line: int | None = -1, url: str = "", ballot: int = 0
) -> dict[str, object]:
    """A settled task, in line `n` where no other is given."""
    return {
        "task_no": n,
        "id_number": n,
        "line": n if line == -1 else line,
        "data_url": url or f"https://a.example/{n}.jpg",
        "metadata": metadata,
        "text": None,
        "ballot": ballot,
        "created_at": CREATED_AT,
        "settled_at": SETTLED_AT,
    }


def make_results(
    *rows: dict[str, object],
    options: Sequence[str] = ("cat", "dog"),
    ballots: Sequence[Ballot] = (Ballot(0, (2, 1)),),
) -> Results:
    return Results(
        "job_1", list(options), pl.DataFrame(list(rows), schema=RESULT_COLUMNS), list(ballots)
    )
