"""Make links that sign a browser in as each kind of person, for a look at the pages of a new stack."""

import os
from collections.abc import Mapping

from api.cli.admin import record_key
from blocks.settings import Settings
from blocks.store import customers, sessions
from blocks.store.database import Database, Transaction
from blocks.store.keys import KeyRole
from deployments.embedded.operator_environment import first_keys
from deployments.embedded.stack import Stack

_REVIEWER = "first reviewer"
_OPERATOR = "first operator"


def make_links(stack: Stack, keys: Mapping[str, str]) -> str:
    """Return lines with a new link for each key, by what its owner is."""
    link_s = _link_s(stack)
    with Database(stack.database_url, connections_max=1) as database, database.transaction() as tx:
        tokens = {who: sessions.add_link(tx, key, link_s=link_s) for who, key in keys.items()}
    return _lines(stack, tokens)


def make_first_links(stack: Stack) -> str:
    """Return links for the customer and the annotator of `env --quickstart`, a reviewer, an operator.

    The people are made the first time, and are the same ones each time.
    """
    link_s = _link_s(stack)
    kept = first_keys(stack.data_dir, stack.database_url)
    with Database(stack.database_url, connections_max=1) as database, database.transaction() as tx:
        tokens = {
            "annotator": sessions.add_link(tx, kept["REFINERY_ANNOTATOR_KEY"], link_s=link_s),
            "reviewer": _link_of(tx, KeyRole.REVIEWER, _REVIEWER, link_s),
            "customer": sessions.add_link(tx, kept["REFINERY_API_KEY"], link_s=link_s),
            "operator": _link_of(tx, KeyRole.ADMIN, _OPERATOR, link_s),
        }
    return _lines(stack, tokens)


def add_reviewer_key(tx: Transaction, name: str) -> str:
    """Return a new key of the reviewer called `name`."""
    return customers.add_annotator_key(tx, name, is_reviewer=True)[1]


def _link_of(tx: Transaction, role: KeyRole, name: str, link_s: int) -> str | None:
    try:
        return sessions.add_link_of(tx, name, link_s=link_s)[1]
    except sessions.NoSuchKey:
        add_key = customers.add_admin_key if role is KeyRole.ADMIN else add_reviewer_key
        key = add_key(tx, name)
        record_key(tx, key, role, None)
        return sessions.add_link(tx, key, link_s=link_s)


def _link_s(stack: Stack) -> int:
    return Settings.from_environment(os.environ | stack.environment).sign_in_link_s


def _lines(stack: Stack, tokens: Mapping[str, str | None]) -> str:
    links = "".join(f"  {who:12} {stack.api_url}/#{token}\n" for who, token in tokens.items())
    return f"[bold]Sign in[/], with each link once and in one browser, as\n{links}"
