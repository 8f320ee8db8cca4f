"""Run the least of the drill: one API behind Caddy and one worker, to see that machines are machines."""

import socket
import time
from pathlib import Path

import httpx
from rich.console import Console

from benchmarks import manifest, ours
from benchmarks.grown.machines import MachineFailed
from benchmarks.grown.site import Site

_LINES = 11  # the first of them would be bad, and is left out
_WORKER = "worker-1"
_READ_S_MAX = 60.0
_CONNECT_S = 0.3
_POLL_S = 0.1


def run(folder: Path, console: Console) -> None:
    """Read ten lines by a job that is posted through the balancer; limit, cut and crash a machine.

    Raises:
        MachineFailed: something was not as it must be; the sentence says what.
    """
    with Site(folder, apis=1) as site:
        site.start()
        worker = site.add_worker(_WORKER)
        worker.limit(0.5)
        tasks = _read(site)
        _expect(tasks == _LINES - 1, f"{tasks} tasks of {_LINES - 1} lines")
        _expect(not worker.used_s <= 0, "the worker has used no processor time")
        postgres = site.network.machines["postgres"]
        _expect(_connects("postgres"), "PostgreSQL cannot be reached")
        postgres.cut()
        _expect(not _connects("postgres"), "PostgreSQL is reached over a link that is cut")
        postgres.mend()
        _expect(_connects("postgres"), "PostgreSQL cannot be reached over a link that was mended")
        site.crash(_WORKER)
        _expect(not worker.pids(), "a dead machine has processes")
        console.print(f"{tasks} tasks; {site.groups.note}")


def _read(site: Site) -> int:
    each = manifest.put(site.store, _LINES, bad=False)
    headers = {"Authorization": f"Bearer {ours.new_customer_key(site.database_url)}"}
    with httpx.Client(base_url=site.api_url, headers=headers, timeout=30) as http:
        posted = http.post("/v1/jobs", json=ours.job_body(site.store, each)).raise_for_status()
        job_id, deadline = posted.json()["job_id"], time.monotonic() + _READ_S_MAX
        while True:
            job = http.get(f"/v1/jobs/{job_id}").raise_for_status().json()
            if job["total_tasks"] or time.monotonic() > deadline:
                return int(job["total_tasks"])
            time.sleep(_POLL_S)


def _connects(name: str) -> bool:
    try:
        socket.create_connection((name, 5432), timeout=_CONNECT_S).close()
    except OSError:
        return False
    return True


def _expect(is_so: bool, otherwise: str) -> None:
    if not is_so:
        raise MachineFailed(f"{otherwise[0].upper()}{otherwise[1:]}.")
