"""Customers, annotators and their API keys."""

import hashlib
from collections.abc import Iterable, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec

from blocks.domain.errors import Terminal
from blocks.domain.ids import new_id, new_secret
from blocks.settings import AnnotatorNames
from blocks.store import lease_returns
from blocks.store.database import Transaction
from blocks.store.queries import load

_SQL = load("customers")

_KEY_ID_BYTES = 10
_PREFIX_CHARACTERS = 7  # `sk_` and 24 bits; 232 stay secret


class UnknownCustomer(Terminal):
    """There is no customer of that id."""

    code = "unknown_customer"


class UnknownAnnotator(Terminal):
    """There is no annotator of that id or name."""

    code = "unknown_annotator"


class NotGranted(Terminal):
    """The annotator is not handed tasks of that customer by a grant."""

    code = "not_granted"


class KeyKind(StrEnum):
    """Whose keys there are."""

    CUSTOMER = "customer"
    ANNOTATOR = "annotator"
    ADMIN = "admin"


class Principal(msgspec.Struct, frozen=True):
    """The customer, the annotator or the operator that a request is from: one of the three is set.

    An annotator's key may have the role of a reviewer. An operator is known by the id of the key. A
    customer may have limits of their own on requests, and on bytes of bodies; None is the settings'.
    """

    customer_id: str | None
    annotator_no: int | None
    is_reviewer: bool = False
    admin_key_id: str | None = None
    requests_per_minute_max: int | None = None
    body_bytes_per_minute_max: int | None = None

    @property
    def kind(self) -> KeyKind:
        """Whose key it is."""
        if self.admin_key_id is not None:
            return KeyKind.ADMIN
        return KeyKind.ANNOTATOR if self.customer_id is None else KeyKind.CUSTOMER


class Customer(msgspec.Struct, frozen=True):
    """A customer, and how many of their keys are not revoked."""

    customer_id: str
    name: str
    created_at: datetime
    keys: int


class Annotator(msgspec.Struct, frozen=True):
    """An annotator, and how many of their keys are not revoked.

    They are handed the tasks of the customers `customer_ids`; None stands for all customers.
    """

    annotator_id: str
    name: str
    created_at: datetime
    keys: int
    customer_ids: list[str] | None


class ListedKey(msgspec.Struct, frozen=True):
    """A key: `kind` is customer, annotator, reviewer or admin, `owner_id` and `name` the owner's.

    `customer_ids` are the customers whose tasks the annotator is handed; None for all of them, and for
    the key of somebody else. `key_name` is what a customer calls the key.
    """

    key_id: str
    kind: str
    owner_id: str
    name: str
    customer_ids: list[str] | None
    key_name: str | None
    created_at: datetime
    last_used_at: datetime | None
    revoked_at: datetime | None


class RevokedKey(msgspec.Struct, frozen=True):
    """A key that was revoked, and how many tasks of its annotator went back to others."""

    key_id: str
    tasks_returned: int
    customer_id: str | None
    """Whose key it was; None for an annotator's or an operator's."""


def add_customer(tx: Transaction, name: str) -> str:
    """Add a customer; return their id."""
    customer_id = new_id("cust")
    tx.execute(_SQL["insert_customer"], {"customer_id": customer_id, "name": name})
    return customer_id


def add_customer_key(tx: Transaction, customer_id: str, key_name: str | None = None) -> str:
    """Return a new `sk_…` key of a customer; it is not stored and cannot be shown again.

    `key_name` is what the customer calls it.

    Raises:
        UnknownCustomer: there is no such customer.
    """
    key = new_secret("sk")
    values = _stored(key) | {"customer_id": customer_id, "key_name": key_name}
    if tx.execute(_SQL["insert_customer_key"], values).fetchone() is None:
        raise UnknownCustomer(
            f"There is no customer {customer_id!r}; `refinery customers add` makes one."
        )
    return key


def list_customers(tx: Transaction) -> list[Customer]:
    """Return all customers, the oldest first."""
    return [msgspec.convert(row, Customer) for row in tx.execute(_SQL["list_customers"])]


def add_annotator_key(
    tx: Transaction, name: str, customer_ids: Sequence[str] = (), *, is_reviewer: bool = False
) -> tuple[str, str]:
    """Return the id of the annotator called `name`, added if there is none, and a new `ak_…` key.

    With the key of a reviewer they may decide tasks that are under review too.

    `customer_ids` are added to the customers whose tasks the annotator is handed. An annotator without
    any is handed everybody's tasks; with the first ones, tasks of other customers that they hold are
    taken back.

    Raises:
        UnknownCustomer: there is no customer of one of the ids.
    """
    maker = {"annotator_id": new_id("ann"), "name": name}
    annotator = tx.execute(_SQL["insert_annotator"], maker).fetchone()
    assert annotator is not None  # an upsert returns its row
    key = new_secret("ak")
    values = _stored(key) | {
        "annotator_no": annotator["annotator_no"],
        "is_reviewer": is_reviewer,
    }
    tx.execute(_SQL["insert_annotator_key"], values)
    if customer_ids:
        _grant(tx, annotator["annotator_no"], customer_ids)
    return annotator["annotator_id"], key


def add_admin_key(tx: Transaction, name: str) -> str:
    """Return a new `op_…` key of the operator called `name`, who sees the jobs of all customers."""
    key = new_secret("op")
    tx.execute(_SQL["insert_admin_key"], _stored(key) | {"admin_name": name})
    return key


def _stored(key: str) -> dict[str, Any]:
    return {"key_hash": hash_key(key), "prefix": key[:_PREFIX_CHARACTERS]}


def _grant(tx: Transaction, annotator_no: int, customer_ids: Sequence[str]) -> None:
    values = {"annotator_no": annotator_no, "customer_ids": list(customer_ids)}
    if unknown := tx.execute(_SQL["unknown_customers"], values).fetchone():
        raise UnknownCustomer(
            f"There is no customer {unknown['customer_id']!r}; `refinery customers list` has them."
        )
    tx.execute(_SQL["grant"], values)
    lease_returns.take_leases_back(tx, annotator_no)


def list_annotators(tx: Transaction) -> list[Annotator]:
    """Return all annotators, the oldest first."""
    return [msgspec.convert(row, Annotator) for row in tx.execute(_SQL["list_annotators"])]


def find_annotator_names(
    tx: Transaction, annotator_ids: Iterable[str], *, customer_id: str, names: AnnotatorNames
) -> dict[str, str]:
    """Return the names of annotators by their ids, without those that the customer may not see."""
    values = {
        "annotator_ids": list(annotator_ids),
        "customer_id": customer_id,
        "shows_all": names is AnnotatorNames.ALL,
    }
    rows = tx.execute(_SQL["find_annotator_names"], values)
    return {row["annotator_id"]: row["name"] for row in rows}


def grant(tx: Transaction, annotator: str, customer_ids: Sequence[str]) -> list[str]:
    """Hand the annotator, by id or name, the tasks of these customers too; return all their customers.

    An annotator who was handed everybody's tasks is handed those of these customers alone from now on.

    Raises:
        UnknownAnnotator: there is none of that id or name.
        UnknownCustomer: there is no customer of one of the ids.
    """
    annotator_no, granted = _find_annotator(tx, annotator)
    _grant(tx, annotator_no, customer_ids)
    return sorted({*(granted or []), *customer_ids})


def grant_all(tx: Transaction, annotator: str) -> None:
    """Hand the annotator, by id or name, everybody's tasks.

    Raises:
        UnknownAnnotator: there is none of that id or name.
    """
    annotator_no, _ = _find_annotator(tx, annotator)
    tx.execute(_SQL["set_grants"], {"annotator_no": annotator_no, "customer_ids": None})


def withdraw(tx: Transaction, annotator: str, customer_ids: Sequence[str]) -> tuple[list[str], int]:
    """Hand the annotator, by id or name, no more tasks of these customers.

    Return the customers that are left to them, and how many tasks that they held went back to others.

    Raises:
        UnknownAnnotator: there is none of that id or name.
        NotGranted: they are not restricted to some customers, or one of these is not among them.
    """
    annotator_no, granted = _find_annotator(tx, annotator)
    if granted is None:
        raise NotGranted(
            f"{annotator} is handed everybody's tasks; `refinery annotators grant` says whose alone."
        )
    if missing := sorted(set(customer_ids) - set(granted)):
        raise NotGranted(f"{annotator} is not handed tasks of {', '.join(missing)}.")
    left = [customer_id for customer_id in granted if customer_id not in customer_ids]
    tx.execute(_SQL["set_grants"], {"annotator_no": annotator_no, "customer_ids": left})
    return left, lease_returns.take_leases_back(tx, annotator_no)


def _find_annotator(tx: Transaction, annotator: str) -> tuple[int, list[str] | None]:
    row = tx.execute(_SQL["find_annotator"], {"annotator": annotator}).fetchone()
    if row is None:
        raise UnknownAnnotator(
            f"There is no annotator {annotator!r}; `refinery annotators list` has them."
        )
    return row["annotator_no"], row["customer_ids"]


def list_granted_customers(tx: Transaction, annotator_id: str) -> list[str] | None:
    """Return the ids of the customers whose tasks the annotator is handed; None for all."""
    row = tx.execute(_SQL["granted_customers"], {"annotator_id": annotator_id}).fetchone()
    granted: list[str] | None = row["customer_ids"] if row else []
    return granted


def list_keys(tx: Transaction) -> list[ListedKey]:
    """Return what is not secret of all keys, revoked ones too, the oldest first."""
    return [msgspec.convert(row, ListedKey) for row in tx.execute(_SQL["list_keys"])]


def find_principal(tx: Transaction, key: str) -> Principal | None:
    """Return whose `key` is, or None. It is found by its hash: timing tells nothing of the key."""
    row = tx.execute(_SQL["find_key"], {"key_hash": hash_key(key)}).fetchone()
    return Principal(**row) if row else None


def revoke_key(tx: Transaction, key: str) -> RevokedKey | None:
    """Revoke a key, given itself or by its id; None if there is no such key, or it was revoked before.

    With the last key of an annotator, the tasks that they hold go to others at once.
    """
    values = {"key_id": key, "key_hash": hash_key(key)}
    row = tx.execute(_SQL["revoke_key"], values).fetchone()
    if row is None:
        return None
    annotator_no = row["annotator_no"]
    returned = lease_returns.take_leases_back(tx, annotator_no) if annotator_no is not None else 0
    return RevokedKey(row["key_id"], returned, row["customer_id"])


def key_id(key: str) -> str:
    """Return the id of a key, which may be shown; the twin of `api_keys.key_id`."""
    return id_of(hash_key(key))


def id_of(key_hash: bytes) -> str:
    """Return the id of the key that has this hash."""
    return f"key_{key_hash[:_KEY_ID_BYTES].hex()}"


def hash_key(key: str) -> bytes:
    """Return the stored hash of a key. A fast one is right: a key is 256 random bits, not a password."""
    return hashlib.sha256(key.encode()).digest()
