"""Become another program, bound to the life of the process that started it.

`python -I -S exec_child.py PARENT_PID UID GID PROGRAM ARGUMENT…`; UID and GID -1 keep the user.

This is a program, not a `preexec_fn`: code between fork and exec may deadlock if the parent has
threads. It needs the standard library only, so it costs about 15 ms.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
KEEP = -1
EXIT_NOT_STARTED = 127


def become_user(uid: int, gid: int) -> None:
    """Give up root for good, supplementary groups included."""
    if uid == KEEP:
        return
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)


def die_with(parent_pid: int) -> None:
    """On Linux, have the kernel send SIGKILL when the thread that started us ends, in whatever way.

    Call it after the change of user, which clears the setting.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    # If the parent died before the call above, no signal comes.
    if os.getppid() != parent_pid:
        sys.exit(EXIT_NOT_STARTED)


def reset_signals() -> None:
    """Unblock every signal, and set it to its default.

    Children inherit blocked and ignored signals: a shell's background jobs ignore SIGINT, and Python
    itself ignores SIGPIPE.
    """
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def main(arguments: list[str]) -> None:
    """Become the program, which dies with its parent: parent's pid, uid, gid, then its arguments."""
    parent_pid, uid, gid = (int(argument) for argument in arguments[:3])
    program = arguments[3:]
    try:
        reset_signals()
        become_user(uid, gid)
        die_with(parent_pid)
        os.execvp(program[0], program)
    except OSError as error:
        print(f"cannot start {program[0]}: {error}", file=sys.stderr)
        sys.exit(EXIT_NOT_STARTED)


if __name__ == "__main__":
    main(sys.argv[1:])
