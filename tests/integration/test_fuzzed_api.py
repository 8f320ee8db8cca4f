"""Schemathesis makes requests from `/schema`, by each kind of key, and looks at the answers.

It sends what the document allows and what it does not, then chains of requests by the ids of earlier
answers. `make test` draws some operations of each kind, `make fuzz` takes all and tries more.
"""

import os
import random
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import tomlkit

from blocks.secrets import egress
from blocks.settings import Settings
from blocks.store import customers
from deployments.embedded.ports import free_port
from deployments.registered import REPOSITORY
from tests.support.access import A, C, O, Operation, Things, read_operations
from tests.support.api_world import Api, serve
from tests.support.servers import DatabaseServer
from tests.support.store_shop import open_shop
from tests.support.tenants import Key, Tenant

pytestmark = [pytest.mark.integration, pytest.mark.timeout(3600)]

NOBODY = ""
KINDS = {"customer": C, "annotator": A, "reviewer": A, "operator": O, "nobody": NOBODY}
DRAWN = 8
ENDLESS = {"follow_jobs"}  # a stream of events; tests/integration/test_api_job_events.py


class Fuzzed(msgspec.Struct, frozen=True):
    """The API at a port, and whom it knows."""

    url: str
    keys: dict[str, Key]
    things: Things
    operations: list[Operation]


@pytest.fixture
def fuzzed(database_server: DatabaseServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fuzzed]:
    """The API, on a machine whose network has no names and no public addresses."""
    look_up = socket.getaddrinfo

    def look_up_here(host: Any, *more: Any, **options: Any) -> Any:
        if host not in {"127.0.0.1", "localhost", None}:
            raise socket.gaierror(socket.EAI_NONAME, "There is no network.")
        return look_up(host, *more, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up_here)
    monkeypatch.setattr(egress, "_is_public", lambda _: False)
    with open_shop(database_server) as shop:
        settings = Settings(
            database_url=shop.url,
            encryption_key="00" * 32,
            prefect_api_url=f"http://127.0.0.1:{free_port()}/api",
            requests_per_minute_max=0,
            wrong_keys_per_minute_max=0,
        )
        with serve(settings) as url, httpx.Client(base_url=url, timeout=60) as client:
            tenant = Tenant(shop, "fuzzed")
            keys = {
                "customer": tenant.key,
                "annotator": tenant.worker,
                "reviewer": tenant.reviewer,
                "operator": Api.bearer(shop.do(customers.add_admin_key, "Ona")),
                "nobody": {},
            }
            document = client.get("/schema/openapi.json").json()
            yield Fuzzed(url, keys, tenant.things(client), read_operations(document))
            assert client.get("/health/live").status_code == 200


@pytest.mark.parametrize("who", KINDS)
def test_answers_are_as_the_document_says(
    who: str, fuzzed: Fuzzed, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    takes = KINDS[who]
    names = [
        each.name
        for each in fuzzed.operations
        if each.name not in ENDLESS and (takes in each.takes or takes == NOBODY)
    ]
    is_long = request.config.getoption("--fuzz-all")
    if not is_long:
        dice = random.Random(f"{who} {request.config.getoption('--fuzz-seed')}")
        names = sorted(dice.sample(names, min(DRAWN, len(names))), key=names.index)
    config = tmp_path / "schemathesis.toml"
    config.write_text(tomlkit.dumps(_config(fuzzed, who, is_long=is_long)))
    key = fuzzed.keys[who].get("Authorization", "").removeprefix("Bearer ")
    chosen = [part for name in names for part in ("--include-operation-id", name)]
    run = subprocess.run(
        [
            sys.executable, "-m", "schemathesis.cli", "--config-file", config, "run",
            f"{fuzzed.url}/schema/openapi.json", "--no-color", *chosen,
        ],
        env={
            **os.environ,
            "PYTHONHASHSEED": "0",
            "SCHEMATHESIS_HOOKS": str(REPOSITORY / "tests/support/fuzz_hooks.py"),
            "FUZZ_KEY_ID": customers.key_id(key) if key else "",
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    if key:  # else everything was answered 401
        assert httpx.get(f"{fuzzed.url}/v1/session", headers=fuzzed.keys[who]).status_code == 200


def _config(fuzzed: Fuzzed, who: str, *, is_long: bool) -> dict[str, Any]:
    """Schemathesis's configuration: what it may do, and ids of things that there are."""
    slots = [slot for each in fuzzed.operations for slot in each.slots if slot.place == "path"]
    generation = {"deterministic": True, "database": "none", "max-examples": 50 if is_long else 2}
    return {
        "continue-on-failure": True,
        "headers": fuzzed.keys[who],
        "generation": generation,
        "phases": {
            "examples": {"enabled": False},  # tests/integration/test_api_reference.py
            "coverage": {"enabled": True},
            "fuzzing": {"enabled": is_long},
            "stateful": {"max-steps": 8 if is_long else 4},
        },
        "dictionaries": {
            slot.thing: {"values": [getattr(fuzzed.things, slot.thing)]} for slot in slots
        },
        "parameters": {
            f"path.{slot.name}": {"dictionary": slot.thing, "probability": 0.8} for slot in slots
        },
    }
