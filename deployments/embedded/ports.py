"""Choose free ports of 127.0.0.1, and keep them across restarts so that links stay valid."""

import json
import socket
from pathlib import Path

from deployments.embedded.private_files import write_private

LOOPBACK = "127.0.0.1"

# So many ports from the wished one on are tried before any free one is taken.
_NEXT_ONES = 100

# Ports that this process has handed out: each is free until its server binds it.
_handed_out: set[int] = set()


def free_port() -> int:
    """Return a TCP port that nothing listens on and that this process has not handed out before."""
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.bind((LOOPBACK, 0))
            port: int = probe.getsockname()[1]
        if port not in _handed_out:
            _handed_out.add(port)
            return port


def is_free(port: int) -> bool:
    """Return whether a server could bind this TCP port now; closed connections do not count."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


class Ports:
    """Keep ports by server name in one JSON file; replace those that are taken by now."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._ports: dict[str, int] = json.loads(path.read_text("utf-8"))
        except (FileNotFoundError, ValueError):
            self._ports = {}
        self._in_use: set[str] = set()

    def port(self, name: str, *, beside: int = 0, first: int | None = None) -> int:
        """Return the TCP port of this server, the same one each time.

        The port at the distance `beside` from it is free too. A server that has none yet gets `first`,
        or the next free one after it.
        """
        if name not in self._in_use:
            self._in_use.add(name)
            port = self._reclaim(self._ports.get(name)) or self._free_from(first) or free_port()
            while not is_free(port + beside):
                port = free_port()
            self._ports[name] = port
            write_private(self._path, json.dumps(self._ports, indent=1))
        return self._ports[name]

    @staticmethod
    def _reclaim(port: int | None) -> int | None:
        if port is None or port in _handed_out or not is_free(port):
            return None
        _handed_out.add(port)
        return port

    @classmethod
    def _free_from(cls, first: int | None) -> int | None:
        wished = range(first, first + _NEXT_ONES) if first else ()
        return next((port for port in wished if cls._reclaim(port)), None)

    def release(self) -> None:
        """Forget what was handed out, so that the next start in this process may use the same ports."""
        _handed_out.difference_update(self._ports[name] for name in self._in_use)
        self._in_use.clear()
