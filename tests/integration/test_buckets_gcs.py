"""What is particular to GCS."""

import json
import secrets

import pytest

from blocks.buckets.opening import open_bucket
from blocks.domain.errors import BucketNotFound, InvalidCredentials
from blocks.domain.object_urls import StoreType
from blocks.secrets.credentials import GcsCredentials
from blocks.secrets.egress import Egress
from tests.support.stores import GcsStore, write

pytestmark = pytest.mark.integration


@pytest.fixture
def store(gcs_url: str) -> GcsStore:
    return GcsStore(gcs_url)


def test_a_missing_bucket_is_told_when_it_is_written_to(store: GcsStore) -> None:
    missing = store.open("no-such-bucket-here")
    with pytest.raises(BucketNotFound):
        write(missing, "file", b"x")
    with pytest.raises(BucketNotFound):
        missing.create("file", b"x")


@pytest.mark.parametrize(
    "account",
    [
        "{}",
        "[]",
        "no JSON",
        "null",
        json.dumps({"type": "service_account", "client_email": "a@b", "private_key": "rubbish"}),
        json.dumps({"type": "authorized_user"}),
    ],
)
def test_what_is_no_service_account_is_refused_before_anything_is_asked(account: str) -> None:
    with pytest.raises(InvalidCredentials, match="does not accept"):
        open_bucket(
            StoreType.GCS, "bucket", GcsCredentials(service_account_json=account), egress=Egress()
        )


def test_no_credential_is_in_an_error() -> None:
    canary = f"canary{secrets.token_hex(8)}"
    account = json.dumps({"type": "service_account", "client_email": "a@b", "private_key": canary})
    with pytest.raises(InvalidCredentials) as caught:
        open_bucket(
            StoreType.GCS, "bucket", GcsCredentials(service_account_json=account), egress=Egress()
        )
    error: BaseException | None = caught.value
    while error is not None:
        assert canary not in f"{error} {error!r}"
        error = error.__cause__ or error.__context__
