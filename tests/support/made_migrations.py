"""Folders of made-up migrations."""

from collections.abc import Mapping
from pathlib import Path

from blocks.store import migrations

_OURS = Path(migrations.__path__[0])


def write_files(folder: Path, *files: Mapping[str, str]) -> Path:
    """The folder, with these files by their names."""
    for each in files:
        for name, text in each.items():
            (folder / name).write_text(text, "utf-8")
    return folder


def add_to_ours(folder: Path, *files: Mapping[str, str]) -> Path:
    """The folder, with all of our migrations and these after them: the next version of our code."""
    ours = {path.name: path.read_text("utf-8") for path in _OURS.glob("*.sql")}
    return write_files(folder, ours, *files)
