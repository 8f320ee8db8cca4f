"""What a client of S3 has to know of its service, read once a process instead of for each client."""

from functools import lru_cache

import botocore.loaders
from aiobotocore.session import AioSession


@lru_cache(maxsize=1)
def _loader() -> botocore.loaders.Loader:
    """Keeps what it has read: some megabytes of JSON, a tenth of a second."""
    return botocore.loaders.create_loader()


def new_session() -> AioSession:
    """A session whose clients find what earlier ones have read."""
    session = AioSession()
    session.register_component("data_loader", _loader())
    return session


def load() -> None:
    """Read what every client needs, but make none: it would look for the machine's own credentials."""
    for kind in ("service-2", "endpoint-rule-set-1"):
        _loader().load_service_model("s3", kind)
    for name in ("endpoints", "partitions", "sdk-default-configuration", "_retry"):
        _loader().load_data(name)
