"""The table of `make faults`."""

import os
import statistics
from collections.abc import Iterable

from tests.support.fault_trial import Outcome

RECOVERY_P95_S = 60.0
HEAD = [
    "fault",
    "tries",
    "lost",
    "doubled",
    "A read",
    "C completed",
    "all",
    "API away",
    "not ready",
]
WIDTH = 44


def recovery_p95_s(outcomes: Iterable[Outcome]) -> float:
    """The 95th percentile of the seconds from a fault's end until all of its jobs were completed."""
    found = [float("inf") if each.all_s is None else each.all_s for each in outcomes]
    return statistics.quantiles(found, n=20, method="inclusive")[-1] if len(found) > 1 else found[0]


def line(outcome: Outcome) -> str:
    """One outcome, as it is seen while others are still to come."""
    names = zip(HEAD, _row(outcome.fault, [outcome])[:-2], strict=True)
    return ", ".join(f"{name} {value}" for name, value in names if name != "tries")


def table(outcomes: list[Outcome]) -> str:
    """A row for each kind of fault, of several tries the worst; then what it comes to."""
    rows = [[*HEAD, "by a human", "notes"]]
    for fault in dict.fromkeys(each.fault for each in outcomes):
        tries = [each for each in outcomes if each.fault == fault]
        rows.append(_row(fault, tries))
    widths = [max(len(row[n]) for row in rows) for n in range(len(HEAD) + 1)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip()
             + (f"  {row[-1]}" if row[-1] else "") for row in rows]  # fmt: skip
    load, _, _ = os.getloadavg()
    faults = [each for each in outcomes if each.fault != "none"]
    summary = (
        f"{len(faults)} faults: {sum(o.lost for o in faults)} lost, "
        f"{sum(o.doubled for o in faults)} doubled, {sum(bool(o.wrong) for o in faults)} with something wrong, "
        f"{sum(bool(o.human) for o in faults)} by a human"
    )
    if faults:
        summary += f"; p95 of recovery {recovery_p95_s(faults):.0f} s (goal {RECOVERY_P95_S:.0f} s)"
    return "\n".join(
        [
            "Seconds are from the end of the fault, of several tries the worst.",
            *lines,
            f"{summary}; load of the machine {load:.1f}",
        ]
    )


def _row(fault: str, tries: list[Outcome]) -> list[str]:
    numbers = [
        str(len(tries)),
        str(sum(each.lost for each in tries)),
        str(sum(each.doubled for each in tries)),
        *(
            _worst([getattr(each, name) for each in tries])
            for name in ("read_s", "completed_s", "all_s", "api_away_s", "not_ready_s")
        ),
    ]
    human = "; ".join(dict.fromkeys(each.human for each in tries if each.human)) or "no"
    notes = [each.note for each in tries if each.note]
    notes += ["WRONG" for each in tries if each.wrong]
    return [fault, *numbers, human, "; ".join(notes)]


def _worst(seconds: list[float | None]) -> str:
    return "never" if None in seconds else f"{max(s for s in seconds if s is not None):.1f}"
