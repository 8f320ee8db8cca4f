"""What commands need of a running stack: a file to source, mode 600."""

import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from deployments.embedded.private_files import write_private
from deployments.embedded.stack import Stack

_FILE = "environment"
REGION = "us-east-1"  # SeaweedFS takes any


@contextmanager
def kept_environment(stack: Stack) -> Iterator[None]:
    """Keep it in `<data_dir>/environment` while the block runs."""
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
    """As a shell reads it."""
    lines = [f"export {name}={shlex.quote(value)}\n" for name, value in environment.items()]
    return "".join(lines)


def load_environment(data_dir: Path) -> dict[str, str]:
    """What `kept_environment` keeps there; nothing if no stack runs, or one of somebody else."""
    try:
        words = shlex.split((data_dir / _FILE).read_text())
    except OSError:
        return {}
    return dict(word.split("=", 1) for word in words if "=" in word)
