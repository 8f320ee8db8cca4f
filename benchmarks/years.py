"""Measure whether a service stays as it was: a year of jobs, each deleted so many days after its end.

Jobs are made, labelled, archived and deleted by the functions of the store and of housekeeping, in a
database whose clock is moved on by a day after each day's jobs. At the end of each quarter annotators
claim in it and, in turns, in a database of the first day, on the same server.
"""

import dataclasses
import itertools
import statistics
import time
from collections.abc import Sequence
from datetime import timedelta

import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks.annotation_jobs import OPTIONS, make_frame, make_new_job
from benchmarks.latencies import Latency
from benchmarks.servers import Databases
from benchmarks.simulated_clock import SimulatedDatabase
from benchmarks.sizes import Sizes
from benchmarks.stacks import Stacks
from blocks import housekeeping
from blocks.domain.model import Pin
from blocks.lines.validated_lines import Batch
from blocks.secrets.vault import Vault
from blocks.settings import Settings
from blocks.store import annotation, audit, chunks, customers, jobs, labelling, outbox
from blocks.store.database import Database, Transaction
from blocks.store.labelling import Label

_LABELS = 2
_BATCH = 500
_PROBE_BATCH = 10
_LEASE_S = 3600
_QUARTERS = 4
_BYTES_A_LINE = 140
# What claims, labels, launches and senders work on; the others keep what jobs have come to.
_HOT = (
    *("lanes", "open_chunks", "leases", "vacancies", "labels", "tallies", "label_batches"),
    *("runs", "outbox", "counts", "comparisons", "deleted_jobs", "job_annotators"),
)
# A row for each deleted job or each day, for longer than a year.
_KEPT_LONGER = ("audit_log", "annotator_days", "forgotten_manifests")
_CLAIM_GOAL = 1.2
_GROWTH_GOAL = 1.1
_SHOWN_BYTES_MIN = 512 * 1024
# As autovacuum decides by its defaults, which has a minute of ours for what is a day here.
_DUE_FOR_VACUUM = """
select s.relname from pg_stat_user_tables s join pg_class c on c.oid = s.relid
where s.n_dead_tup > 50 + 0.2 * greatest(c.reltuples, 0)
   or s.n_ins_since_vacuum > 1000 + 0.2 * greatest(c.reltuples, 0)
   or s.n_mod_since_analyze > 50 + 0.1 * greatest(c.reltuples, 0)
"""
_SENT = """
with sent as (
    update notifications set status = 'delivered', attempts = 1 where status = 'pending'
    returning notification_no
)
insert into notification_attempts (notification_no, attempt, attempted_at, duration_ms, status_code)
select notification_no, 1, now(), 20, 200 from sent
"""
_SIZES = """
select relname, pg_total_relation_size(oid) from pg_class
where relkind = 'r' and relnamespace = 'public'::regnamespace
"""


@dataclasses.dataclass(frozen=True)
class _Spent:
    """Seconds of one day's housekeeping: of deleting what is old, and of everything else."""

    purge_s: float
    rest_s: float


class _Service:
    """A customer and annotators in a simulated database."""

    def __init__(self, databases: Databases, name: str, sizes: Sizes) -> None:
        self.simulated = SimulatedDatabase(databases, name)
        self._database = Database(self.simulated.url, connections_max=1)
        self._sizes = sizes
        self._vault = Vault([bytes.fromhex(databases.stack.encryption_key)])
        self._settings = Settings(
            database_url=self.simulated.url, encryption_key=databases.stack.encryption_key
        )
        with self._database.transaction() as tx:
            self._customer_id = customers.add_customer(tx, "Bench")
            self._annotators = [self._hire(tx, n) for n in range(_LABELS)]

    def close(self) -> None:
        self._database.close()
        self.simulated.connection.close()

    def live_day(self) -> None:
        """Have a day's jobs made, read, labelled, and their customer told."""
        for _ in range(self._sizes.jobs_a_day):
            self._make_job(self._sizes.year_job_lines)
        for annotator in self._annotators:
            while self._label(annotator, self._claim(annotator, _BATCH)):
                pass
        self._tell()

    def pass_night(self) -> _Spent:
        """Let a day go by, and housekeeping do all that is due then."""
        self.simulated.move_on(timedelta(days=1))
        began_s = time.monotonic()
        while housekeeping.keep_house(self._database, self._settings).tasks_archived:
            pass
        rest_s = time.monotonic() - began_s
        began_s = time.monotonic()
        days = self._sizes.kept_days
        while housekeeping.delete_old(self._database, audit.HOUSEKEEPING, days=days):
            pass
        while housekeeping.remove_deleted(self._database, steps_max=1000):
            pass
        purge_s = time.monotonic() - began_s
        self._vacuum()
        return _Spent(purge_s, rest_s)

    def measure_claims(self) -> list[float]:
        """Label a job, a few tasks a claim; return how many seconds each claim took."""
        self._make_job(self._sizes.probe_tasks)
        seconds: list[float] = []
        for annotator in self._annotators:
            tasks: Sequence[str] = ["any"]
            while tasks:
                began_s = time.perf_counter()
                tasks = self._claim(annotator, _PROBE_BATCH)
                seconds.append(time.perf_counter() - began_s)
                self._label(annotator, tasks)
            seconds.pop()  # it has found nothing
        self._tell()
        return seconds

    def count(self, tables: Sequence[str]) -> int:
        """Count the rows of tables."""
        counts = [f"(select count(*) from {table})" for table in tables]
        row = self.simulated.connection.execute(f"select {' + '.join(counts)}".encode()).fetchone()
        assert row is not None  # a sum
        return int(row[0])

    def sizes_by_table(self) -> dict[str, int]:
        """Return the bytes of each table, with its indexes."""
        return dict(self.simulated.connection.execute(_SIZES).fetchall())

    def _hire(self, tx: Transaction, number: int) -> int:
        _, key = customers.add_annotator_key(tx, f"annotator {number}")
        principal = customers.find_principal(tx, key)
        assert principal is not None
        assert principal.annotator_no is not None
        return principal.annotator_no

    def _make_job(self, lines: int) -> None:
        frame = make_frame(0, lines)
        with self._database.transaction() as tx:
            new = msgspec.structs.replace(
                make_new_job(self._customer_id, _LABELS, stop_early=False),
                callback_url="https://hooks.example.com/jobs",
            )
            job_id, _ = jobs.submit(tx, new, self._vault)
            job = jobs.get(tx, job_id)
            assert job is not None  # it was submitted
            jobs.begin(tx, job.job_no)
            jobs.pin(tx, job.job_no, Pin(lines * _BYTES_A_LINE, '"etag"'), lines * _BYTES_A_LINE)
            chunks.commit(tx, job.job_no, 0, [Batch(lines, frame, [])], None)
            jobs.finish_ingestion(tx, job.job_no)

    def _claim(self, annotator: int, limit: int) -> list[str]:
        with self._database.transaction() as tx:
            found = annotation.claim(tx, annotator, limit=limit, lease_s=_LEASE_S)
        return [task.task_id for task in found]

    def _label(self, annotator: int, tasks: Sequence[str]) -> int:
        if tasks:
            with self._database.transaction() as tx:
                labelling.submit(tx, annotator, [Label(task, OPTIONS[0]) for task in tasks])
        return len(tasks)

    def _tell(self) -> None:
        """Do what the launcher and the dispatcher do, where everybody answers at once."""
        told = True
        while told:
            with self._database.transaction() as tx:
                entries = outbox.claim(tx, limit=_BATCH)
                for entry in entries:
                    outbox.mark_done(tx, entry.outbox_no)
            told = bool(entries)
        self.simulated.connection.execute(_SENT)

    def _vacuum(self) -> None:
        connection = self.simulated.connection
        with self._database.transaction() as tx:
            tx.cursor().execute("select pg_stat_force_next_flush()")
        for (name,) in connection.execute(_DUE_FOR_VACUUM).fetchall():
            connection.execute(f"vacuum (analyze) {name}".encode())


@dataclasses.dataclass(frozen=True)
class _Mark:
    """Figures of the end of a quarter; day 1 is the first."""

    day: int
    jobs: int
    hot_rows: int
    bytes_by_table: dict[str, int]
    claims: Latency
    claims_per_s: float
    p50_ratio: float
    p95_ratio: float
    """To the first day's, the medians of all turns."""
    spent: _Spent

    @property
    def hot_bytes(self) -> int:
        return sum(self.bytes_by_table[name] for name in _HOT)

    @property
    def bytes(self) -> int:
        return sum(self.bytes_by_table.values())


def measure(stacks: Stacks, sizes: Sizes, console: Console) -> list[Table]:
    """Return a table of the quarters, and one of the tables that take room."""
    quarters = [sizes.year_days * n // _QUARTERS for n in range(1, _QUARTERS + 1)]
    marks = []
    with stacks.bare() as databases:
        first, year = (_Service(databases, name, sizes) for name in ("first_day", "years"))
        first.live_day()
        spent: list[_Spent] = []
        for day in range(1, sizes.year_days + 1):
            year.live_day()
            if day in {1, *quarters}:
                marks.append(_mark(day, year, first, sizes, spent))
                spent.clear()
                console.print(f"[dim]day {day}: claims {marks[-1].claims} ms[/]")
            spent.append(year.pass_night())
        for service in (first, year):
            service.close()
    return [_table_of_quarters(marks, sizes), _table_of_tables(marks)]


def _mark(
    day: int, year: _Service, first: _Service, sizes: Sizes, spent: Sequence[_Spent]
) -> _Mark:
    hot_rows, jobs_kept = year.count(_HOT), year.count(["jobs"])
    by_table = year.sizes_by_table()
    now: list[float] = []
    ratios: list[tuple[float, float]] = []
    for turn in range(sizes.rounds):
        turns = {}
        for service in [first, year][:: 1 if turn % 2 else -1]:
            turns[service] = service.measure_claims()
        now += turns[year]
        here, there = Latency.of(turns[year]), Latency.of(turns[first])
        ratios.append((here.p50_ms / there.p50_ms, here.p95_ms / there.p95_ms))
    p50, p95 = (statistics.median(each) for each in zip(*ratios, strict=True))
    days = max(len(spent), 1)
    each_day = _Spent(sum(s.purge_s for s in spent) / days, sum(s.rest_s for s in spent) / days)
    return _Mark(
        day, jobs_kept, hot_rows, by_table, Latency.of(now), len(now) / sum(now), p50, p95, each_day
    )


def _table_of_quarters(marks: Sequence[_Mark], sizes: Sizes) -> Table:
    table = Table(
        title=(
            f"{sizes.year_days} days of {sizes.jobs_a_day:,} jobs of {sizes.year_job_lines} lines and "
            f"{_LABELS} labels, kept for {sizes.kept_days} days; claims of {_PROBE_BATCH} tasks"
        ),
        title_justify="left",
    )
    for column in (
        "day", "jobs", "hot rows", "hot MB", "all MB", "claims/s", "claim p50 / p95 / p99, ms",
        "p50, p95 ÷ first day's", "goal", "purge s/day", "rest s/day",
    ):  # fmt: skip
        table.add_column(column, justify="right", no_wrap=True)
    for mark in marks:
        table.add_row(
            f"{mark.day}",
            f"{mark.jobs:,}",
            f"{mark.hot_rows:,}",
            f"{mark.hot_bytes / 1e6:,.1f}",
            f"{mark.bytes / 1e6:,.1f}",
            f"{mark.claims_per_s:,.0f}",
            str(mark.claims),
            f"{mark.p50_ratio:.2f} / {mark.p95_ratio:.2f}",
            f"≤ {_CLAIM_GOAL:g}",
            f"{mark.spent.purge_s:.1f}",
            f"{mark.spent.rest_s:.1f}",
        )
    return table


def _table_of_tables(marks: Sequence[_Mark]) -> Table:
    """Show tables of half a megabyte or more; by the second quarter jobs are deleted as they come."""
    table = Table(title="Tables with their indexes, MB", title_justify="left")
    table.add_column("table")
    for mark in marks:
        table.add_column(f"day {mark.day}", justify="right")
    table.add_column("last ÷ second quarter", justify="right")
    table.add_column("goal", justify="right")
    *_, half_year, _, last = itertools.chain([marks[0]] * _QUARTERS, marks)
    for name, size in sorted(last.bytes_by_table.items(), key=lambda item: -item[1]):
        if size >= _SHOWN_BYTES_MIN or name in _HOT:
            each = [f"{mark.bytes_by_table[name] / 1e6:,.2f}" for mark in marks]
            growth = f"{size / max(half_year.bytes_by_table[name], 1):.2f}"
            goal = "" if name in _KEPT_LONGER else f"≤ {_GROWTH_GOAL:g}"
            table.add_row(name, *each, growth, goal)
    return table
