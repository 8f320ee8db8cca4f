"""Measure the annotators' page in a browser: how long after a key the next picture is there."""

import contextlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from playwright.sync_api import Page
from rich.console import Console
from rich.table import Table

from benchmarks import annotator_runs
from benchmarks.annotation_jobs import OPTIONS, add_annotators
from benchmarks.latencies import Latency
from benchmarks.servers import Databases
from benchmarks.sizes import Sizes
from benchmarks.stacks import Stacks
from blocks.store.database import Database
from tests.support.annotating import NOTE_TASKS, Gallery, Hand
from tests.support.browser import find_chromium, sign_in, start_browser
from tests.support.pictures import PictureServer
from tests.support.stack_shop import StackShop

# From the time at which a key went down to the frame after the one with the next picture in it.
_NOTE_WAITS = """
window.waits = [];
let pressed = null;
addEventListener("keydown", (event) => { pressed = event.timeStamp; }, true);
document.addEventListener("task-shown", () => {
  if (pressed !== null) waits.push((performance.now() - pressed) / 1000);
  pressed = null;
});
"""
_GOALS_MS = {0: 100, 20: 150}
_LABELS_AN_HOUR_MIN = 3000
_UNSEEN_S = 0.25  # the page takes no choice so soon


class NoBrowser(Exception):
    """There is no Chromium on this machine (Debian: apt install chromium)."""


def measure(stacks: Stacks, sizes: Sizes, console: Console) -> Table:
    """Label from the keyboard, alone and beside scripted annotators who label once a second each.

    Raises:
        NoBrowser: there is no Chromium.
        AnnotatorsFailed: a scripted annotator's request failed.
    """
    table = Table(
        title=(
            f"The annotators' page: {sizes.page_tasks} pictures from the keyboard, "
            f"{sizes.thought_seconds:g} s of thought each"
        ),
        title_justify="left",
    )
    table.add_column("beside it")
    columns = ("labels/hour", "goal", "key to next picture p50 / p95 / p99, ms", "goal of p95")
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for others, goal_ms in _GOALS_MS.items():
        with console.status(f"Labelling beside {others} annotators"):
            waits, labels_an_hour = _run(stacks, sizes, others)
        table.add_row(
            f"{others} scripted annotators" if others else "nobody",
            f"{labels_an_hour:,.0f}",
            f"≥ {_LABELS_AN_HOUR_MIN:,}",
            str(Latency.of(waits)),
            f"≤ {goal_ms}",
        )
    return table


def _run(stacks: Stacks, sizes: Sizes, others: int) -> tuple[list[float], float]:
    """Return the seconds of each wait, and how many labels an hour that were."""
    chromium = find_chromium()
    if chromium is None:
        raise NoBrowser("There is no Chromium (Debian: apt install chromium).")
    seconds = sizes.page_tasks * (max(sizes.thought_seconds, _UNSEEN_S) + 0.2)
    with (
        stacks.bare() as databases,
        Database(databases.database_url, connections_max=2) as store,
        PictureServer() as pictures,
        start_browser(chromium) as browser,
    ):
        gallery = Gallery(StackShop(databases.stack, store), pictures)
        gallery.job(sizes.page_tasks + round(3 * others * seconds) + 100, options=OPTIONS)
        context = browser.new_context(base_url=databases.stack.api_url)
        page = context.new_page()
        page.add_init_script(NOTE_TASKS + _NOTE_WAITS)
        sign_in(page, databases.stack.api_url, gallery.annotator()[1])
        with _beside(databases, others, seconds, sizes):
            page.goto("/annotate")
            began_s = time.monotonic()
            _label(page, sizes)
            took_s = time.monotonic() - began_s
        waits: list[float] = page.evaluate("waits")
        context.close()
    return waits, sizes.page_tasks / took_s * 3600


def _label(page: Page, sizes: Sizes) -> None:
    hand = Hand(page)
    for n in range(sizes.page_tasks):
        hand.look()
        time.sleep(max(0.0, sizes.thought_seconds - _UNSEEN_S))
        hand.press(str(1 + n % 2))
    hand.look()  # the picture after the last one
    hand.wait_saved()


@contextlib.contextmanager
def _beside(databases: Databases, others: int, seconds: float, sizes: Sizes) -> Iterator[None]:
    """Let so many scripted annotators label meanwhile, once a second each."""
    if not others:
        yield
        return
    keys = add_annotators(databases, others)
    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(
            lambda: annotator_runs.run(
                databases, keys, 1, sizes, seconds=seconds, labels_per_s=others
            )
        )
        yield
        work.result()
