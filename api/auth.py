"""API keys: who a request is from, and what kind of key may do what."""

from typing import Any

import anyio.to_thread
from litestar.connection import ASGIConnection
from litestar.exceptions import NotAuthorizedException, PermissionDeniedException
from litestar.handlers import BaseRouteHandler
from litestar.middleware import AbstractAuthenticationMiddleware, AuthenticationResult

from blocks.store import customers
from blocks.store.customers import Principal
from blocks.store.database import Database

_KEY_CHARACTERS_MAX = 100

Connection = ASGIConnection[Any, Principal, Any, Any]


class ApiKeyMiddleware(AbstractAuthenticationMiddleware):
    """Sets `request.user` to the `Principal` whose key came as `Authorization: Bearer <key>`."""

    async def authenticate_request(
        self, connection: ASGIConnection[Any, Any, Any, Any]
    ) -> AuthenticationResult:
        scheme, _, key = connection.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not 0 < len(key.strip()) <= _KEY_CHARACTERS_MAX:
            raise NotAuthorizedException
        database: Database = connection.app.state.database
        principal = await anyio.to_thread.run_sync(_find, database, key.strip())
        if principal is None:
            raise NotAuthorizedException
        return AuthenticationResult(user=principal, auth=None)


def _find(database: Database, key: str) -> Principal | None:
    with database.transaction() as tx:
        return customers.find_principal(tx, key)


def customers_only(connection: Connection, _: BaseRouteHandler) -> None:
    """A guard: 403 for any but a customer's key."""
    if connection.user.customer_id is None:
        raise PermissionDeniedException


def annotators_only(connection: Connection, _: BaseRouteHandler) -> None:
    """A guard: 403 for any but an annotator's key."""
    if connection.user.annotator_no is None:
        raise PermissionDeniedException
