"""Jobs of pictures, and hands that label them on the annotators' page."""

from collections.abc import Callable, Sequence
from typing import Any

from playwright.sync_api import Page, expect

from blocks.domain.model import GoodLine
from blocks.store.jobs import Job
from deployments.embedded.demo_pictures import ANIMALS
from tests.support.pictures import PictureServer, animal_of
from tests.support.stack_shop import StackShop
from tests.support.store_shop import LINE_BYTES, Chunk

LABELS = "**/v1/annotation/labels"
LOST = r"Failed to load resource: net::ERR_(INTERNET_DISCONNECTED|FAILED)"
NOTE_TASKS = """
window.shownTasks = [];
document.addEventListener("task-shown", (event) =>
  shownTasks.push({ id: event.detail.taskId, at: performance.now() }));
"""
_SEEN_MS = 210  # the page takes no choice before; see SEEN_MS in annotate.js


class Gallery:
    """Makes jobs and annotators on a running stack."""

    def __init__(self, shop: StackShop, pictures: PictureServer) -> None:
        self.shop = shop
        self._pictures = pictures

    def job(
        self,
        tasks: int,
        *,
        folder: str = "",
        texts: Sequence[str] = (),
        metadata: str | None = None,
        **changes: Any,
    ) -> Job:
        """A job of so many pictures below a folder of the picture server, or of texts."""
        lines = [
            GoodLine(n * LINE_BYTES, n + 1, None, metadata, text=texts[n])
            if texts
            else GoodLine(n * LINE_BYTES, n + 1, f"{self._pictures.url}{folder}/{n}.svg", metadata)
            for n in range(tasks)
        ]
        spec: dict[str, Any] = {
            "options": list(ANIMALS),
            "question": "What is in the picture?",
            "consensus_threshold": 1,
        }
        return self.shop.processing(Chunk(tasks, lines, []), **spec | changes)

    def annotator(self) -> tuple[int, str]:
        """The number and the key of a new annotator, who is handed tasks of these jobs alone."""
        ((number, key),) = self.shop.hire(1)
        grant = "update annotators set customer_ids = array[%s] where annotator_no = %s"
        self.shop.run(grant, self.shop.customer_id, number)
        return number, key

    def labels(self, job: Job, annotator_no: int) -> dict[str, str]:
        """What an annotator has said of the tasks of a job, by their ids; each was said once."""
        ballots = self.shop.ballots([job.job_id]).items()
        return {task: votes[annotator_no] for task, votes in ballots if annotator_no in votes}

    def skips(self, job: Job) -> list[tuple[int, str | None]]:
        """The reasons, by their numbers, and the notes of the job's skips."""
        query = "select reason, note from skips where job_no = %s order by created_at"
        return [(row["reason"], row["note"]) for row in self.shop.run(query, job.job_no)]


# As when another tab comes to the front: what is not sent yet goes at once.
HIDE = """() => {
    Object.defineProperty(document, "hidden", { get: () => true, configurable: true });
    document.dispatchEvent(new Event("visibilitychange"));
    delete document.hidden;
}"""


class Hand:
    """Presses keys on an annotators' page, each for a task that was seen."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.chosen: dict[str, str] = {}
        self._task = ""

    def look(self) -> str:
        """The address of the picture that is shown, once it may be labelled, or the text."""
        script = f"""last => {{
            const shown = window.shownTasks?.at(-1);
            return shown && shown.id !== last && performance.now() - shown.at > {_SEEN_MS} && shown.id;
        }}"""
        self._task = self.page.wait_for_function(script, arg=self._task, polling=20).json_value()
        image = self.page.locator("#picture img")
        if image.is_visible():
            return image.get_attribute("src") or ""
        return self.page.locator("#text").inner_text()

    def press(self, key: str) -> None:
        """Press the hotkey of the option of this number, from 1 on."""
        self.chosen[self._task] = ANIMALS[int(key) - 1]
        self.page.keyboard.press(key)

    def answer(self, picture: str) -> None:
        """Label the task that is shown with what is in its picture."""
        self.press(str(ANIMALS.index(animal_of(picture)) + 1))

    def label(self, tasks: int = 1) -> None:
        """Label as many tasks with what their pictures show."""
        for _ in range(tasks):
            self.answer(self.look())

    def undo(self) -> str:
        """Take the last choice back, when the next task is shown; return the id of its task."""
        self.look()
        self._look_again(lambda: self.page.keyboard.press("Backspace"))
        self.chosen.pop(self._task, None)
        return self._task

    def change(self) -> None:
        """Show the task of the last label again, to give it another one."""
        self.page.get_by_role("button", name="My labels").click()
        self._look_again(self.page.locator("#labels button").first.click)

    def _look_again(self, show: Callable[[], None]) -> None:
        shown = self.page.evaluate("shownTasks.length")
        show()
        self.page.wait_for_function("shown => shownTasks.length > shown", arg=shown)
        self._task = ""
        self.look()

    def reload(self) -> None:
        """Load the page again."""
        self.page.reload()
        self._task = ""

    def wait_saved(self, *, by_itself: bool = False) -> None:
        """Go on when the service has everything: at once, as when the page is out of sight, or in its time."""
        if not by_itself:
            self.page.evaluate(HIDE)
        expect(self.page.locator("#saved")).to_have_text("Saved", timeout=15_000)


OpenHand = Callable[..., Hand]
"""See the fixture `open_hand`."""
