"""Sessions of browsers: sign in with a key or a link, see who is signed in, sign out."""

from collections.abc import Iterator
from datetime import datetime
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any, Literal

import msgspec
from litestar import Request, Response, delete, get, post
from litestar.di import NamedDependency
from litestar.exceptions import NotAuthorizedException
from litestar.params import JSONBody
from msgspec import Meta

from api import session_cookies
from api.auth import KeyRing, RateLimits, admit, owner_of
from api.http.errors import ApiError
from api.http.rate_limits import address_of, note_rate
from api.http.refusals import refusals
from blocks import logs
from blocks.bodies.fields import Body, Fault, RawObject
from blocks.settings import Settings
from blocks.store import customers, sessions
from blocks.store.customers import Principal
from blocks.store.database import Database
from blocks.store.sessions import Begun, Owner

logger = logs.get_logger("refinery.auth")

_BODY_BYTES_MAX = 4096
_Text = Annotated[str, Meta(min_length=1, max_length=100)]
_NULL = b"null"
Role = Literal["annotator", "reviewer", "customer", "admin"]


class SignInBody(Body, frozen=True, forbid_unknown_fields=True):
    """A key, or the token of a sign-in link: one of the two."""

    key: _Text | None = None
    """An API key."""
    link: _Text | None = None
    """What stands after `#` in a sign-in link. It is good once."""

    @classmethod
    def related_faults(cls, raw: RawObject) -> Iterator[Fault]:
        """Yield a fault unless there is one of the two."""
        if len([name for name in ("key", "link") if bytes(raw.get(name, _NULL)) != _NULL]) != 1:
            yield Fault("key", "Send either key or link.")


class SessionView(msgspec.Struct, frozen=True):
    """Who is signed in."""

    role: Role
    """What the key may do."""
    owner_id: str
    """The id of the customer or the annotator; of an operator, that of the key."""
    name: str
    """Their name."""
    csrf_token: str | None
    """What the page sends as `X-CSRF-Token` with what changes something; null with a key."""


class SignedIn(SessionView, frozen=True):
    """Who is signed in now, and until when."""

    expires_at: datetime
    """When the session ends."""


def _link_is_over() -> ApiError:
    return ApiError(
        HTTPStatus.UNAUTHORIZED,
        "link_used",
        "This link was used before, or is too old. Ask for another one, or sign in with the key.",
    )


@post(
    "/",
    operation_id="sign_in",
    summary="Sign in",
    status_code=HTTPStatus.OK,
    security=[{}],
    exclude_from_auth=True,
    request_max_body_size=_BODY_BYTES_MAX,
    responses=refusals(_link_is_over(), takes=SignInBody, any_key=True),
)
async def sign_in(
    request: Request[Any, Any, Any],
    data: JSONBody[SignInBody],
    lookups: NamedDependency[Database],
    settings: NamedDependency[Settings],
) -> Response[SignedIn]:
    """Begin a session of this browser: a cookie that no script can read. A session that it had ends."""
    session_cookies.refuse_other_sites(request)
    limits: RateLimits = request.app.state.rate_limits
    keys: KeyRing = request.app.state.key_ring
    address = address_of(request)
    if data.key is None:
        limits.wrong_keys.check(address)
    else:
        await admit(request, data.key)
    earlier = session_cookies.token_of(request)
    begin = partial(_begin, lookups, data, earlier, session_s=settings.session_s)
    found = await request.app.state.threads.keys.run(begin)
    if found is None:
        limits.note_wrong(address)
        raise NotAuthorizedException if data.link is None else _link_is_over()
    begun, owner = found
    if data.key is None:  # a link is used up by now, so it is too late to refuse it
        who = begun.session.principal
        rate = limits.keys.charge(owner_of(who), 1, limit=who.requests_per_minute_max)
        note_rate(request.scope, rate)
    if earlier is not None:
        keys.forget(earlier)
    key_id = customers.id_of(begun.session.key_hash)
    logger.info("session.begun", owner_id=owner.owner_id, key_id=key_id, address=address)
    csrf_token = sessions.csrf_token(begun.token)
    role = _role(begun.session.principal)
    view = SignedIn(role, owner.owner_id, owner.name, csrf_token, begun.expires_at)
    cookie = session_cookies.make(request, begun.token, age_s=settings.session_s)
    return Response(view, cookies=[cookie])


def _begin(
    database: Database, data: SignInBody, earlier: str | None, *, session_s: int
) -> tuple[Begun, Owner] | None:
    with database.transaction() as tx:
        if data.key is not None:
            begun = sessions.begin(tx, data.key, session_s=session_s)
        else:
            begun = sessions.begin_by_link(tx, data.link or "", session_s=session_s)
        if begun is None:
            return None
        if earlier is not None:
            sessions.end(tx, earlier)
        return begun, sessions.describe(tx, begun.session.principal)


@get(
    "/",
    operation_id="get_session",
    summary="Who is signed in",
    sync_to_thread=True,
    responses=refusals(any_key=True),
)
def read(request: Request[Principal, Any, Any], database: NamedDependency[Database]) -> SessionView:
    """Return whose session it is; or whose key, where one came."""
    with database.transaction() as tx:
        owner = sessions.describe(tx, request.user)
    token = session_cookies.token_of(request)
    csrf_token = sessions.csrf_token(token) if token else None
    return SessionView(_role(request.user), owner.owner_id, owner.name, csrf_token)


@delete(
    "/",
    operation_id="sign_out",
    summary="Sign out",
    status_code=HTTPStatus.NO_CONTENT,
    sync_to_thread=True,
    responses=refusals(any_key=True),
)
def sign_out(
    request: Request[Principal, Any, Any], database: NamedDependency[Database]
) -> Response[None]:
    """End the session, and delete its cookie. The key stays good; sent by a key, this does nothing."""
    token = session_cookies.token_of(request)
    if token is None:
        return Response(None)
    with database.transaction() as tx:
        sessions.end(tx, token)
    keys: KeyRing = request.app.state.key_ring
    keys.forget(token)
    return Response(None, cookies=[session_cookies.make(request, "", age_s=0)])


def _role(principal: Principal) -> Role:
    return "reviewer" if principal.is_reviewer else principal.kind.value


HANDLERS = [sign_in, read, sign_out]
