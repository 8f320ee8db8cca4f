"""The identity of the machine: blocks of operators have it, and customers never."""

import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prefect_aws import AwsCredentials
from prefect_aws.client_parameters import AwsClientParameters
from prefect_gcp import GcpCredentials
from pydantic import SecretStr

from blocks.bodies.jobs import JobBody
from blocks.bodies.reading import read_body
from blocks.buckets.opening import open_bucket
from blocks.domain.errors import RefineryError
from blocks.domain.object_urls import StoreType
from blocks.prefect.blocks import ManifestSource, UnusableBlock
from blocks.secrets.credentials import credentials_type, decode_credentials
from blocks.secrets.egress import Egress
from blocks.secrets.machine_identity import MachineIdentity, NoIdentity
from blocks.settings import Settings
from deployments.embedded.object_stores import ObjectStoreAddress
from tests.support.faulty_store import FaultyStore, Refusal
from tests.support.metadata_server import MetadataServer, on_a_machine_of_theirs
from tests.support.stores import S3Store

pytestmark = pytest.mark.integration

SETTINGS = Settings(
    database_url="postgresql://x/y", encryption_key="ab" * 32, egress_allow="127.0.0.1"
)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    shutil.rmtree(tmp_path, ignore_errors=True)


@pytest.fixture
def machine(
    monkeypatch: pytest.MonkeyPatch, folder: Path, object_store: ObjectStoreAddress
) -> Iterator[MetadataServer]:
    """A machine whose role may use the tests' store."""
    key, secret = object_store.access_key_id, object_store.secret_access_key
    with on_a_machine_of_theirs(monkeypatch, folder, key, secret) as server:
        yield server


def of_amazon(endpoint_url: str, **fields: Any) -> AwsCredentials:
    parameters = AwsClientParameters(endpoint_url=endpoint_url)
    return AwsCredentials(aws_client_parameters=parameters, region_name="us-east-1", **fields)


def test_a_block_of_amazons_without_a_key_has_the_role_of_the_machine(
    machine: MetadataServer, object_store: ObjectStoreAddress
) -> None:
    store = S3Store(object_store)
    store.put("one.jsonl", b"{}")
    block = of_amazon(object_store.endpoint_url)
    source = ManifestSource(bucket_url=f"s3://{store.name}", aws_credentials=block)
    url = msgspec.structs.replace(source.place, key="one.jsonl")
    bucket = source.open(SETTINGS, url)
    assert machine.asked == []  # nothing is asked for before it is needed
    pin = bucket.stat("one.jsonl")
    assert bucket.read("one.jsonl", pin, 0, 2) == b"{}"
    assert machine.count("/iam/security-credentials/refinery-worker") == 1
    with bucket.write("two.jsonl") as file:
        file.write(b"[]")
    assert store.get("two.jsonl") == b"[]"


def test_the_role_is_asked_for_again_before_it_expires(
    machine: MetadataServer, object_store: ObjectStoreAddress
) -> None:
    store = S3Store(object_store)
    store.put("one.jsonl", b"{}")
    block = of_amazon(object_store.endpoint_url)
    source = ManifestSource(bucket_url=f"s3://{store.name}", aws_credentials=block)
    bucket: Any = source.open(SETTINGS, source.place)
    for asked in (1, 1):
        bucket.stat("one.jsonl")
        assert machine.count("/iam/security-credentials/refinery-worker") == asked
    found = bucket._fs.session._machine._credentials
    found._expiry_time = datetime.now(UTC) + timedelta(minutes=5)
    bucket.stat("one.jsonl")
    assert machine.count("/iam/security-credentials/refinery-worker") == 2


def test_a_block_of_googles_without_a_service_account_has_the_account_of_the_machine(
    machine: MetadataServer, gcs_url: str
) -> None:
    source = ManifestSource(bucket_url="gs://machine", gcp_credentials=GcpCredentials())
    settings = msgspec.structs.replace(SETTINGS, gcs_endpoint_url=gcs_url)
    bucket: Any = source.open(settings, source.place)
    assert machine.count("/token") == 1
    assert bucket._fs.credentials.credentials.token == "ya29.machine"
    with pytest.raises(RefineryError, match="no bucket 'machine'"):
        bucket.stat("one.jsonl")


def test_a_machine_without_an_identity_says_so_and_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for profile in (None, "nobody"):
        identity = MachineIdentity(
            region="us-east-1", endpoint_url="http://127.0.0.1:1", profile=profile
        )
        bucket = open_bucket(StoreType.S3, "b", identity, egress=Egress("127.0.0.1"))
        with pytest.raises(NoIdentity, match=r"holds no key, and this machine has no identity"):
            bucket.stat("key")


def test_a_key_of_the_machines_that_has_ended_fails_no_job(
    machine: MetadataServer, object_store: ObjectStoreAddress
) -> None:
    with FaultyStore(object_store.endpoint_url) as proxy:
        proxy.always(Refusal(400, "ExpiredToken"), lambda _: True)
        source = ManifestSource(bucket_url="s3://bucket", aws_credentials=of_amazon(proxy.url))
        bucket = source.open(SETTINGS, msgspec.structs.replace(source.place, key="m.jsonl"))
        with pytest.raises(NoIdentity, match="has expired"):
            bucket.stat("m.jsonl")


def test_nothing_is_signed_by_the_machine(machine: MetadataServer) -> None:
    sources = [
        ManifestSource(bucket_url="s3://bucket", aws_credentials=of_amazon("http://127.0.0.1:1")),
        ManifestSource(bucket_url="gs://bucket", gcp_credentials=GcpCredentials()),
    ]
    for source in sources:
        with pytest.raises(UnusableBlock, match=r"hold no key to sign .* sign_urls to false"):
            source.read_key()


@pytest.mark.parametrize(
    "fields",
    [{"aws_access_key_id": "AKIA"}, {"aws_secret_access_key": SecretStr("s")}],
)
def test_half_a_key_is_no_identity(machine: MetadataServer, fields: dict[str, Any]) -> None:
    block = of_amazon("http://127.0.0.1:1", **fields)
    with pytest.raises(UnusableBlock):
        ManifestSource(bucket_url="s3://bucket", aws_credentials=block).read_credentials()
    assert machine.asked == []


def federated(host: str, kind: str) -> str:
    """A key file that would have Google's libraries ask the metadata server."""
    return json.dumps(
        {
            "type": kind,
            "audience": "//iam.googleapis.com/x",
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "token_url": f"http://{host}/token",
            "credential_source": {"url": f"http://{host}/computeMetadata/v1/token"},
            "client_email": "a@b.iam.gserviceaccount.com",
            "private_key": "none",
        }
    )


def hostile(host: str) -> list[tuple[StoreType, Any]]:
    """What a customer may send as credentials to be taken for the machine."""
    s3 = {"access_key_id": "A", "secret_access_key": "s", "region": "us-east-1"}
    amazons: list[Any] = [
        {},
        [],
        "",
        "machine",
        {"region": "us-east-1"},
        {"region": "us-east-1", "endpoint_url": "http://127.0.0.1:1", "profile": None},
        ["us-east-1", "http://127.0.0.1:1", None],
        {"credentials_block": "etl"},
        {"aws_credentials": {}},
        {"profile_name": "default"},
        s3 | {"access_key_id": ""},
        s3 | {"access_key_id": None},
        s3 | {"secret_access_key": None},
        s3 | {"access_key_id": None, "secret_access_key": None},
        s3 | {"profile": "default"},
        s3 | {"assume_role_arn": "arn:aws:iam::1:role/x"},
        {"service_account_json": ""},
    ]
    googles: list[Any] = [
        {},
        {"gcp_credentials": {}},
        {"service_account_json": ""},
        {"service_account_json": None},
        {"service_account_json": "{}"},
        {"service_account_json": "google_default"},
        {"service_account_json": "cloud"},
        {"service_account_file": "/etc/passwd"},
        *(
            {"service_account_json": federated(host, kind)}
            for kind in (
                "external_account",
                "authorized_user",
                "impersonated_service_account",
                "gdch_service_account",
            )
        ),
    ]
    return [
        *((StoreType.S3, each) for each in amazons),
        *((StoreType.GCS, each) for each in googles),
    ]


def test_no_credentials_of_a_customer_are_taken_for_the_machines(machine: MetadataServer) -> None:
    """In the body of a job, and, had it come through, in what is sealed."""
    for store, credentials in hostile(machine.host):
        body = {
            "manifest_url": f"{'s3' if store is StoreType.S3 else 'gs'}://bucket/one.jsonl",
            "label_spec": {"question": "?", "options": ["a", "b"]},
            "credentials": credentials,
        }
        job, faults = read_body(msgspec.json.encode(body), JobBody)
        assert job is None or list(faults), credentials
        with pytest.raises((msgspec.ValidationError, RefineryError)):
            _open(store, msgspec.json.encode(credentials))
    for block in ("credentials_block", "block_delivers_to", "aws_credentials"):
        extra = {
            "manifest_url": "s3://bucket/one.jsonl",
            "label_spec": {"question": "?", "options": ["a", "b"]},
            block: "etl",
        }
        job, faults = read_body(msgspec.json.encode(extra), JobBody)
        assert job is None or list(faults), block
    assert machine.asked == []


def _open(store: StoreType, sealed: bytes) -> None:
    found = decode_credentials(store, sealed)
    assert isinstance(found, credentials_type(store))
    open_bucket(store, "bucket", found, egress=Egress()).stat("one.jsonl")


def test_no_client_of_a_customer_reaches_the_metadata_server(machine: MetadataServer) -> None:
    """As a store it is a private address, and an anonymous client asks it for nothing."""
    for endpoint_url in (f"http://{machine.host}", f"http://localhost:{machine.server_port}"):
        keys = {"access_key_id": "A", "secret_access_key": "s", "region": "us-east-1"}
        with pytest.raises(RefineryError, match="not a public address"):
            _open(StoreType.S3, msgspec.json.encode(keys | {"endpoint_url": endpoint_url}))
    assert decode_credentials(StoreType.S3, None) is None
    anonymous: Any = open_bucket(StoreType.S3, "bucket", None, egress=Egress())
    assert anonymous._fs.anon
    assert machine.asked == []
