"""Register work pool, deployments, block types and automations with Prefect; safe to repeat."""

import io
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML

from blocks.logs import get_logger
from deployments import registered
from deployments.errors import RegistrationFailed
from deployments.names import WORK_POOL, WORKER_TYPE
from deployments.registered import PREFECT_YAML

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

_AUTOMATIONS = Path(__file__).with_name("automations.yaml")

PREFECT_WAIT_S = 120.0
PREFECT_POLL_S = 0.2

logger = get_logger(__name__)

OnStep = Callable[[str], None]


def register(pool: str, on_step: OnStep) -> None:
    """Register everything, with all deployments in `pool`; wait for a Prefect that is starting.

    Raises:
        RegistrationFailed: Prefect does not answer, or refused; the message has its words.
    """
    definition = _definition(pool)
    content = _deployments_in(definition)
    if not wait_for_prefect(PREFECT_WAIT_S):
        raise RegistrationFailed(f"Prefect does not answer at {_prefect_url()}.")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "prefect.yaml"
        YAML().dump(content, file)
        if definition["name"] == WORK_POOL:
            _make_work_pool(WORK_POOL)
        _deploy(file)
    on_step(f"deployments  in the work pool {definition['name']}")
    blocks = register_blocks()
    on_step(f"block types  {', '.join(blocks)}")
    automations = register_automations()
    on_step(f"automations  {', '.join(automations)}")
    _note(
        pool,
        deployments=[each["name"] for each in content["deployments"]],
        automations=automations,
        block_types=blocks,
    )


def prepare_for_worker(pool: str) -> None:
    """Wait until Prefect answers, however long that takes, and make the work pool if it is missing."""
    while not wait_for_prefect(PREFECT_WAIT_S):
        logger.warning("prefect.unreachable", url=_prefect_url(), waiting=True)
    _make_work_pool(pool)


def wait_for_prefect(timeout_s: float) -> bool:
    """Return whether Prefect's server answers within that time."""
    from prefect.client.orchestration import get_client

    deadline = time.monotonic() + timeout_s
    with get_client(sync_client=True) as client:
        while client.api_healthcheck():
            if time.monotonic() > deadline:
                return False
            time.sleep(PREFECT_POLL_S)
    return True


def _prefect_url() -> str:
    from prefect.settings import PREFECT_API_URL

    return str(PREFECT_API_URL.value())


def register_blocks() -> list[str]:
    """Register our block types; return their slugs."""
    from blocks.prefect.blocks import BLOCKS

    for block in BLOCKS:
        block.register_type_and_schema()
    return [block.get_block_type_slug() for block in BLOCKS]


def register_automations() -> list[str]:
    """Make or update those of `automations.yaml`; return their names. One that is off stays off.

    Those that send messages are left out while Prefect has no block to send them by.
    """
    from prefect.client.orchestration import get_client
    from prefect.events.schemas.automations import AutomationCore

    names = []
    with get_client(sync_client=True) as client:
        for each in YAML(typ="safe").load(_AUTOMATIONS)["automations"]:
            actions = [_resolve(client, action) for action in each["actions"]]
            if None in actions:
                continue
            automation = AutomationCore.model_validate(each | {"actions": actions})
            known = client.read_automations_by_name(automation.name)
            if known:
                automation.enabled = known[0].enabled
                client.update_automation(known[0].id, automation)
            else:
                client.create_automation(automation)
            names.append(automation.name)
    return names


def _resolve(client: "SyncPrefectClient", action: dict[str, Any]) -> dict[str, Any] | None:
    """Return an action with ids in the place of names; None if there is no block of the name."""
    rest = {key: value for key, value in action.items() if key not in ("deployment", "block")}
    if name := action.get("deployment"):
        return rest | {"deployment_id": client.read_deployment_by_name(name).id}
    if name := action.get("block"):
        block_id = _find_notification_block(client, name)
        return rest | {"block_document_id": block_id} if block_id else None
    return rest


def _find_notification_block(client: "SyncPrefectClient", name: str) -> str | None:
    """Return the id of a block of this name that can send messages, whatever its type."""
    wanted = {
        "block_documents": {"name": {"any_": [name]}},
        "block_schemas": {"block_capabilities": {"all_": ["notify"]}},
        "limit": 1,
    }
    found = client.request("POST", "/block_documents/filter", json=wanted).json()
    return found[0]["id"] if found else None


def read_work_pools() -> dict[str, Any]:
    """Return the definitions in `prefect.yaml`: name and job variables."""
    content = YAML(typ="safe").load(PREFECT_YAML)
    found: dict[str, Any] = content["definitions"]["work_pools"]
    return found


def _definition(pool: str) -> dict[str, Any]:
    known = read_work_pools()
    if pool not in known:
        raise RegistrationFailed(
            f"prefect.yaml defines no work pool {pool!r}; it has {', '.join(known)}."
        )
    found: dict[str, Any] = known[pool]
    return found


def _deployments_in(definition: dict[str, Any]) -> dict[str, Any]:
    """Return `prefect.yaml` with all deployments in one pool."""
    content: dict[str, Any] = YAML(typ="safe").load(PREFECT_YAML)
    for deployment in content["deployments"]:
        deployment["work_pool"] = definition
    return content


def _deploy(file: Path) -> None:
    """Run `prefect deploy` in this process: a new one would take 3 s to import everything again."""
    from prefect.cli import app

    output = io.StringIO()
    sys.argv = ["prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(file)]
    code: object = None
    with chdir(file.parent), redirect_stdout(output), redirect_stderr(output):
        try:
            app()
        except SystemExit as end:
            code = end.code
    if code:
        raise RegistrationFailed(f"Prefect could not deploy:\n{output.getvalue()}")


def _note(pool: str, **names: list[str]) -> None:
    """Record in Prefect that everything is registered, so that the next start need not do it."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import VariableCreate, VariableUpdate

    value = registered.record(pool, names)
    with get_client(sync_client=True) as client:
        if client.read_variable_by_name(registered.VARIABLE):
            client.update_variable(VariableUpdate(name=registered.VARIABLE, value=value))
        else:
            client.create_variable(VariableCreate(name=registered.VARIABLE, value=value))


def _make_work_pool(name: str) -> None:
    """Make a work pool of our type, unless there is one of that name.

    `refinery` is our own name: a pool of another type, of an earlier version, is made anew.
    """
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists

    from deployments.worker import ForkWorker

    template = ForkWorker.get_default_base_job_template()
    pool = WorkPoolCreate(name=name, type=WORKER_TYPE, base_job_template=template)
    with get_client(sync_client=True) as client:
        try:
            client.create_work_pool(pool)
        except ObjectAlreadyExists:
            if name == WORK_POOL and client.read_work_pool(name).type != WORKER_TYPE:
                client.delete_work_pool(name)
                client.create_work_pool(pool)
