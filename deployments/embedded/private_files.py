"""Make files and folders for their owner only, with that mode from the first moment."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

FILE_MODE = 0o600
FOLDER_MODE = 0o700


def write_private(path: Path, text: str) -> None:
    """Replace the file in one step, so that neither a reader nor a crash leaves half of it."""
    # mkstemp creates files of mode 600, whatever the umask is.
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def load_or_make_secret(path: Path, make: Callable[[], str]) -> str:
    """Return the secret in this file; the first time it is made and written there."""
    try:
        secret = path.read_text("utf-8").strip()
    except FileNotFoundError:
        secret = ""
    if not secret:
        secret = make()
        write_private(path, secret + "\n")
    return secret


def private_folder(path: Path) -> Path:
    """Make the folder with mode 700 if it is missing, and return it."""
    path.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
    return path
