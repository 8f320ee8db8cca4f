"""Credentials blocks of Prefect: what they hold, and what they ask for that is not done."""

from pathlib import Path
from typing import Any

import google.auth
import pytest
from google.auth.exceptions import DefaultCredentialsError
from prefect_aws import AwsCredentials, MinIOCredentials
from prefect_aws.client_parameters import AwsClientParameters
from prefect_gcp import GcpCredentials
from pydantic import SecretStr

from blocks.prefect.blocks import ManifestSource, UnusableBlock, load_source
from blocks.secrets.credentials import S3Credentials


def source(**parameters: Any) -> list[ManifestSource]:
    """One with each kind of block that has such parameters."""
    said = AwsClientParameters(endpoint_url="https://store.example", **parameters)
    amazon = AwsCredentials(
        aws_access_key_id="AKIA", aws_secret_access_key=SecretStr("s"), aws_client_parameters=said
    )
    minio = MinIOCredentials(
        minio_root_user="AKIA", minio_root_password=SecretStr("s"), aws_client_parameters=said
    )
    return [
        ManifestSource(bucket_url="s3://bucket", aws_credentials=amazon),
        ManifestSource(bucket_url="s3://bucket", minio_credentials=minio),
    ]


@pytest.mark.parametrize("parameters", [{}, {"verify": True}])
def test_a_block_that_trusts_as_everybody_does_is_used(parameters: dict[str, Any]) -> None:
    for each in source(**parameters):
        found = each.read_credentials()
        assert isinstance(found, S3Credentials)
        assert found.endpoint_url == "https://store.example"


# A path there is deprecated, and taken.
@pytest.mark.filterwarnings("ignore:verify should be a boolean:DeprecationWarning")
@pytest.mark.parametrize("name", ["verify", "verify_cert_path"])
def test_what_a_block_says_of_certificates_is_not_passed_over(tmp_path: Path, name: str) -> None:
    authority = tmp_path / "ca.pem"
    authority.touch()
    for value in [False, authority] if name == "verify" else [authority]:
        for each in source(**{name: value}):
            with pytest.raises(UnusableBlock, match=rf"{name} .*SSL_CERT_FILE"):
                each.read_credentials()


def test_a_block_that_prefect_cannot_make_here_for_want_of_an_identity_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(**_: Any) -> None:
        raise DefaultCredentialsError("none")  # type: ignore[no-untyped-call]

    def load(_: str) -> ManifestSource:
        return ManifestSource(bucket_url="gs://bucket", gcp_credentials=GcpCredentials())

    monkeypatch.setattr(google.auth, "default", refuse)
    monkeypatch.setattr(ManifestSource, "load", load)
    with pytest.raises(UnusableBlock, match="holds no service account, and this machine has no"):
        load_source("etl")
