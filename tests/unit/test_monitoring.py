"""What Prometheus and Grafana are given: it can be read, and each alert has its page and its test."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from deployments.cli import build
from tests.support.monitoring import (
    MONITORING,
    list_panels,
    list_rule_tests,
    list_rules,
    read,
)

ROOT = Path(__file__).parents[2]
RUNBOOKS = (ROOT / "docs/runbooks.md").read_text()
SECTIONS = re.findall(r"^## (.+)$", RUNBOOKS, re.MULTILINE)


RULES = list_rules()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_it_is_and_where_to_read_on(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"critical", "warning"}
    notes = rule["annotations"]
    assert notes.keys() == {"summary", "description", "runbook_url"}
    assert all(notes[each].endswith(".") for each in ("summary", "description"))
    assert notes["runbook_url"] == f"docs/runbooks.md#{rule['alert'].lower()}"


def test_each_alert_has_a_section_and_each_section_an_alert() -> None:
    assert sorted(rule["alert"] for rule in RULES) == sorted(SECTIONS)


def test_a_section_says_what_it_means_what_to_look_at_and_what_to_type() -> None:
    _, *texts = re.split(r"^## .+$", RUNBOOKS, flags=re.MULTILINE)
    for name, text in zip(SECTIONS, texts, strict=True):
        assert re.findall(r"^\*\*(\w+(?: at)?)[:*]", text, re.MULTILINE) == [
            "Means", "Look at", "Type",
        ], name  # fmt: skip


def test_links_within_the_runbooks_lead_somewhere() -> None:
    anchors = {section.lower() for section in SECTIONS}
    assert set(re.findall(r"\]\(#([^)]+)\)", RUNBOOKS)) <= anchors


def test_the_commands_of_runbooks_are_there() -> None:
    app = build()
    named = set(re.findall(r"(?:`|^)refinery ([a-z]+)(?: ([a-z]+))?", RUNBOOKS, re.MULTILINE))
    assert len(named) > 8
    for words in named:
        command = app
        for word in filter(None, words):
            command = command[word]


def test_each_alert_is_seen_to_fire_and_to_be_quiet() -> None:
    looks = [look for test in list_rule_tests() for look in test["promql_expr_test"]]
    seen = {
        (re.findall(r'alertname="(\w+)"', look["expr"])[0], bool(look["exp_samples"]))
        for look in looks
    }
    assert seen == {(rule["alert"], fires) for rule in RULES for fires in (True, False)}


def test_promtool_finds_no_fault() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip(
            "There is no promtool, so the rules are not evaluated (Debian: apt install prometheus)."
        )
    for command in (
        ["check", "config", "prometheus.yaml"],
        ["check", "rules", "prometheus-rules.yaml"],
        ["test", "rules", "prometheus-rules-test.yaml"],
    ):
        done = subprocess.run(
            [promtool, *command], cwd=MONITORING, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_scraped_job_has_the_name_that_the_rules_know() -> None:
    config = read("prometheus.yaml")
    (job,) = [each["job_name"] for each in config["scrape_configs"]]
    assert config["rule_files"] == ["prometheus-rules.yaml"]
    named = re.findall(r'job="(\w+)"', (MONITORING / "prometheus-rules.yaml").read_text())
    assert set(named) == {job}


def test_the_panels_of_the_dashboard_stand_side_by_side() -> None:
    panels = list_panels()
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
        assert panel["type"] == "row" or all(target["expr"] for target in panel["targets"])
