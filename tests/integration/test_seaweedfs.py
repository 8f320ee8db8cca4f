"""The bundled store's other doors are shut: nothing is behind them for whoever has no key."""

import httpx
import pytest

from deployments.object_stores import ObjectStoreAddress
from deployments.ports import LOOPBACK, Ports
from tests.integration.test_buckets_contract import MIB, S3Store, write

pytestmark = pytest.mark.integration

UNAUTHORIZED = 401
CANARY = b"canary" * MIB  # more than the filer keeps within its own entries


@pytest.fixture
def store(object_store: ObjectStoreAddress) -> S3Store:
    found = S3Store(object_store)
    found.put("secret", CANARY)
    return found


@pytest.mark.parametrize("port", ["filer.port", "volume.port"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "POST", "DELETE"])
def test_a_plain_request_is_refused(store: S3Store, ports: Ports, port: str, method: str) -> None:
    where = f"http://{LOOPBACK}:{ports.port(f'seaweedfs.{port}')}"
    paths = ["/buckets/", f"/buckets/{store.name}/", f"/buckets/{store.name}/secret"]
    for path in paths if port == "filer.port" else ["/1,01637037d6", "/2,01637037d6"]:
        answer = httpx.request(method, where + path)
        assert answer.status_code == UNAUTHORIZED, path
        assert CANARY[:60] not in answer.content
    assert store.get("secret") == CANARY


def test_the_store_itself_reads_and_writes_in_parts_as_before(store: S3Store) -> None:
    bucket = store.open()
    write(bucket, "large", CANARY * 3)
    pin = bucket.stat("large")
    assert bucket.read("large", pin, 6 * MIB, 6 * MIB + 12) == b"canarycanary"
    bucket.delete("large")
    assert [entry.key for entry in bucket.entries("")] == ["secret"]
