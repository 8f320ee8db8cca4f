"""Stores with a client that is not ours."""

import secrets
from typing import Any, Protocol
from urllib.parse import quote

import boto3
import botocore.config
import httpx

from blocks.buckets.opening import open_bucket
from blocks.buckets.protocol import Bucket
from blocks.domain.object_urls import StoreType
from blocks.secrets.credentials import S3Credentials
from blocks.secrets.egress import Egress
from deployments.embedded.object_stores import ObjectStoreAddress

MIB = 1024 * 1024


class Store(Protocol):
    """A store, and a client of it that is not ours."""

    def open(self, name: str = "") -> Bucket:
        """Our bucket of that name, by default one that exists."""

    def open_at(self, url: str) -> Bucket:
        """Our bucket in another store."""

    def put(self, key: str, data: bytes) -> None: ...

    def get(self, key: str) -> bytes | None: ...

    def delete(self, key: str) -> None: ...


class S3Store:
    def __init__(self, address: ObjectStoreAddress) -> None:
        self._address = address
        self.name = f"test-{secrets.token_hex(6)}"
        self.client: Any = boto3.client(
            "s3",
            endpoint_url=address.endpoint_url,
            aws_access_key_id=address.access_key_id,
            aws_secret_access_key=address.secret_access_key,
            region_name="us-east-1",
            config=botocore.config.Config(s3={"addressing_style": "path"}),
        )
        self.client.create_bucket(Bucket=self.name)

    def open(self, name: str = "", allow: str = "127.0.0.1", **changes: str) -> Bucket:
        values = {
            "access_key_id": self._address.access_key_id,
            "secret_access_key": self._address.secret_access_key,
            "region": "us-east-1",
            "endpoint_url": self._address.endpoint_url,
        }
        credentials = S3Credentials(**(values | changes))
        return open_bucket(StoreType.S3, name or self.name, credentials, egress=Egress(allow))

    def open_at(self, url: str) -> Bucket:
        return self.open(endpoint_url=url)

    def put(self, key: str, data: bytes) -> None:
        self.client.put_object(Bucket=self.name, Key=key, Body=data)

    def get(self, key: str) -> bytes | None:
        try:
            data: bytes = self.client.get_object(Bucket=self.name, Key=key)["Body"].read()
        except self.client.exceptions.NoSuchKey:
            return None
        return data

    def delete(self, key: str) -> None:
        self.client.delete_object(Bucket=self.name, Key=key)

    def unfinished(self) -> list[str]:
        """The keys of multipart uploads that were begun and neither completed nor aborted."""
        found = self.client.list_multipart_uploads(Bucket=self.name).get("Uploads", [])
        return [upload["Key"] for upload in found]


class GcsStore:
    def __init__(self, url: str) -> None:
        self._url = url
        self.name = f"test-{secrets.token_hex(6)}"
        httpx.post(f"{url}/storage/v1/b", json={"name": self.name}).raise_for_status()

    def open(self, name: str = "") -> Bucket:
        return self._open(name, self._url)

    def open_at(self, url: str) -> Bucket:
        return self._open("", url)

    def _open(self, name: str, url: str) -> Bucket:
        return open_bucket(
            StoreType.GCS, name or self.name, None, egress=Egress(), gcs_endpoint_url=url
        )

    def put(self, key: str, data: bytes) -> None:
        url = f"{self._url}/upload/storage/v1/b/{self.name}/o"
        parameters = {"uploadType": "media", "name": key}
        httpx.post(url, params=parameters, content=data).raise_for_status()

    def get(self, key: str) -> bytes | None:
        response = httpx.get(self._object(key), params={"alt": "media"})
        return None if response.status_code == 404 else response.raise_for_status().content

    def delete(self, key: str) -> None:
        httpx.delete(self._object(key)).raise_for_status()

    def _object(self, key: str) -> str:
        return f"{self._url}/storage/v1/b/{self.name}/o/{quote(key, safe='')}"


def write(bucket: Bucket, key: str, data: bytes) -> None:
    with bucket.write(key) as file:
        file.write(data)


class Killed(BaseException):
    """Not an error: what ends a thread or a process."""
