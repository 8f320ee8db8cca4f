"""What reconcile ends is told by the names that are deployed."""

from pathlib import Path

from ruamel.yaml import YAML

from blocks.prefect import stuck_runs
from deployments.names import WORKER_TYPE

ROOT = Path(__file__).parents[2]


def test_runs_of_every_deployed_flow_are_looked_for() -> None:
    deployments = YAML(typ="safe").load(ROOT / "prefect.yaml")["deployments"]
    flows = {each["entrypoint"].rpartition(".")[2].replace("_", "-") for each in deployments}
    assert flows == set(stuck_runs.FLOWS)


def test_pools_that_fork_are_told_by_the_type_of_our_worker() -> None:
    assert stuck_runs.POOL_TYPE == WORKER_TYPE
