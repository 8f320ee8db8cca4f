"""Sign browsers in: with a key, or once with a link that stands for one."""

import hashlib
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from blocks.domain.errors import Terminal
from blocks.domain.ids import new_secret
from blocks.store.customers import Principal, hash_key, key_id
from blocks.store.database import Transaction
from blocks.store.queries import load

_SQL = load("sessions")

_PREFIX = "ss"  # as `sk` and `ak` begin keys
_LINK_PREFIX = "in"
_CSRF_CHARACTERS = 32
SESSIONS_PER_KEY_MAX = 100
"""How many browsers may be signed in with one key; one more signs out the first of them."""


LINKS_PER_KEY_MAX = 20
"""How many links of one key may be unused; one more makes the first of them useless."""


class NoSuchKey(Terminal):
    """There is no good key of that id or owner."""

    code = "unknown_key"


class Session(NamedTuple):
    """Whose a session is, and the hash of the key that it was begun with."""

    principal: Principal
    key_hash: bytes


class Begun(NamedTuple):
    """A session that has just begun: the token for its cookie, which is not stored, and its end."""

    token: str
    expires_at: datetime
    session: Session


class Owner(msgspec.Struct, frozen=True):
    """Whose a session is: a customer, an annotator or an operator."""

    owner_id: str
    name: str


def begin(tx: Transaction, key: str, *, session_s: int) -> Begun | None:
    """Sign a browser in for `session_s` seconds with a key; None if the key is not good."""
    return _begin(tx, hash_key(key), session_s)


def begin_by_link(tx: Transaction, link: str, *, session_s: int) -> Begun | None:
    """Sign a browser in by the token of a link, which is used up; None if it was used or is over."""
    row = tx.execute(_SQL["take_link"], {"link_hash": hash_key(link)}).fetchone()
    return _begin(tx, row["key_hash"], session_s) if row and row["is_good"] else None


def _begin(tx: Transaction, key_hash: bytes, session_s: int) -> Begun | None:
    token = new_secret(_PREFIX)
    values = {"session_hash": hash_key(token), "key_hash": key_hash, "session_s": session_s}
    row = tx.execute(_SQL["begin"], values).fetchone()
    if row is None:
        return None
    tx.execute(_SQL["end_oldest"], values | {"others_max": SESSIONS_PER_KEY_MAX - 1})
    return Begun(token, row["expires_at"], _session(row))


def add_link(tx: Transaction, key: str, *, link_s: int) -> str | None:
    """Return the token of a new link that is good for one sign-in, for `link_s` seconds.

    None if the key is not good. The token is not stored and cannot be shown again.
    """
    return add_link_by_id(tx, key_id(key), link_s=link_s)


def add_link_of(tx: Transaction, named: str, *, link_s: int) -> tuple[str, str]:
    """Return the id of a key, and the token of a new link as `add_link` does.

    It is the key of that id, or the newest good one of its owner: a customer by id, an annotator by id
    or name, an operator by name.

    Raises:
        NoSuchKey: there is none, or several owners are called so.
    """
    found = tx.execute(_SQL["find_key"], {"named": named}).fetchall()
    if len(found) != 1:
        raise NoSuchKey(
            f"{len(found) or 'No'} owners of good keys are called {named!r}; "
            "`refinery keys list` has their ids."
        )
    (key,) = found
    token = add_link_by_id(tx, key["key_id"], link_s=link_s)
    if token is None:
        raise NoSuchKey(f"{key['key_id']} was revoked just now.")
    return key["key_id"], token


def add_link_by_id(tx: Transaction, id_: str, *, link_s: int) -> str | None:
    """Do what `add_link` does, by the id of a key."""
    token = new_secret(_LINK_PREFIX)
    values = {"link_hash": hash_key(token), "key_id": id_, "link_s": link_s}
    row = tx.execute(_SQL["add_link"], values).fetchone()
    if row is None:
        return None
    tx.execute(_SQL["end_oldest_links"], values | row | {"others_max": LINKS_PER_KEY_MAX - 1})
    return token


def find(tx: Transaction, token: str) -> Session | None:
    """Return the session whose cookie holds `token`; None if it is over, or its key was revoked."""
    row = tx.execute(_SQL["find"], {"session_hash": hash_key(token)}).fetchone()
    return _session(row) if row else None


def _session(row: dict[str, Any]) -> Session:
    return Session(msgspec.convert(row, Principal), row["key_hash"])


def end(tx: Transaction, token: str) -> None:
    """Sign a browser out."""
    tx.execute(_SQL["end"], {"session_hash": hash_key(token)})


def end_expired(tx: Transaction, *, limit: int) -> int:
    """Delete up to `limit` sessions that are over, and as many links; return how many."""
    row = tx.execute(_SQL["end_expired"], {"limit": limit}).fetchone()
    assert row is not None  # a sum
    ended: int = row["ended"]
    return ended


def describe(tx: Transaction, principal: Principal) -> Owner:
    """Return the id and the name of a customer or an annotator; of an operator the id of the key."""
    values = msgspec.structs.asdict(principal)
    return msgspec.convert(tx.execute(_SQL["describe"], values).fetchone(), Owner)


def is_token(credential: str) -> bool:
    """Return whether this is the token of a session and no key, by its beginning."""
    return credential.startswith(f"{_PREFIX}_")


def csrf_token(token: str) -> str:
    """Return what requests that change something have to bring beside the cookie.

    Another site's page cannot read it, though the browser may send the cookie for it (OWASP: HMAC-based
    tokens; the session is the key).
    """
    return hashlib.sha256(f"csrf {token}".encode()).hexdigest()[:_CSRF_CHARACTERS]
