"""Write results as JSON lines, thousands at a time: the fields of `GET /v1/jobs/{id}/export`."""

from collections.abc import Sequence

import msgspec
import polars as pl

from blocks.domain.ids import task_ids
from blocks.lines import columns

RESULT_COLUMNS: dict[str, pl.DataType | type[pl.DataType]] = {
    "task_no": pl.Int64,
    "line": pl.Int64,
    "data_url": pl.String,
    "metadata": pl.String,
    "text": pl.String,
    "ballot": pl.UInt32,
    "created_at": columns.TIME,
    "settled_at": columns.TIME,
}
"""A row is a settled task: `line` is 1-based in the manifest, null where that is not known; `metadata`
is verbatim JSON, or null; one of `data_url` and `text` is null; `ballot` is the index of its votes in
`Results.ballots`."""

_RFC3339 = "%Y-%m-%dT%H:%M:%S%.6fZ"
_TO_BE_ESCAPED = r'["\\\x00-\x1f]'


class Ballot(msgspec.Struct, frozen=True):
    """The option that tasks settled on, 0-based, and the votes for each option."""

    winner: int
    votes: Sequence[int]

    @property
    def labels(self) -> int:
        """All votes."""
        return sum(self.votes)

    @property
    def agreed(self) -> int:
        """The votes for the winner."""
        return self.votes[self.winner]

    @property
    def confidence(self) -> float:
        """The share of the votes that agreed, more than 0 and at most 1."""
        return self.agreed / self.labels


class Results(msgspec.Struct, frozen=True):
    """Settled tasks of one job, with `RESULT_COLUMNS`, and the distinct votes that they have."""

    job_id: str
    options: Sequence[str]
    tasks: pl.DataFrame
    ballots: Sequence[Ballot]


def to_json_lines(results: Results) -> bytes:
    """Return a line of JSON for each task, with its line feed."""
    pieces = _pieces(results)
    texts = [pl.lit(piece) if isinstance(piece, str) else piece for piece in pieces]
    lines = _columns(results).select(pl.concat_str(texts)).to_series()
    data, _ = columns.join(lines)
    return bytes(data)


def count_line_bytes(results: Results) -> int:
    """Return how many bytes `to_json_lines` makes of them, without making them."""
    pieces = _pieces(results)
    columns = [piece.str.len_bytes().sum() for piece in pieces if isinstance(piece, pl.Expr)]
    each = sum(len(piece.encode()) for piece in pieces if isinstance(piece, str))
    sizes = _columns(results).select(pl.sum_horizontal(columns)).item()
    return each * len(results.tasks) + int(sizes)


def _pieces(results: Results) -> list[str | pl.Expr]:
    """Return what a line is joined from: texts, and columns of `_columns`."""
    mark = "" if _has_texts(results) else '"'
    return [
        '{"task_id":"' + task_ids(results.job_id),
        pl.col("task_no").cast(pl.String),
        '","line":',
        pl.col("line").cast(pl.String).fill_null("null"),
        f',"data_url":{mark}',
        pl.col("data"),
        f'{mark},"metadata":',
        pl.col("metadata").fill_null("null"),
        ',"status":"settled","consensus_label":',
        pl.col("ballot"),
        ',"created_at":"',
        pl.col("created_at").dt.strftime(_RFC3339),
        '","settled_at":"',
        pl.col("settled_at").dt.strftime(_RFC3339),
        '"}\n',
    ]


def _columns(results: Results) -> pl.DataFrame:
    """Return the tasks with their escaped URLs or texts in `data`, and in `ballot` the JSON of votes."""
    options = [quote(option) for option in results.options]
    texts = [_ballot_text(ballot, options) for ballot in results.ballots]
    tasks = results.tasks
    votes = pl.Series(texts, dtype=pl.String).gather(tasks["ballot"])
    data = tasks["data_url"].alias("data")
    if _has_texts(results):
        written = [
            quote(url) if text is None else f'null,"text":{quote(text)}'
            for url, text in zip(data, tasks["text"], strict=True)
        ]
        data = pl.Series("data", written, dtype=pl.String)
    elif data.str.contains(_TO_BE_ESCAPED).any():
        data = pl.Series("data", [quote(url)[1:-1] for url in data])
    return tasks.with_columns(data, ballot=votes)


def _has_texts(results: Results) -> bool:
    return results.tasks["data_url"].has_nulls()


def quote(text: str) -> str:
    """Return `text` as a JSON string."""
    return msgspec.json.encode(text).decode()


def _ballot_text(ballot: Ballot, options: Sequence[str]) -> str:
    share = ballot.confidence
    votes = ",".join(f"{option}:{n}" for option, n in zip(options, ballot.votes, strict=True))
    return (
        f'{options[ballot.winner]},"confidence":{1 if share == 1 else share!r}'
        f',"worker_count":{ballot.labels},"agreement_count":{ballot.agreed},"votes":{{{votes}}}'
    )
