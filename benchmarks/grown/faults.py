"""Inject faults of machines and links while jobs are read, labelled and delivered, under load.

The jobs, the annotators and the ledger are those of the faults of `refinery up` (tests/support).
"""

import contextlib
import functools
import random
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import psutil
import s3fs
from rich.console import Console
from rich.table import Table

from benchmarks.grown.dask_cluster import lose_worker
from benchmarks.grown.load import Load
from benchmarks.grown.machines import OPERATOR_ADDRESS, Machine
from benchmarks.grown.site import Site
from benchmarks.grown.sizes import GrownSizes
from benchmarks.servers import REGION
from blocks.store import customers
from blocks.store.database import Database
from tests.support import fault_trial
from tests.support.endpoint import Endpoint
from tests.support.fault_trial import Outcome, Trial
from tests.support.installation import Installation
from tests.support.stack_shop import StackShop

WORKERS = ("worker-1", "worker-2", "worker-3")
GOAL_S = 120.0
# Somebody would help after so long, on a machine that is at other things too.
_PATIENCE_S = 300.0
_SHARES = 2
_RUN_S_MAX = 10.0
_POLL_S = 0.02
_API = "api-1"
_SETTINGS = {
    # Small, so that a manifest of a few megabytes has many chunks.
    "REFINERY_CHUNK_BYTES_MIN": "262144",
    "REFINERY_CHUNK_BYTES_MAX": "262144",
}


@dataclass
class Row:
    """Give what came of one fault: of its jobs, and of the load meanwhile."""

    outcome: Outcome
    load: Load

    @property
    def complaints(self) -> list[str]:
        """Return what was not as it must be."""
        failed = Counter(self.load.failures)
        return [*self.outcome.complaints, *(f"{n} × {what}" for what, n in failed.items())]


class Faults:
    """Know the faults of a site by their names."""

    def __init__(self, site: Site, sizes: GrownSizes) -> None:
        self._site = site
        self._sizes = sizes
        self._machines = [site.network.machines[name] for name in WORKERS]
        self._dead: list[str] = []

    @property
    def by_name(self) -> dict[str, Callable[[Trial], str]]:
        away_s = f"{self._sizes.away_seconds:.0f} s"
        return {
            "none": lambda _: "",
            "a worker's machine dies": self._kill_worker,
            f"a worker's link is cut for {away_s}": self._cut_worker,
            f"Prefect's machine is gone for {away_s}": self._lose_prefect,
            "an API process is drained": self._drain_api,
        }

    def repair(self) -> None:
        """Switch machines on again that a fault left dead, for the next one."""
        for name in self._dead:
            self._site.boot(name)
            self._site.await_worker(name)
        self._dead.clear()

    def _kill_worker(self, _: Trial) -> str:
        machine, note = self._busiest()
        machine.crash()
        self._dead.append(machine.name)
        return note

    def _cut_worker(self, _: Trial) -> str:
        machine, note = self._busiest()
        machine.cut()
        time.sleep(self._sizes.away_seconds)
        machine.mend()
        return note

    def _lose_prefect(self, _: Trial) -> str:
        self._site.crash("prefect")
        time.sleep(self._sizes.away_seconds)
        self._site.boot("prefect")
        return ""

    def _drain_api(self, _: Trial) -> str:
        ended_s = self._site.stop(_API)
        time.sleep(self._sizes.drained_seconds)
        self._site.boot(_API)
        self._site.await_api(_API)
        return f"{_API} ended after {ended_s:.1f} s"

    def _busiest(self) -> tuple[Machine, str]:
        """Return the worker's machine with the most runs, as soon as one has any, and a note of both."""
        deadline = time.monotonic() + _RUN_S_MAX
        while True:
            runs = {each.name: _count_runs(each) for each in self._machines}
            found = max(self._machines, key=lambda each: runs[each.name])
            if runs[found.name] or time.monotonic() > deadline:
                return found, f"{found.name}, runs: {runs[found.name]}"
            time.sleep(_POLL_S)


def _count_runs(machine: Machine) -> int:
    """Return how many runs are under way on a worker's machine: forks of its fork server."""
    runs = 0
    for pid in machine.pids():
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            parent = process.parent()
            runs += parent is not None and _is_fork_server(parent) and _is_fork_server(process)
    return runs


def _is_fork_server(process: psutil.Process) -> bool:
    return any("forkserver" in word for word in process.cmdline())


class _Premises(Installation):
    """Let a trial see the site as the installation whose jobs it looks after."""

    def __init__(self, site: Site, folder: Path) -> None:
        super().__init__(folder, {})
        self._site = site

    @property
    def environment(self) -> dict[str, str]:
        return self._site.environment

    @property
    def api_url(self) -> str:
        return self._site.api_url

    @property
    def ready_url(self) -> str:
        return f"{self._site.api_url}/v1/jobs?limit=1"  # Caddy shows nobody /health

    @property
    def database_url(self) -> str:
        return self._site.database_url

    @property
    def encryption_key(self) -> str:
        return self._site.encryption_key

    @property
    def is_running(self) -> bool:
        return True


def inject(folder: Path, sizes: GrownSizes, console: Console) -> Iterator[Row]:
    """Inject each fault once, and yield what came of it.

    Raises:
        MachineFailed: a program of a machine ended by itself, or was not ready in time.
    """
    hook = folder / "endpoint"
    hook.mkdir()
    settings = {**_SETTINGS, "SSL_CERT_FILE": str(hook / "endpoint.pem")}
    with ExitStack() as stack:
        site = stack.enter_context(Site(folder, settings))
        endpoint = Endpoint(hook, OPERATOR_ADDRESS)
        stack.callback(endpoint.stop)
        with console.status("Starting the machines"):
            site.start()
            for name in WORKERS:
                # A small share, so that a run lasts long enough to be hit.
                site.add_worker(name, "--limit", "4").limit(_SHARES * sizes.share)
        store = stack.enter_context(Database(site.database_url, connections_max=2))
        place = _place(site, folder, store, endpoint)
        faults = Faults(site, sizes)
        for name, fault in faults.by_name.items():
            trial = Trial(place, name, random.Random(f"{sizes.seed} {name}"))
            yield _under_load(place, console, functools.partial(_try, trial, fault))
            faults.repair()
        for name in WORKERS:
            site.stop(name)
        lines = sizes.dask_lines // 3
        yield _under_load(place, console, lambda: lose_worker(site, lines, sizes.share))


def _place(site: Site, folder: Path, store: Database, endpoint: Endpoint) -> fault_trial.Site:
    """Return the site as trials see it."""
    premises = _Premises(site, folder)
    s3 = s3fs.S3FileSystem(
        key=site.store.access_key_id,
        secret=site.store.secret_access_key,
        endpoint_url=site.store.endpoint_url,
        client_kwargs={"region_name": REGION},
        use_listings_cache=False,
        skip_instance_cache=True,
    )
    shop = StackShop(premises, store)
    return fault_trial.Site(premises, store, shop, s3, endpoint, 0.0, _PATIENCE_S)


def _try(trial: Trial, fault: Callable[[Trial], str]) -> Outcome:
    try:
        return trial.run(fault)
    except AssertionError as error:  # of an annotator, whose answers are looked at too
        trial.outcome.wrong.append(str(error)[:300])
        return trial.outcome


def _under_load(place: fault_trial.Site, console: Console, inject_it: Callable[[], Outcome]) -> Row:
    load = Load(place.installation.api_url, *_bystanders(place.store))
    try:
        row = Row(inject_it(), load)
    finally:
        load.stop()
    came = "; ".join(row.complaints)[:300] or f"good, all {_seconds(row.outcome.all_s)} s after it"
    console.print(f"{row.outcome.fault}: {came}", style="dim", markup=False)
    return row


def _bystanders(store: Database) -> tuple[str, str]:
    """Return the keys of a new customer, and of an annotator who works for nobody else."""
    with store.transaction() as tx:
        customer_id = customers.add_customer(tx, "Load")
        key = customers.add_customer_key(tx, customer_id)
        name = f"load {secrets.token_hex(4)}"
        _, annotator_key = customers.add_annotator_key(tx, name, [customer_id])
    return key, annotator_key


def table_of(rows: list[Row]) -> Table:
    """Return the table of all faults."""
    caption = (
        "Seconds from the end of the fault, which of a death is the death: until the job that was being "
        "read was read, and until all four jobs were completed and delivered. Failed: of the load's "
        "requests through the balancer, 5xx or no answer. Goal: nothing lost or doubled, nobody needed, "
        f"all within {GOAL_S:.0f} s, none failed."
    )
    table = Table(
        title="Faults of machines and links, under load",
        title_justify="left",
        caption=caption,
        caption_justify="left",
    )
    columns = ("fault", "lost", "doubled", "read s", "all s", "requests", "failed")
    for column in (*columns, "slowest s", "by a human", "note"):
        table.add_column(column, justify="left" if column in {"fault", "note"} else "right")
    for row in rows:
        outcome, load = row.outcome, row.load
        table.add_row(
            *(outcome.fault, str(outcome.lost), str(outcome.doubled)),
            *(_seconds(outcome.read_s), _seconds(outcome.all_s)),
            *(f"{load.requests:,}", str(len(load.failures))),
            *(f"{load.slowest_s:.1f}", outcome.human or "no"),
            "; ".join(filter(None, [outcome.note, *outcome.wrong]))[:200],
        )
    return table


def _seconds(value: float | None) -> str:
    return "never" if value is None else f"{value:.1f}"
