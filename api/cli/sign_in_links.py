"""Links by which a browser signs in once, without a key: `keys link`, and beside each new key."""

from typing import Annotated

from cyclopts import Parameter

from api.cli.database import open_database, operator
from api.cli.exits import CommandFailed, Exit
from blocks.settings import ClientSettings, Settings
from blocks.store import audit, keys, sessions
from blocks.store.audit import Action
from blocks.store.database import Transaction


def print_link(
    owner: Annotated[
        str,
        Parameter(
            help="Whose: a customer by id, or an annotator by id or name; their newest key signs in. Or "
            "the id of a key, `key_…`."
        ),
    ],
) -> None:
    """Print a link that signs one browser in, once.

    Whoever has the link can use it, so send it to nobody else. What follows `#` is secret.
    """
    link_s = Settings.from_environment().sign_in_link_s
    with open_database() as database, database.transaction() as tx:
        try:
            key_id, token = sessions.add_link_of(tx, owner, link_s=link_s)
        except sessions.NoSuchKey as error:
            raise CommandFailed(error.message, Exit.NOT_FOUND) from error
        key = keys.find(tx, None, key_id)
        target = audit.key(key_id, key.customer_id if key else None)
        audit.record(tx, operator(), Action.SIGN_IN_LINK_MADE, target)
    print(f"key_id     {key_id}\nsign_in    {url_of(token)}")


def new_link(tx: Transaction, key: str) -> str:
    """Return a link for a key that was just made."""
    token = sessions.add_link(tx, key, link_s=Settings.from_environment().sign_in_link_s)
    assert token is not None  # the key is good
    return url_of(token)


def url_of(token: str) -> str:
    """Return the link, at the API's address as this shell or the settings know it."""
    public = Settings.from_environment().public_url
    address = public or ClientSettings.from_environment().api_url or "<the API>"
    return f"{address.rstrip('/')}/#{token}"
