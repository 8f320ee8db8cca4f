"""Write results as JSON lines, thousands at a time: the fields of `GET /v1/jobs/{id}/export`."""

from collections.abc import Sequence
from functools import cache

import msgspec
import polars as pl

from blocks.domain.consensus import ALL
from blocks.domain.ids import task_ids
from blocks.domain.model import SettledBy
from blocks.lines import columns

RESULT_COLUMNS: dict[str, pl.DataType | type[pl.DataType]] = {
    "task_no": pl.Int64,
    "id_number": pl.Int64,
    "line": pl.Int64,
    "data_url": pl.String,
    "metadata": pl.String,
    "text": pl.String,
    "ballot": pl.UInt32,
    "confidence": pl.UInt16,
    "created_at": columns.TIME,
    "settled_at": columns.TIME,
}
"""A row is a settled task: `id_number` is the number in its id; `line` is 1-based in the manifest, null
where that is not known; `metadata` is verbatim JSON, or null; one of `data_url` and `text` is null;
`ballot` is the index of its votes in `Results.ballots`; `confidence` is in ten-thousandths, null where
the majority decides."""

SINGLE_LABEL_COLUMNS: dict[str, pl.DataType | type[pl.DataType]] = {
    "task_no": pl.Int64,
    "annotator": pl.String,
    "option": pl.UInt8,
    "skill": pl.UInt16,
    "at": columns.TIME,
}
"""A row is a label: `option` is 1-based, `skill` in ten-thousandths, null where labels are not
weighed."""

_RFC3339 = "%Y-%m-%dT%H:%M:%S%.6fZ"
_TO_BE_ESCAPED = r'["\\\x00-\x1f]'


class Ballot(msgspec.Struct, frozen=True):
    """The option that tasks settled on, 0-based, and the votes for each option.

    Of gold tasks it is the right option, whatever the votes.
    """

    winner: int
    votes: Sequence[int]
    is_gold: bool = False

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
        """The share of the votes that agreed, at most 1; 0 only where a reviewer chose the option.

        That of gold is 1.
        """
        return 1.0 if self.is_gold else self.agreed / max(self.labels, 1)


class Extras(msgspec.Struct, frozen=True):
    """The fields that lines of some jobs have beside those of all."""

    is_weighted: bool = False
    """The confidence is that of the column."""
    has_gold: bool = False
    has_labels: bool = False


class Results(msgspec.Struct, frozen=True):
    """Settled tasks of one job, with `RESULT_COLUMNS`, and the distinct votes that they have.

    In a job with a review queue `is_reviewed` (Boolean) has those that a reviewer settled. `labels` are
    theirs, `SINGLE_LABEL_COLUMNS`, in the order of the tasks, where the job shows them.
    """

    job_id: str
    options: Sequence[str]
    tasks: pl.DataFrame
    ballots: Sequence[Ballot]
    is_reviewed: pl.Series | None = None
    extras: Extras = Extras()
    labels: pl.DataFrame | None = None

    @property
    def settled_by(self) -> pl.Series | None:
        """Return who settled each task, as text; None in a job without a review queue."""
        if self.is_reviewed is None:
            return None
        names = pl.Series([SettledBy.CONSENSUS.value, SettledBy.REVIEW.value])
        return names.gather(self.is_reviewed.cast(pl.UInt32)).alias("settled_by")

    @property
    def is_gold(self) -> pl.Series:
        """Return which of the tasks are gold."""
        known = pl.Series([ballot.is_gold for ballot in self.ballots], dtype=pl.Boolean)
        return known.gather(self.tasks["ballot"])


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
    extras = results.extras
    ballot: list[str | pl.Expr] = [pl.col("ballot")]
    if extras.is_weighted:
        ballot = [pl.col("winner"), ',"confidence":', pl.col("share"), ",", pl.col("ballot")]
    gold: list[str | pl.Expr] = [pl.col("gold")] if extras.has_gold else []
    labels: list[str | pl.Expr] = (
        [',"labels":[', pl.col("labels"), "]"] if extras.has_labels else []
    )
    return [
        '{"task_id":"' + task_ids(results.job_id),
        pl.col("id_number").cast(pl.String),
        '","line":',
        pl.col("line").cast(pl.String).fill_null("null"),
        f',"data_url":{mark}',
        pl.col("data"),
        f'{mark},"metadata":',
        pl.col("metadata").fill_null("null"),
        ',"status":"settled","consensus_label":',
        *ballot,
        *(() if results.is_reviewed is None else (',"settled_by":"', pl.col("settled_by"), '"')),
        ',"created_at":"',
        pl.col("created_at").dt.strftime(_RFC3339),
        '","settled_at":"',
        pl.col("settled_at").dt.strftime(_RFC3339),
        *(['"', *gold, *labels, "}\n"] if gold or labels else ['"}\n']),
    ]


def _columns(results: Results) -> pl.DataFrame:
    """Return the tasks with their escaped URLs or texts in `data`, and in `ballot` the JSON of votes."""
    options = [quote(option) for option in results.options]
    tasks = results.tasks
    made = _ballots(results, options) | _extras(results, options)
    data = tasks["data_url"].alias("data")
    if _has_texts(results):
        written = [
            quote(url) if text is None else f'null,"text":{quote(text)}'
            for url, text in zip(data, tasks["text"], strict=True)
        ]
        data = pl.Series("data", written, dtype=pl.String)
    elif data.str.contains(_TO_BE_ESCAPED).any():
        data = pl.Series("data", [quote(url)[1:-1] for url in data])
    settled_by = [] if results.settled_by is None else [results.settled_by]
    return tasks.with_columns(data, *settled_by, **made)


def _ballots(results: Results, options: Sequence[str]) -> dict[str, pl.Series]:
    """Return the texts of ballots, for each task; where labels are weighed, around the confidence."""
    ballots, nth = results.ballots, results.tasks["ballot"]
    if not results.extras.is_weighted:
        texts = [_ballot_text(ballot, options) for ballot in ballots]
        return {"ballot": pl.Series(texts, dtype=pl.String).gather(nth)}
    winners = pl.Series([options[ballot.winner] for ballot in ballots], dtype=pl.String)
    counts = pl.Series([_counts_text(ballot, options) for ballot in ballots], dtype=pl.String)
    return {
        "winner": winners.gather(nth),
        "share": _shares().gather(results.tasks["confidence"]),
        "ballot": counts.gather(nth),
    }


def _extras(results: Results, options: Sequence[str]) -> dict[str, pl.Series]:
    found = {}
    if results.extras.has_gold:
        marks = pl.Series(["", ',"gold":true'])
        found["gold"] = marks.gather(results.is_gold.cast(pl.UInt32))
    if results.labels is not None:
        texts = results.labels.select("task_no", text=_label_text(results, options))
        joined = texts.group_by("task_no").agg(pl.col("text").str.join(","))
        tasks = results.tasks.select("task_no")
        found["labels"] = tasks.join(joined, on="task_no", how="left", maintain_order="left")[
            "text"
        ].fill_null("")
    return found


def _label_text(results: Results, options: Sequence[str]) -> pl.Expr:
    """Return single labels as JSON."""
    labels = results.labels
    assert labels is not None  # the caller has looked
    skill = [pl.lit(',"skill":'), pl.lit(_shares().gather(labels["skill"]))]
    return pl.concat_str(
        pl.lit('{"annotator":"'),
        pl.col("annotator"),
        pl.lit('","label":'),
        pl.lit(pl.Series(options).gather(labels["option"] - 1)),
        *(skill if results.extras.is_weighted else ()),
        pl.lit(',"at":"'),
        pl.col("at").dt.strftime(_RFC3339),
        pl.lit('"}'),
    )


@cache
def _shares() -> pl.Series:
    """Return the texts of all ten-thousandths, from 0 to 1."""
    return pl.Series([f"{n / ALL:g}" for n in range(ALL + 1)])


def _has_texts(results: Results) -> bool:
    return results.tasks["data_url"].has_nulls()


def quote(text: str) -> str:
    """Return `text` as a JSON string."""
    return msgspec.json.encode(text).decode()


def _ballot_text(ballot: Ballot, options: Sequence[str]) -> str:
    share = ballot.confidence
    return (
        f'{options[ballot.winner]},"confidence":{1 if share == 1 else share!r}'
        f",{_counts_text(ballot, options)}"
    )


def _counts_text(ballot: Ballot, options: Sequence[str]) -> str:
    votes = ",".join(f"{option}:{n}" for option, n in zip(options, ballot.votes, strict=True))
    return f'"worker_count":{ballot.labels},"agreement_count":{ballot.agreed},"votes":{{{votes}}}'
