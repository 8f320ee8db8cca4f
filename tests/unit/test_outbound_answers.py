"""Where stores send us on to, whom they are taken for, and which accounts are Google's."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from blocks.buckets import google_accounts
from blocks.buckets.gcs import GcsBucket
from blocks.buckets.google_accounts import open_account
from blocks.buckets.protocol import Bucket
from blocks.buckets.s3 import S3Bucket
from blocks.domain.errors import (
    InvalidCredentials,
    ObjectNotFound,
    RedirectRefused,
    Terminal,
    Transient,
)
from blocks.domain.model import Pin
from blocks.secrets.credentials import GcsCredentials
from blocks.secrets.egress import Egress
from blocks.secrets.tls import trusted
from tests.support.endpoint import make_certificate
from tests.support.outbound import Listener, account, s3_credentials


@pytest.fixture
def store() -> Iterator[Listener]:
    with Listener() as listener:
        yield listener


@pytest.fixture
def elsewhere() -> Iterator[Listener]:
    with Listener() as listener:
        yield listener


def s3(store: Listener) -> Bucket:
    return S3Bucket("mani", s3_credentials(store.url), egress=Egress("127.0.0.1"))


def gcs(store: Listener) -> Bucket:
    return GcsBucket("mani", None, endpoint_url=store.url)


def respond(
    handler: BaseHTTPRequestHandler, status: int, headers: dict[str, str], body: bytes = b""
) -> None:
    handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.send_header("Connection", "close")
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(body)


def write(bucket: Bucket) -> None:
    with bucket.write("key") as file:
        file.write(b"x")


CALLS: dict[str, Callable[[Bucket], object]] = {
    "stat": lambda bucket: bucket.stat("key"),
    "read": lambda bucket: bucket.read("key", Pin(9, "1"), 0, 1),
    "entries": lambda bucket: list(bucket.entries("")),
    "create": lambda bucket: bucket.create("key", b"x"),
    "write": write,
    "probe_write": lambda bucket: bucket.probe_write("key"),
    "delete": lambda bucket: bucket.delete("key"),
}


@pytest.mark.parametrize(
    "status, call",
    [(307, call) for call in CALLS] + [(status, "read") for status in (301, 302, 303, 308)],
)
@pytest.mark.parametrize("make", [s3, gcs])
def test_no_redirect_of_a_store_is_followed(
    store: Listener,
    elsewhere: Listener,
    make: Callable[[Listener], Bucket],
    status: int,
    call: str,
) -> None:
    store.answer = partial(respond, status=status, headers={"Location": f"{elsewhere.url}/mani"})
    with pytest.raises(RedirectRefused, match=f"answered {status}, a redirect to another address"):
        CALLS[call](make(store))
    assert not elsewhere.requests


@pytest.mark.parametrize("call", ["stat", "read", "create"])
@pytest.mark.parametrize(
    "status, code", [(301, "PermanentRedirect"), (400, "AuthorizationHeaderMalformed")]
)
def test_a_store_cannot_name_another_region_either(
    store: Listener, status: int, code: str, call: str
) -> None:
    body = f"<Error><Code>{code}</Code><Region>us-gov-west-1</Region></Error>".encode()
    headers = {"x-amz-bucket-region": "us-gov-west-1"}
    store.answer = partial(respond, status=status, headers=headers, body=body)
    with pytest.raises(Terminal):
        CALLS[call](s3(store))
    regions = {headers["authorization"].split("/")[2] for _, _, headers in store.requests}
    assert regions == {"eu-central-1"}
    assert len(store.requests) == (1 if call == "read" else 2)


@pytest.fixture
def certificate(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    trusted.cache_clear()
    yield make_certificate(tmp_path)
    trusted.cache_clear()


@pytest.mark.parametrize("make", [s3, gcs])
def test_an_authority_in_ssl_cert_file_is_trusted_for_stores(
    make: Callable[[Listener], Bucket],
    certificate: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Listener(certificate) as store:
        with pytest.raises(Transient):
            make(store).stat("key")
        assert not store.requests
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
        trusted.cache_clear()
        with pytest.raises((ObjectNotFound, Terminal)):
            make(store).stat("key")
        assert store.requests


def test_and_for_googles_token_server(
    certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    body = json.dumps({"access_token": "given", "expires_in": 3600}).encode()
    credentials = GcsCredentials(service_account_json=account())
    with Listener(certificate) as server:
        server.answer = partial(respond, status=200, headers={}, body=body)
        monkeypatch.setattr(google_accounts, "_TOKEN_URI", f"{server.url}/token")
        with pytest.raises(Transient):
            open_account(credentials)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
        trusted.cache_clear()
        opened = open_account(credentials)
        assert opened.token == "given"
        opened.refresh(None)  # as gcsfs does before the hour is over
        assert [path for _, path, _ in server.requests] == ["/token", "/token"]


@pytest.mark.parametrize(
    "status, kind", [(400, InvalidCredentials), (401, InvalidCredentials), (503, Transient)]
)
def test_what_google_says_of_an_account(
    store: Listener, monkeypatch: pytest.MonkeyPatch, status: int, kind: type[Exception]
) -> None:
    monkeypatch.setattr(google_accounts, "_TOKEN_URI", f"{store.url}/token")
    monkeypatch.setattr("google.auth._exponential_backoff.time.sleep", lambda _: None)
    body = b'{"error": "invalid_grant"}' if status < 500 else b"{}"
    store.answer = partial(respond, status=status, headers={}, body=body)
    with pytest.raises(kind):
        open_account(GcsCredentials(service_account_json=account()))


EC_KEY = """-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgevZzL1gdAFr88hb2
OF/2NxApJCzGCEDdfSp6VQO30hyhRANCAAQRWz+jn65BtOMvdyHKcvjBeBSDZH2r
1RTwjmYSi9R/zpBnuQ4EiMnCqfMPWiZqB4QdbAd0E7oH50VpuZ1P087G
-----END PRIVATE KEY-----
"""
NO_ACCOUNTS: dict[str, str] = {
    "nested": "[" * 9000,
    "nested in an object": '{"type": ' + "[" * 9000,
    "an array": "[]",
    "null": "null",
    "not JSON": "no JSON",
    "nothing in it": "{}",
    "numbers": account(private_key=5),
    "an object in it": account(private_key={"a": "b"}),
    "a user": account(type="authorized_user"),
    "an external account": account(type="external_account"),
    "no key": account(private_key=""),
    "rubbish for a key": account(private_key="rubbish"),
    "another kind of key": account(private_key=EC_KEY),
    "half a key": account(
        private_key="-----BEGIN PRIVATE KEY-----\nMIGH\n-----END PRIVATE KEY-----"
    ),
    "an encrypted key": account(
        private_key="-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIGH\n-----END ENCRYPTED PRIVATE KEY-----"
    ),
    "no address": account(client_email=None),
    "another universe": account(universe_domain="evil.example"),
}


@pytest.mark.parametrize("text", NO_ACCOUNTS.values(), ids=NO_ACCOUNTS.keys())
def test_what_is_no_service_account_is_invalid_before_anybody_is_asked(
    text: str, store: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(google_accounts, "_TOKEN_URI", f"{store.url}/token")
    with pytest.raises(InvalidCredentials, match="does not accept the service account"):
        open_account(GcsCredentials(service_account_json=text))
    assert not store.requests


AT_THE_DOOR = {name: text for name, text in NO_ACCOUNTS.items() if "key" not in name}


@pytest.mark.parametrize("text", AT_THE_DOOR.values(), ids=AT_THE_DOOR.keys())
def test_and_a_request_with_such_a_one_is_told_what_is_allowed(text: str) -> None:
    check: Any = GcsCredentials.checks["service_account_json"]
    check(account())
    with pytest.raises(ValueError, match=r"service_account|googleapis\.com"):
        check(text)
