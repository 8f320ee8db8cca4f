"""The bundled store's other doors are shut: nothing is behind them for whoever has no key."""

import json
from pathlib import Path

import httpx
import pytest

from blocks.buckets.opening import open_bucket
from blocks.domain.errors import AddressRefused
from blocks.domain.object_urls import StoreType
from blocks.secrets.credentials import S3Credentials
from blocks.secrets.egress import Egress
from deployments.embedded.object_stores import ObjectStoreAddress
from deployments.embedded.ports import LOOPBACK, Ports
from deployments.embedded.stack import Stack
from tests.support.stores import MIB, S3Store, write

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


def test_customers_of_a_stack_reach_its_store_and_nothing_else_on_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REFINERY_EGRESS_ALLOW", "10.0.0.0/8")
    stack = Stack(tmp_path, object_store=True)
    stack._configure()
    assert "REFINERY_EGRESS_ALLOW" not in stack.environment  # it is passed on as it was
    store = stack._seaweedfs().address
    egress = Egress(stack.environment["REFINERY_EGRESS_ALLOW"])

    def open_at(endpoint_url: str) -> None:
        credentials = S3Credentials(
            access_key_id="x", secret_access_key="x", region="x", endpoint_url=endpoint_url
        )
        open_bucket(StoreType.S3, "buckets", credentials, egress=egress)

    open_at(store.endpoint_url)
    open_at("http://10.0.0.1:9000")
    others = set(json.loads((tmp_path / "ports.json").read_text()).values())
    others -= {int(store.endpoint_url.rpartition(":")[2])}
    assert len(others) > 8
    for port in (22, 80, 5432, *others):
        with pytest.raises(AddressRefused, match=r"127\.0\.0\.1, which is not a public address"):
            open_at(f"http://{LOOPBACK}:{port}")
