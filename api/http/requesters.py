"""Whom a request is from, and whether they still wait for the answer."""

import time
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

from litestar.types import Scope

_STATE = "requester"
GONE_S = 1.0
"""How long work goes on for a client that has hung up: it may have wanted it done."""


class Requester:
    """The shares of all places that requests of one key count in, and whether the client has hung up.

    A share is a name and the part of the places (0 to 1) that all who have that name may use at once.
    """

    def __init__(self, shares: Mapping[str, float]) -> None:
        self.shares = shares
        self._gone_s: float | None = None

    def count_in(self, shares: Mapping[str, float]) -> None:
        """Let what is asked for from now on count in other shares too."""
        self.shares = {**self.shares, **shares}

    def has_gone(self, since_s: float) -> bool:
        """Whether the client has hung up, `since_s` seconds ago or earlier."""
        return self._gone_s is not None and self._gone_s + since_s <= time.monotonic()

    def leave(self) -> None:
        """Note that the client has hung up."""
        self._gone_s = time.monotonic()


_NOBODY = Requester({})
_current: ContextVar[Requester] = ContextVar("requester")


def current() -> Requester:
    """Whom the request that is being answered is from; before its key is known, nobody."""
    return _current.get(_NOBODY)


def note(scope: Scope, requester: Requester) -> None:
    """Let the request of `scope` be from `requester`, also for the server."""
    _current.set(requester)
    scope["state"][_STATE] = requester


def note_hangup(scope: Mapping[str, Any]) -> None:
    """Have the requester of `scope`, if it is known already, be told that the client has gone."""
    requester = scope.get("state", {}).get(_STATE)
    if requester is not None:
        requester.leave()
