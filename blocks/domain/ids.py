"""Public ids: opaque, URL-safe, prefixed."""

import re
import secrets

# Crockford's base 32 in lower case: no i, l, o, u, so an id survives being read aloud.
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_LENGTH = 22  # 110 bits: cannot be guessed, and does not collide
JOB_ID = rf"job_[{_ALPHABET}]{{{_LENGTH}}}"
"""The pattern of a job's id, as a regular expression."""

_ORDINAL_BITS = 32  # an inline job has one chunk, which grows
_JOB = re.compile(JOB_ID)
_TASK = re.compile(rf"tsk_([{_ALPHABET}]{{{_LENGTH}}})(0|[1-9][0-9]{{0,17}})")


def _random() -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(_LENGTH))


def new_id(prefix: str) -> str:
    """Return a new id, such as `job_3f…` for the prefix `job`."""
    return f"{prefix}_{_random()}"


def new_secret(prefix: str) -> str:
    """Return a new API key of 256 bits, such as `sk_…` for the prefix `sk`."""
    return f"{prefix}_{secrets.token_urlsafe(32)}"


def task_no(chunk_no: int, ordinal: int) -> int:
    """Return the number of a task by its chunk and its 0-based ordinal among the chunk's good lines."""
    return (chunk_no << _ORDINAL_BITS) + ordinal


def task_id(job_id: str, task_no: int) -> str:
    """Return the id of a task of a job.

    Ids are derived and not stored: a rerun makes the same ones. This and `task_no` have twins in the
    schema.
    """
    return f"{task_ids(job_id)}{task_no}"


def task_ids(job_id: str) -> str:
    """Return how the ids of all tasks of a job begin; their numbers follow."""
    return f"tsk_{job_id.removeprefix('job_')}"


def is_job_id(text: str) -> bool:
    """Return True if `text` has the shape of a job's id."""
    return _JOB.fullmatch(text) is not None


def job_of_task(text: str) -> str:
    """Return the part of a task's id that is the same for all tasks of its job; nothing is checked."""
    return text[: len("tsk_") + _LENGTH]


def parse_task_id(text: str) -> tuple[str, int] | None:
    """Return the job's id and the task's number in a task id; None if it is not one of ours."""
    match = _TASK.fullmatch(text)
    return (f"job_{match[1]}", int(match[2])) if match else None
