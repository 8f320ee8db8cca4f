"""Signed URLs are those that the stores' own libraries make."""

import json
import string
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from unittest import mock

import pytest
from botocore.config import Config
from botocore.session import Session
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from google.cloud.storage import Bucket, Client
from google.oauth2.service_account import Credentials as ServiceAccount
from hypothesis import given
from hypothesis import strategies as st

from blocks.domain.object_urls import ObjectUrl, StoreType
from blocks.secrets.credentials import GcsCredentials, S3Credentials
from blocks.secrets.signing import (
    GcsSigner,
    NotSignable,
    S3Signer,
    check_signing_key,
)
from tests.support.service_accounts import account, pem, rsa_key

AT = datetime(2026, 11, 28, 10, 0, 3, tzinfo=UTC)
ACCOUNT = account(pem(rsa_key()))
SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
KEYS = st.text(
    st.sampled_from(string.ascii_letters + "/ +%?#&=:;@!$'()*,~._-[]{}|\\^`\"<>äé字🐕\u00a0"),
    min_size=1,
    max_size=40,
).filter(lambda key: not {".", ".."} & set(key.split("/")))
BOTO = Session()
PARTITIONS = BOTO.get_available_partitions()
REGIONS = {"xx-new-9"}.union(*(BOTO.get_available_regions("s3", each) for each in PARTITIONS))
BUCKETS = ["pictures", "with.dots", "with-dash", "Capitals", "under_score", "a" * 63, "a" * 64]
ENDPOINTS = [
    None,
    "https://store.example.com:9000",
    "http://10.0.0.7",
    "https://store.example/base",
]


def s3(**changes: Any) -> S3Credentials:
    values = {"access_key_id": "AKIA/+=", "secret_access_key": SECRET, "region": "eu-central-1"}
    return S3Credentials(**(values | changes))


def sign_s3(credentials: S3Credentials, bucket: str, key: str) -> str:
    url = ObjectUrl(StoreType.S3, bucket, key)
    return S3Signer(credentials).sign(url, expires_s=600, at=AT)


@lru_cache
def boto_client(region: str, endpoint_url: str | None, token: str | None) -> Any:
    return BOTO.create_client(
        "s3",
        region_name=region,
        endpoint_url=endpoint_url,
        aws_access_key_id="AKIA/+=",
        aws_secret_access_key=SECRET,
        aws_session_token=token,
        config=Config(
            signature_version="s3v4",
            s3={
                # With "auto" botocore signs for the global endpoint, which redirects.
                "addressing_style": "path" if endpoint_url else "virtual",
                "us_east_1_regional_endpoint": "regional",
            },
        ),
    )


def parts_of(url: str) -> tuple[str, set[str]]:
    """The address, and the parameters in any order."""
    address, _, query = url.partition("?")
    return address, set(query.split("&"))


def check_against_botocore(
    bucket: str, key: str, *, region: str, endpoint_url: str | None, token: str | None
) -> None:
    now = mock.Mock(utcnow=mock.Mock(return_value=AT.replace(tzinfo=None)))
    with (
        mock.patch("botocore.auth.datetime", now, create=True),
        mock.patch("botocore.auth.get_current_datetime", return_value=AT, create=True),
    ):
        expected = boto_client(region, endpoint_url, token).generate_presigned_url(
            "get_object", {"Bucket": bucket, "Key": key}, ExpiresIn=600
        )
    signed = sign_s3(s3(region=region, endpoint_url=endpoint_url, session_token=token), bucket, key)
    assert parts_of(signed) == parts_of(expected)


@given(
    key=KEYS,
    bucket=st.sampled_from(BUCKETS),
    region=st.sampled_from(["us-east-1", "eu-central-1", "cn-north-1"]),
    endpoint_url=st.sampled_from(ENDPOINTS),
    token=st.sampled_from([None, "FwoGZXIvYXdzE/+=="]),
)
def test_urls_of_s3_are_those_of_botocore(
    key: str, bucket: str, region: str, endpoint_url: str | None, token: str | None
) -> None:
    check_against_botocore(bucket, key, region=region, endpoint_url=endpoint_url, token=token)


@pytest.mark.parametrize("region", sorted(REGIONS))
def test_urls_lead_to_the_host_of_each_region(region: str) -> None:
    check_against_botocore("pictures", "a.jpg", region=region, endpoint_url=None, token=None)


@lru_cache(maxsize=1)
def google_bucket() -> Bucket:
    make: Any = ServiceAccount.from_service_account_info
    client = Client(project="pictures", credentials=make(json.loads(ACCOUNT)))
    return client.bucket("my.bucket")


@given(key=KEYS)
def test_urls_of_gcs_are_those_of_google(key: str) -> None:
    stamps = AT.strftime("%Y%m%dT%H%M%SZ"), AT.strftime("%Y%m%d")
    with mock.patch("google.cloud.storage._signing.get_v4_now_dtstamps", return_value=stamps):
        expected = google_bucket().blob(key).generate_signed_url(600, version="v4")
    url = ObjectUrl(StoreType.GCS, "my.bucket", key)
    signed = GcsSigner(GcsCredentials(service_account_json=ACCOUNT)).sign(url, expires_s=600, at=AT)
    assert parts_of(signed) == parts_of(expected)


@pytest.mark.parametrize("key", ["..", ".", "a/../b", "a/./b", "a/.."])
def test_a_key_that_clients_would_change_is_not_signed(key: str) -> None:
    with pytest.raises(NotSignable):
        sign_s3(s3(), "pictures", key)


@pytest.mark.parametrize(
    "endpoint_url, begins",
    [
        ("https://Store.Example.com:443/", "https://store.example.com/pictures/a.jpg?"),
        ("http://store.example.com:80", "http://store.example.com/pictures/a.jpg?"),
        ("https://bücher.example", "https://xn--bcher-kva.example/pictures/a.jpg?"),
        ("https://store.example/base/", "https://store.example/base/pictures/a.jpg?"),
    ],
)
def test_an_endpoint_is_written_as_clients_send_it(endpoint_url: str, begins: str) -> None:
    assert sign_s3(s3(endpoint_url=endpoint_url), "pictures", "a.jpg").startswith(begins)


def test_the_secret_is_in_no_url_and_no_repr() -> None:
    signer = S3Signer(s3())
    signed = signer.sign(ObjectUrl(StoreType.S3, "pictures", "a"), expires_s=60, at=AT)
    assert SECRET not in signed + repr(signer)
    assert "wJalr" not in signed


@pytest.mark.parametrize(
    "private_key",
    [
        "rubbish",
        "",
        pem(ec.generate_private_key(ec.SECP256R1())),
        pem(rsa.generate_private_key(65537, 1024)).replace("MII", "MIJ", 1),
    ],
    ids=["rubbish", "empty", "elliptic", "altered"],
)
def test_a_key_that_cannot_sign_is_refused_without_a_word_of_it(private_key: str) -> None:
    with pytest.raises(ValueError, match="an RSA key of 1,024 to 4,096 bits") as caught:
        check_signing_key(account(private_key))
    assert caught.value.__cause__ is caught.value.__context__ is None


def test_a_key_that_can_sign_is_accepted() -> None:
    check_signing_key(ACCOUNT)
