"""Customers, annotators and their API keys."""

import hashlib

import msgspec

from blocks.errors import Terminal
from blocks.ids import new_id, new_secret
from blocks.store.database import Transaction
from blocks.store.queries import load

_SQL = load("customers")


class UnknownCustomer(Terminal):
    """There is no customer of that id."""

    code = "unknown_customer"


class Principal(msgspec.Struct, frozen=True):
    """Who a request is from: one of the two is set."""

    customer_id: str | None
    annotator_no: int | None


def add_customer(tx: Transaction, name: str) -> str:
    """The new customer's id."""
    customer_id = new_id("cust")
    tx.execute(_SQL["insert_customer"], {"customer_id": customer_id, "name": name})
    return customer_id


def add_customer_key(tx: Transaction, customer_id: str) -> str:
    """A new `sk_…` key, which is not stored and cannot be shown again.

    Raises:
        UnknownCustomer: there is no such customer.
    """
    key = new_secret("sk")
    values = {"key_hash": key_hash(key), "customer_id": customer_id}
    if tx.execute(_SQL["insert_customer_key"], values).fetchone() is None:
        raise UnknownCustomer(
            f"There is no customer {customer_id!r}; `refinery customers add` makes one."
        )
    return key


def add_annotator_key(tx: Transaction, name: str) -> tuple[str, str]:
    """The id of the annotator called `name`, made if there is none, and a new `ak_…` key."""
    maker = {"annotator_id": new_id("ann"), "name": name}
    annotator = tx.execute(_SQL["insert_annotator"], maker).fetchone()
    assert annotator is not None  # an upsert returns its row
    key = new_secret("ak")
    values = {"key_hash": key_hash(key), "annotator_no": annotator["annotator_no"]}
    tx.execute(_SQL["insert_annotator_key"], values)
    return annotator["annotator_id"], key


def find_principal(tx: Transaction, key: str) -> Principal | None:
    """Who `key` belongs to, or None if nobody; found by hash, so timing tells nothing of the key."""
    row = tx.execute(_SQL["find_key"], {"key_hash": key_hash(key)}).fetchone()
    return Principal(**row) if row else None


def revoke_key(tx: Transaction, key: str) -> bool:
    """Whether there was such a key to revoke."""
    return tx.execute(_SQL["revoke_key"], {"key_hash": key_hash(key)}).fetchone() is not None


def key_hash(key: str) -> bytes:
    """What is kept of a key. A fast hash is right here: it is 256 random bits, not a password."""
    return hashlib.sha256(key.encode()).digest()
