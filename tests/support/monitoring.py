"""The files that Prometheus and Grafana are given."""

import json
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]  # it comes with Prefect, and its types do not

MONITORING = Path(__file__).parents[2] / "deployments/monitoring"


def read(name: str) -> Any:
    """Return the content of one of the files of YAML."""
    return yaml.safe_load((MONITORING / name).read_text())


def list_rules() -> list[dict[str, Any]]:
    return [rule for group in read("prometheus-rules.yaml")["groups"] for rule in group["rules"]]


def list_rule_tests() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = read("prometheus-rules-test.yaml")["tests"]
    return found


def list_panels() -> list[dict[str, Any]]:
    text = (MONITORING / "grafana-dashboard.json").read_text()
    found: list[dict[str, Any]] = json.loads(text)["panels"]
    return found
