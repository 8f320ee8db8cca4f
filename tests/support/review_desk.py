"""Cases of a running stack that reviewers decide, made without a manifest."""

import re
import secrets
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote

from playwright.sync_api import Page, expect

from blocks.domain.model import GoodLine, Pin
from blocks.store import chunks, customers, jobs
from blocks.store.database import Database
from blocks.store.jobs import Job
from blocks.store.label_changes import Entry
from tests.support.stack_shop import Running, StackShop
from tests.support.store_shop import OPTIONS, Chunk

_SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="400" height="300">'
    '<rect width="400" height="300" fill="hsl({hue},45%,70%)"/>'
    '<text x="200" y="170" font-size="60" text-anchor="middle">{n}</text></svg>'
)


def picture(n: int) -> str:
    """The URL of a small picture of a number."""
    return "data:image/svg+xml," + quote(_SVG.format(n=n, hue=n * 47 % 360))


def line(n: int, data_url: str | None = None, text: str | None = None) -> GoodLine:
    """The nth line of a manifest, with a picture unless it has something else."""
    url = data_url or (picture(n) if text is None else None)
    return GoodLine(100 * n, n + 1, url, None, text=text)


class ReviewDesk(StackShop):
    """A customer of a running stack, and reviewers who see nobody else's tasks."""

    def __init__(self, stack: Running, database: Database) -> None:
        super().__init__(stack, database)
        self.annotator_no, self.annotator_key = self.hire(1)[0]

    def hire_reviewer(self) -> str:
        """The key of a new reviewer."""
        name = f"reviewer {secrets.token_hex(4)}"
        made: tuple[str, str] = self.do(
            customers.add_annotator_key, name, [self.customer_id], is_reviewer=True
        )
        return made[1]

    def make_job(self, lines: Sequence[GoodLine], **changes: Any) -> Job:
        """A job with these lines as its tasks, all of which come to reviewers with their first label."""
        rule = {"consensus_threshold": 1, "review_share": 10_000} | changes
        chunk = Chunk(len(lines), lines, [])
        # In one commit: no run may find a job without its tasks, and there is no manifest to read.
        with self.database.transaction() as tx:
            job_id, _ = jobs.submit(tx, self.new_job(**rule), self.vault)
            job = jobs.get(tx, job_id)
            assert job is not None
            jobs.begin(tx, job.job_no)
            jobs.pin(tx, job.job_no, Pin(1_000_000, '"etag"'), 500_000)
            assert chunks.commit(tx, job.job_no, 0, chunk, None)
            jobs.finish_ingestion(tx, job.job_no)
            tx.execute("delete from runs where job_no = %s", [job.job_no])
        return self.job(job_id)

    def make_cases(self, count: int, label: str = OPTIONS[0], **changes: Any) -> Job:
        """A job of pictures that were all labelled so."""
        job = self.make_job([line(n) for n in range(count)], **changes)
        self.say(job, label)
        return job

    def say(self, job: Job, label: str) -> None:
        """Have the annotator label all tasks of a job."""
        claimed = self.claim(self.annotator_no, job_id=job.job_id)
        self.label(self.annotator_no, *((task.task_id, label) for task in claimed))

    def skip(self, job: Job, *entries: Entry) -> None:
        """Have the annotator skip tasks of a job."""
        self.claim(self.annotator_no, job_id=job.job_id)
        self.enter(self.annotator_no, *entries)

    def decisions(self, job: Job) -> list[tuple[str, int | None]]:
        """The state and the outcome of each review, in the order in which the tasks came."""
        rows = self.run(
            "select state, decision from reviews where job_no = %s order by task_no, review_no",
            job.job_no,
        )
        return [(row["state"], row["decision"]) for row in rows]

    def holders(self, job: Job) -> list[int | None]:
        """Who holds each open review."""
        rows = self.run(
            "select reviewer_no from reviews where job_no = %s and state = 'open' order by task_no",
            job.job_no,
        )
        return [row["reviewer_no"] for row in rows]


Sit = Callable[..., Page]
"""Has a new reviewer open the page."""
SEND_MS = 5000
"""More than a decision waits, so that it can be taken back."""


def at_case(page: Page, n: int) -> None:
    """Wait until the picture of a number is shown, and can be decided."""
    expect(page.locator("#picture img")).to_have_attribute("src", re.compile(f">{n}<|%3E{n}%3C"))
    expect(page.locator("#accept")).to_be_enabled()


def send(page: Page) -> None:
    """Wind the clock forward until everything is sent."""
    page.clock.fast_forward(SEND_MS)
    expect(page.locator("#saved")).to_have_text("All sent")
