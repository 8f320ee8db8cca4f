"""Public ids: opaque, URL-safe, prefixed."""

import re
import secrets

# Crockford's base 32 in lower case: no i, l, o, u, so an id survives being read aloud.
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_LENGTH = 22  # 110 bits: cannot be guessed, and does not collide
JOB_ID = rf"job_[{_ALPHABET}]{{{_LENGTH}}}"
"""The pattern of a job's id, as a regular expression."""

_JOB = re.compile(JOB_ID)
_TASK = re.compile(rf"tsk_([{_ALPHABET}]{{{_LENGTH}}})(0|[1-9a-f][0-9a-f]{{0,14}})")


def _random() -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(_LENGTH))


def new_id(prefix: str) -> str:
    """Return a new id, such as `job_3f…` for the prefix `job`."""
    return f"{prefix}_{_random()}"


def new_secret(prefix: str) -> str:
    """Return a new API key of 256 bits, such as `sk_…` for the prefix `sk`."""
    return f"{prefix}_{secrets.token_urlsafe(32)}"


def task_id(job_id: str, byte_offset: int) -> str:
    """Return the id of the task from the line at `byte_offset` of the job's manifest.

    Ids are derived and not stored: a rerun makes the same ones, and the table needs no second key.
    The SQL twin is `task_id` in the schema.
    """
    return f"tsk_{job_id.removeprefix('job_')}{byte_offset:x}"


def is_job_id(text: str) -> bool:
    """Return True if `text` has the shape of a job's id."""
    return _JOB.fullmatch(text) is not None


def job_of_task(text: str) -> str:
    """Return the part of a task's id that is the same for all tasks of its job; nothing is checked."""
    return text[: len("tsk_") + _LENGTH]


def parse_task_id(text: str) -> tuple[str, int] | None:
    """Return the job id and byte offset in a task id; None if it is not one of ours."""
    match = _TASK.fullmatch(text)
    return (f"job_{match[1]}", int(match[2], 16)) if match else None
