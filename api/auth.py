"""API keys and sessions: whose request it is, and which kind of key may do what."""

import threading
from collections.abc import Mapping
from contextlib import suppress
from time import monotonic
from typing import Any, NamedTuple

from cachetools import LRUCache
from litestar.connection import ASGIConnection
from litestar.exceptions import NotAuthorizedException
from litestar.middleware import AbstractAuthenticationMiddleware, AuthenticationResult

from api import session_cookies
from api.http import requesters
from api.http.errors import (
    ADMINS_KEY,
    ANNOTATORS_KEY,
    CUSTOMERS_KEY,
    not_a_reviewer,
    wrong_key,
)
from api.http.rate_limits import REQUESTS, TokenBuckets, address_of, note_rate
from api.http.requesters import Requester
from blocks import logs
from blocks.domain.errors import Transient
from blocks.settings import AnnotatorNames, Settings
from blocks.store import customers, keys, sessions
from blocks.store.audit import Actor
from blocks.store.customers import KeyKind, Principal
from blocks.store.database import Database, Transaction
from blocks.store.sessions import Session

logger = logs.get_logger("refinery.auth")

_KEY_CHARACTERS_MAX = 100
# Looking a key up takes longer than serving a small request. A revoked key is refused after this time.
_TRUSTED_S = 1.0
_FOUND_KEYS_MAX = 10_000
_NOTED_EVERY_S = 300.0  # how late `last_used_at` may be
# Shares of the places for requests. An annotator's claims wait for each other, so one needs few.
_CUSTOMER_SHARE = 1 / 2
_ANNOTATORS_SHARE = 3 / 4
_ANNOTATOR_SHARE = 1 / 4

Connection = ASGIConnection[Any, Principal, Any, Any]

_TAKES = "takes_key_of"
CUSTOMERS_ONLY = {_TAKES: KeyKind.CUSTOMER}
"""The `opt` of a router whose routes refuse any key but a customer's, with 403."""
ANNOTATORS_ONLY = {_TAKES: KeyKind.ANNOTATOR}
"""The same for annotators' keys."""
ADMINS_ONLY = {_TAKES: KeyKind.ADMIN}
"""The same for operators' keys."""
_ADMITS_ADMINS = "admits_admins"
ADMINS_TOO = {_ADMITS_ADMINS: True}
"""The `opt` of a route that takes operators' keys too, and so asks for its `tenant`."""
_WORDS = {
    KeyKind.CUSTOMER: CUSTOMERS_KEY,
    KeyKind.ANNOTATOR: ANNOTATORS_KEY,
    KeyKind.ADMIN: ADMINS_KEY,
}


class ApiKeyMiddleware(AbstractAuthenticationMiddleware):
    """Set `request.user` to the `Principal` whose request it is, and `request.auth` to the key's hash.

    It comes with a key, as `Authorization: Bearer <key>`, or from a browser that is signed in.
    """

    async def authenticate_request(
        self, connection: ASGIConnection[Any, Any, Any, Any]
    ) -> AuthenticationResult:
        found = await admit(connection, credential_of(connection))
        requesters.note(connection.scope, Requester(_shares(found.principal)))
        _refuse_other_kinds(found.principal, connection.route_handler.opt)
        return AuthenticationResult(user=found.principal, auth=found.key_hash)


async def admit(connection: ASGIConnection[Any, Any, Any, Any], key: str) -> Session:
    """Return whose a key or the token of a session is, and count a request of theirs.

    Raises:
        NotAuthorizedException: it is not good.
        ApiError: 429, there were too many requests of its owner, or too many wrong keys of this address.
    """
    ring: KeyRing = connection.app.state.key_ring
    limits: RateLimits = connection.app.state.rate_limits
    found = ring.recall(key)
    if found is None:
        address = address_of(connection)
        # Refuse before a thread and a query are spent. A key that was good before is always looked
        # up, so that somebody who shares its address cannot shut it out.
        if not ring.is_familiar(key):
            limits.wrong_keys.check(address)
        found = await connection.app.state.threads.keys.run(ring.find, key)
        if found is None:
            limits.note_wrong(address)
            raise NotAuthorizedException
    most = found.principal.requests_per_minute_max
    note_rate(connection.scope, limits.keys.take(owner_of(found.principal), limit=most))
    return found


def credential_of(connection: ASGIConnection[Any, Any, Any, Any]) -> str:
    """Return the key that came, or the token of the session.

    Raises:
        NotAuthorizedException: there is neither.
        ApiError: the request is by a session, and not of one of our pages.
    """
    token = session_cookies.token_of(connection)
    if token is not None:
        session_cookies.check_page(connection, token)
        return token
    scheme, _, rest = connection.headers.get("Authorization", "").partition(" ")
    key = rest.strip()
    if scheme.lower() != "bearer" or not 0 < len(key) <= _KEY_CHARACTERS_MAX:
        raise NotAuthorizedException
    if sessions.is_token(key):  # it is good in a cookie alone
        raise NotAuthorizedException
    return key


def owner_of(principal: Principal) -> str:
    """Return a name of the one whose keys share what there is for one."""
    if principal.annotator_no is None:
        return reader(principal)
    return f"annotator {principal.annotator_no}"


def _shares(principal: Principal) -> dict[str, float]:
    if principal.annotator_no is None:
        return {owner_of(principal): _CUSTOMER_SHARE}
    return {"annotators": _ANNOTATORS_SHARE, owner_of(principal): _ANNOTATOR_SHARE}


def _refuse_other_kinds(principal: Principal, opt: Mapping[str, Any]) -> None:
    # Not a guard: Litestar copies the handler for each guard of each request.
    wanted, given = opt.get(_TAKES), principal.kind
    if wanted in (None, given) or (given is KeyKind.ADMIN and opt.get(_ADMITS_ADMINS)):
        return
    raise wrong_key(wanted=_WORDS[wanted], given=_WORDS[given])


class RateLimits:
    """The counts of one process: requests by whose keys they have, wrong keys by address."""

    def __init__(self, settings: Settings) -> None:
        self.keys = TokenBuckets(REQUESTS, settings.requests_per_minute_max)
        self.wrong_keys = TokenBuckets(REQUESTS, settings.wrong_keys_per_minute_max)

    def note_wrong(self, address: str) -> None:
        """Count a wrong key or link, and log it: those of one address as many as its limit lets in."""
        self.wrong_keys.take(address)
        logger.warning("auth.wrong_key", address=address)


class _Found(NamedTuple):
    session: Session
    until_s: float


class KeyRing:
    """Finds whose a key or a session is: in the database, and for a second in memory.

    Those that were good are remembered for longer than that, the latest 10,000 that came.
    Several threads may use it.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._found: LRUCache[bytes, _Found] = LRUCache(_FOUND_KEYS_MAX)
        self._noted: LRUCache[bytes, float] = LRUCache(_FOUND_KEYS_MAX)
        self._lock = threading.Lock()

    def recall(self, key: str) -> Session | None:
        """Return whose key it is, if it was found within the last second."""
        with self._lock:
            found = self._found.get(customers.hash_key(key))
        return found.session if found and monotonic() < found.until_s else None

    def is_familiar(self, key: str) -> bool:
        """Return whether `key` was good when it was last looked up; it may have been revoked since."""
        with self._lock:
            return customers.hash_key(key) in self._found

    def forget(self, key: str) -> None:
        """Look `key` up again when it comes the next time."""
        with self._lock:
            self._found.pop(customers.hash_key(key), None)

    def forget_key(self, key_id: str) -> None:
        """Look a key of that id, and its sessions, up again when they come the next time."""
        with self._lock:
            held = [
                credential
                for credential, found in self._found.items()
                if customers.id_of(found.session.key_hash) == key_id
            ]
            for credential in held:
                del self._found[credential]

    def find(self, key: str) -> Session | None:
        """Return whose key it is, or the session of a token; None if it is not good.

        Raises:
            DatabaseUnavailable: the database does not answer.
        """
        with self._database.transaction() as tx:
            session = _find(tx, key)
        with self._lock:
            if session is None:
                self._found.pop(customers.hash_key(key), None)
            else:
                self._found[customers.hash_key(key)] = _Found(session, monotonic() + _TRUSTED_S)
        if session is not None:
            self._note_use(session.key_hash)
        return session

    def _note_use(self, key_hash: bytes) -> None:
        with self._lock:
            if monotonic() < self._noted.get(key_hash, 0):
                return
            self._noted[key_hash] = monotonic() + _NOTED_EVERY_S
        # A database that takes no writes just now still lets the key in.
        with suppress(Transient), self._database.transaction() as tx:
            keys.note_use(tx, key_hash)


def _find(tx: Transaction, key: str) -> Session | None:
    if sessions.is_token(key):
        return sessions.find(tx, key)
    principal = customers.find_principal(tx, key)
    return Session(principal, customers.hash_key(key)) if principal else None


def customer_id(connection: Connection) -> str:
    """Return the customer whose key it is; for routes that are `CUSTOMERS_ONLY`."""
    assert connection.user.customer_id is not None
    return connection.user.customer_id


def tenant(connection: Connection) -> str | None:
    """Return the customer whose things the key may see; None for an operator, who sees everybody's.

    For routes that are `CUSTOMERS_ONLY` and `ADMINS_TOO`.
    """
    return None if connection.user.kind is KeyKind.ADMIN else customer_id(connection)


def actor(connection: Connection) -> Actor:
    """Return who acts, for the audit log."""
    return Actor(connection.auth)


def reader(principal: Principal) -> str:
    """Return for whom long reads and places are counted: the customer, or the operator's key."""
    found = principal.customer_id or principal.admin_key_id
    assert found is not None  # annotators read nothing that takes long
    return found


def names_shown(principal: Principal, settings: Settings) -> AnnotatorNames:
    """Return whose names the key may see beside annotators' ids."""
    return AnnotatorNames.ALL if principal.kind is KeyKind.ADMIN else settings.annotator_names


def annotator_no(connection: Connection) -> int:
    """Return the annotator whose key it is; for routes that are `ANNOTATORS_ONLY`."""
    assert connection.user.annotator_no is not None
    return connection.user.annotator_no


def reviewer_no(connection: Connection) -> int:
    """Return the annotator whose key it is, which has the role of a reviewer.

    Raises:
        ApiError: it has not.
    """
    if not connection.user.is_reviewer:
        raise not_a_reviewer()
    return annotator_no(connection)
