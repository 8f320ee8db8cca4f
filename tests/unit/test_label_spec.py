"""What may be said of the options of a job: which, how long, and what is never said twice."""

import json
from typing import Any

import pytest

from api.http.bodies import parse
from api.http.errors import ApiError
from api.routes.task_bodies import TaskBody, TasksBody
from blocks.bodies.jobs import JobBody
from blocks.domain.model import OptionDetail

TASK = {"type": "sentiment", "data_url": "https://a.example/1"}


def spec(*details: Any, **more: Any) -> dict[str, Any]:
    return {"question": "?", "options": ["cat", "dog", "a=b"], "option_details": [*details]} | more


def faults(label_spec: dict[str, Any]) -> dict[str, str]:
    """The faults of a job, which are those of a task as well, by their paths in the label_spec."""
    found = []
    for model, body in (
        (JobBody, {"manifest_url": "s3://bucket/key"}),
        (TaskBody, TASK),
        (TasksBody, {"tasks": [TASK | {"label_spec": label_spec}]}),
    ):
        asked = body if "tasks" in body else body | {"label_spec": label_spec}
        with pytest.raises(ApiError) as refused:
            parse(json.dumps(asked).encode(), model)
        found.append(
            {
                fault.field.removeprefix("tasks[0].").removeprefix("label_spec."): fault.message
                for fault in refused.value.body.details
            }
        )
    assert found[0] == found[1] == found[2]
    return found[0]


@pytest.mark.parametrize(
    "detail, field",
    [
        ({}, "option"),
        ({"option": "cow"}, "option"),
        ({"option": "Cat"}, "option"),
        ({"option": None}, "option"),
        ({"option": "cat", "hotkey": ""}, "hotkey"),
        ({"option": "cat", "hotkey": "ab"}, "hotkey"),
        ({"option": "cat", "hotkey": " "}, "hotkey"),
        ({"option": "cat", "hotkey": "\t"}, "hotkey"),
        ({"option": "cat", "hotkey": "\u00a0"}, "hotkey"),
        ({"option": "cat", "hotkey": "\u202e"}, "hotkey"),
        ({"option": "cat", "hotkey": "\u0301"}, "hotkey"),
        ({"option": "cat", "hotkey": "e\u0301"}, "hotkey"),
        ({"option": "cat", "hotkey": 1}, "hotkey"),
        ({"option": "cat", "description": ""}, "description"),
        ({"option": "cat", "description": " \n"}, "description"),
        ({"option": "cat", "description": "x" * 501}, "description"),
        ({"option": "cat", "key": "c"}, "key"),
    ],
    ids=str,
)
def test_a_wrong_detail_is_named_by_its_place(detail: dict[str, Any], field: str) -> None:
    good = {"option": "dog", "hotkey": "d", "description": "x" * 500}
    assert set(faults(spec(good, detail))) == {f"option_details[1].{field}"}


def test_nothing_is_said_twice() -> None:
    found = faults(
        spec(
            {"option": "cat", "hotkey": "x"},
            {"option": "dog", "hotkey": "X"},
            {"option": "cat"},
            {"option": "dgo"},
        )
    )
    assert found == {
        "option_details[1].hotkey": "Two options cannot have the hotkey 'X'.",
        "option_details[2].option": "This option has an entry before this one.",
        "option_details[3].option": "This is none of the options. Did you mean dog?",
    }


@pytest.mark.parametrize("details", [None, {}, "cat", [1], [["cat"]], [{"option": "cat"}] * 101])
def test_details_are_a_list_of_objects(details: Any) -> None:
    assert all(field.startswith("option_details") for field in faults(spec() | {"option_details": details}))  # fmt: skip


def test_a_faulty_option_hides_no_faulty_detail() -> None:
    assert set(faults(spec({"option": "cat", "hotkey": "ab"}, options=["cat", "cat"]))) == {
        "options", "option_details[0].hotkey",
    }  # fmt: skip


def test_details_that_say_nothing_are_not_recorded() -> None:
    def recorded(*details: Any) -> list[OptionDetail] | None:
        body = {"manifest_url": "s3://bucket/key", "label_spec": spec(*details)}
        return parse(json.dumps(body).encode(), JobBody).to_job("cust_1").option_details

    assert recorded() is None
    assert recorded({"option": "cat"}, {"option": "dog", "hotkey": None}) is None
    (found,) = recorded({"option": "cat"}, {"option": "a=b", "hotkey": "é"}) or []
    assert found == OptionDetail(option="a=b", hotkey="é")
