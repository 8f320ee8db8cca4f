"""One fault at a random instant, among a job that is read, one that is labelled and one that ends.

A is being read, B is being labelled by four annotators, the last labels of C go in or it is being
delivered, and D is posted while the fault lasts. When all are completed, each line, vote, object and
count is looked at.
"""

import random
import secrets
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import httpx
import s3fs

from api.cli.verify import check_folder
from blocks.store import customers
from blocks.store.database import Database
from tests.support.books import check_books
from tests.support.client import Customer
from tests.support.crowd_annotator import Wire
from tests.support.endpoint import Endpoint
from tests.support.fault_orders import (
    ASK_S_MAX,
    POLL_S,
    Gap,
    Latecomer,
    Order,
    PacedFloor,
    SteadyAnnotator,
)
from tests.support.installation import Installation
from tests.support.ledger import OPTIONS, check_same, compare
from tests.support.manifests import make_manifest
from tests.support.record_checks import check_settled, check_votes
from tests.support.records import Record
from tests.support.stack_shop import StackShop

GIVE_UP_S = 360.0
READ_S_MAX = 120.0
LEFTOVERS_S_MAX = 20.0
LEASE_S = 3
LINES = {"A": 2500, "B": 1500, "C": 400, "D": 40}
PADDING = {"A": 4096, "B": 200, "C": 6000, "D": 0}
DELIVERIES: list[dict[str, str]] = [
    {"compression": "gzip"},
    {"compression": "none"},
    {"format": "parquet"},
]
# Tables that have nothing of a job that is completed.
TRANSIENT = ("lanes", "open_chunks", "vacancies", "leases", "runs")
ANSWER_S_MAX = 10.0


@dataclass
class Outcome:
    """What came of one fault; seconds are those after its end, or None where it never came."""

    fault: str
    lost: int = 0
    doubled: int = 0
    wrong: list[str] = field(default_factory=list)
    read_s: float | None = None
    completed_s: float | None = None
    all_s: float | None = None
    api_away_s: float = 0.0
    not_ready_s: float = 0.0
    human: str = ""
    note: str = ""
    job_ids: list[str] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        """Nothing lost, doubled or wrong, and nobody had to help."""
        return not self.complaints

    @property
    def complaints(self) -> list[str]:
        """What was not as it must be."""
        found = [f"{self.lost} lost"] * bool(self.lost) + [f"{self.doubled} doubled"] * bool(
            self.doubled
        )
        return [*found, *self.wrong, *filter(None, [self.human])]


@dataclass
class Site:
    """An installation, and what its operator, a customer and an observer have of it."""

    installation: Installation
    store: Database
    shop: StackShop
    s3: s3fs.S3FileSystem
    endpoint: Endpoint
    stop_s: float
    """How long what is stopped stays so."""
    patience_s: float
    """After so long without the end of all jobs somebody would help."""


class Trial:
    """The jobs of one fault."""

    def __init__(self, site: Site, fault: str, dice: random.Random) -> None:
        self.site, self.dice = site, dice
        self.installation = site.installation
        self.outcome = Outcome(fault)
        self._bucket = f"trial-{secrets.token_hex(4)}"
        self.customer, self._keys = self._make_people()
        site.s3.mkdir(self._bucket)
        self.orders = {name: self._make_order(name, name) for name in LINES}
        self._floor = PacedFloor(leases_s=(LEASE_S,), limits=(20, 40, 80))
        url = site.installation.api_url
        self._annotators = [
            SteadyAnnotator(self._floor, Wire(url, key, answer_s_max=ANSWER_S_MAX), no, n, f"{n}")
            for n, (no, key) in enumerate(self._keys)
        ]
        self._ended_at = 0.0

    def _make_people(self) -> tuple[Customer, list[tuple[int, str]]]:
        keys = []
        with self.site.store.transaction() as tx:
            customer_id = customers.add_customer(tx, self.outcome.fault)
            key = customers.add_customer_key(tx, customer_id)
            for _ in OPTIONS:
                name = f"steady {secrets.token_hex(4)}"
                annotator_id, annotator_key = customers.add_annotator_key(tx, name, [customer_id])
                keys.append((annotator_id, annotator_key))
        query = "select annotator_no from annotators where annotator_id = %s"
        found = [(self.site.shop.value(query, annotator), key) for annotator, key in keys]
        return Customer(self.installation.api_url, key, customer_id), found

    def _make_order(self, name: str, size: str) -> Order:
        manifest = make_manifest(
            LINES[size],
            bad_share=0.02,
            seed=self.dice.randrange(2**30),
            padding_max=PADDING[size],
            hard=size in "AC",
        )
        self.site.s3.pipe_file(f"{self._bucket}/{name}.jsonl", manifest.data)
        environment = self.installation.environment
        body = {
            "manifest_url": f"s3://{self._bucket}/{name}.jsonl",
            "label_spec": {"question": "What is it?", "options": OPTIONS},
            "consensus_threshold": 2,
            "callback_url": self.site.endpoint.url,
            "credentials": {
                "access_key_id": environment["AWS_ACCESS_KEY_ID"],
                "secret_access_key": environment["AWS_SECRET_ACCESS_KEY"],
                "endpoint_url": environment["AWS_ENDPOINT_URL"],
                "region": "us-east-1",
            },
            "delivery": {"type": "s3", "bucket": self._bucket, **self.dice.choice(DELIVERIES)},
        }
        return Order(name, manifest, body)

    def run(self, inject: Callable[["Trial"], str | None]) -> Outcome:
        """Bring the jobs into their phases, inject the fault, and see what comes of it.

        What `inject` returns is noted; it returns when the fault is over.
        """
        a, b, c, d = self.orders.values()
        http = self.customer.http
        try:
            for order in (b, c):
                self._submit(order)
            self._wait_read(b, c)
            self._floor.job_ids.append(b.job_id)
            with ThreadPoolExecutor(len(self._annotators)) as executor:
                work = [executor.submit(annotator.work) for annotator in self._annotators]
                try:
                    self._go_on_to_the_instant(a, c)
                    with ExitStack() as watching:
                        gaps = [
                            Gap(lambda: http.get(f"/v1/jobs/{b.job_id}", timeout=ASK_S_MAX)),
                            Gap(lambda: http.get(self.installation.ready_url, timeout=ASK_S_MAX)),
                        ]
                        late = Latecomer(self.installation.api_url, http.headers, d)
                        for each in gaps:
                            watching.callback(each.stop)
                        watching.callback(late.stop)
                        self.outcome.note = inject(self) or ""
                        self._ended_at = time.monotonic()
                        self._floor.hurry.set()
                        self._watch(work)
                    self.outcome.api_away_s, self.outcome.not_ready_s = (g.longest_s for g in gaps)
                finally:
                    self._floor.stopping.set()
                    self._floor.hurry.set()
            self._check(work)
        finally:
            http.close()
            for annotator in self._annotators:
                annotator.wire.close()
        return self.outcome

    def add_orders(self, count: int) -> None:
        """Post some more small jobs at once."""
        for n in range(count):
            order = self.orders[f"more {n}"] = self._make_order(f"more {n}", "D")
            self._submit(order)

    def _submit(self, order: Order) -> None:
        order.job_id = self.customer.submit(**order.body)

    def _wait_read(self, *orders: Order) -> None:
        deadline = time.monotonic() + READ_S_MAX
        while any(order.read_at is None for order in orders):
            assert time.monotonic() < deadline, f"not read: {[order.seen for order in orders]}"
            for order in orders:
                order.look(self.customer.http)
            time.sleep(POLL_S)

    def _go_on_to_the_instant(self, a: Order, c: Order) -> None:
        """Post A, and have the last labels of C given, each a random moment before now."""
        posted_s, labelled_s = self.dice.uniform(0.3, 3.5), self.dice.uniform(0.2, 3.0)
        first_s = max(posted_s, labelled_s)
        steps = sorted([(first_s - posted_s, "A"), (first_s - labelled_s, "C")])
        began_s = time.monotonic()
        for at_s, name in steps:
            time.sleep(max(0.0, began_s + at_s - time.monotonic()))
            if name == "A":
                self._submit(a)
            self._floor.job_ids.append((a if name == "A" else c).job_id)
        time.sleep(max(0.0, began_s + first_s - time.monotonic()))

    def _watch(self, work: list[Future[None]]) -> None:
        """Until all jobs are completed, or nobody would wait any longer."""
        orders = list(self.orders.values())
        while any(order.completed_at is None for order in orders):
            waited_s = time.monotonic() - self._ended_at
            self._look(work)
            if not self.installation.is_running:
                self.outcome.human = "refinery up had ended"
                self.installation.start()
            if waited_s > self.site.patience_s and not self.outcome.human:
                self.outcome.human = f"not done after {self.site.patience_s:.0f} s"
            if waited_s > GIVE_UP_S:
                break
            time.sleep(POLL_S)
        self.outcome.read_s = self._after(self.orders["A"].read_at)
        self.outcome.completed_s = self._after(self.orders["C"].completed_at)
        if all(order.completed_at for order in orders):
            self.outcome.all_s = max(self._after(order.completed_at) or 0.0 for order in orders)

    def _look(self, work: list[Future[None]]) -> None:
        for future in work:
            if future.done():
                future.result()  # it raises: none ends before it is told
        for order in self.orders.values():
            if order.job_id and order.job_id not in self._floor.job_ids:
                self._floor.job_ids.append(order.job_id)
            if order.job_id and order.completed_at is None:
                order.look(self.customer.http)

    def _after(self, at: float | None) -> float | None:
        return None if at is None else max(0.0, at - self._ended_at)

    def _check(self, work: list[Future[None]]) -> None:
        self.outcome.job_ids = [order.job_id for order in self.orders.values() if order.job_id]
        for order in self.orders.values():
            if order.completed_at is None:
                self.outcome.lost += order.lines
                self.outcome.wrong.append(f"{order.name} never ended: {order.seen}")
                return
        for check in (
            *(future.result for future in work),
            *(lambda o=order: self._check_order(o) for order in self.orders.values()),
            self._check_votes,
            self._check_nothing_left,
        ):
            try:
                check()
            except (AssertionError, httpx.HTTPError, OSError) as error:
                self.outcome.wrong.append(f"{type(error).__name__}: {str(error)[:1500]}")

    def _check_order(self, order: Order) -> None:
        http = self.customer.http
        results, errors = (
            http.get(f"/v1/jobs/{order.job_id}/{what}").raise_for_status().content
            for what in ("export", "errors")
        )
        differences = compare(results, errors, order.manifest)
        self.outcome.lost += len(differences.lost)
        self.outcome.doubled += len(differences.doubled)
        assert not differences.wrong, f"{order.name}: {differences.wrong[:3]}"
        job = http.get(f"/v1/jobs/{order.job_id}").raise_for_status().json()
        assert job["delivery"]["status"] == "delivered", job
        counts = {name: job[name] for name in ("total_tasks", "tasks_done", "tasks_failed")}
        assert counts == {
            "total_tasks": order.lines,
            "tasks_done": results.count(b"\n"),
            "tasks_failed": errors.count(b"\n"),
        }, order.name
        folder = f"{self._bucket}/{order.job_id}"
        objects = {
            path.rpartition("/")[2]: self.site.s3.cat_file(path)
            for path in self.site.s3.find(folder)
        }
        check_same(objects, results, errors)
        report = check_folder(self.site.s3, folder)
        assert report.whole, report.problems

    def _check_votes(self) -> None:
        """What the annotators were told is what is recorded, and what everything is counted from."""
        shop, job_ids = self.site.shop, self.outcome.job_ids
        record = Record.of_all(annotator.record for annotator in self._annotators)
        jobs, ballots = shop.jobs_of_tasks(job_ids), shop.ballots(job_ids)
        check_votes(record, ballots)
        check_settled(record, ballots, jobs)
        for rule in shop.rules(job_ids).values():
            check_books(shop, rule)

    def _check_nothing_left(self) -> None:
        """No row that is for work under way, no unfinished upload, one notification for each event."""
        deadline = time.monotonic() + LEFTOVERS_S_MAX
        while left := self._left():
            assert time.monotonic() < deadline, f"left: {left}"
            time.sleep(POLL_S)
        listed = self.site.s3.call_s3("list_multipart_uploads", Bucket=self._bucket)
        assert not listed.get("Uploads"), listed

    def _left(self) -> dict[str, Any]:
        counts = ", ".join(
            f"(select count(*) from {table} t where t.job_no in (select job_no from mine)) as {table}"
            for table in TRANSIENT
        )
        query = f"with mine as (select job_no from jobs where job_id = any (%s)) select {counts}"
        (row,) = self.site.shop.run(query, self.outcome.job_ids)
        return {table: count for table, count in row.items() if count}
