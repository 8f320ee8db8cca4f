"""Where a manifest may lie, under which names, and as whom it is read."""

import functools
import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import boto3
import httpx
import msgspec
import pytest
from google.oauth2.credentials import Credentials

from blocks.buckets import google_accounts
from blocks.buckets.gcs import GcsBucket
from blocks.buckets.opening import open_bucket
from blocks.buckets.s3 import S3Bucket
from blocks.buckets.s3_session import CustomerSession
from blocks.domain.errors import (
    AccessDenied,
    ContentEncodingRefused,
    InvalidCredentials,
    RefineryError,
)
from blocks.domain.object_urls import StoreType, parse_object_url
from blocks.secrets.credentials import GcsCredentials, S3Credentials
from blocks.secrets.egress import Egress
from blocks.store.database import Database
from deployments.embedded.object_stores import ObjectStoreAddress
from flows.process_job import process_job
from flows.running.resources import manifest_of
from tests.support.faulty_store import FaultyStore
from tests.support.flow_world import FlowShop, check_created, flow_settings, run
from tests.support.manifests import make_manifest
from tests.support.stores import GcsStore, S3Store

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

# A store that folds two slashes into one gives these names to the same objects.
SLASHES = ["/leading", "double//slash", "deep/er//still"]
NAMES = [
    "plain.jsonl", "with space", "trailing ", "a+b", "100%", "%2F", "a%2Fb", "a%20b", "%C3%BC", "a#1",
    "a?x=1", "?versionId=1", "a&b", "a=b", "a&b=c;d:e,f", "~", "~.-_", "quote'\"s", "[1]{2}",
    "back\\slash", "Ünï/🦊.jsonl", "decomposed u\u0308", "日本語/マニフェスト.jsonl", *SLASHES,
]  # fmt: skip
S3_FORMS: list[Callable[[str, str], str]] = [
    lambda bucket, key: f"s3://{bucket}/{key}",
    lambda bucket, key: f"https://{bucket}.s3.amazonaws.com/{quote(key)}",
    lambda bucket, key: f"https://{bucket}.s3.eu-central-1.amazonaws.com/{quote(key, safe='')}",
    lambda bucket, key: f"https://s3.eu-central-1.amazonaws.com/{bucket}/{quote(key)}",
]
GCS_FORMS: list[Callable[[str, str], str]] = [
    lambda bucket, key: f"gs://{bucket}/{key}",
    lambda bucket, key: f"https://storage.googleapis.com/{bucket}/{quote(key)}",
    lambda bucket, key: f"https://storage.googleapis.com/{bucket}/{quote(key, safe='')}",
]


@pytest.fixture(scope="module")
def s3(object_store: ObjectStoreAddress) -> Iterator[S3Store]:
    found = S3Store(object_store)
    yield found
    found.client.close()


@pytest.fixture(scope="module")
def gcs(gcs_url: str) -> GcsStore:
    return GcsStore(gcs_url)


def check_forms(
    store: S3Store | GcsStore, name: str, forms: list[Callable[[str, str], str]]
) -> None:
    data = f"the object {name!r}".encode()
    store.put(name, data)
    bucket = store.open()
    for form in forms:
        url = parse_object_url(form(store.name, name))
        assert (url.bucket, url.key) == (store.name, name)
        pin = bucket.stat(url.key)
        assert pin.size == len(data)
        assert bucket.read(url.key, pin, 4, len(data)) == data[4:]


@pytest.mark.parametrize("name", NAMES)
def test_an_object_in_s3_is_found_by_every_form_of_its_url(s3: S3Store, name: str) -> None:
    check_forms(s3, name, S3_FORMS)


@pytest.mark.parametrize("name", [*NAMES, "a/./b", "a/../b"])
def test_an_object_in_gcs_is_found_by_every_form_of_its_url(gcs: GcsStore, name: str) -> None:
    check_forms(gcs, name, GCS_FORMS)


@pytest.mark.parametrize("name", SLASHES)
def test_a_slash_of_a_name_is_not_lost_on_the_way_to_s3(
    s3: S3Store, object_store: ObjectStoreAddress, name: str
) -> None:
    # SeaweedFS folds them itself; S3 does not.
    s3.put(name, b"0123456789")
    with FaultyStore(object_store.endpoint_url) as proxy:
        bucket = s3.open_at(proxy.url)
        bucket.read(name, bucket.stat(name), 0, 5)
        assert {request.target for request in proxy.requests} == {f"/{s3.name}/{name}"}


def test_an_object_of_gcs_that_is_stored_compressed_is_refused(gcs: GcsStore, gcs_url: str) -> None:
    url = f"{gcs_url}/upload/storage/v1/b/{gcs.name}/o"
    parameters = {"uploadType": "media", "name": "packed", "contentEncoding": "gzip"}
    content = gzip.compress(make_manifest(100).data)
    httpx.post(url, params=parameters, content=content).raise_for_status()
    with pytest.raises(ContentEncodingRefused, match="Content-Encoding"):
        gcs.open().stat("packed")


# As whom


@pytest.fixture
def public(s3: S3Store) -> Iterator[None]:
    """Anybody may read the objects of the bucket."""
    statement = {
        "Effect": "Allow",
        "Principal": "*",
        "Action": ["s3:GetObject"],
        "Resource": [f"arn:aws:s3:::{s3.name}/*"],
    }
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    s3.client.put_bucket_policy(Bucket=s3.name, Policy=policy)
    yield
    s3.client.delete_bucket_policy(Bucket=s3.name)


@pytest.fixture
def s3_proxy(
    object_store: ObjectStoreAddress, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FaultyStore]:
    """Stand before the store, and where a client goes that was told of no endpoint.

    Without credentials the contract has no place for an endpoint.
    """
    with FaultyStore(object_store.endpoint_url) as proxy:
        at_proxy = functools.partialmethod(CustomerSession.create_client, endpoint_url=proxy.url)
        monkeypatch.setattr(CustomerSession, "create_client", at_proxy)
        yield proxy


def test_a_public_object_in_s3_is_read_as_nobody(
    s3: S3Store, public: None, s3_proxy: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The server's own identity is never used.
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "the-servers-own")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "the-servers-own")
    s3.put("public", b"0123456789")
    bucket = S3Bucket(s3.name, None, egress=Egress("127.0.0.1"))
    assert bucket.read("public", bucket.stat("public"), 2, 5) == b"234"
    assert len(s3_proxy.requests) == 2
    assert not [r for r in s3_proxy.requests if "authorization" in r.headers]


def test_an_object_in_s3_that_is_not_public_is_not_read_as_nobody(
    s3: S3Store, s3_proxy: FaultyStore
) -> None:
    s3.put("private", b"0123456789")
    with pytest.raises(AccessDenied):
        S3Bucket(s3.name, None, egress=Egress("127.0.0.1")).stat("private")


def test_a_public_object_in_gcs_is_read_as_nobody(
    gcs: GcsStore, gcs_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "the-servers-own.json"))
    gcs.put("public", b"0123456789")
    with FaultyStore(gcs_url) as proxy:
        bucket = gcs.open_at(proxy.url)
        assert bucket.read("public", bucket.stat("public"), 2, 5) == b"234"
        assert len(proxy.requests) == 2
        assert not [r for r in proxy.requests if "authorization" in r.headers]


@pytest.fixture
def temporary(object_store: ObjectStoreAddress, public: None) -> dict[str, str]:
    """Credentials that SeaweedFS gave out for a quarter of an hour."""
    sts: Any = boto3.client(
        "sts",
        endpoint_url=object_store.endpoint_url,
        aws_access_key_id=object_store.access_key_id,
        aws_secret_access_key=object_store.secret_access_key,
        region_name="us-east-1",
    )
    # Alone they may do nothing here; the store checks them all the same before its bucket's policy.
    found = sts.get_federation_token(Name="test", DurationSeconds=900)["Credentials"]
    sts.close()
    return {
        "access_key_id": found["AccessKeyId"],
        "secret_access_key": found["SecretAccessKey"],
        "session_token": found["SessionToken"],
    }


def test_temporary_credentials_are_sent_and_signed(
    s3: S3Store, object_store: ObjectStoreAddress, temporary: dict[str, str]
) -> None:
    s3.put("temporary", b"0123456789")
    with FaultyStore(object_store.endpoint_url) as proxy:
        bucket = s3.open(endpoint_url=proxy.url, **temporary)
        assert bucket.read("temporary", bucket.stat("temporary"), 2, 5) == b"234"
        assert len(proxy.requests) == 2
        for request in proxy.requests:
            assert request.headers["x-amz-security-token"] == temporary["session_token"]
            assert "x-amz-security-token" in request.headers["authorization"]


@pytest.mark.parametrize(
    "change",
    [{"session_token": "of.another.kind"}, {"secret_access_key": "another"}],
    ids=lambda change: next(iter(change)),
)
def test_temporary_credentials_that_are_wrong_are_refused_for_good(
    s3: S3Store, temporary: dict[str, str], change: dict[str, str]
) -> None:
    s3.put("temporary", b"0123456789")
    with pytest.raises((InvalidCredentials, AccessDenied)):
        s3.open(**(temporary | change)).stat("temporary")


def test_a_service_account_is_who_reads_from_gcs(
    gcs: GcsStore, gcs_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Google's own token server cannot be had here: this is what it would have given.
    account: Any = Credentials
    token = account(token="given-by-google")
    monkeypatch.setattr(google_accounts, "open_account", lambda _: token)
    gcs.put("private", b"0123456789")
    with FaultyStore(gcs_url) as proxy:
        credentials = GcsCredentials(service_account_json="{}")
        bucket = GcsBucket(gcs.name, credentials, endpoint_url=proxy.url)
        assert bucket.read("private", bucket.stat("private"), 2, 5) == b"234"
        assert {r.headers["authorization"] for r in proxy.requests} == {"Bearer given-by-google"}


def test_an_endpoint_on_a_private_address_is_refused(object_store: ObjectStoreAddress) -> None:
    credentials = S3Credentials(
        access_key_id="x", secret_access_key="x", region="x", endpoint_url=object_store.endpoint_url
    )
    with pytest.raises(RefineryError, match="not a public address"):
        open_bucket(StoreType.S3, "bucket", credentials, egress=Egress())


# Through a job


@pytest.fixture
def shop(
    database: Database,
    database_url: str,
    object_store: ObjectStoreAddress,
    gcs_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[FlowShop]:
    with flow_settings(monkeypatch, database_url, REFINERY_GCS_ENDPOINT_URL=gcs_url):
        yield FlowShop(database, object_store)


def source(
    shop: FlowShop, s3: S3Store, gcs: GcsStore, which: str
) -> tuple[S3Store | GcsStore, str]:
    """A store, and a job for the object `m 1+1=2%.jsonl` in it."""
    key = "m 1+1=2%.jsonl"
    if which.startswith("s3"):
        form = S3_FORMS[0 if which == "s3" else 1]
        return s3, shop.submit(manifest_url=form(s3.name, key), delivery=None)
    form = GCS_FORMS[0 if which == "gs" else 1]
    return gcs, shop.submit(manifest_url=form(gcs.name, key), credentials=None, delivery=None)


@pytest.mark.parametrize("which", ["s3", "s3 https", "gs", "gs https"])
def test_a_job_finds_its_manifest(shop: FlowShop, s3: S3Store, gcs: GcsStore, which: str) -> None:
    store, job_id = source(shop, s3, gcs, which)
    store.put("m 1+1=2%.jsonl", b"0123456789")
    bucket, url = manifest_of(shop.job(job_id))
    assert bucket.read(url.key, bucket.stat(url.key), 3, 10) == b"3456789"


def test_a_job_finds_its_manifest_with_temporary_credentials(
    shop: FlowShop,
    s3: S3Store,
    object_store: ObjectStoreAddress,
    temporary: dict[str, str],
) -> None:
    s3.put("m.jsonl", b"0123456789")
    credentials = S3Credentials(
        region="us-east-1", endpoint_url=object_store.endpoint_url, **temporary
    )
    job_id = shop.submit(
        manifest_url=f"s3://{s3.name}/m.jsonl", credentials=msgspec.json.encode(credentials)
    )
    bucket, url = manifest_of(shop.job(job_id))
    assert bucket.read(url.key, bucket.stat(url.key), 3, 10) == b"3456789"


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize("which", ["s3", "gs https"])
def test_a_manifest_becomes_tasks_whichever_store_it_is_in(
    shop: FlowShop, s3: S3Store, gcs: GcsStore, which: str
) -> None:
    store, job_id = source(shop, s3, gcs, which)
    manifest = make_manifest(600, bad_share=0.05)
    store.put("m 1+1=2%.jsonl", manifest.data)
    assert run(process_job, job_id).is_completed()
    check_created(shop, job_id, manifest)
