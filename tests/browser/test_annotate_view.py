"""What annotators see: pictures, texts, instructions; with any theme, width, keyboard and fingers."""

import re

import pytest
from playwright.sync_api import expect

from blocks.domain.model import OptionDetail
from deployments.embedded.demo_pictures import ANIMALS
from tests.support.annotating import Gallery, OpenHand
from tests.support.browser import Faults, Theme, check_accessibility, stored
from tests.support.pictures import PictureServer

pytestmark = pytest.mark.browser

HOSTILE = """# How to *look*

1. Take **one**.
2. See [the guide](https://example.com/a_b), [not this](javascript:alert(1)).

<img src=x onerror=alert(1)> ![x](https://example.com/x.png)
"""


def test_no_choice_is_taken_for_a_picture_that_is_still_loading(
    gallery: Gallery, open_hand: OpenHand, pictures: PictureServer
) -> None:
    pictures.release.clear()
    job = gallery.job(2, folder="/slow")
    number, key = gallery.annotator()
    hand = open_hand(key, job)
    expect(hand.page.locator("#said")).to_have_text("The picture is loading …")
    hand.page.keyboard.press("1")
    pictures.release.set()
    hand.label()
    hand.wait_saved()
    assert gallery.labels(job, number) == hand.chosen


def test_a_picture_that_does_not_come_holds_up_nobody(
    gallery: Gallery, open_hand: OpenHand, pictures: PictureServer
) -> None:
    pictures.release.clear()
    job = gallery.job(2, folder="/slow")
    number, key = gallery.annotator()
    hand = open_hand(key, job)
    expect(hand.page.locator("#said")).to_contain_text("still loading")
    hand.page.wait_for_timeout(250)  # the time in which no choice is taken
    hand.page.keyboard.press("2")
    hand.wait_saved()
    assert list(gallery.labels(job, number).values()) == ["dog"]
    pictures.release.set()


def test_a_broken_picture_is_told_and_skipped(
    gallery: Gallery, open_hand: OpenHand, faults: Faults
) -> None:
    faults.expect("404.*/broken/")
    job = gallery.job(2, folder="/broken")
    _, key = gallery.annotator()
    hand = open_hand(key, job)
    expect(hand.page.locator("#said")).to_contain_text("cannot be shown")
    hand.page.get_by_role("button", name="Skip it").click()
    hand.page.keyboard.press("2")
    expect(hand.page.locator("#said")).to_contain_text("cannot be shown")
    hand.wait_saved()
    assert gallery.skips(job) == [(2, None)]


def test_instructions_open_once_a_version_and_are_no_html(
    gallery: Gallery, open_hand: OpenHand
) -> None:
    job = gallery.job(9, instructions=HOSTILE)
    _, key = gallery.annotator()
    hand = open_hand(key, job)
    panel = hand.page.get_by_role("complementary", name="Instructions")
    expect(panel.get_by_role("heading")).to_have_text("How to look")
    expect(panel.get_by_role("listitem")).to_have_count(2)
    expect(panel.get_by_role("link")).to_have_attribute("href", "https://example.com/a_b")
    expect(panel.locator("img")).to_have_count(0)
    expect(panel).to_contain_text("<img src=x onerror=alert(1)>")
    hand.reload()
    hand.look()
    expect(panel).to_be_hidden()
    hand.page.keyboard.press("?")
    expect(panel).to_be_visible()


def test_a_picture_is_enlarged_at_the_pointer_moved_and_turned(
    gallery: Gallery, open_hand: OpenHand
) -> None:
    job = gallery.job(2)
    hand = open_hand(gallery.annotator()[1], job)
    hand.look()
    page, image = hand.page, hand.page.locator("#picture img")

    def box() -> tuple[float, float, float, float]:
        found = image.bounding_box()
        assert found is not None
        return found["x"], found["y"], found["width"], found["height"]

    x, y, width, height = before = box()
    point = (x + width / 4, y + height / 4)
    page.mouse.move(*point)
    page.mouse.wheel(0, -200)
    page.wait_for_function("w => document.querySelector('#picture img').getBoundingClientRect().width > w", arg=width)  # fmt: skip
    x2, y2, width2, height2 = box()
    assert ((point[0] - x2) / width2, (point[1] - y2) / height2) == pytest.approx((0.25, 0.25), abs=0.01)  # fmt: skip
    page.mouse.down()
    page.mouse.move(point[0] + 30, point[1] - 20)
    page.mouse.up()
    assert box()[:2] == pytest.approx((x2 + 30, y2 - 20), abs=1)
    page.keyboard.press(";")
    assert box()[3] / box()[2] == pytest.approx(width / height, abs=0.01)
    page.get_by_role("button", name="100 %").click()
    assert sorted(box()[2:]) == pytest.approx([240, 320], abs=1)
    for _ in range(3):
        page.keyboard.press(";")
    assert box() == pytest.approx(before, abs=1)


def test_fingers_pinch_and_tap_twice(gallery: Gallery, open_hand: OpenHand) -> None:
    job = gallery.job(2)
    hand = open_hand(gallery.annotator()[1], job, width=390, height=844, has_touch=True)
    hand.look()
    image = hand.page.locator("#picture img")
    before = image.bounding_box()
    assert before is not None
    middle = (before["x"] + before["width"] / 2, before["y"] + before["height"] / 2)
    for _ in range(2):
        hand.page.touchscreen.tap(*middle)
    twice = image.bounding_box()
    assert twice is not None
    assert twice["width"] >= 2 * before["width"]
    touch = hand.page.context.new_cdp_session(hand.page)
    for kind, span in (("touchStart", 80), ("touchMove", 60), ("touchMove", 40), ("touchEnd", 0)):
        points = [{"x": middle[0] - span, "y": middle[1], "id": 0}, {"x": middle[0] + span, "y": middle[1], "id": 1}]  # fmt: skip
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points if span else []})  # fmt: skip
    pinched = image.bounding_box()
    assert pinched is not None
    assert pinched["width"] == pytest.approx(twice["width"] / 2, rel=0.05)


def test_the_keyboard_alone_reaches_every_option(gallery: Gallery, open_hand: OpenHand) -> None:
    job = gallery.job(3)
    number, key = gallery.annotator()
    hand = open_hand(key, job)
    hand.look()
    radios = hand.page.get_by_role("radio")
    radios.first.focus()
    hand.page.keyboard.press("ArrowRight")
    hand.page.keyboard.press("ArrowRight")
    expect(radios.nth(2)).to_be_focused()
    hand.page.keyboard.press("Enter")
    hand.wait_saved()
    assert list(gallery.labels(job, number).values()) == ["bird"]
    expect(radios.nth(2)).to_be_focused()


def test_a_character_means_a_command_before_an_option_and_a_place_on_the_keyboard_last(
    gallery: Gallery, open_hand: OpenHand
) -> None:
    hotkeys = zip(ANIMALS, ["m", ",", "-"], strict=True)
    details = [OptionDetail(option=option, hotkey=hotkey) for option, hotkey in hotkeys]
    job = gallery.job(3, option_details=details)
    number, key = gallery.annotator()
    hand = open_hand(key, job)
    hand.look()
    page = hand.page
    assert page.locator("#options kbd").all_inner_texts() == ["M", "1", "2"]
    image = page.locator("#picture img")
    keyboard = page.context.new_cdp_session(page)

    def strike(typed: str, place: str) -> None:
        keyboard.send("Input.dispatchKeyEvent", {"type": "keyDown", "key": typed, "code": place})

    strike(",", "KeyM")  # French
    expect(page.locator("#skip-dialog")).to_be_visible()
    page.get_by_role("button", name="Do not skip it").click()
    whole = image.bounding_box()
    strike("-", "Digit1")
    smaller = image.bounding_box()
    assert whole is not None
    assert smaller is not None
    assert smaller["width"] < whole["width"]
    strike("ArrowLeft", "Numpad1")  # without NumLock
    strike("End", "Numpad2")
    assert image.bounding_box() != smaller
    strike("é", "Digit2")
    hand.wait_saved()
    assert list(gallery.labels(job, number).values()) == [ANIMALS[2]]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 390])
def test_the_page_is_accessible_and_fits(
    gallery: Gallery, open_hand: OpenHand, theme: Theme, width: int
) -> None:
    long = "Once upon a time there was a very long sentence. " * 60
    job = gallery.job(
        2,
        texts=[f"{long}<b>&amp;</b>"] * 2,
        metadata='{"caption": "<i>Street</i>", "page": 3}',
        options=[f"option {n} " + "long " * (n % 4) for n in range(14)],
        instructions=HOSTILE,
    )
    _, key = gallery.annotator()
    page = open_hand(key, job, theme=theme, width=width, height=844).page
    text = page.locator("#text")
    expect(text).to_contain_text("<b>&amp;</b>")
    expect(page.locator("#metadata")).to_contain_text("<i>Street</i>")
    expect(page.get_by_role("complementary")).to_be_visible()
    check_accessibility(page)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    if width == 1400:
        characters = text.evaluate("""element => {
            const { width, paddingLeft, paddingRight } = getComputedStyle(element);
            const letters = document.createElement("span");
            letters.textContent = "abcdefghijklmnopqrstuvwxyz ".repeat(3);
            letters.style.whiteSpace = "pre";
            element.append(letters);
            const each = letters.getBoundingClientRect().width / letters.textContent.length;
            return (parseFloat(width) - parseFloat(paddingLeft) - parseFloat(paddingRight)) / each;
        }""")
        assert 60 <= characters <= 75
    else:
        heights = page.locator("footer button:visible").evaluate_all(
            "buttons => buttons.map(each => each.getBoundingClientRect().height)"
        )
        assert min(heights) >= 44
    page.get_by_role("button", name="Skip", exact=False).last.click()
    check_accessibility(page)
    page.get_by_role("button", name="Do not skip it").click()
    page.get_by_role("button", name="My labels").click()
    expect(page.locator("#labels-said")).to_contain_text("no label")
    check_accessibility(page)
    assert key not in stored(page)
    assert not re.search(r"\b(ak|rs)_", stored(page))


def test_it_is_usable_at_200_percent(gallery: Gallery, open_hand: OpenHand) -> None:
    job = gallery.job(2, instructions="Look.")
    number, key = gallery.annotator()
    hand = open_hand(key, job, width=640, height=360, device_scale_factor=2)
    hand.look()
    expect(hand.page.get_by_role("radio", name=ANIMALS[0])).to_be_visible()
    assert hand.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    hand.page.get_by_role("radio", name=ANIMALS[0]).click()
    hand.wait_saved()
    assert list(gallery.labels(job, number).values()) == [ANIMALS[0]]
