"""Files and folders for their owner only, which have their mode from the first moment."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

FILE_MODE = 0o600
FOLDER_MODE = 0o700


def write_private(path: Path, text: str) -> None:
    """Replaces the file in one step, so that a reader or a crash never sees half of it."""
    # mkstemp creates with mode 600 whatever the umask is.
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def kept_secret(path: Path, make: Callable[[], str]) -> str:
    """The secret in this file; made and written there the first time."""
    try:
        secret = path.read_text().strip()
    except FileNotFoundError:
        secret = ""
    if not secret:
        secret = make()
        write_private(path, secret + "\n")
    return secret


def private_folder(path: Path) -> Path:
    """The folder, made with mode 700 if it is not there."""
    path.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
    return path
