"""Measure PostgreSQL alone: pgbench runs the statements of a claim and of its labels.

They are the store's own, with the same settings on as many connections. There is no API, no Python and
no JSON, and no value has to be carried from one statement to the next.
"""

import math
import re
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

from benchmarks import processor_time
from benchmarks.annotation_jobs import OPTIONS
from benchmarks.annotators import ACCURACY
from benchmarks.servers import Databases
from benchmarks.sizes import Sizes
from blocks.store.database import SHORT_STATEMENTS
from blocks.store.queries import load as load_queries
from deployments.embedded.environment import plain_environment
from deployments.embedded.postgres_programs import programs_folder

_SQL = load_queries("annotation")
_PARAMETER = re.compile(r"%\((\w+)\)s")
_SCRIPT = """\
\\set annotator_no :client_id + {first_annotator_no}
\\set seed random(0, 9223372036854775806)
begin;
{begin_claim};
{claimable_jobs} \\gset
\\if :vacancies
{take_vacancies};
\\endif
\\if :lanes
{take_lane};
\\endif
{describe};
commit;
begin;
{submit_labels};
commit;
"""
# The tasks that the annotator was just handed, read in SQL, so no statement waits for another's answer.
_HELD = """(
    select array_agg(o order by o) from leases, unnest(task_nos) as u (o)
    where annotator_no = :annotator_no
)"""
_THREADS = 2


class FloorFailed(Exception):
    """pgbench ended with an error; the last lines say which."""


def run(databases: Databases, batch: int, sizes: Sizes) -> tuple[int, int, int, int, float]:
    """Return whole seconds, and claims, labels, settled tasks and PostgreSQL's processor time in them.

    The annotators, and one job that is large enough, must be there.

    Raises:
        FloorFailed: a statement of pgbench failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "annotation.sql"
        script.write_text(_script(databases, batch))
        _pgbench(databases, script, sizes.annotators, math.ceil(sizes.warm_seconds))
        labels, settled = _count(databases)
        cpu_s = processor_time.postgres_s(databases)
        seconds = math.ceil(sizes.seconds)
        claims = _pgbench(databases, script, sizes.annotators, seconds)
        cpu_s = processor_time.postgres_s(databases) - cpu_s
        labels_then, settled_then = _count(databases)
    return seconds, claims, labels_then - labels, settled_then - settled, cpu_s


def _pgbench(databases: Databases, script: Path, clients: int, seconds: int) -> int:
    """Run the script; return how many times it ran to its end."""
    command: list[str | Path] = [programs_folder() / "pgbench"]
    command += ["--no-vacuum", "--protocol=prepared", "--file", script]
    command += [f"--client={clients}", f"--jobs={min(_THREADS, clients)}", f"--time={seconds}"]
    finished = subprocess.run(
        [*command, databases.database_url],
        env=plain_environment() | {"PGOPTIONS": SHORT_STATEMENTS},
        capture_output=True,
        text=True,
        check=False,
    )
    ended = re.search(r"actually processed: (\d+)", finished.stdout)
    if finished.returncode or not ended:
        raise FloorFailed(finished.stderr[-2000:])
    return int(ended[1])


def _count(databases: Databases) -> tuple[int, int]:
    """Return the numbers of labels and of settled tasks."""
    with databases.connect() as connection:
        row = connection.execute(
            "select (select count(*) from labels), (select count(*) from tallies where outcome > 0)"
        ).fetchone()
    assert row is not None  # it is one row
    return row


def _script(databases: Databases, batch: int) -> str:
    with databases.connect() as connection:
        row = connection.execute(
            "select job_id, (select min(annotator_no) from annotators) from jobs"
        ).fetchone()
    assert row is not None  # there is a job
    job_id, first_annotator_no = row
    right = round(ACCURACY * batch) if batch > 1 else 1
    values = {
        "annotator_no": ":annotator_no",
        "job_no": ":job_no",
        "seed": ":seed",
        "lock": "731",
        "job_id": "null",
        "task_types": "null",
        "jobs_max": "200",
        "vacancies_max": "5000",
        "own": "false",
        "has_gold": "false",
        "start_at": "0",
        "limit": str(batch),
        "window_tasks": str(batch),
        "lease_s": "900",
        "leases_max": "100",
        "overdue_s_max": "10",
        "claim_key": "null",
        "claim_digest": "null",
        "job_nos": "array[:job_no::bigint]",
        "firsts": f"array[(select min(o) from unnest({_HELD}) o)]",
        "lasts": f"array[(select max(o) from unnest({_HELD}) o)]",
        "job_ids": f"array['{job_id}']",
        "labels": _array(OPTIONS),
        "ns": _array(range(batch)),
        "job_nths": _array([1] * batch),
        "task_nos": _HELD,
        "label_nths": _array([1] * right + [2] * (batch - right)),
    }
    statements = {}
    for name, statement in _SQL.items():
        if f"{{{name}}}" in _SCRIPT:
            # pgbench would take the end of a slice for a variable.
            text = statement.as_string().replace("[:", "[1: ")
            statements[name] = _PARAMETER.sub(lambda match: values[match[1]], text)
    return _SCRIPT.format(first_annotator_no=first_annotator_no, **statements)


def _array(values: Iterable[object]) -> str:
    return "'{" + ",".join(map(str, values)) + "}'"
