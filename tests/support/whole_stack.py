"""The whole stack as processes, once for all tests that share it, and people who use it."""

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import s3fs
from gcsfs.core import GCSFileSystem

from blocks.store import customers
from blocks.store.database import Database
from deployments.embedded.stack import Stack
from tests.support.client import Annotator, Customer, prefect_client
from tests.support.collector import Collector
from tests.support.endpoint import Endpoint
from tests.support.lost_worker import store_credentials
from tests.support.s3_files import open_s3

Look = Callable[[dict[str, Any]], str]


@pytest.fixture(scope="session")
def endpoint(server_dir: Path) -> Iterator[Endpoint]:
    """A customer's, whose certificate the stack trusts."""
    found = Endpoint(server_dir)
    yield found
    found.stop()


@pytest.fixture(scope="session")
def collector() -> Iterator[Collector]:
    """The operators', which gets a span of all that the stack does."""
    found = Collector()
    yield found
    found.stop()


@pytest.fixture(scope="session")
def stack(
    server_dir: Path, gcs_url: str, endpoint: Endpoint, collector: Collector
) -> Iterator[Stack]:
    environment = {
        "REFINERY_EGRESS_ALLOW": "127.0.0.1",
        "REFINERY_GCS_ENDPOINT_URL": gcs_url,
        "SSL_CERT_FILE": str(endpoint.certificate),
        # Small, so that a manifest of a few megabytes has many chunks.
        "REFINERY_CHUNK_BYTES_MIN": "262144",
        "REFINERY_CHUNK_BYTES_MAX": "262144",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        # Less than an attack takes, so that its end is seen.
        "REFINERY_UNREAD_ANSWER_S": "10",
    }
    found = Stack(server_dir / "stack", object_store=True, environment=environment, durable=False)
    found.start(print)
    try:
        yield found
    finally:
        found.stop()


@pytest.fixture(scope="session")
def store(stack: Stack) -> Iterator[Database]:
    with Database(stack.database_url, connections_max=2) as found:
        yield found


@pytest.fixture
def make_customer(stack: Stack, store: Database) -> Iterator[Callable[[], Customer]]:
    made: list[Customer] = []

    def make() -> Customer:
        made.append(new_customer(stack, store))
        return made[-1]

    yield make
    for customer in made:
        customer.http.close()


@pytest.fixture
def customer(make_customer: Callable[[], Customer]) -> Customer:
    return make_customer()


def new_customer(stack: Stack, store: Database) -> Customer:
    """A customer of the stack, with a key and a client that the caller closes."""
    with store.transaction() as tx:
        customer_id = customers.add_customer(tx, "Acme")
        key = customers.add_customer_key(tx, customer_id)
    return Customer(stack.api_url, key, customer_id)


@pytest.fixture
def make_annotator(stack: Stack, store: Database) -> Iterator[Callable[[Look], Annotator]]:
    made: list[Annotator] = []

    def make(look: Look) -> Annotator:
        with store.transaction() as tx:
            _, key = customers.add_annotator_key(tx, f"annotator {secrets.token_hex(4)}")
        made.append(Annotator(stack.api_url, key, look))
        return made[-1]

    yield make
    for annotator in made:
        annotator.http.close()


@pytest.fixture(scope="session")
def s3(stack: Stack) -> s3fs.S3FileSystem:
    assert stack.object_store is not None
    return open_s3(stack.object_store)


@pytest.fixture
def s3_credentials(stack: Stack) -> dict[str, str]:
    return store_credentials(stack)


@pytest.fixture
def s3_bucket(s3: s3fs.S3FileSystem) -> str:
    name = f"bucket-{secrets.token_hex(4)}"
    s3.mkdir(name)
    return name


@pytest.fixture
def gcs(gcs_url: str) -> GCSFileSystem:
    return GCSFileSystem(
        token="anon", endpoint_url=gcs_url, use_listings_cache=False, skip_instance_cache=True
    )


@pytest.fixture
def gcs_bucket(gcs_url: str) -> str:
    name = f"bucket-{secrets.token_hex(4)}"
    httpx.post(f"{gcs_url}/storage/v1/b", json={"name": name}).raise_for_status()
    return name


@pytest.fixture
def prefect(stack: Stack) -> Iterator[httpx.Client]:
    """Prefect's API, as an operator's browser uses it."""
    with prefect_client(stack) as found:
        yield found
