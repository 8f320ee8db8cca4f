"""API keys: whose request it is, and which kind of key may do what."""

import threading
from time import monotonic
from typing import Any, NamedTuple

from cachetools import LRUCache
from litestar.connection import ASGIConnection
from litestar.exceptions import NotAuthorizedException
from litestar.middleware import AbstractAuthenticationMiddleware, AuthenticationResult

from api.http import requesters
from api.http.errors import ANNOTATORS_KEY, CUSTOMERS_KEY, wrong_key
from api.http.rate_limits import REQUESTS, TokenBuckets, address_of, note_rate
from api.http.requesters import Requester
from blocks.settings import Settings
from blocks.store import customers
from blocks.store.customers import Principal
from blocks.store.database import Database

_KEY_CHARACTERS_MAX = 100
# Looking a key up takes longer than serving a small request. A revoked key is refused after this time.
_TRUSTED_S = 1.0
_FOUND_KEYS_MAX = 10_000
# Shares of the places for requests. An annotator's claims wait for each other, so one needs few.
_CUSTOMER_SHARE = 1 / 2
_ANNOTATORS_SHARE = 3 / 4
_ANNOTATOR_SHARE = 1 / 4

Connection = ASGIConnection[Any, Principal, Any, Any]

_TAKES = "takes_key_of"
CUSTOMERS_ONLY = {_TAKES: "customer"}
"""The `opt` of a router whose routes refuse any key but a customer's, with 403."""
ANNOTATORS_ONLY = {_TAKES: "annotator"}
"""The same for annotators' keys."""


class ApiKeyMiddleware(AbstractAuthenticationMiddleware):
    """Set `request.user` to the `Principal` whose key came as `Authorization: Bearer <key>`."""

    async def authenticate_request(
        self, connection: ASGIConnection[Any, Any, Any, Any]
    ) -> AuthenticationResult:
        scheme, _, rest = connection.headers.get("Authorization", "").partition(" ")
        key = rest.strip()
        if scheme.lower() != "bearer" or not 0 < len(key) <= _KEY_CHARACTERS_MAX:
            raise NotAuthorizedException
        keys: KeyRing = connection.app.state.key_ring
        limits: RateLimits = connection.app.state.rate_limits
        principal = keys.recall(key)
        if principal is None:
            address = address_of(connection.client.host if connection.client else "")
            # Refuse before a thread and a query are spent. A key that was good before is always looked
            # up, so that somebody who shares its address cannot shut it out.
            if not keys.is_familiar(key):
                limits.wrong_keys.check(address)
            principal = await connection.app.state.threads.keys.run(keys.find, key)
            if principal is None:
                limits.wrong_keys.take(address)
                raise NotAuthorizedException
        note_rate(connection.scope, limits.keys.take(customers.hash_key(key)))
        requesters.note(connection.scope, Requester(_shares(principal)))
        _refuse_other_kinds(principal, connection.route_handler.opt.get(_TAKES))
        return AuthenticationResult(user=principal, auth=None)


def _shares(principal: Principal) -> dict[str, float]:
    if principal.customer_id is not None:
        return {principal.customer_id: _CUSTOMER_SHARE}
    return {
        "annotators": _ANNOTATORS_SHARE,
        f"annotator {principal.annotator_no}": _ANNOTATOR_SHARE,
    }


def _refuse_other_kinds(principal: Principal, wanted: str | None) -> None:
    # Not a guard: Litestar copies the handler for each guard of each request.
    if wanted == "customer" and principal.customer_id is None:
        raise wrong_key(wanted=CUSTOMERS_KEY, given=ANNOTATORS_KEY)
    if wanted == "annotator" and principal.annotator_no is None:
        raise wrong_key(wanted=ANNOTATORS_KEY, given=CUSTOMERS_KEY)


class RateLimits:
    """The counts of one process: requests by key, wrong keys by address."""

    def __init__(self, settings: Settings) -> None:
        self.keys = TokenBuckets(REQUESTS, settings.requests_per_minute_max)
        self.wrong_keys = TokenBuckets(REQUESTS, settings.wrong_keys_per_minute_max)


class _Found(NamedTuple):
    principal: Principal
    until_s: float


class KeyRing:
    """Finds whose a key is: in the database, and for a second in memory. Several threads may use it.

    Keys that were good are remembered for longer than that, the latest 10,000 that came.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._found: LRUCache[bytes, _Found] = LRUCache(_FOUND_KEYS_MAX)
        self._lock = threading.Lock()

    def recall(self, key: str) -> Principal | None:
        """Return whose key it is, if it was found within the last second."""
        with self._lock:
            found = self._found.get(customers.hash_key(key))
        return found.principal if found and monotonic() < found.until_s else None

    def is_familiar(self, key: str) -> bool:
        """Return whether `key` was good when it was last looked up; it may have been revoked since."""
        with self._lock:
            return customers.hash_key(key) in self._found

    def find(self, key: str) -> Principal | None:
        """Return whose key it is, or None if it is nobody's.

        Raises:
            DatabaseUnavailable: the database does not answer.
        """
        with self._database.transaction() as tx:
            principal = customers.find_principal(tx, key)
        with self._lock:
            if principal is None:
                self._found.pop(customers.hash_key(key), None)
            else:
                self._found[customers.hash_key(key)] = _Found(principal, monotonic() + _TRUSTED_S)
        return principal


def customer_id(connection: Connection) -> str:
    """Return the customer whose key it is; for routes that are `CUSTOMERS_ONLY`."""
    assert connection.user.customer_id is not None
    return connection.user.customer_id


def annotator_no(connection: Connection) -> int:
    """Return the annotator whose key it is; for routes that are `ANNOTATORS_ONLY`."""
    assert connection.user.annotator_no is not None
    return connection.user.annotator_no
