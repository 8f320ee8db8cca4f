"""The API over HTTP, in this process."""

import secrets
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import uvicorn
from httpx import Response
from litestar import Litestar
from litestar.testing import TestClient

from api.http.server import TimedProtocol
from blocks.settings import Settings
from blocks.store import customers
from deployments.embedded.ports import free_port
from tests.support.side import wait_until
from tests.support.store_shop import OPTIONS, Shop


def make_app(settings: Settings) -> Litestar:
    """The application. Imported late, where a test's filters of warnings hold."""
    from api.app import create_app

    return create_app(settings)


class Api:
    """The application over HTTP, a customer's and an annotator's key, and the store behind it."""

    def __init__(self, client: TestClient[Litestar], shop: Shop) -> None:
        self.client = client
        self.shop = shop
        self.customer = self.bearer(shop.do(customers.add_customer_key, shop.customer_id))
        self.annotator = self.new_annotator()

    @staticmethod
    def bearer(key: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {key}"}

    def new_annotator(self) -> dict[str, str]:
        """Headers of a new annotator."""
        _, key = self.shop.do(customers.add_annotator_key, secrets.token_hex(8))
        return self.bearer(key)

    def new_customer(self) -> dict[str, str]:
        """Headers of a new customer."""
        customer_id = self.shop.do(customers.add_customer, "Other")
        return self.bearer(self.shop.do(customers.add_customer_key, customer_id))

    def get(self, path: str, headers: Mapping[str, str] | None = None, **more: str) -> Response:
        return self.client.get(path, headers={**(headers or self.customer), **more})

    def post(self, path: str, body: Any, headers: Mapping[str, str] | None = None) -> Response:
        return self.client.post(path, json=body, headers={**(headers or self.customer)})

    def submit(self, body: Any = None, **more: str) -> Response:
        """POST /v1/jobs, as the customer."""
        body = JOB_BODY if body is None else body
        return self.client.post("/v1/jobs", json=body, headers={**self.customer, **more})


JOB_BODY: dict[str, Any] = {
    "manifest_url": "s3://manifests/one.jsonl",
    "label_spec": {"question": "What is it?", "options": OPTIONS},
}


@contextmanager
def serve(settings: Settings) -> Iterator[str]:
    """The API behind a real HTTP server, since a test client never hangs up."""
    port = free_port()
    app = make_app(settings)
    config = uvicorn.Config(app, "127.0.0.1", port, http=TimedProtocol, log_level="warning")
    found = uvicorn.Server(config)
    thread = threading.Thread(target=found.run)
    thread.start()
    wait_until(lambda: found.started)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        found.should_exit = True
        thread.join()


CANARY = "canary-8d1f4c2b"


CREDENTIALS = {
    "access_key_id": f"{CANARY}-id",
    "secret_access_key": f"{CANARY}-secret",
    "region": "eu-west-1",
    "session_token": f"{CANARY}-token",
}
