"""Sign URLs by which anybody may read one object for a while: version 4 of the rules of S3 and GCS.

Signing is computation alone: no client, no connection. Both stores sign the same text, S3 by an HMAC
and GCS by a service account's RSA key. The tests compare with botocore, which takes three times as
long and 0.4 s to be imported, and with google-cloud-storage.
"""

import hashlib
import hmac
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar
from urllib.parse import quote, urlsplit

from blocks.domain.data_urls import normalize_url
from blocks.domain.object_urls import ObjectUrl, StoreType
from blocks.secrets.credentials import Credentials, GcsCredentials, S3Credentials

# Buckets of other names cannot be a part of a host's name that Amazon's certificates cover.
_HOST_LABEL = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")
_DNS_SUFFIXES = {
    "cn-": "amazonaws.com.cn",
    "eusc-": "amazonaws.eu",
    "us-iso-": "c2s.ic.gov",
    "us-isob-": "sc2s.sgov.gov",
    "eu-isoe-": "cloud.adc-e.uk",
    "us-isof-": "csp.hci.ic.gov",
}
"""What Amazon's hosts end with outside its main partition, by how the regions' names begin."""
_DNS_SUFFIX_DEFAULT = "amazonaws.com"
_GCS_URL = "https://storage.googleapis.com"
_RSA_BITS = range(1024, 4096 + 1)  # Google makes keys of 2,048


class NotSignable(ValueError):
    """No URL can name the object: clients would change its path."""


class Signer(ABC):
    """Signs URLs of one store with one set of credentials. Nothing of them is in its repr."""

    store: ClassVar[StoreType]
    _algorithm: ClassVar[str]
    _prefix: ClassVar[str]
    """How the names of the parameters of a query begin."""
    _owner: str
    """Whose key signs."""
    _place: str
    """What follows the day in the scope of a signature: region, service, terminator."""
    _more: Mapping[str, str] = {}
    """Further parameters that are signed."""

    def sign(self, url: ObjectUrl, *, expires_s: int, at: datetime) -> str:
        """Return a URL to GET the object by, for `expires_s` seconds from `at` on.

        Both stores refuse URLs that are for more than 7 days.

        Raises:
            NotSignable: no URL can name the object.
        """
        address = self._address(url.bucket, _path(url.key))
        time = at.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
        day = time[:8]
        scope = f"{day}/{self._place}"
        query = self._query(time, scope, expires_s)
        parts = urlsplit(address)
        request = f"GET\n{parts.path}\n{query}\nhost:{parts.netloc}\n\nhost\nUNSIGNED-PAYLOAD"
        digest = hashlib.sha256(request.encode()).hexdigest()
        text = f"{self._algorithm}\n{time}\n{scope}\n{digest}".encode()
        return f"{address}?{query}&{self._prefix}Signature={self._signature(text, day).hex()}"

    def _query(self, time: str, scope: str, expires_s: int) -> str:
        values = {
            "Algorithm": self._algorithm,
            "Credential": f"{self._owner}/{scope}",
            "Date": time,
            "Expires": str(expires_s),
            "SignedHeaders": "host",
            **self._more,
        }
        return "&".join(
            f"{self._prefix}{name}={quote(values[name], safe='~')}" for name in sorted(values)
        )

    @abstractmethod
    def _address(self, bucket: str, path: str) -> str:
        """Return the URL of an object without a query; `path` is percent-encoded."""

    @abstractmethod
    def _signature(self, text: bytes, day: str) -> bytes:
        """Return the signature of `text` on a day, such as 20261128."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(…)"


class S3Signer(Signer):
    """Signs for S3, or for the store at the `endpoint_url` of the credentials."""

    store = StoreType.S3
    _algorithm = "AWS4-HMAC-SHA256"
    _prefix = "X-Amz-"

    def __init__(self, credentials: S3Credentials) -> None:
        self._credentials = credentials
        endpoint = credentials.endpoint_url
        self._endpoint = normalize_url(endpoint).rstrip("/") if endpoint else None
        self._owner = credentials.access_key_id
        self._place = f"{credentials.region}/s3/aws4_request"
        token = credentials.session_token
        self._more = {"Security-Token": token} if token else {}
        self._keys: dict[str, bytes] = {}

    def _address(self, bucket: str, path: str) -> str:
        if self._endpoint:  # few S3-compatible stores know virtual hosts
            return f"{self._endpoint}/{bucket}/{path}"
        region = self._credentials.region
        host = f"s3.{region}.{_dns_suffix(region)}"
        if _HOST_LABEL.fullmatch(bucket):
            return f"https://{bucket}.{host}/{path}"
        return f"https://{host}/{bucket}/{path}"

    def _signature(self, text: bytes, day: str) -> bytes:
        if day not in self._keys:
            key = b"AWS4" + self._credentials.secret_access_key.encode()
            for part in (day, *self._place.split("/")):
                key = hmac.digest(key, part.encode(), "sha256")
            self._keys[day] = key
        return hmac.digest(self._keys[day], text, "sha256")


class GcsSigner(Signer):
    """Signs for GCS with the private key of a service account, which `check_signing_key` has passed.

    Raises:
        ValueError: the account's key is no RSA key.
    """

    store = StoreType.GCS
    _algorithm = "GOOG4-RSA-SHA256"
    _prefix = "X-Goog-"
    _place = "auto/storage/goog4_request"

    def __init__(self, credentials: GcsCredentials, endpoint_url: str = "") -> None:
        account = json.loads(credentials.service_account_json)
        # It comes out of an envelope that nobody can have changed since it was checked.
        self._rsa = _load_rsa_key(account["private_key"], is_checked=True)
        self._owner = account["client_email"]
        self._endpoint = endpoint_url.rstrip("/") or _GCS_URL

    def _address(self, bucket: str, path: str) -> str:
        return f"{self._endpoint}/{bucket}/{path}"

    def _signature(self, text: bytes, day: str) -> bytes:
        del day  # the key is the same every day
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15  # noqa: PLC0415
        from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415

        signature: bytes = self._rsa.sign(text, PKCS1v15(), SHA256())
        return signature


def open_signer(credentials: Credentials, *, gcs_endpoint_url: str = "") -> Signer:
    """Return the signer of `credentials`.

    Raises:
        ValueError: the key of a service account is no RSA key.
    """
    if isinstance(credentials, S3Credentials):
        return S3Signer(credentials)
    return GcsSigner(credentials, gcs_endpoint_url)


def check_signing_key(service_account_json: str) -> None:
    """Pass if the private key of a service account's key file can sign URLs.

    Raises:
        ValueError: it is no valid RSA key of 1,024 to 4,096 bits.
    """
    if not _can_sign(service_account_json):
        raise ValueError(
            "URLs are signed with its private_key, which must be an RSA key of 1,024 to 4,096 bits, as "
            "Google makes them; or leave sign_urls out."
        )


def _can_sign(service_account_json: str) -> bool:
    try:
        pem = json.loads(service_account_json)["private_key"]
        # First its size, as a check of a huge key takes long.
        if _load_rsa_key(pem, is_checked=True).key_size not in _RSA_BITS:
            return False
        _load_rsa_key(pem, is_checked=False)
    except Exception:  # noqa: BLE001 - cryptography raises what it likes for a bad key
        return False
    return True


def _load_rsa_key(pem: str, *, is_checked: bool) -> Any:
    """Return the RSA key of `pem`. A check takes 50 ms, and loading one that `is_checked` 0.02.

    Raises:
        ValueError: it is another kind of key.
    """
    # Costs time that an API without such jobs does not spend.
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415
        load_pem_private_key,
    )

    key = load_pem_private_key(pem.encode(), None, unsafe_skip_rsa_key_validation=is_checked)
    if not isinstance(key, RSAPrivateKey):
        raise ValueError("The key of a service account is an RSA key.")  # noqa: TRY004 - a value
    return key


def _path(key: str) -> str:
    # Clients resolve these parts, and ask for another path than the one that was signed.
    if {".", ".."} & set(key.split("/")):
        raise NotSignable("The key has the part '.' or '..', which no URL can have.")
    return quote(key, safe="/~")


def _dns_suffix(region: str) -> str:
    found = (end for begin, end in _DNS_SUFFIXES.items() if region.startswith(begin))
    return next(found, _DNS_SUFFIX_DEFAULT)
