"""Where a customer's clients turn to, without a connection to anywhere but this machine.

Run as a program it prints that, for what is read from the environment before a test can set it.
"""

import json
import socket
import ssl
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from unittest import mock

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from blocks.buckets.opening import open_bucket
from blocks.buckets.protocol import Bucket
from blocks.domain.errors import RefineryError
from blocks.domain.object_urls import StoreType
from blocks.secrets.credentials import Credentials, GcsCredentials, S3Credentials
from blocks.secrets.egress import Egress

Answer = Callable[[BaseHTTPRequestHandler], None]


class Listener:
    """A server on 127.0.0.1 that keeps what it is asked, and answers 404 or as it is told.

    It speaks https where it is given the files of a certificate and its key.
    """

    def __init__(self, certificate: tuple[Path, Path] | None = None) -> None:
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.answer: Answer | None = None
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"  # 1.0 knows no `Expect: 100-continue`

            def _answer(self) -> None:
                headers = {name.lower(): value for name, value in self.headers.items()}
                outer.requests.append((self.command, self.path, headers))
                if outer.answer:
                    outer.answer(self)
                else:
                    self.send_error(404)

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do_CONNECT = _answer  # noqa: N815 - their names there

            def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - its name there
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.url = f"{'https' if certificate else 'http'}://127.0.0.1:{self.port}"
        self._thread = Thread(target=self._server.serve_forever, args=(0.02,))

    def __enter__(self) -> "Listener":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@contextmanager
def no_names() -> Iterator[list[str]]:
    """Give the hosts that were looked up; there is none but 127.0.0.1."""
    asked: list[str] = []
    look_up = socket.getaddrinfo

    def getaddrinfo(host: Any, *arguments: Any, **options: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if name in {"127.0.0.1", "localhost"}:
            return look_up(host, *arguments, **options)
        asked.append(name)
        raise socket.gaierror(socket.EAI_NONAME, "there are no names here")

    with mock.patch.object(socket, "getaddrinfo", getaddrinfo):
        yield asked


def s3_credentials(endpoint_url: str | None = None) -> S3Credentials:
    """The customer's."""
    return S3Credentials(
        access_key_id="CUSTOMERS",
        secret_access_key="secret",
        session_token="token",
        region="eu-central-1",
        endpoint_url=endpoint_url,
    )


@lru_cache(maxsize=1)
def _private_key() -> str:
    key = rsa.generate_private_key(public_exponent=65_537, key_size=2048)
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


def account(**changes: Any) -> str:
    """The key file of a service account of nobody's."""
    fields = {
        "type": "service_account",
        "client_email": "a@b.iam.gserviceaccount.com",
        "private_key": _private_key(),
        "token_uri": "https://evil.example/token",
    }
    return json.dumps(fields | changes)


def hosts_asked(endpoint_url: str) -> dict[str, list[str]]:
    """The hosts that each kind of client looks up, and the names of what it raises."""
    kinds: dict[str, tuple[StoreType, Credentials | None]] = {
        "endpoint": (StoreType.S3, s3_credentials(endpoint_url)),
        "amazon": (StoreType.S3, s3_credentials()),
        "anonymous": (StoreType.S3, None),
        "google": (StoreType.GCS, None),
        "google account": (StoreType.GCS, GcsCredentials(service_account_json=account())),
    }
    found: dict[str, list[str]] = {}
    for name, (store, credentials) in kinds.items():
        with no_names() as asked:
            try:
                bucket: Bucket = open_bucket(store, "mani", credentials, egress=Egress("127.0.0.1"))
                bucket.stat("key")
            except RefineryError as error:
                asked.append(error.code)
        found[name] = asked
    return found


EXPECTED = {
    "endpoint": ["object_not_found"],
    "amazon": ["mani.s3.eu-central-1.amazonaws.com", "unavailable"],
    "anonymous": ["mani.s3.amazonaws.com", "unavailable"],
    "google": ["storage.googleapis.com", "unavailable"],
    "google account": ["oauth2.googleapis.com", "unavailable"],
}

if __name__ == "__main__":
    sys.stdout.write(json.dumps(hosts_asked(sys.argv[1])))
