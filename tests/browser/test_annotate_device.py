"""The annotators' page on a device that is signed out, that others use, or that keeps nothing: no answer is lost."""

import pytest
from playwright.sync_api import expect

from deployments.embedded.stack import Stack
from tests.support.annotating import LABELS, LOST, Gallery, OpenHand
from tests.support.browser import Faults, sign_in

pytestmark = pytest.mark.browser


def test_a_session_that_has_ended_loses_nothing(
    gallery: Gallery, open_hand: OpenHand, faults: Faults, stack: Stack
) -> None:
    faults.expect("401 [(]Unauthorized[)]")
    job = gallery.job(20)
    number, key = gallery.annotator()
    hand = open_hand(key, job)
    hand.label(2)
    hand.wait_saved()
    hand.page.context.clear_cookies()
    hand.label(2)
    banner = hand.page.get_by_role("alert")
    expect(banner).to_contain_text("You are signed out. 2 answers are kept")
    hand.label()
    expect(banner).to_contain_text("You are signed out. 3 answers are kept")
    expect(banner.get_by_role("link", name="Sign in")).to_be_visible()
    sign_in(hand.page, stack.api_url, key)
    hand.page.evaluate("dispatchEvent(new Event('focus'))")
    expect(banner).to_be_hidden()
    hand.label()
    hand.wait_saved()
    assert gallery.labels(job, number) == hand.chosen


def test_a_page_shows_nothing_of_who_signs_in_after_its_annotator(
    gallery: Gallery, open_hand: OpenHand, faults: Faults, stack: Stack
) -> None:
    faults.expect("403 [(]Forbidden[)]")
    job = gallery.job(20, consensus_threshold=2)
    (ann, ann_key), (ben, ben_key) = gallery.annotator(), gallery.annotator()
    hand = open_hand(ann_key, job)
    hand.label(2)
    hand.wait_saved()
    gallery.shop.label(ben, *hand.chosen.items())
    sign_in(hand.page, stack.api_url, ben_key)
    hand.page.get_by_role("button", name="My labels").click()
    expect(hand.page.locator("#labels-said")).to_contain_text("Somebody else has signed in")
    expect(hand.page.locator("#labels li")).to_have_count(0)
    expect(hand.page.get_by_role("alert")).to_contain_text("is signed in in this browser now")
    hand.page.get_by_role("button", name="Close", exact=True).click()
    hand.label()
    sign_in(hand.page, stack.api_url, ann_key)
    hand.page.evaluate("dispatchEvent(new Event('focus'))")
    expect(hand.page.get_by_role("alert")).to_be_hidden()
    hand.wait_saved()
    assert gallery.labels(job, ann) == hand.chosen
    assert len(gallery.labels(job, ben)) == 2


def test_what_this_device_has_kept_badly_holds_up_nothing(
    gallery: Gallery, open_hand: OpenHand, faults: Faults
) -> None:
    faults.expect(LOST)
    job = gallery.job(20, instructions="Read this.")
    number, key = gallery.annotator()
    hand = open_hand(key, job)
    hand.page.route(LABELS, lambda route: route.abort())
    hand.label(2)
    hand.page.evaluate("""() => {
        const kept = Object.keys(localStorage).find((key) => key.startsWith("refinery-answers/"));
        const prefix = kept.split("/").slice(0, 2).join("/");
        ["{", "3", '{"task": 1}'].forEach((text, n) => localStorage.setItem(`${prefix}/0${n}/0`, text));
        localStorage.setItem("refinery-instructions-read", "{");
    }""")
    hand.page.unroute(LABELS)
    hand.reload()
    expect(hand.page.locator("#notices")).to_contain_text("3 answers kept on this device could not")
    expect(hand.page.locator("#instructions-text")).to_have_text("Read this.")
    hand.label()
    hand.wait_saved()
    assert gallery.labels(job, number) == hand.chosen


def test_answers_that_the_device_cannot_keep_are_told_and_sent(
    gallery: Gallery, open_hand: OpenHand, faults: Faults
) -> None:
    faults.expect(LOST)
    job = gallery.job(20)
    number, key = gallery.annotator()
    hand = open_hand(key, job)
    hand.page.evaluate("""() => {
        Storage.prototype.setItem = () => { throw new DOMException("full", "QuotaExceededError"); };
    }""")
    hand.page.route(LABELS, lambda route: route.abort())
    hand.label(2)
    expect(hand.page.locator("#notices p")).to_have_count(1)
    expect(hand.page.locator("#notices")).to_contain_text("This browser keeps no answers")
    hand.page.unroute(LABELS)
    hand.wait_saved()
    assert gallery.labels(job, number) == hand.chosen
