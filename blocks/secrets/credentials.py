"""A customer's cloud credentials, as they come in a request and are sealed in the database."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta

from blocks.domain.data_urls import is_data_url
from blocks.domain.object_urls import StoreType

GOOGLE_UNIVERSE = "googleapis.com"

_Text = Annotated[str, Meta(min_length=1, max_length=4096)]


def _check_header(text: str) -> None:
    if not all("!" <= character <= "~" for character in text):
        raise ValueError("This must be of visible ASCII characters, without spaces.")


def _check_region(text: str) -> None:
    if not text.isascii() or not text.replace("-", "").isalnum():
        raise ValueError("This must be the name of a region, such as eu-central-1.")


def _check_endpoint_url(url: str) -> None:
    if not url.lower().startswith(("http://", "https://")) or not is_data_url(url):
        raise ValueError("This must be an http or https URL with a valid host.")
    if set(url) & set("?#@"):
        raise ValueError("This must be a URL without a user, a query and a fragment.")


class S3Credentials(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Credentials for S3 or an S3-compatible store, which `endpoint_url` then names."""

    checks: ClassVar[Mapping[str, Callable[[str], None]]] = {
        "access_key_id": _check_header,
        "secret_access_key": _check_header,
        "session_token": _check_header,
        "region": _check_region,
        "endpoint_url": _check_endpoint_url,
    }

    access_key_id: _Text
    secret_access_key: _Text
    region: _Text
    session_token: _Text | None = None
    endpoint_url: _Text | None = None

    def __repr__(self) -> str:
        return "S3Credentials(…)"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []


class _ServiceAccount(msgspec.Struct):
    """The fields of a key file that we check; Google checks the rest."""

    type: Literal["service_account"]
    client_email: _Text
    private_key: Annotated[str, Meta(min_length=1)]
    universe_domain: str = GOOGLE_UNIVERSE


def check_service_account(text: str) -> None:
    """Pass if `text` is the key file of a service account.

    Raises:
        ValueError: it is not, or is of another universe than Google's own.
    """
    try:
        fields = msgspec.json.decode(text, type=dict[str, str])
        account = msgspec.convert(fields, type=_ServiceAccount)
    except (msgspec.MsgspecError, RecursionError):
        # Not `from` the error, which quotes parts of the key file.
        raise ValueError(
            "This must be a service account's key file: a JSON object of strings, with the type "
            "service_account, a client_email and a private_key."
        ) from None
    if account.universe_domain != GOOGLE_UNIVERSE:
        raise ValueError(f"The universe_domain of a service account must be {GOOGLE_UNIVERSE}.")


class GcsCredentials(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A Google service account's key file, as one string of JSON."""

    checks: ClassVar[Mapping[str, Callable[[str], None]]] = {
        "service_account_json": check_service_account
    }

    service_account_json: Annotated[str, Meta(min_length=2, max_length=16384)]

    def __repr__(self) -> str:
        return "GcsCredentials(…)"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []


Credentials = S3Credentials | GcsCredentials


def credentials_type(store: StoreType) -> type[S3Credentials] | type[GcsCredentials]:
    """Return the type of credentials for `store`."""
    return S3Credentials if store is StoreType.S3 else GcsCredentials


def decode_credentials(store: StoreType, data: bytes | None) -> Credentials | None:
    """Return the credentials that were sealed as JSON; None, to read anonymously, stays None."""
    if data is None:
        return None
    return msgspec.json.decode(data, type=credentials_type(store))
