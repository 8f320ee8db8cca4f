"""Kill process groups when the supervisor is gone.

`python -I -S guard_child.py`; standard input has lines `+PGID` and `-PGID`. The end of the input means
that the supervisor has ended, in whatever way; then every group that is still on the list is killed.

The kernel's parent-death signal reaches the supervisor's own children only. A flow run descends from the
Prefect worker and lives on without it, but is in the worker's process group, which is on this list.
"""

import os
import signal
import sys


def main() -> None:
    """Read process groups from standard input, `+` or `-` and a number a line; at its end kill them."""
    # The supervisor handles Ctrl-C and a closed terminal; the guard ends after it.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups: set[int] = set()
    for line in sys.stdin:
        change, group = line[0], int(line[1:])
        if change == "+":
            groups.add(group)
        else:
            groups.discard(group)
    for group in groups:
        try:
            os.killpg(group, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue


if __name__ == "__main__":
    main()
