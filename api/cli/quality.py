"""`refinery jobs quality`: agreement, who has done what, and what labels say of the truth."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from cyclopts import Parameter

from api.cli.client import COMMON, Common, path
from api.cli.exits import UsageError
from api.cli.export import stream
from api.cli.files import replaced
from api.cli.output import print_fields, print_json, print_table, printable
from blocks.domain.model import InferenceMethod

# A larger matrix is no more read than a list of what is confused most.
_MATRIX_OPTIONS_MAX = 6
_MATRIX_COLUMNS_MAX = 78
_PAIRS_MAX = 20
_MATRICES_MAX = 10


def quality(
    job_id: Annotated[str, Parameter(help="The id of the job.")],
    *,
    method: Annotated[
        str | None,
        Parameter(
            help="Infer true labels, and how often each annotator is right, as well.",
            choices=[each.value for each in InferenceMethod],
        ),
    ] = None,
    annotator: Annotated[
        str | None, Parameter(help="Show what this annotator alone confuses, by their id.")
    ] = None,
    output: Annotated[
        Path | None,
        Parameter(
            name=["--output", "-o"],
            help="With --method: write each label that it would change to this file, as JSON lines, and "
            "print nothing.",
        ),
    ] = None,
    common: Common = COMMON,
) -> None:
    """Show agreement, what is confused, and what each annotator has done."""
    report = path("jobs", job_id, "quality")
    if output is not None:
        if method is None:
            raise UsageError("--output is for the labels that a --method would change.")
        with (
            common.client() as client,
            replaced(output, f"{quote(job_id, safe='')}.changes") as file,
        ):
            stream(client, f"{report}/changes", file, method=method)
        return
    with common.client() as client:
        found = client.get(report, method=method, annotator=annotator)
    if common.as_json:
        print_json(found)
        return
    _print_report(found)


def _print_report(found: dict[str, Any]) -> None:
    inference = found.pop("inference", None)
    options, confusion, annotators = (
        found.pop(field) for field in ("options", "confusion", "annotators")
    )
    print_fields(found | _sums(found))
    _print_rows(("option", "labels", "tasks", "open"), options)
    _print_confusion([each["option"] for each in options], confusion)
    _print_annotators(annotators)
    if inference is not None:
        _print_inference(inference)


def _sums(found: Mapping[str, Any]) -> dict[str, str]:
    """Return the parts of a report as texts of a line."""
    bins = [each for each in found["confidence"] if each["tasks"]]
    per_task = found["labels_per_task"]
    open_ones = found["open"]
    return {
        "confidence": ", ".join(f"to {each['upto']:g}: {each['tasks']:,}" for each in bins),
        "labels_per_task": ", ".join(f"{each['labels']}: {each['tasks']:,}" for each in per_task),
        "open": f"{open_ones['tasks']:,} tasks, {open_ones['labels']:,} labels",
        "accuracy": _show_accuracy(found["accuracy"]),
    }


def _show_accuracy(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return ""
    share = "" if found["accuracy"] is None else f"{found['accuracy']:g}, "
    return f"{share}between {found['low']:g} and {found['high']:g} by {found['tasks']:,} gold tasks"


def _print_confusion(options: Sequence[str], confusion: Sequence[Sequence[int]]) -> None:
    """Print the matrix if it is small, else the pairs of options that are confused most often."""
    if not any(map(any, confusion)):
        return
    print()
    if _fits(options):
        _print_matrix("settled on", options, confusion)
        return
    pairs = list(_list_pairs(options, confusion))
    if not pairs:
        print("Nothing is confused: all labels on settled tasks agree.")
        return
    print_table(("settled on", "label", "labels", "% of the row"), pairs[:_PAIRS_MAX])
    if len(pairs) > _PAIRS_MAX:
        print(f"and {len(pairs) - _PAIRS_MAX:,} pairs more; --json has all")


def _print_inferred_confusion(
    options: Sequence[str], annotators: Sequence[Mapping[str, Any]]
) -> None:
    """Print the matrices of annotators that have one, in percent, as `_print_confusion` does."""
    known = [each for each in annotators if each["confusion"] is not None]
    for each in known[:_MATRICES_MAX]:
        print(f"\nWhat {each['annotator_id']} says of each true option, in %:")
        if _fits(options):
            percent = [[round(100 * share, 1) for share in row] for row in each["confusion"]]
            _print_matrix("truly", options, percent)
        else:
            pairs = list(_list_pairs(options, each["confusion"]))[:_PAIRS_MAX]
            print_table(
                ("truly", "label", "%"), [(true, said, share) for true, said, _, share in pairs]
            )
    if len(known) > _MATRICES_MAX:
        print(f"\nand {len(known) - _MATRICES_MAX:,} annotators more; --json has all")


def _fits(options: Sequence[str]) -> bool:
    """Return True if a matrix of these options is small enough to be read in a terminal."""
    shown = [len(printable(option)) for option in options]
    width = max(shown) + sum(2 + max(each, 7) for each in shown)
    return len(options) <= _MATRIX_OPTIONS_MAX and width + 2 <= _MATRIX_COLUMNS_MAX


def _print_matrix(corner: str, options: Sequence[str], matrix: Sequence[Sequence[float]]) -> None:
    rows = zip(options, matrix, strict=True)
    print_table((corner, *options), ((option, *row) for option, row in rows))


def _list_pairs(
    options: Sequence[str], confusion: Sequence[Sequence[float]]
) -> Iterable[tuple[str, str, float, float]]:
    """Return what is labelled otherwise than it is or settled, the most frequent first.

    Each is an option, another one, its number, and its percent of the row.
    """
    pairs = [
        (settled, label, labels, round(100 * labels / sum(row), 1))
        for settled, row in zip(options, confusion, strict=True)
        for label, labels in zip(options, row, strict=True)
        if labels and label != settled
    ]
    return sorted(pairs, key=lambda pair: -pair[2])


def _print_annotators(annotators: Sequence[dict[str, Any]]) -> None:
    """Print three tables, so that each fits a terminal: of labels, of skips and changes, of skill."""
    labels = ("annotator_id", "name", "labels", "agreement", "failed", "open", "seconds_per_label")
    shown = [each | each["skips"] for each in annotators]
    _print_rows(
        labels, shown, headings={"annotator_id": "annotator", "seconds_per_label": "s/label"}
    )
    rest = ("annotator_id", "unclear", "broken", "none_of_these", "replaced", "withdrawn")
    some = [each for each in shown if any(each[field] for field in rest[1:])]
    if some:
        print("\nSkips by reason, and labels that were changed:")
    _print_rows(rest, some, headings={"annotator_id": "annotator"})
    known = [each for each in shown if "skill" in each]
    if known:
        print("\nGold, here and in earlier jobs of the same question, and skill:")
    _print_rows(
        ("annotator_id", "gold_seen", "gold_accuracy", "earlier_gold_seen", "skill", "excluded"),
        [each | {"excluded": (each["excluded_at"] or "")[:10]} for each in known],
        headings={
            "annotator_id": "annotator", "gold_seen": "gold", "gold_accuracy": "right",
            "earlier_gold_seen": "earlier",
        },
    )  # fmt: skip


def _print_inference(inference: dict[str, Any]) -> None:
    annotators, changes = inference.pop("annotators"), inference.pop("changes")
    priors = {each["option"]: each["prior"] for each in inference["priors"]}
    shown = ", ".join(f"{option}: {prior:g}" for option, prior in priors.items())
    print()
    print_fields(inference | {"priors": shown})
    _print_rows(("annotator_id", "labels", "accuracy"), annotators)
    _print_inferred_confusion([*priors], annotators)
    _print_rows(("task_id", "label", "inferred", "posterior"), changes)


def _print_rows(
    fields: tuple[str, ...],
    rows: Sequence[Mapping[str, Any]],
    *,
    headings: Mapping[str, str] = {},
) -> None:
    if rows:
        print()
        columns = [headings.get(field, field) for field in fields]
        print_table(columns, ([row[field] for field in fields] for row in rows))
