"""The annotators' page: what is chosen is what the database has, once, whatever happens to the page."""

from collections.abc import Callable

import pytest
from playwright.sync_api import BrowserContext, Route, expect

from blocks.store import exclusions, jobs
from tests.support.annotating import LABELS, LOST, NOTE_TASKS, Gallery, Hand, OpenHand
from tests.support.browser import Faults

pytestmark = pytest.mark.browser


def hold_labels(context: BrowserContext) -> Callable[[], None]:
    """Keep labels on their way; return what lets them arrive."""
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    def let_arrive() -> None:
        for route in held:
            route.continue_()
        context.unroute(LABELS)

    context.route(LABELS, hold)
    return let_arrive


@pytest.mark.timeout(300)
def test_two_annotators_at_once_label_200_pictures_from_the_keyboard(
    gallery: Gallery, open_hand: OpenHand
) -> None:
    job = gallery.job(200)
    people = [gallery.annotator() for _ in range(2)]
    hands = [open_hand(key, job) for _, key in people]
    for _ in range(100):
        for hand in hands:
            hand.label()
    for hand, (number, _) in zip(hands, people, strict=True):
        hand.wait_saved()
        expect(hand.page.locator("#said")).to_contain_text("Done")
        expect(hand.page.locator("#progress")).to_contain_text("100 today · 100 of this job")
        assert gallery.labels(job, number) == hand.chosen
    assert len(hands[0].chosen | hands[1].chosen) == 200


def test_choices_are_taken_back_before_and_after_they_were_sent(
    gallery: Gallery, open_hand: OpenHand
) -> None:
    job = gallery.job(8, consensus_threshold=2)
    number, key = gallery.annotator()
    hand = open_hand(key, job)
    hand.look()
    hand.press("3")
    unsent = hand.undo()
    expect(hand.page.locator("#keep")).to_be_hidden()
    assert gallery.labels(job, number) == {}
    hand.press("1")
    hand.look()
    hand.press("2")
    hand.wait_saved()
    sent = hand.undo()
    expect(hand.page.get_by_role("radio", name="dog", checked=True)).to_be_visible()
    hand.press("3")
    hand.wait_saved()
    assert gallery.labels(job, number) == {unsent: "cat", sent: "bird"} == hand.chosen


def test_an_answer_that_has_settled_its_task_stays_and_the_page_says_so(
    gallery: Gallery, open_hand: OpenHand, faults: Faults
) -> None:
    faults.expect("404")
    job = gallery.job(3, consensus_threshold=1)
    number, key = gallery.annotator()
    hand = open_hand(key, job)
    hand.look()
    hand.page.get_by_role("radio", name="dog").click()
    expect(hand.page.locator("#options :focus")).to_have_count(0)
    hand.undo()
    hand.press("2")
    hand.wait_saved(by_itself=True)
    expect(hand.page.locator("#undo")).to_be_disabled()
    hand.page.get_by_role("button", name="My labels").click()
    hand.page.get_by_role("button", name="Change").click()
    labels = hand.page.locator("#labels-dialog")
    expect(labels.get_by_role("status")).to_contain_text("yours stays as it is")
    expect(labels.get_by_text("cannot be changed any more")).to_be_visible()
    assert gallery.labels(job, number) == hand.chosen


def test_a_label_that_was_sent_becomes_a_skip_with_a_note(
    gallery: Gallery, open_hand: OpenHand
) -> None:
    job = gallery.job(3, consensus_threshold=2)
    number, key = gallery.annotator()
    hand = open_hand(key, job)
    hand.label()
    hand.wait_saved()
    hand.undo()
    hand.page.keyboard.press(",")
    hand.page.get_by_label("A note").fill("1 of them <b>is</b> cut off")
    hand.page.get_by_role("button", name="It is unclear").click()
    hand.wait_saved()
    assert gallery.labels(job, number) == {}
    assert gallery.skips(job) == [(1, "1 of them <b>is</b> cut off")]


def test_a_reload_finds_what_was_held_and_sends_what_was_kept(
    gallery: Gallery, open_hand: OpenHand, faults: Faults
) -> None:
    faults.expect(LOST)
    job = gallery.job(30)
    number, key = gallery.annotator()
    hand = open_hand(key, job)
    hand.page.route(LABELS, lambda route: route.abort())
    hand.label(4)
    before = hand.look()
    hand.page.unroute(LABELS)
    hand.reload()
    assert hand.look() == before
    hand.answer(before)
    hand.label(25)
    hand.wait_saved()
    assert gallery.labels(job, number) == hand.chosen
    assert len(hand.chosen) == 30


def test_a_connection_that_is_cut_loses_nothing_and_doubles_nothing(
    gallery: Gallery, open_hand: OpenHand, faults: Faults
) -> None:
    faults.expect(LOST)
    job = gallery.job(12, consensus_threshold=2)
    number, key = gallery.annotator()
    hand = open_hand(key, job)
    answered: list[int] = []

    def lose_answer(route: Route) -> None:
        answered.append(route.fetch().status)
        route.abort()

    hand.page.route(LABELS, lose_answer, times=1)
    hand.label(2)
    expect(hand.page.locator("#saved")).to_have_text("2 to send, no connection")
    assert answered == [200]
    assert gallery.labels(job, number) == hand.chosen
    hand.page.context.set_offline(True)
    hand.label(3)
    expect(hand.page.locator("#saved")).to_have_text("5 to send, no connection")
    hand.page.context.set_offline(False)
    hand.label(5)
    hand.wait_saved()
    assert gallery.labels(job, number) == hand.chosen
    expect(hand.page.locator("#notices")).to_be_empty()


def test_tabs_of_one_annotator_share_no_task_and_one_sends_what_another_left(
    gallery: Gallery, open_hand: OpenHand, faults: Faults
) -> None:
    faults.expect(LOST)
    job = gallery.job(40)
    number, key = gallery.annotator()
    first = open_hand(key, job)
    tabs = [first]
    tabs += [open_tab(first, faults) for _ in range(2)]
    second, third = tabs[1:]
    first.page.context.route(LABELS, lambda route: route.abort())
    for _ in range(3):
        for tab in tabs:
            tab.label()
    assert len(first.chosen | second.chosen | third.chosen) == 9
    second.page.goto("about:blank")
    first.page.context.unroute(LABELS)
    third.page.reload()
    third.wait_saved()
    first.wait_saved()
    assert gallery.labels(job, number) == first.chosen | second.chosen | third.chosen


def test_an_answer_on_its_way_is_not_asked_for_again(
    gallery: Gallery, open_hand: OpenHand, faults: Faults
) -> None:
    faults.expect(LOST)  # requests of pages that go away
    job = gallery.job(20, consensus_threshold=2)
    number, key = gallery.annotator()
    first = open_hand(key, job)
    let_arrive = hold_labels(first.page.context)
    first.label()
    second = open_tab(first, faults)
    second.label()
    first.reload()
    first.label()
    first.undo()
    second.reload()
    second.label()
    first.press("3")
    assert first.chosen.keys().isdisjoint(second.chosen)
    let_arrive()
    for hand in (first, second):
        hand.wait_saved()
        expect(hand.page.locator("#notices")).to_be_empty()
    assert gallery.labels(job, number) == first.chosen | second.chosen


def open_tab(hand: Hand, faults: Faults) -> Hand:
    """Open another tab of the same annotator."""
    page = hand.page.context.new_page()
    faults.watch(page)
    page.add_init_script(NOTE_TASKS)
    page.goto(hand.page.url)
    return Hand(page)


def test_what_the_service_refuses_is_told_and_holds_up_nothing(
    gallery: Gallery, open_hand: OpenHand, faults: Faults
) -> None:
    faults.expect("400 [(]Bad Request[)].*/v1/annotation/labels")
    job = gallery.job(6)
    (number, key), (other, _) = gallery.annotator(), gallery.annotator()
    hand = open_hand(key, job)
    hand.label(2)
    hand.wait_saved()
    hand.page.route(LABELS, lambda route: route.abort(), times=1)
    faults.expect(LOST)
    hand.label(3)
    lost, malformed, good = list(hand.chosen)[2:]
    gallery.shop.label(other, (lost, "cat"))
    entry = f'"task_id":"{malformed}"'
    hand.page.route(
        LABELS,
        lambda route: route.continue_(
            post_data=(route.request.post_data or "").replace(entry, f'{entry},"note":"x"')
        ),
    )
    hand.wait_saved()
    notices = hand.page.locator("#notices p")
    expect(notices.filter(has_text="This task takes no more labels.")).to_be_visible()
    expect(notices).to_have_count(2)
    labels = gallery.labels(job, number)
    assert good in labels
    assert labels.keys().isdisjoint({lost, malformed})


def test_a_job_that_was_cancelled_takes_its_unseen_tasks_along(
    gallery: Gallery, open_hand: OpenHand
) -> None:
    job = gallery.job(20)
    _, key = gallery.annotator()
    hand = open_hand(key)
    hand.look()
    gallery.shop.do(jobs.cancel, job.job_no)
    with hand.page.expect_response("**/v1/annotation/renew"):
        hand.press("1")
    hand.label()
    expect(hand.page.locator("#said")).to_contain_text("Nothing for you now")


def test_a_skip_is_of_the_task_for_which_its_dialog_was_opened(
    gallery: Gallery, open_hand: OpenHand
) -> None:
    first = gallery.job(9)
    number, key = gallery.annotator()
    hand = open_hand(key)
    hand.look()
    second = gallery.job(9, question="Another one?")
    sent: list[Route] = []
    hand.page.route(LABELS, lambda route: sent.append(route), times=1)  # noqa: PLW0108 - it has to take an attribute
    with hand.page.expect_request(LABELS):
        hand.press("1")
        hand.look()
        gallery.shop.do(exclusions.exclude, first.job_no, number)
        hand.page.keyboard.press(",")
    expect(hand.page.locator("#skip-dialog")).to_be_visible()
    sent[0].continue_()
    expect(hand.page.locator("#question")).to_have_text("Another one?")
    hand.look()
    hand.page.keyboard.press("2")
    expect(hand.page.locator("#notices")).to_contain_text("nothing was skipped")
    hand.wait_saved()
    assert gallery.skips(first) == gallery.skips(second) == []


def test_a_key_that_is_pressed_twice_or_held_down_answers_one_task(
    gallery: Gallery, open_hand: OpenHand
) -> None:
    job = gallery.job(9)
    number, key = gallery.annotator()
    hand = open_hand(key, job)
    hand.look()
    for _ in range(2):
        hand.press("1")
    hand.look()
    for _ in range(20):  # without a release, all but the first are repetitions
        hand.page.keyboard.down("2")
    hand.look()
    hand.page.keyboard.up("2")
    hand.page.locator("#skip").focus()
    for _ in range(5):
        hand.page.keyboard.down("Enter")
    expect(hand.page.locator("#skip-dialog")).to_be_visible()
    hand.page.keyboard.up("Enter")
    hand.wait_saved()
    assert gallery.skips(job) == []
    assert sorted(gallery.labels(job, number).values()) == ["cat", "dog"]


def test_a_label_of_before_is_changed_while_its_task_is_open(
    gallery: Gallery, open_hand: OpenHand, faults: Faults
) -> None:
    open_job, over = gallery.job(1, consensus_threshold=2), gallery.job(1)
    number, key = gallery.annotator()
    hand = open_hand(key)
    for _ in range(2):  # one request each, so that the list has them in this order
        hand.label()
        hand.wait_saved()
    hand.reload()
    expect(hand.page.locator("#progress")).to_contain_text("2 today")  # its buttons work by then
    faults.expect("404 [(]Not Found[)].*/me/labels/")
    hand.page.get_by_role("button", name="My labels").click()
    rows = hand.page.locator("#labels li")
    expect(rows).to_have_count(2)
    ids = list(hand.chosen)[::-1]
    (settled,) = gallery.labels(over, number)
    rows.nth(ids.index(settled)).get_by_role("button").click()
    expect(hand.page.locator("#labels-said")).not_to_be_empty()
    rows.nth(1 - ids.index(settled)).get_by_role("button").click()
    expect(hand.page.locator("#keep")).to_be_visible()
    hand.look()
    hand.press("3")
    hand.wait_saved()
    assert list(gallery.labels(open_job, number).values()) == ["bird"]


def test_tasks_of_one_question_come_together_and_another_one_is_announced(
    gallery: Gallery, open_hand: OpenHand
) -> None:
    jobs = [gallery.job(7, question=f"Question {n}?", instructions=f"Read {n}.") for n in range(2)]
    number, key = gallery.annotator()
    hand = open_hand(key)
    asked = []
    for _ in range(14):
        picture = hand.look()
        asked.append(hand.page.locator("#question").inner_text())
        hand.answer(picture)
    assert asked == sorted(asked, reverse=asked[0] == "Question 1?")
    assert len(set(asked)) == 2
    expect(hand.page.locator("#said")).to_contain_text("Nothing for you now")
    hand.wait_saved()
    assert sum(len(gallery.labels(job, number)) for job in jobs) == 14
    gallery.job(1, question="A third one?")
    hand.look()  # it comes by itself
    expect(hand.page.locator("#notices")).to_contain_text("A third one?")


def test_a_label_that_is_changed_back_before_it_is_sent_is_the_last_one(
    gallery: Gallery, open_hand: OpenHand
) -> None:
    job = gallery.job(1, consensus_threshold=2)
    number, key = gallery.annotator()
    hand = open_hand(key, job)
    hand.look()
    hand.press("1")
    hand.wait_saved()
    (task,) = gallery.labels(job, number)
    let_arrive = hold_labels(hand.page.context)
    for marked, option in [("cat", "2"), ("dog", "1")]:
        hand.change()
        expect(hand.page.get_by_role("radio", name=marked, checked=True)).to_be_visible()
        hand.press(option)
    let_arrive()
    hand.wait_saved()
    assert gallery.labels(job, number) == {task: "cat"}
