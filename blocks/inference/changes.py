"""Compare what was inferred with the results that tasks have."""

import polars as pl

from blocks.inference.dawid_skene import Inference

# Posteriors that differ by less are equal: the last bits of a sum say nothing.
_EQUAL = 1e-9


def find_changes(inference: Inference, labels: pl.DataFrame) -> pl.DataFrame:
    """Return the tasks whose most likely option is not their result, in the order of their numbers.

    `labels` are those of the inference, with the `outcome` of their task: its result, 1-based, or 0 if
    it has none. The columns are `task_no`, `outcome`, `option` (UInt8, 1-based), which is the likeliest
    one, and its `posterior` (Float64). A result that is as likely as that one stays.
    """
    outcomes = labels.select("task_no", "outcome").unique("task_no")
    tasks = inference.tasks.join(outcomes, on="task_no", how="left", maintain_order="left")
    of_outcome = pl.zeros(len(tasks), eager=True)
    for option in inference.patterns.options:
        is_outcome = tasks["outcome"] == option
        of_outcome = inference.posterior_of(option).zip_with(is_outcome, of_outcome)
    changed = tasks.filter(tasks["posterior"] > of_outcome + _EQUAL)
    return changed.select("task_no", "outcome", "option", "posterior")
