"""What commands print: tables for people, JSON for scripts. Notes go to standard error."""

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

# Programs that read from a pipe get each line whole, however long.
_COLUMNS_OF_A_PIPE = 10_000
_EMPTY = {"", "{}", "[]"}


@cache
def notes() -> Console:
    """Return standard error, for notes and bars: always the same console, so that they keep apart."""
    return Console(stderr=True, highlight=False, emoji=False)


def note(text: str, style: str = "") -> None:
    """Print a note for people, whatever characters it has."""
    notes().print(Text(printable(text, keep="\n"), style), soft_wrap=True)


def print_text(text: str) -> None:
    """Print a text of several lines, whatever characters it has."""
    print(printable(text.replace("\r\n", "\n"), keep="\n\t"))


def print_json(value: Any) -> None:
    """Print a value as one JSON document, and nothing else, to standard output."""
    _print_document(json.dumps(value, ensure_ascii=False, indent=2))


def print_answer(answer: bytes) -> None:
    """Print a JSON document, indented, with its numbers and texts as they were written."""
    _print_document(msgspec.json.format(answer, indent=2).decode())


def _print_document(text: str) -> None:
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        # Only texts have characters outside of ASCII, and in texts an escape means the same.
        text = re.sub(r"[^\x00-\x7f]", lambda found: json.dumps(found[0])[1:-1], text)
    print(text)


def print_fields(fields: Mapping[str, Any]) -> None:
    """Print a name and a value a line, without those that are empty."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in fields.items():
        if (text := _text(value)) not in _EMPTY:
            table.add_row(cell(name), cell(text))
    _output().print(table)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print rows under headings: folded to the terminal's width, or each on one line for a program."""
    _output().print(_table(columns, rows))


def print_rows(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print rows under headings, or one below the other where a terminal is too narrow for them."""
    console = _output()
    table = _table(columns, rows)
    wide = console.options.update_width(_COLUMNS_OF_A_PIPE)
    if not rows or console.measure(table, options=wide).maximum <= console.width:
        console.print(table)
        return
    for number, row in enumerate(rows):
        if number:
            console.print()
        print_fields(dict(zip(columns, row, strict=True)))


def _table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for number, column in enumerate(columns):
        # People copy the id, which comes first, so it is never broken over two lines.
        table.add_column(cell(column), overflow="fold", no_wrap=number == 0)
    for row in rows:
        table.add_row(*map(cell, row))
    return table


def _output() -> Console:
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _COLUMNS_OF_A_PIPE
    return console


def cell(value: Any) -> Text:
    """Return a value as people read it; nothing in it is taken for markup, an emoji or a command."""
    return Text(printable(_text(value)))


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, msgspec.Raw):
        text = bytes(value).decode()
        return text if text[:1] in {"{", "["} else _text(json.loads(text))
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def printable(text: str, *, keep: str = "") -> str:
    """Return `text` with an escape for each character that a terminal may take for a command."""
    return "".join(
        c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text
    )
