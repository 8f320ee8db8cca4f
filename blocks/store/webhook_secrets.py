"""Sealed secrets that sign what goes to endpoints: each one's own, and a default one a customer."""

from typing import Any

from blocks.secrets.vault import Vault
from blocks.store.database import Transaction
from blocks.store.queries import load

_SQL = load("webhook_secrets")


def set_first(tx: Transaction, webhook_no: int, webhook_id: str, secret: str, vault: Vault) -> None:
    """Give an endpoint that was just registered its secret."""
    _set(tx, webhook_no, webhook_id, secret, vault, keep_previous=False)


def rotate(tx: Transaction, webhook_no: int, webhook_id: str, secret: str, vault: Vault) -> None:
    """Give an endpoint a new secret; the one before signs beside it for a day."""
    _set(tx, webhook_no, webhook_id, secret, vault, keep_previous=True)


def _set(
    tx: Transaction,
    webhook_no: int,
    webhook_id: str,
    secret: str,
    vault: Vault,
    *,
    keep_previous: bool,
) -> None:
    sealed = vault.seal(secret.encode(), bound_to=_binding(webhook_id))
    values = {"webhook_no": webhook_no, "secret": sealed, "keep_previous": keep_previous}
    tx.execute(_SQL["set"], values)


def rotate_default(tx: Transaction, customer_id: str, secret: str, vault: Vault) -> None:
    """Give the callback URLs of a customer that have no secret of their own a new one."""
    sealed = vault.seal(secret.encode(), bound_to=_default_binding(customer_id))
    tx.execute(_SQL["rotate_default"], {"customer_id": customer_id, "secret": sealed})


def open_secrets(tx: Transaction, webhook_no: int, new_secret: str, vault: Vault) -> list[str]:
    """Return the secrets that sign for an endpoint, the current one first.

    Where it takes its customer's default one, and there is none yet, `new_secret` becomes that.

    Raises:
        UndecryptableCredentials: no key of `vault` opens them.
    """
    row = tx.execute(_SQL["find"], {"webhook_no": webhook_no}).fetchone()
    assert row is not None  # endpoints are never deleted
    if row["secret"] is None:
        customer_id = row["customer_id"]
        sealed = vault.seal(new_secret.encode(), bound_to=_default_binding(customer_id))
        tx.execute(_SQL["add_default"], {"customer_id": customer_id, "secret": sealed})
        row = tx.execute(_SQL["find"], {"webhook_no": webhook_no}).fetchone()
        assert row is not None
    bound_to = _binding(row["webhook_id"]) if row["own"] else _default_binding(row["customer_id"])
    sealed_ones = [row["secret"], row["previous_secret"]]
    return [vault.open(each, bound_to=bound_to).decode() for each in sealed_ones if each]


def reseal(tx: Transaction, vault: Vault, *, after: int = 0) -> tuple[int, int | None]:
    """Reseal one batch with the current key; return how many, and where to go on, or None at the end."""
    rows = tx.execute(_SQL["list"], {"after": after}).fetchall()
    resealed = sum(_reseal(tx, "reseal", row, _binding(row["id"]), vault) for row in rows)
    if rows:
        return resealed, rows[-1]["no"]
    for row in tx.execute(_SQL["list_defaults"]).fetchall():
        resealed += _reseal(tx, "reseal_default", row, _default_binding(row["id"]), vault)
    return resealed, None


def _reseal(tx: Transaction, query: str, row: dict[str, Any], bound_to: str, vault: Vault) -> int:
    old = {"secret": row["secret"], "previous_secret": row["previous_secret"]}
    if all(sealed is None or vault.is_current(sealed) for sealed in old.values()):
        return 0
    new = {
        name: sealed and vault.seal(vault.open(sealed, bound_to=bound_to), bound_to=bound_to)
        for name, sealed in old.items()
    }
    return tx.execute(_SQL[query], row | new | {"old": row["secret"]}).rowcount


def _binding(webhook_id: str) -> str:
    return f"webhooks.secret {webhook_id}"


def _default_binding(customer_id: str) -> str:
    return f"webhook_defaults.secret {customer_id}"
