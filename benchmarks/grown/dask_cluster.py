"""Add a Dask cluster to a site, and lose one of its machines while a job is read on it."""

import time

import httpx

from benchmarks import manifest, ours
from benchmarks.grown.machines import Machine
from benchmarks.grown.site import Site
from benchmarks.manifest import Manifest
from tests.support.fault_trial import Outcome

SCHEDULER = "dask"
_WARM_LINES = 200_000
_POLL_S = 0.1
_READ_S_MAX = 360.0
_BEGUN = 0.2  # of its lines are recorded when the fault comes
_COUNTS = """
select coalesce(sum(c.tasks), 0)::bigint as tasks, coalesce(sum(c.bad_lines), 0)::bigint as bad
from jobs join chunks c using (job_no) where job_id = %s
"""


def add_cluster(site: Site, in_flight: int) -> None:
    """Add the scheduler, and a worker of ours whose runs have so many chunks in flight."""
    site.add_dask(SCHEDULER)
    site.add_worker(
        "coordinator",
        REFINERY_CHUNK_RUNNER="dask",
        REFINERY_DASK_ADDRESS=f"tcp://{SCHEDULER}:8786",
        REFINERY_CHUNKS_IN_FLIGHT=str(in_flight),
    )


def lose_worker(site: Site, lines: int, cores: float) -> Outcome:
    """Read a job on two of Dask's workers, of which one's machine dies, and return what came of it."""
    outcome = Outcome("a Dask worker's machine dies")
    add_cluster(site, 4)
    machines = [site.add_dask(name, scheduler=SCHEDULER) for name in ("dask-1", "dask-2")]
    site.await_dask(2)
    warm, whole = (manifest.put(site.store, n) for n in (_WARM_LINES, lines))
    _await(site, _post(site, warm), warm.lines)
    for machine in machines:
        machine.limit(cores)
    job_id = _post(site, whole)
    _await(site, job_id, int(_BEGUN * whole.lines))
    died_s = _die(machines[1])
    tasks, bad = _await(site, job_id, whole.lines)
    outcome.read_s = outcome.all_s = time.monotonic() - died_s
    expected = whole.good_lines, whole.lines - whole.good_lines
    outcome.lost = sum(max(e - f, 0) for e, f in zip(expected, (tasks, bad), strict=True))
    outcome.doubled = sum(max(f - e, 0) for e, f in zip(expected, (tasks, bad), strict=True))
    outcome.note = f"one job of {whole.lines:,} lines"
    if outcome.read_s > _READ_S_MAX:
        outcome.human = f"not read after {_READ_S_MAX:.0f} s"
    return outcome


def _die(machine: Machine) -> float:
    machine.crash()
    return time.monotonic()


def _post(site: Site, each: Manifest) -> str:
    headers = {"Authorization": f"Bearer {ours.new_customer_key(site.database_url)}"}
    with httpx.Client(base_url=site.api_url, headers=headers, timeout=60) as http:
        posted = http.post("/v1/jobs", json=ours.job_body(site.store, each)).raise_for_status()
        return str(posted.json()["job_id"])


def _await(site: Site, job_id: str, lines: int) -> tuple[int, int]:
    """Return the tasks and bad lines of a job as soon as it has so many together, or time is up."""
    deadline = time.monotonic() + _READ_S_MAX
    with site.connect() as connection:
        while True:
            row = connection.execute(_COUNTS, [job_id]).fetchone()
            assert row is not None  # an aggregate returns one row
            tasks, bad = row
            if tasks + bad >= lines or time.monotonic() > deadline:
                return int(tasks), int(bad)
            time.sleep(_POLL_S)
