"""Choose free ports of 127.0.0.1, and keep them across restarts so that links stay valid."""

import json
import random
import socket
import sys
from pathlib import Path

from deployments.embedded.private_files import write_private

LOOPBACK = "127.0.0.1"

# So many ports from the wished one on are tried before any free one is taken.
_NEXT_ONES = 100

# Where the ports of servers begin: SeaweedFS takes one that is 10,000 below another.
_FIRST = 12_000
_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
_EPHEMERAL_FIRST = 32_768
_RANGE_MIN = 1_000

# Ports that this process has handed out: each is free until its server binds it. The socket of each,
# whose name is no file, tells other processes of ours, and is gone with this one.
_handed_out: dict[int, socket.socket | None] = {}


def free_port() -> int:
    """Return a TCP port that nothing listens on and that no process of ours has been given before.

    It is none of those from which the system gives connections theirs: such a connection could take it
    before its server does.
    """
    candidates = _candidates()
    while True:
        port = random.choice(candidates)  # noqa: S311 - no secret
        if _reserve(port):
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


def _candidates() -> range:
    """Return the ports below the system's own, or all where it leaves hardly any."""
    try:
        end = int(_EPHEMERAL.read_text("ascii").split()[0])
    except OSError:  # not a Linux
        end = _EPHEMERAL_FIRST
    return range(_FIRST, end if end >= _FIRST + _RANGE_MIN else 2**16)


def _reserve(port: int) -> bool:
    """Hand out a port, if it is free and nobody of ours was given it."""
    if port in _handed_out or not is_free(port):
        return False
    name = None
    if sys.platform == "linux":
        name = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            name.bind(f"\0refinery-port-{port}")
        except OSError:
            name.close()
            return False
    _handed_out[port] = name
    return True


def _give_back(port: int) -> None:
    name = _handed_out.pop(port, None)
    if name:
        name.close()


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
            port = self._ports.get(name)
            if port is None or not _reserve(port):
                port = self._free_from(first) or free_port()
            while not is_free(port + beside):
                _give_back(port)
                port = free_port()
            self._ports[name] = port
            write_private(self._path, json.dumps(self._ports, indent=1))
        return self._ports[name]

    @staticmethod
    def _free_from(first: int | None) -> int | None:
        wished = range(first, first + _NEXT_ONES) if first else ()
        return next((port for port in wished if _reserve(port)), None)

    def release(self) -> None:
        """Forget what was handed out, so that the next start in this process may use the same ports."""
        for name in self._in_use:
            _give_back(self._ports[name])
        self._in_use.clear()
