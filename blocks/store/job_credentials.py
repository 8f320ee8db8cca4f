"""Credentials of jobs: sealed in their rows, opened for runs, wiped, and resealed with a new key."""

from collections.abc import Collection
from typing import Any

import msgspec

from blocks.secrets.vault import Vault
from blocks.store.database import Transaction
from blocks.store.queries import load

_SQL = load("job_credentials")


def seal(credentials: bytes | None, job_id: str, customer_id: str, vault: Vault) -> bytes | None:
    """Return the envelope of a job's credentials, which opens for that job alone; None stays None."""
    if credentials is None:
        return None
    return vault.seal(credentials, bound_to=_binding(job_id, customer_id))


def open_sealed(sealed: bytes | None, job_id: str, customer_id: str, vault: Vault) -> bytes | None:
    """Return a job's credentials as JSON; None if it has none.

    Raises:
        UndecryptableCredentials: no key of `vault` opens them.
    """
    if sealed is None:
        return None
    return vault.open(sealed, bound_to=_binding(job_id, customer_id))


class SealedCredentials(msgspec.Struct, frozen=True):
    """The envelope that URLs of a job are signed with; `credentials` is None once they are wiped.

    Those of an operator's block are for objects below `signs_below` alone, such as `s3://bucket/prefix`.
    """

    job_id: str
    customer_id: str
    manifest_url: str
    credentials: bytes | None
    signs_below: str | None


def find_to_sign(tx: Transaction, job_ids: Collection[str]) -> dict[str, SealedCredentials]:
    """Return the envelopes of those jobs of `job_ids` that ask for signed URLs, by their ids."""
    if not job_ids:
        return {}
    rows = tx.execute(_SQL["find_to_sign"], {"job_ids": sorted(job_ids)}, binary=True).fetchall()
    return {row["job_id"]: msgspec.convert(row, SealedCredentials) for row in rows}


def keep_copy(tx: Transaction, job_no: int, sealed: bytes | None, *, signs_below: str) -> None:
    """Keep a sealed copy of what a job's block holds, to sign URLs of objects below `signs_below`."""
    values = {"job_no": job_no, "credentials": sealed, "signs_below": signs_below}
    tx.execute(_SQL["keep_copy"], values)


def _binding(job_id: str, customer_id: str) -> str:
    return f"jobs.credentials {job_id} {customer_id}"


def wipe_old(tx: Transaction, *, keep_s: int, limit: int) -> int:
    """Wipe credentials of up to `limit` jobs that ended, or whose delivery failed, `keep_s` seconds ago.

    Return how many there were.
    """
    return tx.execute(_SQL["wipe_old"], {"keep_s": keep_s, "limit": limit}).rowcount


def reseal(tx: Transaction, vault: Vault, *, after: int = 0) -> tuple[int, int | None]:
    """Reseal a batch with the current key; return how many, and where to go on, None at the end."""
    rows: list[dict[str, Any]] = tx.execute(_SQL["list"], {"after": after}).fetchall()
    resealed = 0
    for row in rows:
        old: bytes = row["credentials"]
        if vault.is_current(old):
            continue
        bound_to = _binding(row["job_id"], row["customer_id"])
        new = vault.seal(vault.open(old, bound_to=bound_to), bound_to=bound_to)
        values = {"job_no": row["job_no"], "old": old, "new": new}
        resealed += tx.execute(_SQL["reseal"], values).rowcount
    return resealed, rows[-1]["job_no"] if rows else None
