"""The keys of the reviewers' page, and what they do not do."""

import json

import pytest
from playwright.sync_api import expect

from blocks.domain.model import GoodLine, OptionDetail
from tests.support.review_desk import ReviewDesk, Sit, at_case, line, send

pytestmark = pytest.mark.browser


def test_letters_and_digits_decide_nothing_where_somebody_types_or_wants_it_so(
    desk: ReviewDesk, sit: Sit
) -> None:
    job = desk.make_cases(1)
    page = sit()
    at_case(page, 0)
    page.get_by_role("button", name="Filter").click()
    field = page.get_by_label("Labelled or skipped by")
    field.press_sequentially("2x")
    expect(field).to_have_value("2x")
    field.fill("")
    page.get_by_label("Letters and digits decide a case").uncheck()
    page.locator("#stage").focus()
    page.keyboard.press("2")
    expect(page.locator("#saved")).to_have_text("All sent")
    page.keyboard.press("Enter")
    send(page)
    assert desk.decisions(job) == [("decided", 1)]


def test_the_keys_of_options_come_first_and_metadata_is_shown(desk: ReviewDesk, sit: Sit) -> None:
    first = line(3)
    metadata = json.dumps({"shop": "Ähren & Söhne", "page": 7})
    details = [
        OptionDetail(option="cat", hotkey="B"),
        OptionDetail(option="fox", description="<i>Red</i>."),
    ]
    job = desk.make_job([GoodLine(0, 1, first.data_url, metadata)], option_details=details)
    desk.say(job, "fox")
    page = sit()
    at_case(page, 3)
    assert page.locator("#metadata dd").all_inner_texts() == ["Ähren & Söhne", "7"]
    caps = page.locator("#options kbd, footer [data-action=back] kbd")
    assert caps.all_inner_texts() == ["B", "1", "2", "Q"]
    expect(page.locator("#options small")).to_have_text("<i>Red</i>.")
    page.keyboard.press("b")
    send(page)
    assert desk.decisions(job) == [("decided", 1)]
