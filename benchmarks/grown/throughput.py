"""Measure the lines a second of several jobs by workers and shares of CPU, and of one job on Dask."""

import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
from rich.console import Console
from rich.table import Table

from benchmarks import manifest, ours
from benchmarks.grown.dask_cluster import add_cluster
from benchmarks.grown.site import Site
from benchmarks.grown.sizes import GrownSizes
from benchmarks.manifest import Manifest
from deployments.names import RECONCILE

GOAL_JOBS, GOAL_DASK = 1.8, 1.7
# Of each worker, as in compose.yaml: some read while others begin or end, and no CPU waits for them.
_RUNS_AT_ONCE = "4"
_WARM_LINES = 20_000
_POLL_S = 0.2
_TIMEOUT_S = 1800.0
_SHARED = ("postgres", "store", "prefect", "api")
_DONE = """
select count(*) filter (where ingested_at is not null) as read,
       count(*) filter (where status = 'failed') as failed,
       extract(epoch from max(ingested_at))::float8 as last_s
from jobs where job_id = any (%s)
"""
_UNDER_WAY = {"flow_runs": {"state": {"type": {"any_": ["RUNNING", "PENDING", "CANCELLING"]}}}}


class ThroughputFailed(Exception):
    """Jobs failed, or were not read in time."""


@dataclass(frozen=True)
class Figures:
    """Give what a measurement took."""

    lines: int
    seconds: float
    used_s: dict[str, float]
    """Processor time of each machine."""
    idle: float
    """Of all cores of this computer, the part that nobody used."""

    @property
    def rate(self) -> float:
        return self.lines / self.seconds

    def per_million(self, prefix: str) -> float:
        """Return the processor time a million lines of the machines whose names begin so."""
        used = sum(s for name, s in self.used_s.items() if name.startswith(prefix))
        return used / self.lines * 1e6

    def busy(self, machines: Sequence[str], cores: float) -> float:
        """Return which part of their shares these machines have used."""
        return sum(self.used_s[name] for name in machines) / (cores * len(machines) * self.seconds)


def measure(folder: Path, sizes: GrownSizes, console: Console) -> Iterator[Table]:
    """Yield a table for several jobs, and one for one job on Dask.

    Raises:
        ThroughputFailed: jobs failed, or were not read within half an hour.
        MachineFailed: a program of a machine ended by itself.
    """
    settings = {"REFINERY_RUNS_PER_CUSTOMER_MAX": str(sizes.jobs)}
    with Site(folder, settings) as site:
        with console.status("Starting the machines"):
            site.start()
            _pause_reconcile(site)
        console.print(f"[dim]{site.groups.note}[/]")
        yield _measure_jobs(site, sizes, console)
        yield _measure_dask(site, sizes, console)


def _measure_jobs(site: Site, sizes: GrownSizes, console: Console) -> Table:
    names = [f"worker-{n}" for n in range(1, max(sizes.workers) + 1)]
    with console.status("Starting the workers"):
        for name in names:
            site.add_worker(name, "--limit", _RUNS_AT_ONCE)
        machines = [site.network.machines[name] for name in names]
        few, many = (manifest.put(site.store, n) for n in (_WARM_LINES, sizes.lines))
        _read(site, few, jobs=4 * len(names))  # the first runs warm everything
    found: dict[tuple[int, int], list[Figures]] = {}
    for _ in range(sizes.rounds):
        for shares in sizes.shares:
            for workers in sizes.workers:
                for n, machine in enumerate(machines):
                    machine.limit(shares * sizes.share)
                    machine.thaw() if n < workers else machine.freeze()
                with console.status(f"{workers} workers with {shares} shares each"):
                    figures = _read(site, many, jobs=sizes.jobs)
                found.setdefault((workers, shares), []).append(figures)
                console.print(f"[dim]{workers} × {shares}: {figures.rate:,.0f} lines/s[/]")
    for machine in machines:
        machine.thaw()
        machine.limit(None)
    for name in names:
        site.stop(name)
    return _table_of_jobs(found, names, sizes)


def _table_of_jobs(
    found: dict[tuple[int, int], list[Figures]], names: Sequence[str], sizes: GrownSizes
) -> Table:
    title = (
        f"{sizes.jobs} jobs of {sizes.lines:,} lines at once, by workers and shares of "
        f"{sizes.share} core each; goal: 2 workers ≥ {GOAL_JOBS} × 1"
    )
    table = _new_table(title, "workers", "shares each")
    for (workers, shares), rounds in sorted(found.items(), key=lambda each: each[0][::-1]):
        figures = _median(rounds)
        one, least = found.get((1, shares)), found.get((workers, min(sizes.shares)))
        cores = shares * sizes.share
        table.add_row(
            *(str(workers), str(shares), f"{figures.rate:,.0f}"),
            _ratio(figures, one),
            _ratio(figures, least),
            *_costs(figures, "worker-", names[:workers], cores),
        )
    return table


def _measure_dask(site: Site, sizes: GrownSizes, console: Console) -> Table:
    with console.status("Starting Dask"):
        add_cluster(site, in_flight=2 * max(sizes.dask_workers))
        names = [f"dask-{n}" for n in range(1, max(sizes.dask_workers) + 1)]
        whole = manifest.put(site.store, sizes.dask_lines)
        warm = manifest.put(site.store, 10 * _WARM_LINES)
    found: dict[int, list[Figures]] = {}
    for _ in range(sizes.rounds):
        for workers in sizes.dask_workers:
            for name in names[:workers]:
                if name not in site.network.machines:
                    site.add_dask(name, scheduler="dask")
                elif not site.is_running(name):
                    site.boot(name)
            site.await_dask(workers)
            with console.status(f"One job on {workers} of Dask's workers"):
                _read(site, warm, jobs=2)
                for name in names[:workers]:
                    site.network.machines[name].limit(sizes.share)
                figures = _read(site, whole, jobs=1)
            found.setdefault(workers, []).append(figures)
            console.print(f"[dim]Dask × {workers}: {figures.rate:,.0f} lines/s[/]")
            for name in names[:workers]:
                site.network.machines[name].limit(None)
                site.stop(name)
            site.await_dask(0)
    title = (
        f"One job of {sizes.dask_lines:,} lines on Dask, by workers of {sizes.share} core each; "
        f"goal: 2 workers ≥ {GOAL_DASK} × 1"
    )
    table = _new_table(title, "Dask's workers", "shares each")
    for workers, rounds in sorted(found.items()):
        figures = _median(rounds)
        table.add_row(
            *(str(workers), "1", f"{figures.rate:,.0f}"),
            *(_ratio(figures, found.get(1)), ""),
            *_costs(figures, "dask-", names[:workers], sizes.share),
        )
    return table


def _new_table(title: str, *first: str) -> Table:
    caption = (
        "Columns of seconds are processor time a million lines; the API's is that of both. Busy: part "
        "of the workers' shares. Idle: part of this computer, which others may use too."
    )
    table = Table(title=title, title_justify="left", caption=caption, caption_justify="left")
    rates = ("lines/s", "÷ 1 worker", "÷ 1 share", "worker s", *(f"{n} s" for n in _SHARED))
    for column in (*first, *rates, "busy", "idle"):
        table.add_column(column, justify="right")
    return table


def _costs(figures: Figures, prefix: str, at_work: Sequence[str], cores: float) -> Iterator[str]:
    for name in (prefix, *_SHARED):
        yield f"{figures.per_million(name):.2f}"
    yield f"{figures.busy(at_work, cores):.0%}"
    yield f"{figures.idle:.0%}"


def _ratio(figures: Figures, base: list[Figures] | None) -> str:
    return f"{figures.rate / _median(base).rate:.2f}" if base else ""


def _median(rounds: Sequence[Figures]) -> Figures:
    """Return the round whose rate is the median, or the lower one of two."""
    rate = statistics.median_low(each.rate for each in rounds)
    return next(each for each in rounds if each.rate == rate)


def _read(site: Site, each: Manifest, *, jobs: int) -> Figures:
    """Post jobs at once, and return when the lines of all of them are recorded, and their runs over.

    The end is PostgreSQL's time and the beginning ours; both are of the same clock.
    """
    headers = {"Authorization": f"Bearer {ours.new_customer_key(site.database_url)}"}
    body = ours.job_body(site.store, each)
    before, idle = site.network.used_s(), psutil.cpu_times()
    begin_s = time.time()
    with httpx.Client(base_url=site.api_url, headers=headers, timeout=60) as http:
        posted = [http.post("/v1/jobs", json=body).raise_for_status() for _ in range(jobs)]
    job_ids = [str(answer.json()["job_id"]) for answer in posted]
    last_s = _wait_read(site, job_ids, begin_s)
    used, now = site.network.used_s(), psutil.cpu_times()
    _wait_over(site)
    return Figures(
        lines=each.lines * jobs,
        seconds=last_s - begin_s,
        used_s={name: used[name] - before[name] for name in before},
        idle=(now.idle - idle.idle) / (sum(now) - sum(idle)),
    )


def _wait_read(site: Site, job_ids: list[str], begin_s: float) -> float:
    with site.connect() as connection:
        while True:
            row = connection.execute(_DONE, [job_ids]).fetchone()
            assert row is not None  # an aggregate returns one row
            read, failed, last_s = int(row[0]), int(row[1]), row[2]
            if failed:
                raise ThroughputFailed(f"{failed} jobs failed.")
            if read == len(job_ids):
                return float(last_s)
            if time.time() - begin_s > _TIMEOUT_S:
                raise ThroughputFailed(f"{read} of {len(job_ids)} jobs were read.")
            time.sleep(_POLL_S)


def _wait_over(site: Site) -> None:
    """Return when no run is under way: those of jobs that are read have some words left for Prefect."""
    deadline = time.monotonic() + _TIMEOUT_S
    with site.prefect() as prefect:
        while prefect.post("/flow_runs/count", json=_UNDER_WAY).raise_for_status().json():
            if time.monotonic() > deadline:
                raise ThroughputFailed("Runs do not end.")
            time.sleep(_POLL_S)


def _pause_reconcile(site: Site) -> None:
    """Have no run every minute, which would take its part of a small share now and then."""
    with site.prefect() as prefect:
        found = prefect.get(f"/deployments/name/{RECONCILE}").raise_for_status().json()
        prefect.post(f"/deployments/{found['id']}/pause_deployment").raise_for_status()
