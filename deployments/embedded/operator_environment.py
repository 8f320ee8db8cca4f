"""Keep what commands need of a running stack in a file to source, of mode 600."""

import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from api.cli.admin import record_key
from blocks.store import customers
from blocks.store.database import Database
from blocks.store.keys import KeyRole
from deployments.embedded.private_files import write_private
from deployments.embedded.stack import Stack

_FILE = "environment"
_FIRST_KEYS = "first-keys"
REGION = "us-east-1"  # SeaweedFS accepts any region


@contextmanager
def keep_environment(stack: Stack) -> Iterator[None]:
    """Keep the stack's variables in `<data_dir>/environment` while the block runs."""
    path = stack.data_dir / _FILE
    environment = {**stack.environment, "REFINERY_API_URL": stack.api_url}
    if store := stack.object_store:
        environment |= {
            "AWS_ACCESS_KEY_ID": store.access_key_id,
            "AWS_SECRET_ACCESS_KEY": store.secret_access_key,
            "AWS_ENDPOINT_URL": store.endpoint_url,
            "AWS_DEFAULT_REGION": REGION,
        }
    write_private(path, export(environment))
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def export(environment: Mapping[str, str]) -> str:
    """Return the variables as lines for a shell: `export NAME=value`."""
    lines = [f"export {name}={shlex.quote(value)}\n" for name, value in environment.items()]
    return "".join(lines)


def load_environment(data_dir: Path) -> dict[str, str]:
    """Return the variables that `keep_environment` keeps; none if no stack of this user runs."""
    return _load(data_dir / _FILE)


def first_keys(data_dir: Path, database_url: str) -> dict[str, str]:
    """Return keys of a customer and of an annotator, as variables; the same ones each time.

    They are made if there are none or if they were revoked, and kept in `<data_dir>/first-keys`.
    """
    path = data_dir / _FIRST_KEYS
    kept = _load(path)
    with Database(database_url, connections_max=1) as database, database.transaction() as tx:
        if kept and all(customers.find_principal(tx, key) for key in kept.values()):
            return kept
        customer_id = customers.add_customer(tx, "first customer")
        made = {
            "REFINERY_API_KEY": customers.add_customer_key(tx, customer_id),
            "REFINERY_ANNOTATOR_KEY": customers.add_annotator_key(tx, "first annotator")[1],
        }
        record_key(tx, made["REFINERY_API_KEY"], KeyRole.CUSTOMER, customer_id)
        record_key(tx, made["REFINERY_ANNOTATOR_KEY"], KeyRole.ANNOTATOR, None)
        # Written before the commit, so that no key is valid that nobody has.
        write_private(path, export(made))
    return made


def _load(path: Path) -> dict[str, str]:
    try:
        words = shlex.split(path.read_text("utf-8"))
    except OSError:
        return {}
    return dict(word.split("=", 1) for word in words if "=" in word)
