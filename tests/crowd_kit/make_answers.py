"""Ask crowd-kit for the posteriors that ours are compared with, and write `answers.json`.

    python -m tests.crowd_kit.make_answers

crowd-kit has an environment of its own, `.bench/crowd-kit`, which this makes from a package index. Nothing
that runs, and no test, needs it. `anxiety.json` is a public data set: how anxious three raters found 20
people, from 1 to 6, as in R's package irr and in the wheel of statsmodels 0.15, file
`statsmodels/stats/tests/test_inter_rater.py`. The other crowds are made up.
"""

import json
import random
import subprocess
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import environments
from benchmarks.environments import PEERS
from blocks.domain.model import InferenceMethod
from tests.support.made_crowds import make_crowd
from tests.support.reference_inference import Said

FOLDER = Path(__file__).parent
# So many for both: where each stops by itself depends on how it measures a step.
ITERATIONS = (1, 5, 60)
_NEVER = -1e9
_DIGITS = 9


def main() -> None:
    python = environments.interpreter("crowd-kit", Console())
    crowds = _crowds()
    answers = [
        {"crowd": name, "method": method, "iterations": iterations}
        | _ask(python, labels, method, iterations)
        for name, labels in crowds.items()
        for method in InferenceMethod
        for iterations in ITERATIONS
    ]
    text = json.dumps({"crowds": crowds, "answers": answers}, separators=(",", ":"))
    (FOLDER / "answers.json").write_text(text + "\n")


def _crowds() -> dict[str, list[Said]]:
    rng = random.Random(1)
    mixed = [rng.uniform(0.5, 0.95) for _ in range(10)]
    anxiety = json.loads((FOLDER / "anxiety.json").read_text())
    return {
        "two options": make_crowd("two", mixed, tasks=150, options=2, each=3).labels,
        "four options": make_crowd("four", mixed, tasks=150, options=4, each=4).labels,
        "a spammer and an expert": make_crowd(
            "spam", [0.7, 0.7, 0.33, 0.97], tasks=100, options=3, each=3
        ).labels,
        "anxiety": [
            (person, rater, rating)
            for person, ratings in enumerate(anxiety, start=1)
            for rater, rating in enumerate(ratings, start=1)
        ],
    }


def _ask(
    python: Path, labels: list[Said], method: InferenceMethod, iterations: int
) -> dict[str, Any]:
    asked = {
        "labels": labels,
        "method": method,
        "iterations": iterations,
        "tolerance": _NEVER,
    }
    done = subprocess.run(
        [python, PEERS / "crowd_kit.py"],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    assert found["iterations"] == iterations
    posteriors = [[round(n, _DIGITS) for n in row] for row in found["posteriors"]]
    return {"tasks": found["tasks"], "options": found["options"], "posteriors": posteriors}


if __name__ == "__main__":
    main()
