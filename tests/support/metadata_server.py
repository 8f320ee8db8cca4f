"""The metadata services of Amazon's and Google's machines, on 127.0.0.1."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from google.auth.compute_engine import _metadata

ROLE = "refinery-worker"


class MetadataServer(ThreadingHTTPServer):
    """Gives whoever asks the identity of this machine, and notes what was asked for."""

    def __init__(self, key: str, secret: str, lasts_s: float = 3600) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.key, self.secret, self.lasts_s = key, secret, lasts_s
        self.asked: list[str] = []

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server_port}"

    def count(self, part: str) -> int:
        return sum(part in each for each in self.asked)


class _Handler(BaseHTTPRequestHandler):
    server: MetadataServer

    def do_PUT(self) -> None:
        self._answer("token-of-imds")

    def do_GET(self) -> None:
        path = self.path.partition("?")[0].rstrip("/")
        expires = datetime.now(UTC) + timedelta(seconds=self.server.lasts_s)
        amazons = {
            "Code": "Success",
            "AccessKeyId": self.server.key,
            "SecretAccessKey": self.server.secret,
            "Token": "",
            "Expiration": expires.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        googles = {"access_token": "ya29.machine", "expires_in": 3600, "token_type": "Bearer"}
        account = {"email": "refinery@p.iam.gserviceaccount.com", "scopes": [], "aliases": []}
        found: dict[str, Any] = {
            "/latest/meta-data/iam/security-credentials": ROLE,
            f"/latest/meta-data/iam/security-credentials/{ROLE}": amazons,
            "/computeMetadata/v1": "",
            "/computeMetadata/v1/project/project-id": "p",
            "/computeMetadata/v1/universe/universe-domain": "googleapis.com",
            "/computeMetadata/v1/instance/service-accounts/default": account,
        }
        is_token = path.startswith("/computeMetadata") and path.endswith("/token")
        self._answer(googles if is_token else found.get(path, ""))

    def _answer(self, content: Any) -> None:
        self.server.asked.append(self.path)
        body = (content if isinstance(content, str) else json.dumps(content)).encode()
        self.send_response(200)
        self.send_header("Metadata-Flavor", "Google")
        self.send_header("Content-Type", "application/json" if body[:1] == b"{" else "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def on_a_machine_of_theirs(
    patch: pytest.MonkeyPatch, folder: Any, key: str = "AKIAMACHINE", secret: str = "machine"
) -> Iterator[MetadataServer]:
    """Give this machine an identity of Amazon's and of Google's, and no files of its user."""
    with MetadataServer(key, secret) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        patch.setenv("HOME", str(folder))
        patch.setenv("CLOUDSDK_CONFIG", str(folder))
        patch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", f"http://{server.host}/")
        patch.setenv("GCE_METADATA_IP", server.host)
        patch.setattr(_metadata, "_GCE_METADATA_HOST", server.host)
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
