"""Make virtual environments for peers, once, and keep them in `.bench/`.

Each peer has its own: their dependencies conflict, and must not reach ours.
"""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from rich.console import Console

PEERS = Path(__file__).parent / "peers"
_FOLDER = Path(__file__).parent.parent / ".bench"


class NotInstalled(Exception):
    """pip could not install a peer; its last lines say why."""


def interpreter(name: str, console: Console) -> Path:
    """Return a Python that has all of `peers/<name>.txt`; make it if it is missing or the file changed.

    Raises:
        NotInstalled: pip failed.
    """
    requirements = PEERS / f"{name}.txt"
    folder = _FOLDER / name
    python = folder / "bin" / "python"
    stamp = folder / ".installed"
    wanted = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()
    if not (stamp.exists() and stamp.read_text() == wanted):
        shutil.rmtree(folder, ignore_errors=True)
        with console.status(f"Installing {name} into {folder}, only once"):
            _run([sys.executable, "-m", "venv", "--without-pip", str(folder)])
            pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q"]
            # The file is complete, so nothing is resolved.
            _run([*pip, "--no-deps", "--disable-pip-version-check", "-r", str(requirements)])
        stamp.write_text(wanted)
    return python


def is_installed(name: str) -> bool:
    """Return whether the environment is there, and need not be made."""
    return (_FOLDER / name / ".installed").exists()


def _run(command: list[str]) -> None:
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        errors = [line for line in finished.stderr.splitlines() if "WARNING" not in line]
        raise NotInstalled("\n".join(errors[-5:]))
