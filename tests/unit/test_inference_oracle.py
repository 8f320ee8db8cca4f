"""Posteriors are those of crowd-kit, whose answers `tests/crowd_kit/make_answers.py` has written down."""

import json
from pathlib import Path
from typing import Any

import pytest

from blocks.domain.model import InferenceMethod
from blocks.inference.dawid_skene import infer
from tests.support.reference_inference import frame

FILE = Path(__file__).parents[1] / "crowd_kit" / "answers.json"
KNOWN: dict[str, Any] = json.loads(FILE.read_text())
ANSWERS: list[dict[str, Any]] = KNOWN["answers"]
# crowd-kit adds no labels: it takes 1e-10 for a probability of 0.
ALMOST_NONE = 1e-9
# The share of tasks on which both have the same option, although ours adds two labels to each row.
SAME_MIN = 0.9


def name(answer: dict[str, Any]) -> str:
    return f"{answer['crowd']}, {answer['method']}, {answer['iterations']}"


@pytest.mark.parametrize("answer", ANSWERS, ids=name)
def test_posteriors_are_those_of_crowd_kit(answer: dict[str, Any]) -> None:
    found = infer(
        frame(KNOWN["crowds"][answer["crowd"]]),
        InferenceMethod(answer["method"]),
        smoothing=ALMOST_NONE,
        tolerance=0,
        iterations_max=answer["iterations"],
    )
    assert list(found.patterns.task_nos) == answer["tasks"]
    assert list(found.patterns.options) == answer["options"]
    columns = [found.posterior_of(option) for option in answer["options"]]
    ours = [each for row in zip(*columns, strict=True) for each in row]
    theirs = [each for row in answer["posteriors"] for each in row]
    assert ours == pytest.approx(theirs, abs=1e-5)


# 20 people are too few for matrices of 6 × 6: there, two labels more make another matrix.
LARGE = [each for each in ANSWERS if each["iterations"] > 10 and each["crowd"] != "anxiety"]


@pytest.mark.parametrize("answer", LARGE, ids=name)
def test_what_jobs_are_told_is_nearly_what_crowd_kit_says(answer: dict[str, Any]) -> None:
    labels = frame(KNOWN["crowds"][answer["crowd"]])
    found = infer(labels, InferenceMethod(answer["method"])).tasks["option"]
    theirs = [
        answer["options"][max(range(len(row)), key=row.__getitem__)] for row in answer["posteriors"]
    ]
    same = sum(a == b for a, b in zip(found, theirs, strict=True))
    assert same / len(theirs) >= SAME_MIN
