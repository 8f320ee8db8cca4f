"""The table of the security standard: each row says one thing, and each test that it names is there."""

import re
from pathlib import Path

from deployments.registered import REPOSITORY

ROW = re.compile(
    r"\| (\d+\.\d+\.\d+) \| ([12]) \| ([^|]+) \| (test|not applicable|gap): ([^|]+) \|"
)
LEVELS = {"1": 70, "2": 183}  # so many requirements of each has the standard


def rows() -> list[tuple[str, str, str, str, str]]:
    lines = Path(REPOSITORY, "docs", "asvs.md").read_text().splitlines()
    table = [line for line in lines if re.match(r"\| \d", line)]
    found = [ROW.fullmatch(line) for line in table]
    assert [line for line, row in zip(table, found, strict=True) if row is None] == []
    return [(row[1], row[2], row[3], row[4], row[5]) for row in found if row is not None]


def test_each_requirement_is_there_once() -> None:
    numbers = [number for number, *_ in rows()]
    assert len(set(numbers)) == len(numbers)
    assert numbers == sorted(numbers, key=lambda number: [int(part) for part in number.split(".")])
    levels = [level for _, level, *_ in rows()]
    assert {level: levels.count(level) for level in LEVELS} == LEVELS


def test_each_test_that_is_named_exists() -> None:
    named = [how.strip("`") for _, _, _, kind, how in rows() if kind == "test"]
    assert named
    for each in named:
        file, _, name = each.partition("::")
        path = Path(REPOSITORY, "tests", file)
        assert path.is_file(), each
        assert re.search(
            rf"^def {f'{name}[(]' if name else 'test_'}", path.read_text(), re.MULTILINE
        ), each
