"""Compute the confidence of many tasks at once: `consensus.confidence`, to the ten-thousandth."""

from collections.abc import Sequence

import polars as pl

from blocks.domain.consensus import ALL, NAT, confidence_of, weight

# What is computed here differs from the reference by less: sums have another order, and exp another
# last bit. So near a half the reference decides which way it is rounded.
_ERROR_MAX = 1e-6


def weights(skills: pl.Series, options: int) -> pl.Series:
    """Return what labels add to the scores of their options, by their annotators' skills (Int64)."""
    known = skills.unique().drop_nulls()
    found = [weight(skill, options) for skill in known]
    return skills.replace_strict(known, found, default=0, return_dtype=pl.Int64)


def confidences(scores: pl.DataFrame, options: int) -> pl.DataFrame:
    """Return the confidence of tasks by their scores, in their order: `task_no`, `confidence` (UInt16).

    `scores` has a row for each option of a task that has a score, in millionths of a nat: `task_no`,
    `option` (1-based), `score`, and the `outcome` of the task. Options without a row have 0, the
    least. The confidence is that of the outcome; of the likeliest option where there is none.
    """
    of_outcome = pl.col("score").filter(pl.col("option") == pl.col("outcome")).first().fill_null(0)
    chosen = (
        pl.when(pl.col("outcome").first() > 0).then(of_outcome).otherwise(pl.col("score").max())
    )
    away = (pl.col("score") - pl.col("score").max()) / NAT
    left_out = (options - pl.len()) * (-pl.col("score").max() / NAT).exp()
    of_chosen = ((chosen - pl.col("score").max()) / NAT).exp()
    tasks = scores.group_by("task_no", maintain_order=True).agg(
        "score", chosen=chosen, share=ALL * of_chosen / (away.exp().sum() + left_out) + 0.5
    )
    share = tasks["share"]
    near = (share - share.round()).abs() < _ERROR_MAX
    exact = [
        _confidence(some, chosen, options)
        for some, chosen in tasks.filter(near).select("score", "chosen").iter_rows()
    ]
    floors = share.floor().cast(pl.UInt16)
    if exact:
        floors = floors.scatter(near.arg_true(), pl.Series(exact, dtype=pl.UInt16))
    return tasks.select("task_no", confidence=floors)


def _confidence(scores: Sequence[int], chosen: int, options: int) -> int:
    all_scores = [*scores, *[0] * (options - len(scores))]
    return confidence_of(all_scores, all_scores.index(chosen) + 1)
