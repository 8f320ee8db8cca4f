"""The reviewers' page in a browser: what it shows, what its keys do, and what is in the database then."""

import httpx
import pytest
from playwright.sync_api import Page, expect

from blocks.domain.model import SkipReason
from blocks.store import jobs
from blocks.store.label_changes import Skip
from deployments.embedded.stack import Stack
from tests.support.browser import Faults, OpenPage, Theme, check_accessibility, stored
from tests.support.review_desk import SEND_MS, ReviewDesk, Sit, at_case, line, send

pytestmark = pytest.mark.browser

DECIDE_BEFORE_HELD_CASES_COME = """
const [read, decided] = [Promise.withResolvers(), Promise.withResolvers()];
const send = window.fetch;
window.fetch = async (path, options) => {
  const isDecision = options.method === "POST" && path.endsWith("/reviews");
  if (isDecision) await read.promise;
  const answer = await send(path, options);
  if (isDecision) decided.resolve();
  if (path.startsWith("/v1/annotation/leases")) {
    read.resolve();
    await decided.promise;
    while (document.getElementById("saved").textContent !== "All sent") await new Promise(requestAnimationFrame);
  }
  return answer;
};
"""


def nothing(page: Page, title: str) -> None:
    expect(page.locator("#nothing").get_by_role("heading")).to_have_text(title)


def test_cases_are_decided_by_keys(desk: ReviewDesk, sit: Sit) -> None:
    job = desk.make_cases(5, label="cat")
    page = sit()
    at_case(page, 0)
    expect(page.locator("#why")).to_contain_text("Sample")
    expect(page.locator("#proposed")).to_have_text("Proposed: “cat”, confidence 100 %")
    votes = page.locator("#options").get_by_role("img")
    assert [each.get_attribute("aria-label") for each in votes.all()] == [
        "1 vote", "0 votes", "0 votes",
    ]  # fmt: skip
    expect(page.locator("#labels li")).to_contain_text("catann_")
    for n, key in enumerate(["Enter", "2", "x", "b", "k"]):
        at_case(page, n)
        expect(page.locator("#waiting")).to_have_text(f"{5 - n} waiting")
        page.keyboard.press(key)
    nothing(page, "Nothing to review now")
    send(page)
    assert desk.decisions(job) == [
        ("decided", 1), ("decided", 2), ("decided", 0), ("sent_back", None), ("decided", -2),
    ]  # fmt: skip


def test_a_decision_is_taken_back_until_it_is_sent(desk: ReviewDesk, sit: Sit) -> None:
    job = desk.make_cases(3)
    page = sit()
    at_case(page, 0)
    page.keyboard.press("s")  # for later
    at_case(page, 1)
    page.keyboard.press("x")
    at_case(page, 2)
    expect(page.locator("#saved")).to_have_text("1 to send")
    page.keyboard.press("Backspace")
    at_case(page, 1)
    expect(page.locator("#undo")).to_be_disabled()
    page.keyboard.press("3")
    at_case(page, 2)
    send(page)
    expect(page.locator("#undo")).to_be_disabled()
    page.keyboard.press("Backspace")
    at_case(page, 2)
    assert desk.decisions(job) == [("open", None), ("decided", 3), ("open", None)]
    page.get_by_role("button", name="Send back").click()
    at_case(page, 0)
    send(page)
    assert desk.decisions(job) == [("open", None), ("decided", 3), ("sent_back", None)]


def test_a_filter_shows_the_cases_of_a_job_a_reason_or_an_annotator(
    desk: ReviewDesk, sit: Sit
) -> None:
    desk.make_cases(2)
    flagged = desk.make_job([line(7)], review_flagged=True, review_share=None, skips_max=1)
    note = "<b>Too dark</b>"
    desk.skip(flagged, Skip(flagged.task_id(0), SkipReason.BROKEN, note))
    page = sit("?reason=flagged")
    at_case(page, 7)
    expect(page.locator("#proposed")).to_have_text("Proposed: fail, cannot be seen")
    expect(page.locator("#skips li")).to_contain_text(f"Cannot be seen{note}")
    expect(page.locator("#waiting")).to_have_text("1 waiting")
    page.get_by_role("button", name="Filter (1)").click()
    job = page.get_by_label("Job", exact=True)
    assert [option.get_attribute("value") for option in job.get_by_role("option").all()][1:] == [
        flagged.job_id,
        *(each["job_id"] for each in desk.run(
            "select job_id from jobs where customer_id = %s and job_no <> %s",
            desk.customer_id, flagged.job_no,
        )),
    ]  # fmt: skip
    job.select_option(flagged.job_id)
    page.get_by_label("Why it is here").select_option("")
    page.get_by_role("button", name="Show these").click()
    page.wait_for_url(f"**/review?job={flagged.job_id}")
    at_case(page, 7)
    page.locator("#skips").get_by_role("link").click()
    page.wait_for_url("**&annotator=ann_*")
    at_case(page, 7)
    page.keyboard.press("Enter")
    send(page)
    nothing(page, "Nothing to review now")
    assert desk.decisions(flagged) == [("decided", -2)]
    page.get_by_role("link", name="Show all").click()
    at_case(page, 0)
    stranger = f"ann_{'0' * 22}"
    page.goto(f"/review?annotator={stranger}")
    nothing(page, "Nothing for you now")


def test_two_reviewers_are_never_shown_the_same_case(desk: ReviewDesk, sit: Sit) -> None:
    job = desk.make_cases(14)
    one, two = sit(), sit()
    shown: list[str] = []
    for page in [one, two] * 7:
        ready = page.locator("#accept:enabled")
        expect(ready.or_(page.locator("#nothing:not([hidden]) h2"))).to_be_visible()
        if ready.is_visible():
            shown.append(page.locator("#picture img").get_attribute("src") or "")
            page.keyboard.press("2")
            page.clock.fast_forward(SEND_MS)
    assert len(shown) == len(set(shown))
    for page in (one, two):
        send(page)
    decided = [each for each in desk.decisions(job) if each == ("decided", 2)]
    assert len(decided) == len(shown)
    deciders = desk.run(
        "select count(distinct decided_by) as n from reviews where job_no = %s", job.job_no
    )
    assert deciders == [{"n": 2}]


def test_two_tabs_of_a_reviewer_never_show_the_same_case(desk: ReviewDesk, sit: Sit) -> None:
    desk.make_cases(12)
    page = sit()
    at_case(page, 0)
    tab = page.context.new_page()
    tab.goto("/review")
    expect(tab.locator("#accept")).to_be_enabled()
    shown = tab.locator("#picture img").get_attribute("src")
    assert shown != page.locator("#picture img").get_attribute("src")
    tab.reload()
    expect(tab.locator("#picture img")).to_have_attribute("src", shown or "")


def test_after_a_reload_the_case_is_there_again_and_no_decision_is_lost(
    desk: ReviewDesk, sit: Sit
) -> None:
    job = desk.make_cases(8)
    page = sit()
    at_case(page, 0)
    page.keyboard.press("2")
    at_case(page, 1)
    page.keyboard.press("3")
    at_case(page, 2)
    page.reload()
    at_case(page, 2)
    expect(page.locator("#saved")).to_have_text("All sent")
    assert desk.decisions(job)[:3] == [("decided", 2), ("decided", 3), ("open", None)]
    page.goto("/")
    expect(page.locator("#who")).to_be_visible()
    other = sit()
    expect(other.locator("#waiting")).to_have_text("6 waiting")
    assert desk.holders(job)[0] is not None  # the one that was shown: it was found again


def test_a_case_whose_decision_arrives_while_cases_are_looked_for_is_not_shown_again(
    desk: ReviewDesk, sit: Sit
) -> None:
    job = desk.make_cases(2)
    page = sit()
    at_case(page, 0)
    page.keyboard.press("2")
    at_case(page, 1)
    # Nothing is sent when the page goes away.
    page.evaluate("() => { window.fetch = () => new Promise(() => {}); }")
    page.add_init_script(DECIDE_BEFORE_HELD_CASES_COME)
    page.reload()
    at_case(page, 1)
    assert desk.decisions(job) == [("decided", 2), ("open", None)]


def test_no_decision_is_lost_when_the_connection_is(
    desk: ReviewDesk, sit: Sit, faults: Faults
) -> None:
    job = desk.make_cases(4)
    page = sit()
    at_case(page, 0)
    faults.expect("ERR_INTERNET_DISCONNECTED")
    page.context.set_offline(True)
    for n, key in enumerate(["2", "3", "Enter"]):
        at_case(page, n)
        page.keyboard.press(key)
    at_case(page, 3)
    page.clock.fast_forward(SEND_MS)
    expect(page.locator("#saved")).to_have_text("3 to send, no connection")
    assert {state for state, _ in desk.decisions(job)} == {"open"}
    page.context.set_offline(False)
    expect(page.locator("#saved")).to_have_text("All sent")
    assert desk.decisions(job) == [
        ("decided", 2), ("decided", 3), ("decided", 1), ("open", None),
    ]  # fmt: skip


def test_a_decision_that_came_too_late_is_told(
    stack: Stack, desk: ReviewDesk, sit: Sit, faults: Faults
) -> None:
    job = desk.make_cases(2)
    page = sit()
    at_case(page, 0)
    faults.expect("ERR_INTERNET_DISCONNECTED")
    page.context.set_offline(True)
    page.keyboard.press("2")
    at_case(page, 1)
    desk.run("update reviews set expires_at = now() where job_no = %s", job.job_no)
    headers = {"Authorization": f"Bearer {desk.hire_reviewer()}"}
    with httpx.Client(base_url=f"{stack.api_url}/v1/annotation", headers=headers) as other:
        claimed = other.post("/claim?queue=review", json={"limit": 1}).json()["tasks"]
        decisions = {"reviews": [{"task_id": claimed[0]["task_id"], "label": "fox"}]}
        assert other.post("/reviews", json=decisions).json()["results"][0]["outcome"] == "settled"
    page.context.set_offline(False)
    page.clock.fast_forward(SEND_MS)
    told = page.get_by_role("alert")
    expect(told).to_contain_text("“dog”. It was not taken: the task has ended meanwhile")
    told.get_by_role("button").click()
    expect(told).to_be_hidden()
    assert desk.decisions(job)[0] == ("decided", 3)


def test_cases_of_a_job_that_was_cancelled_go_and_that_is_told(desk: ReviewDesk, sit: Sit) -> None:
    job = desk.make_cases(4)
    page = sit()
    at_case(page, 0)
    page.keyboard.press("2")
    at_case(page, 1)
    desk.do(jobs.cancel, job.job_no)
    page.clock.fast_forward(SEND_MS)
    told = page.get_by_role("alert").get_by_role("listitem")
    reason = "its job has ended, or was cancelled"
    expect(told.filter(has_text="your decision: “dog”").filter(has_text=reason)).to_be_visible()
    expect(
        told.filter(has_text="is not to be decided any more").filter(has_text=reason)
    ).to_be_visible()
    nothing(page, "No job has reviews")


def test_a_session_that_has_ended_is_told_and_decisions_are_kept(
    desk: ReviewDesk, sit: Sit, faults: Faults
) -> None:
    job = desk.make_cases(2)
    key = desk.hire_reviewer()
    page = sit(key=key)
    at_case(page, 0)
    # In another tab they sign out.
    token = page.request.get("/v1/session").json()["csrf_token"]
    page.request.delete("/v1/session", headers={"X-CSRF-Token": token})
    faults.expect("401")
    page.keyboard.press("2")
    at_case(page, 1)
    page.clock.fast_forward(SEND_MS)
    nothing(page, "You are signed out")
    expect(page.locator("#nothing")).to_contain_text("A decision is kept in this browser")
    page.get_by_role("link", name="Sign in again").click()
    page.get_by_label("Your key").fill(key)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/review")
    at_case(page, 1)
    expect(page.locator("#saved")).to_have_text("All sent")
    assert desk.decisions(job) == [("decided", 2), ("open", None)]
    assert key not in stored(page)


def test_a_decision_that_this_device_has_kept_badly_holds_up_nothing(
    desk: ReviewDesk, sit: Sit
) -> None:
    job = desk.make_cases(2)
    page = sit()
    at_case(page, 0)
    owner = page.request.get("/v1/session").json()["owner_id"]
    page.evaluate("id => localStorage.setItem(`refinery-reviews/${id}/0/0`, '{')", owner)
    page.keyboard.press("2")
    at_case(page, 1)
    page.reload()
    expect(page.get_by_role("alert")).to_contain_text("A decision kept on this device could not")
    at_case(page, 1)
    expect(page.locator("#saved")).to_have_text("All sent")
    assert desk.decisions(job) == [("decided", 2), ("open", None)]


def test_nothing_is_sent_in_the_name_of_somebody_else(
    desk: ReviewDesk, sit: Sit, faults: Faults
) -> None:
    job = desk.make_cases(2)
    page = sit()
    at_case(page, 0)
    assert page.request.post("/v1/session", data={"key": desk.hire_reviewer()}).ok
    faults.expect("403")
    page.keyboard.press("2")
    at_case(page, 1)
    page.clock.fast_forward(SEND_MS)
    nothing(page, "Somebody else is signed in")
    page.get_by_role("link", name="Load this page again").click()
    expect(page.locator("#waiting")).to_have_text("2 waiting")
    assert {state for state, _ in desk.decisions(job)} == {"open"}


def test_who_is_no_reviewer_is_told_so(
    desk: ReviewDesk, open_page: OpenPage, faults: Faults
) -> None:
    page = open_page("/review", key=desk.annotator_key)
    nothing(page, "You are no reviewer")
    expect(page.get_by_role("link", name="All pages", exact=True)).to_be_visible()
    check_accessibility(page)
    page = open_page("/review")
    nothing(page, "You are not signed in")
    expect(page.get_by_role("link", name="Sign in")).to_have_attribute("href", "/?to=/review")


def test_no_job_with_reviews_is_another_thing_than_nothing_to_review(
    desk: ReviewDesk, sit: Sit
) -> None:
    page = sit()
    nothing(page, "No job has reviews")
    job = desk.make_job([line(5)])
    page.clock.fast_forward(SEND_MS)
    nothing(page, "Nothing to review now")
    desk.say(job, "fox")
    page.clock.fast_forward(SEND_MS)
    at_case(page, 5)


def test_texts_are_texts_and_a_broken_picture_says_so(
    desk: ReviewDesk, sit: Sit, faults: Faults
) -> None:
    text = '<img src="x" onerror="alert(1)"> & 1 < 2'
    broken = "data:image/png;base64,AAAA"
    job = desk.make_job(
        [line(0, text=text), line(1, data_url=broken), line(2, data_url="javascript:alert(1)")]
    )
    desk.say(job, "dog")
    page = sit()
    expect(page.locator("#text")).to_have_text(text)
    for _ in range(2):
        expect(page.locator("#accept")).to_be_enabled()
        page.keyboard.press("Enter")
        nothing(page, "This picture cannot be shown")
    expect(page.locator("#accept")).to_be_enabled()
    page.keyboard.press("u")
    send(page)
    assert desk.decisions(job) == [("decided", 2), ("decided", 2), ("decided", -1)]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 390])
def test_the_page_is_accessible_and_fits(
    desk: ReviewDesk, sit: Sit, theme: Theme, width: int
) -> None:
    desk.make_cases(1)
    page = sit(theme=theme, width=width)
    at_case(page, 0)
    check_accessibility(page)
    page.get_by_role("button", name="Filter").click()
    page.get_by_text("Fail it").click()
    check_accessibility(page)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
