"""A customer's cloud credentials, as they come in a request and lie sealed in the database."""

from typing import Annotated

import msgspec
from msgspec import Meta

from blocks.object_urls import StoreType

_Text = Annotated[str, Meta(min_length=1, max_length=4096)]


class S3Credentials(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Credentials for S3 or an S3-compatible store, which `endpoint_url` then names."""

    access_key_id: _Text
    secret_access_key: _Text
    region: _Text
    session_token: _Text | None = None
    endpoint_url: Annotated[str, Meta(pattern=r"^https?://[^\s/]")] | None = None

    def __repr__(self) -> str:
        return "S3Credentials(…)"


class GcsCredentials(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A Google service account's key file, as one string of JSON."""

    service_account_json: Annotated[str, Meta(min_length=2, max_length=16384)]

    def __repr__(self) -> str:
        return "GcsCredentials(…)"


Credentials = S3Credentials | GcsCredentials


def credentials_type(store: StoreType) -> type[S3Credentials] | type[GcsCredentials]:
    """What credentials for `store` look like."""
    return S3Credentials if store is StoreType.S3 else GcsCredentials


def decode_credentials(store: StoreType, data: bytes | None) -> Credentials | None:
    """The credentials that were sealed as JSON; None reads anonymously."""
    if data is None:
        return None
    return msgspec.json.decode(data, type=credentials_type(store))
