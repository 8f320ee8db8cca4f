"""What commands print: tables for people, JSON for scripts. Notes go to standard error."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

notes = Console(stderr=True, highlight=False)
# What is piped into another program has its lines whole, however long.
_COLUMNS_OF_A_PIPE = 10_000


def print_json(value: Any) -> None:
    """One document, and nothing else on standard output."""
    print(json.dumps(value, ensure_ascii=False, indent=2))


def print_fields(fields: Mapping[str, Any]) -> None:
    """A name and a value a line, those that are empty left out."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in fields.items():
        if value not in (None, "", {}, []):
            table.add_row(name, text_of(value))
    _print(table)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Rows under headings."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for number, column in enumerate(columns):
        # The first is what the row goes by: to be copied whole.
        table.add_column(column, overflow="fold", no_wrap=number == 0)
    for row in rows:
        table.add_row(*map(text_of, row))
    _print(table)


def _print(table: Table) -> None:
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _COLUMNS_OF_A_PIPE
    console.print(table)


def text_of(value: Any) -> str:
    """A value as people read it; never taken for markup."""
    if value is None:
        return ""
    if isinstance(value, float):
        text = f"{value:g}"
    elif isinstance(value, int) and not isinstance(value, bool):
        text = f"{value:,}"
    elif isinstance(value, str):
        text = value
    else:
        text = json.dumps(value, ensure_ascii=False)
    return text.replace("[", r"\[")
