"""Take the pictures of the pages that docs/ shows: `make screenshots`.

The pictures to label are the demo's, and the stack is a new one that is removed afterwards.
"""

import random
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, expect

from blocks.store import customers
from blocks.store.database import Database
from blocks.store.jobs import Job
from deployments.embedded.demo_pictures import ANIMALS
from deployments.embedded.stack import Stack
from deployments.registered import REPOSITORY
from tests.support.annotating import NOTE_TASKS, Gallery, Hand
from tests.support.browser import Theme, find_chromium, sign_in, start_browser
from tests.support.pictures import PictureServer, animal_of
from tests.support.stack_shop import StackShop

FOLDER = REPOSITORY / "docs" / "screenshots"
BYTES_MAX = 60_000
_INSTRUCTIONS = """# Animals

Say which animal is in the picture.

- **cat**: pointed ears and whiskers
- **dog**: hanging ears
- **bird**: a beak

If there are several, take the *largest* one.
"""


class Photographer:
    """Opens pages of a stack, and keeps pictures of them."""

    def __init__(self, stack: Stack, gallery: Gallery, browser: Browser) -> None:
        self._stack = stack
        self._browser = browser
        self.gallery = gallery

    @contextmanager
    def hand(
        self, job: Job, key: str, *, theme: Theme = "light", width: int = 1100, height: int = 720
    ) -> Iterator[Hand]:
        """Open the annotators' page for a job, in CSS pixels."""
        with self.page(theme=theme, width=width, height=height) as page:
            sign_in(page, self._stack.api_url, key)
            page.add_init_script(NOTE_TASKS)
            page.goto(f"/annotate?job={job.job_id}")
            yield Hand(page)

    @contextmanager
    def page(self, *, theme: Theme = "light", width: int, height: int) -> Iterator[Page]:
        """Open an empty page, in which nobody is signed in."""
        context = self._browser.new_context(
            base_url=self._stack.api_url,
            color_scheme=theme,
            viewport={"width": width, "height": height},
        )
        yield context.new_page()
        context.close()

    @contextmanager
    def signed_in(
        self, path: str, key: str, *, theme: Theme = "light", width: int, height: int
    ) -> Iterator[Page]:
        """Open a page in the name of whose key it is."""
        with self.page(theme=theme, width=width, height=height) as page:
            sign_in(page, self._stack.api_url, key)
            page.goto(path)
            yield page


def keep(page: Page, name: str) -> None:
    """Write a picture of the page as it is now; it has to be small enough for a repository."""
    content = page.screenshot(animations="disabled", caret="hide")
    assert len(content) <= BYTES_MAX, f"{name} has {len(content)} bytes"
    (FOLDER / f"{name}.png").write_bytes(content)


def take_front_door(photographer: Photographer) -> None:
    """Show where people sign in."""
    with photographer.page(width=640, height=400) as page:
        page.goto("/")
        expect(page.get_by_label("Your key")).to_be_visible()
        keep(page, "sign-in")


def take_annotators_page(photographer: Photographer) -> None:
    """Show a task, what may be done with it, and what was done before."""
    gallery = photographer.gallery
    job = gallery.job(40, instructions=_INSTRUCTIONS, consensus_threshold=2)
    _, key = gallery.annotator()
    with photographer.hand(job, key) as hand:
        picture = hand.look()
        expect(hand.page.get_by_role("complementary")).to_contain_text("hanging ears")
        keep(hand.page, "annotate")
        hand.page.get_by_role("button", name="Close the instructions").click()
        hand.answer(picture)
        hand.label(5)
        hand.wait_saved()
        hand.undo()
        keep(hand.page, "annotate-undo")
        hand.page.keyboard.press(",")
        keep(hand.page, "annotate-skip")
        hand.page.keyboard.press("Escape")
        hand.page.get_by_role("button", name="My labels").click()
        expect(hand.page.locator("#labels li")).to_have_count(6)
        keep(hand.page, "annotate-labels")
    _, key = gallery.annotator()
    with photographer.hand(job, key, theme="dark", width=390, height=760) as hand:
        hand.page.get_by_role("button", name="Close the instructions").click()
        hand.label(3)
        hand.wait_saved()
        hand.look()
        keep(hand.page, "annotate-phone")


def take_reviewers_page(photographer: Photographer) -> None:
    """Show a case that a reviewer decides."""
    gallery = photographer.gallery
    job = gallery.job(60, consensus_threshold=2, review_confidence_below=7000)
    for seed in range(3):
        _label_all(gallery, job, guesses=0.1, seed=seed)
    _, key = gallery.shop.do(customers.add_annotator_key, "Rae", is_reviewer=True)
    with photographer.signed_in(f"/review?job={job.job_id}", key, width=860, height=580) as page:
        expect(page.locator("#picture img")).to_be_visible()
        expect(page.locator("#accept")).to_be_enabled()
        keep(page, "review")


def take_quality(photographer: Photographer) -> None:
    """Show what the page of a job says of its annotators, of whom one guesses."""
    gallery = photographer.gallery
    job = gallery.job(150, consensus_threshold=3)  # which goes on: they label 120
    people = {"Ann": (0.02, 1.6), "Ben": (0.6, 0.5), "Cem": (0.05, 1.9), "Dia": (0.1, 1.2)}
    for seed, (name, (guesses, label_s)) in enumerate(people.items()):
        _label_all(gallery, job, guesses=guesses, seed=seed, name=name, label_s=label_s)
    key = gallery.shop.do(customers.add_customer_key, gallery.shop.customer_id)
    with photographer.signed_in(f"/console?job={job.job_id}", key, width=900, height=560) as page:
        confusion = page.get_by_role("table", name="Confusion")
        expect(confusion).to_contain_text("bird")
        confusion.evaluate("table => table.scrollIntoView()")
        keep(page, "console-quality")


def _label_all(
    gallery: Gallery,
    job: Job,
    *,
    guesses: float,
    seed: int,
    name: str | None = None,
    label_s: float = 1.5,
) -> None:
    """Have a new annotator label all tasks of a job, and guess this share of them."""
    lot = random.Random(seed)
    number, _ = gallery.annotator()
    if name:
        gallery.shop.run("update annotators set name = %s where annotator_no = %s", name, number)
    tasks = gallery.shop.claim(number, 120, job_id=job.job_id)
    gallery.shop.run(
        "update leases set claimed_at = claimed_at - make_interval(secs => %s) "
        "where annotator_no = %s", label_s * len(tasks), number,
    )  # fmt: skip
    said = [
        lot.choice(ANIMALS) if lot.random() < guesses else animal_of(str(task.data_url))
        for task in tasks
    ]
    gallery.shop.label(number, *zip((task.task_id for task in tasks), said, strict=True))


def main() -> None:
    """Take all pictures."""
    chromium = find_chromium()
    if chromium is None:
        sys.exit("There is no Chromium (Debian: apt install chromium).")
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="refinery-screenshots-") as name:
        Path(name).chmod(0o711)  # PostgreSQL runs as another user
        with (
            Stack(Path(name) / "stack", durable=False) as stack,
            PictureServer() as pictures,
            start_browser(chromium) as browser,
        ):
            stack.start(print)
            with Database(stack.database_url, connections_max=2) as store:
                gallery = Gallery(StackShop(stack, store), pictures)
                photographer = Photographer(stack, gallery, browser)
                take_front_door(photographer)
                take_annotators_page(photographer)
                take_reviewers_page(photographer)
                take_quality(photographer)


if __name__ == "__main__":
    main()
