"""API keys as their owners manage them: list, make, revoke, and links that sign in with one.

Every change locks the customer first, then the key that asks: so changes of one customer's keys take
turns, and a key that is being revoked makes no other.
"""

from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

import msgspec

from blocks.domain.errors import IdempotencyConflict, Terminal, UndecryptableCredentials
from blocks.secrets.vault import Vault
from blocks.store import customers, sessions
from blocks.store.customers import RevokedKey, UnknownCustomer
from blocks.store.database import Transaction
from blocks.store.jobs import Idempotency
from blocks.store.queries import load

_SQL = load("keys")

_ANSWERS_LOCK = 733


class KeyRole(StrEnum):
    """What keys may do."""

    CUSTOMER = "customer"
    ANNOTATOR = "annotator"
    REVIEWER = "reviewer"
    ADMIN = "admin"


class AskerRevoked(Terminal):
    """The key that asks was revoked a moment ago."""

    code = "asker_revoked"


class LastKey(Terminal):
    """A customer is about to revoke the only good key that they have."""

    code = "last_key"

    def __init__(self) -> None:
        super().__init__(
            "This is your last good key: without it only the operator can let you in again. Make "
            "another one first, or send last=true."
        )


class OperatorsKey(Terminal):
    """An operator's key is managed on the command line alone."""

    code = "operators_key"

    def __init__(self) -> None:
        super().__init__("An operator's key is changed on the command line: `refinery keys`.")


class KeyRevoked(Terminal):
    """Nobody can sign in with a revoked key."""

    code = "key_revoked"

    def __init__(self) -> None:
        super().__init__("This key was revoked; make another one.")


class Asker(NamedTuple):
    """Who asks: the customer, None for an operator; the id of either; the hash of the key."""

    customer_id: str | None
    name: str
    key_hash: bytes


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """What is not secret of a key."""

    key_id: str
    """The id of the key, which is no secret."""
    role: KeyRole
    """What the key may do."""
    owner_id: str
    """The customer or the annotator whose key it is; of an operator's, the id of the key."""
    customer_id: str | None
    """The customer whose key it is; null where it is an annotator's or an operator's."""
    name: str | None
    """What the customer calls the key; of another's key, the name of its owner."""
    customer_ids: list[str] | None
    """The customers whose tasks the annotator is handed; null for all, and for others' keys."""
    prefix: str
    """How the key begins, to tell which one a program has; empty for an old one."""
    created_at: datetime
    """When it was made."""
    last_used_at: datetime | None
    """When it, or a session of it, was used last, five minutes late at most; null if never."""
    revoked_at: datetime | None
    """Since when it is not good any more; null for a good one."""


class NewKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key to be made: a customer's, or one of the annotator called `name`, added if there is none.

    `customer_id` is whose key it is; for an annotator, whose tasks they are handed too.
    """

    role: KeyRole
    name: str | None
    customer_id: str | None


class Made(NamedTuple):
    """A key that was made: what is not secret of it, itself, and the token of a sign-in link."""

    shown: ApiKey
    key: str
    link: str


def list_page(
    tx: Transaction, customer_id: str | None, *, limit: int, after: str | None = None
) -> list[ApiKey] | None:
    """Return up to `limit` keys from before the key `after` on, the newest first, revoked ones too.

    With None for the customer they are everybody's. None if there is no such key.
    """
    if after is not None and find(tx, customer_id, after) is None:
        return None
    values = {"customer_id": customer_id, "after": after, "limit": limit}
    query = "list_of_customer" if customer_id else "list_all"
    return msgspec.convert(tx.execute(_SQL[query], values).fetchall(), list[ApiKey])


def find(tx: Transaction, customer_id: str | None, key_id: str) -> ApiKey | None:
    """Return the key of that id; None if there is none, or none of that customer, where one is given."""
    row = tx.execute(_SQL["find"], {"key_id": key_id}).fetchone()
    found = msgspec.convert(row, ApiKey) if row else None
    return None if found and customer_id not in (None, found.customer_id) else found


def make(
    tx: Transaction,
    asker: Asker,
    new: NewKey,
    vault: Vault,
    *,
    link_s: int,
    idempotency: Idempotency | None = None,
) -> tuple[Made, bool]:
    """Make a key and a link that is good for `link_s` seconds; True if the same request did so before.

    Raises:
        UnknownCustomer: there is no such customer.
        AskerRevoked: the key that asks is not good any more.
        IdempotencyConflict: the idempotency key was used for another request within the last day.
    """
    if new.customer_id is not None:
        _lock_customer(tx, new.customer_id)
    _lock_asker(tx, asker)
    if idempotency:
        tx.execute(_SQL["lock_answers"], {"lock": _ANSWERS_LOCK, "asked_by": asker.name})
        if earlier := _find_answer(tx, asker, vault, idempotency):
            return earlier, True
    key = _add(tx, new)
    link = sessions.add_link(tx, key, link_s=link_s)
    shown = find(tx, None, customers.key_id(key))
    assert link is not None and shown is not None  # noqa: PT018 - it was just made
    made = Made(shown, key, link)
    if idempotency:
        _record_answer(tx, asker, vault, idempotency, made)
    return made, False


def _add(tx: Transaction, new: NewKey) -> str:
    if new.role is KeyRole.CUSTOMER:
        assert new.customer_id is not None  # a customer's key is somebody's
        return customers.add_customer_key(tx, new.customer_id, new.name)
    assert new.name is not None  # annotators are known by their names
    granted = [new.customer_id] if new.customer_id else []
    is_reviewer = new.role is KeyRole.REVIEWER
    _, key = customers.add_annotator_key(tx, new.name, granted, is_reviewer=is_reviewer)
    return key


def _find_answer(
    tx: Transaction, asker: Asker, vault: Vault, idempotency: Idempotency
) -> Made | None:
    values = {"asked_by": asker.name, "key": idempotency.key}
    row = tx.execute(_SQL["find_answer"], values).fetchone()
    if row is None:
        return None
    if not vault.is_digest_of(row["body_hash"], idempotency.body_hash):
        raise IdempotencyConflict("This Idempotency-Key was used for another key.")
    shown = find(tx, None, row["key_id"])
    assert shown is not None  # keys are never deleted
    try:
        secrets = vault.open(row["sealed"], bound_to=_bound_to(shown.key_id)).decode()
    except UndecryptableCredentials as error:
        raise IdempotencyConflict(
            f"This has made {shown.key_id}, which cannot be shown again; revoke it and make another one."
        ) from error
    return Made(shown, *secrets.split())


def _record_answer(
    tx: Transaction, asker: Asker, vault: Vault, idempotency: Idempotency, made: Made
) -> None:
    key_id = made.shown.key_id
    values = {
        "asked_by": asker.name,
        "key": idempotency.key,
        "body_hash": vault.digest(idempotency.body_hash),
        "key_id": key_id,
        "sealed": vault.seal(f"{made.key} {made.link}".encode(), bound_to=_bound_to(key_id)),
    }
    tx.execute(_SQL["record_answer"], values)


def _bound_to(key_id: str) -> str:
    return f"new key {key_id}"


def purge_answers(tx: Transaction, *, limit: int) -> int:
    """Delete up to `limit` sealed answers that are a day old; return how many."""
    return tx.execute(_SQL["purge_answers"], {"limit": limit}).rowcount


def add_link(tx: Transaction, asker: Asker, key: ApiKey, *, link_s: int) -> str:
    """Return the token of a new link that signs one browser in with a key, within `link_s` seconds.

    Raises:
        OperatorsKey: the key is an operator's.
        AskerRevoked: the key that asks is not good any more.
        KeyRevoked: the key is not good any more.
    """
    if key.role is KeyRole.ADMIN:
        raise OperatorsKey
    _lock_asker(tx, asker)
    token = sessions.add_link_by_id(tx, key.key_id, link_s=link_s)
    if token is None:
        raise KeyRevoked
    return token


def revoke(
    tx: Transaction, asker: Asker, key: ApiKey, *, even_last: bool
) -> tuple[ApiKey, RevokedKey | None]:
    """Make a key invalid; return it, and what that has come to; None where it was revoked before.

    Raises:
        OperatorsKey: the key is an operator's.
        AskerRevoked: the key that asks is not good any more.
        LastKey: it is the only good one of the customer who asks, and not `even_last`.
    """
    if key.role is KeyRole.ADMIN:
        raise OperatorsKey
    if key.customer_id is not None:
        _lock_customer(tx, key.customer_id)
    _lock_asker(tx, asker)
    if asker.customer_id is not None and key.revoked_at is None and not even_last:
        values = {"customer_id": asker.customer_id, "key_id": key.key_id}
        row = tx.execute(_SQL["has_other"], values).fetchone()
        if row and not row["has_other"]:
            raise LastKey
    revoked = customers.revoke_key(tx, key.key_id)
    now = find(tx, None, key.key_id)
    assert now is not None  # keys are never deleted
    return now, revoked


def note_use(tx: Transaction, key_hash: bytes) -> None:
    """Record that a key was used just now."""
    tx.execute(_SQL["note_use"], {"key_hash": key_hash})


def _lock_customer(tx: Transaction, customer_id: str) -> None:
    if tx.execute(_SQL["lock_customer"], {"customer_id": customer_id}).fetchone() is None:
        raise UnknownCustomer(f"There is no customer {customer_id!r}.")


def _lock_asker(tx: Transaction, asker: Asker) -> None:
    if tx.execute(_SQL["lock_asker"], {"key_hash": asker.key_hash}).fetchone() is None:
        raise AskerRevoked("This key was revoked a moment ago.")
