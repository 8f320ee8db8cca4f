"""Public ids: opaque, URL-safe, prefixed."""

import hashlib
import re
import secrets
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import polars as pl

# Crockford's base 32 in lower case: no i, l, o, u, so an id survives being read aloud.
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_LENGTH = 22  # 110 bits: cannot be guessed, and does not collide
JOB_ID = rf"job_[{_ALPHABET}]{{{_LENGTH}}}"
"""The pattern of a job's id, as a regular expression."""
ANNOTATOR_ID = rf"ann_[{_ALPHABET}]{{{_LENGTH}}}"
CUSTOMER_ID = rf"cust_[{_ALPHABET}]{{{_LENGTH}}}"

_ORDINAL_BITS = 32  # an inline job has one chunk, which grows
_JOB = re.compile(JOB_ID)
_ANNOTATOR = re.compile(ANNOTATOR_ID)
_CUSTOMER = re.compile(CUSTOMER_ID)
_TASK = re.compile(rf"tsk_([{_ALPHABET}]{{{_LENGTH}}})(0|[1-9][0-9]{{0,18}})")

_KEY_BITS = 60
# A Feistel network: products of two halves fit into 63 bits, in SQL and in columns too.
_HALF = 2**30
_BITS = _HALF - 1
_ROUNDS = 6
_MIDDLE = 2**15  # a product's middle bits depend on all bits of its factors
_ROUND_KEYS_KEPT = 4096  # jobs, 700 bytes each

_Numbers = TypeVar("_Numbers", "int", "pl.Series")


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


def chunk_of(task_no: int) -> int:
    """Return the number of the chunk that a task is of."""
    return task_no >> _ORDINAL_BITS


def new_task_key() -> int:
    """Return a new key for the ids of a job's tasks: 60 bits, to be kept from everybody."""
    return secrets.randbits(_KEY_BITS)


def task_id(job_id: str, task_key: int, task_no: int) -> str:
    """Return the id of a task of a job.

    Ids are derived and not stored: a rerun makes the same ones. This, `id_number`, `task_no` and
    `chunk_of` have twins in the schema.
    """
    return f"{task_ids(job_id)}{id_number(task_key, task_no)}"


def task_ids(job_id: str) -> str:
    """Return how the ids of all tasks of a job begin; `id_number`s follow."""
    return f"tsk_{job_id.removeprefix('job_')}"


def id_number(task_key: int, task_no: _Numbers) -> _Numbers:
    """Return the number in a task's id, below 2**60 as the task's own is; or those of a column (Int64).

    Without the job's key it tells nothing of the task's place: each key is another permutation.
    """
    # Columns know no shifts.
    left, right = task_no // _HALF, task_no & _BITS
    for a, b, c, d in _round_keys(task_key):
        mixed = right ^ a
        left ^= mixed * (mixed ^ b) // _MIDDLE & _BITS
        mixed = left ^ c
        right ^= mixed * (mixed ^ d) // _MIDDLE & _BITS
    return left * _HALF + right


def task_no_of(task_key: int, number: int) -> int:
    """Return the number of the task whose `id_number` is `number`."""
    left, right = number // _HALF, number & _BITS
    for a, b, c, d in reversed(_round_keys(task_key)):
        mixed = left ^ c
        right ^= mixed * (mixed ^ d) // _MIDDLE & _BITS
        mixed = right ^ a
        left ^= mixed * (mixed ^ b) // _MIDDLE & _BITS
    return left * _HALF + right


@lru_cache(_ROUND_KEYS_KEPT)
def _round_keys(task_key: int) -> Sequence[tuple[int, int, int, int]]:
    """Return four numbers of 30 bits for each two rounds: low bits of words of the key's SHA-512."""
    digest = hashlib.sha512(task_key.to_bytes(8, "big")).digest()
    words = [int.from_bytes(digest[n : n + 4], "big") & _BITS for n in range(0, 8 * _ROUNDS, 4)]
    return [*zip(words[::4], words[1::4], words[2::4], words[3::4], strict=True)]


def is_job_id(text: str) -> bool:
    """Return True if `text` has the shape of a job's id."""
    return _JOB.fullmatch(text) is not None


def is_customer_id(id_: str) -> bool:
    """Return whether the id may be a customer's."""
    return _CUSTOMER.fullmatch(id_) is not None


def is_annotator_id(text: str) -> bool:
    """Return True if `text` has the shape of an annotator's id."""
    return _ANNOTATOR.fullmatch(text) is not None


def job_of_task(text: str) -> str:
    """Return the part of a task's id that is the same for all tasks of its job; nothing is checked."""
    return text[: len("tsk_") + _LENGTH]


def parse_task_id(text: str) -> tuple[str, int] | None:
    """Return the job's id and the `id_number` in a task's id; None if it is not one of ours."""
    match = _TASK.fullmatch(text)
    if match is None or (number := int(match[2])) >= 2**_KEY_BITS:
        return None
    return f"job_{match[1]}", number
