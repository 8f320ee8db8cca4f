"""Who sent a request, and whether they still wait for the answer."""

import time
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

from litestar.types import Scope

_STATE = "requester"
GONE_S = 1.0
"""How long work goes on for a client that has hung up, who may have wanted it done all the same."""


class Requester:
    """The sender of one request: its shares of the places, and whether the client has hung up.

    A share is a name, and the part of the places (0 to 1) that all requests of that name may use.
    """

    def __init__(self, shares: Mapping[str, float]) -> None:
        self.shares = shares
        self._gone_s: float | None = None

    def count_in(self, shares: Mapping[str, float]) -> None:
        """Count what is called from now on in these shares as well."""
        self.shares = {**self.shares, **shares}

    def has_gone(self, since_s: float) -> bool:
        """Return whether the client hung up `since_s` seconds ago or earlier."""
        return self._gone_s is not None and self._gone_s + since_s <= time.monotonic()

    def leave(self) -> None:
        """Note that the client has hung up."""
        self._gone_s = time.monotonic()


_NOBODY = Requester({})
_current: ContextVar[Requester] = ContextVar("requester")


def current() -> Requester:
    """Return the sender of the request that is being answered; nobody before its key is known."""
    return _current.get(_NOBODY)


def note(scope: Scope, requester: Requester) -> None:
    """Record `requester` as the sender of the request of `scope`."""
    _current.set(requester)
    scope["state"][_STATE] = requester


def note_hangup(scope: Mapping[str, Any]) -> None:
    """Tell the requester of `scope`, if it is known already, that the client has gone."""
    requester = scope.get("state", {}).get(_STATE)
    if requester is not None:
        requester.leave()
