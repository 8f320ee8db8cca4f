"""Write results as JSON lines, thousands at a time: the fields of `GET /v1/jobs/{id}/export`."""

from collections.abc import Sequence

import msgspec
import polars as pl

from blocks.domain.ids import task_ids

RESULT_COLUMNS: dict[str, pl.DataType | type[pl.DataType]] = {
    "task_no": pl.Int64,
    "line": pl.Int64,
    "data_url": pl.String,
    "metadata": pl.String,
    "ballot": pl.UInt32,
    "created_at": pl.Datetime("us", "UTC"),
    "settled_at": pl.Datetime("us", "UTC"),
}
"""A row is a settled task: `line` is 1-based in the manifest, null where that is not known; `metadata`
is verbatim JSON, or null; `ballot` is the index of its votes in `Results.ballots`."""

_RFC3339 = "%Y-%m-%dT%H:%M:%S%.6fZ"
_TO_BE_ESCAPED = r'["\\\x00-\x1f]'
_OLDEST = pl.CompatLevel.oldest()


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


class Results(msgspec.Struct, frozen=True):
    """Settled tasks of one job, with `RESULT_COLUMNS`, and the distinct votes that they have."""

    job_id: str
    options: Sequence[str]
    tasks: pl.DataFrame
    ballots: Sequence[Ballot]


def to_json_lines(results: Results) -> bytes:
    """Return a line of JSON for each task, with its line feed."""
    options = [quote(option) for option in results.options]
    votes = pl.Series(
        [_ballot_text(ballot, options) for ballot in results.ballots], dtype=pl.String
    )
    tasks = results.tasks.with_columns(ballot=votes.gather(results.tasks["ballot"]))
    if tasks["data_url"].str.contains(_TO_BE_ESCAPED).any():
        escaped = [quote(url)[1:-1] for url in tasks["data_url"]]
        tasks = tasks.with_columns(data_url=pl.Series(escaped))
    lines = tasks.select(
        pl.concat_str(
            pl.lit('{"task_id":"' + task_ids(results.job_id)),
            pl.col("task_no").cast(pl.String),
            pl.lit('","line":'),
            pl.col("line").cast(pl.String).fill_null("null"),
            pl.lit(',"data_url":"'),
            "data_url",
            pl.lit('","metadata":'),
            pl.col("metadata").fill_null("null"),
            pl.lit(',"status":"settled","consensus_label":'),
            "ballot",
            pl.lit(',"created_at":"'),
            pl.col("created_at").dt.strftime(_RFC3339),
            pl.lit('","settled_at":"'),
            pl.col("settled_at").dt.strftime(_RFC3339),
            pl.lit('"}\n'),
        )
    )
    # The texts of a column stand one after the other, each with its line feed.
    _, _, texts = lines.to_series().rechunk().to_arrow(compat_level=_OLDEST).buffers()
    return bytes(texts or b"")


def quote(text: str) -> str:
    """Return `text` as a JSON string."""
    return msgspec.json.encode(text).decode()


def _ballot_text(ballot: Ballot, options: Sequence[str]) -> str:
    share = ballot.agreed / ballot.labels
    votes = ",".join(f"{option}:{n}" for option, n in zip(options, ballot.votes, strict=True))
    return (
        f'{options[ballot.winner]},"confidence":{1 if share == 1 else share!r}'
        f',"worker_count":{ballot.labels},"agreement_count":{ballot.agreed},"votes":{{{votes}}}'
    )
