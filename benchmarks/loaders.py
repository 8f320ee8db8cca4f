"""Measure what users would load a manifest with instead: twenty lines of Python, or dlt."""

import json
import subprocess
import tempfile
from pathlib import Path

from rich.console import Console

from benchmarks.contender import Contender
from benchmarks.environments import PEERS, interpreter
from benchmarks.manifest import Manifest
from benchmarks.servers import BUCKET, REGION, Servers

_TIMEOUT_S = 1800


class LoaderFailed(Exception):
    """A peer's script failed, or loaded other rows than the manifest has; its last lines say why."""


def plain_contender(servers: Servers, manifest: Manifest, console: Console) -> Contender:
    return _contender(
        _Loader(
            "executemany",
            "plain",
            "plain_loader",
            "plain loader: boto3, json, executemany",
            goal=7,
        ),
        "boto3 1.44 get_object as a stream, json.loads, psycopg 3.3 executemany (pipeline mode) "
        "of 10,000 rows a transaction; primary key (line), metadata json",
        (servers, manifest, console),
    )


def dlt_jsonl_contender(servers: Servers, manifest: Manifest, console: Console) -> Contender:
    return _contender(
        _Loader("dlt-jsonl", "dlt", "dlt_jsonl", "dlt from JSONL", goal=6),
        "dlt 1.31: pages of 10,000 lines parsed by orjson, loader format csv, buffers of 100,000, "
        "files of 50,000 rows uncompressed, 2 normalize processes, 20 load threads, "
        "max_table_nesting=0, metadata json, no indexes",
        (servers, manifest, console),
    )


def dlt_arrow_contender(servers: Servers, manifest: Manifest, console: Console) -> Contender:
    return _contender(
        _Loader("dlt-arrow", "dlt", "dlt_arrow", "dlt from an Arrow table", goal=1.8),
        "dlt 1.31: Polars read_ndjson, metadata back to text by struct.json_encode, one Arrow "
        "table, loader format csv (pyarrow's writer, COPY), uncompressed, no indexes",
        (servers, manifest, console),
    )


class _Loader:
    """Describe a script of `peers/`, run by the Python of an environment."""

    def __init__(
        self, name: str, environment: str, script: str, what: str, goal: float | None = None
    ) -> None:
        self.name = name
        self.environment = environment
        self.script = PEERS / f"{script}.py"
        self.what = what
        self.goal = goal


def _contender(
    loader: _Loader, settings: str, against: tuple[Servers, Manifest, Console]
) -> Contender:
    servers, manifest, console = against
    python = interpreter(loader.environment, console)

    def measure() -> dict[str, float]:
        return {loader.what: _run(python, loader.script, servers, manifest)}

    return Contender(
        loader.name, f"{settings}; good lines only", manifest.good_lines, measure, loader.goal
    )


def _run(python: Path, script: Path, servers: Servers, manifest: Manifest) -> float:
    """Run a script; return the seconds that it reports, without its start and its imports."""
    with tempfile.TemporaryDirectory(prefix="refinery-bench-peer-") as folder:
        task = {
            "database_url": servers.peers_database_url,
            "endpoint_url": servers.store.endpoint_url,
            "access_key_id": servers.store.access_key_id,
            "secret_access_key": servers.store.secret_access_key,
            "region": REGION,
            "bucket": BUCKET,
            "key": manifest.key,
            "folder": folder,
        }
        finished = subprocess.run(
            [str(python), str(script)],
            input=json.dumps(task),
            capture_output=True,
            text=True,
            check=False,
            cwd=folder,
            timeout=_TIMEOUT_S,
        )
    if finished.returncode:
        raise LoaderFailed(finished.stderr[-2000:])
    result = json.loads(finished.stdout.splitlines()[-1])
    if result["rows"] != manifest.good_lines:
        raise LoaderFailed(f"{script.name}: {result['rows']} rows of {manifest.good_lines}")
    return float(result["seconds"])
