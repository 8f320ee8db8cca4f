"""Registers with Prefect what is ours. Everything may be done again, by anybody, at any time."""

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from deployments.errors import RegistrationFailed
from deployments.names import WORK_POOL, WORKER_TYPE
from deployments.prefect_servers import REPOSITORY

_AUTOMATIONS = Path(__file__).with_name("automations.yaml")

OnStep = Callable[[str], None]


def register(pool: str, on_step: OnStep) -> None:
    """Work pool, deployments, block types and automations.

    Raises:
        RegistrationFailed: with what Prefect said.
    """
    definition = _definition(pool)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "prefect.yaml"
        YAML().dump(_deployments_in(definition), file)
        if definition["name"] == WORK_POOL:
            _make_work_pool()
        deploying = _start_deploying(file)
        # Meanwhile: both take seconds to import.
        blocks = register_blocks()
        output, _ = deploying.communicate()
    if deploying.returncode:
        raise RegistrationFailed(f"Prefect could not deploy:\n{output}")
    on_step(f"deployments  in the work pool {definition['name']}")
    on_step(f"block types  {', '.join(blocks)}")
    on_step(f"automations  {', '.join(register_automations())}")


def register_blocks() -> list[str]:
    """Make our block types known to the Prefect UI; their names."""
    from blocks.prefect_blocks import BLOCKS

    for block in BLOCKS:
        block.register_type_and_schema()
    return [block.get_block_type_slug() for block in BLOCKS]


def register_automations() -> list[str]:
    """Make or mend those of `automations.yaml`; their names. What was switched off stays off."""
    from prefect.client.orchestration import get_client
    from prefect.events.schemas.automations import AutomationCore

    found = YAML(typ="safe").load(_AUTOMATIONS)["automations"]
    with get_client(sync_client=True) as client:
        for each in found:
            for action in each["actions"]:
                if name := action.pop("deployment", None):
                    action["deployment_id"] = client.read_deployment_by_name(name).id
            automation = AutomationCore.model_validate(each)
            known = client.read_automations_by_name(automation.name)
            if known:
                automation.enabled = known[0].enabled
                client.update_automation(known[0].id, automation)
            else:
                client.create_automation(automation)
    return [each["name"] for each in found]


def work_pools() -> dict[str, Any]:
    """The definitions in `prefect.yaml`: name and job variables."""
    content = YAML(typ="safe").load(REPOSITORY / "prefect.yaml")
    found: dict[str, Any] = content["definitions"]["work_pools"]
    return found


def _definition(pool: str) -> dict[str, Any]:
    known = work_pools()
    if pool not in known:
        raise RegistrationFailed(
            f"prefect.yaml defines no work pool {pool!r}; it has {', '.join(known)}."
        )
    found: dict[str, Any] = known[pool]
    return found


def _deployments_in(definition: dict[str, Any]) -> dict[str, Any]:
    """`prefect.yaml` with all deployments in one pool."""
    content: dict[str, Any] = YAML(typ="safe").load(REPOSITORY / "prefect.yaml")
    for deployment in content["deployments"]:
        deployment["work_pool"] = definition
    return content


def _start_deploying(file: Path) -> subprocess.Popen[str]:
    command = ["-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(file)]
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _make_work_pool() -> None:
    """Make ours if it is missing. One of another type, of an earlier version, is made anew."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists

    from deployments.worker import ForkWorker

    template = ForkWorker.get_default_base_job_template()
    pool = WorkPoolCreate(name=WORK_POOL, type=WORKER_TYPE, base_job_template=template)
    with get_client(sync_client=True) as client:
        try:
            client.create_work_pool(pool)
        except ObjectAlreadyExists:
            if client.read_work_pool(WORK_POOL).type != WORKER_TYPE:
                client.delete_work_pool(WORK_POOL)
                client.create_work_pool(pool)
