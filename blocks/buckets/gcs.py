"""Buckets in Google Cloud Storage, through gcsfs."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any
from urllib.parse import quote

from blocks.buckets import answers, errors
from blocks.buckets.answers import GCS_SESSION, LISTING_S_MAX, Pages, check_encoding, time_limits
from blocks.buckets.checks import check_bytes, check_length, check_range, has_bytes, pin_of
from blocks.buckets.errors import translated
from blocks.buckets.protocol import Entry, ObjectFile
from blocks.buckets.uploads import GcsUpload, uploading
from blocks.domain.errors import AccessDenied, BucketNotFound, ObjectChanged
from blocks.domain.model import Pin
from blocks.secrets.credentials import GcsCredentials
from blocks.secrets.egress import make_redirect_guard
from blocks.secrets.machine_identity import MachineIdentity
from blocks.secrets.tls import load_ssl_context

_CONSOLE_URL = "https://console.cloud.google.com/storage/browser"
_STORAGE_URL = "https://storage.googleapis.com"


class GcsBucket:
    """A bucket in Google Cloud Storage."""

    def __init__(
        self,
        name: str,
        credentials: GcsCredentials | MachineIdentity | None,
        *,
        endpoint_url: str = "",
        request_s: float | None = None,
    ) -> None:
        from aiohttp import TCPConnector  # noqa: PLC0415 - costs time, as s3fs does

        # Not from the package itself: its variant asks by gRPC for the layout of every bucket, and with
        # any but Google's own servers waits a minute for each answer.
        from gcsfs.core import GCSFileSystem  # noqa: PLC0415 - costs time, as s3fs does

        from blocks.buckets.google_accounts import open_account  # noqa: PLC0415 - costs time, as s3fs does

        class Once(GCSFileSystem):  # type: ignore[misc]
            """A file system that asks once: gcsfs's retries would multiply ours."""

            protocol = ()  # as in Verbatim
            _request = GCSFileSystem._request.__wrapped__  # noqa: SLF001 - there is no other way

            async def _set_session(self) -> Any:
                if self._session is None:
                    # A connector wants the running loop. With this one no client certificate is used.
                    self.session_kwargs["connector"] = TCPConnector(ssl=load_ssl_context())
                return await super()._set_session()

        self._fs = Once(
            token=open_account(credentials) if credentials else "anon",
            access="read_write",
            project="",
            endpoint_url=endpoint_url or _STORAGE_URL,
            session_kwargs=GCS_SESSION | {"trace_configs": [make_redirect_guard()]},
            requests_timeout=time_limits(
                answers.CONNECT_TIMEOUT_S,
                answers.READ_TIMEOUT_S,
                request_s or answers.REQUEST_S_MAX,
            ),
            use_listings_cache=False,
            skip_instance_cache=True,
        )
        self._name = name
        self._is_googles = not endpoint_url

    def console_url(self, prefix: str) -> str | None:
        where = f"{_CONSOLE_URL}/{self._name}/{quote(prefix)}"
        return where if self._is_googles else None

    def stat(self, key: str) -> Pin:
        with self._translated(key):
            # Not `info`, which also lists the bucket, in case the key is a prefix.
            info = self._fs.call("GET", "b/{}/o/{}", self._name, key, json_out=True)
            check_encoding(info.get("contentEncoding"), f"{self._name}/{key}")
            return pin_of(info.get("size"), info.get("generation"))

    def read(self, key: str, pin: Pin, start: int, end: int) -> bytes:
        path = f"{self._name}/{key}"
        with self._translated(key):
            try:
                # Not `cat_file`, which does not tell what range the answer has.
                headers, data = self._fs.call(
                    "GET",
                    self._fs.url(path, generation=pin.version),
                    headers={"Range": f"bytes={start}-{end - 1}"},
                )
            except FileNotFoundError as error:
                raise ObjectChanged(
                    f"{path} was replaced or deleted while it was being read."
                ) from error
            check_range(headers.get("Content-Range"), start)
            check_encoding(headers.get("Content-Encoding"), path)
        return check_length(data, start, end)

    @contextmanager
    def write(self, key: str) -> Iterator[ObjectFile]:
        with self._translated(key):
            upload = GcsUpload(self._fs, f"{self._name}/{key}")
        with uploading(upload, lambda: self._translated(key)) as file:
            yield file
        with suppress(AccessDenied), self._translated(key):
            info = self._fs.call("GET", "b/{}/o/{}", self._name, key, json_out=True)
            if (int(info["size"]), info.get("md5Hash")) != (upload.size, upload.md5):
                check_bytes(self, key, Pin(int(info["size"]), str(info["generation"])), file)

    def probe_write(self, key: str) -> None:
        from fsspec.asyn import sync  # noqa: PLC0415 - loaded with gcsfs by now
        from gcsfs.core import initiate_upload  # noqa: PLC0415 - as above

        with self._translated(key):
            # The upload is never continued: GCS forgets it after a week, and shows nothing of it.
            sync(self._fs.loop, initiate_upload, self._fs, self._name, key, mode="create")

    def entries(self, prefix: str, *, seconds_max: float = LISTING_S_MAX) -> Iterator[Entry]:
        more: dict[str, str] = {}
        pages = Pages(seconds_max)
        while True:
            with self._translated(prefix):
                page = self._fs.call(
                    "GET", "b/{}/o", self._name, prefix=prefix, json_out=True, **more
                )
            for found in page.get("items", []):
                pin = Pin(int(found["size"]), str(found["generation"]))
                yield Entry(found["name"], pin, datetime.fromisoformat(found["updated"]))
            if "nextPageToken" not in page:
                return
            more = {"pageToken": page["nextPageToken"]}
            pages.turn(more["pageToken"])

    def delete(self, key: str) -> None:
        with self._translated(key), suppress(FileNotFoundError):
            self._fs.call("DELETE", "b/{}/o/{}", self._name, key)

    def abort_uploads(self, prefix: str) -> None:
        """Do nothing: unfinished uploads cost nothing in GCS, and are gone after a week."""

    def create(self, key: str, data: bytes, *, is_conditional: bool = True) -> bool:
        del is_conditional  # GCS knows conditions
        path = f"{self._name}/{key}"
        with self._translated(key):
            try:
                self._fs.pipe_file(path, data, mode="create")
            except OSError as error:
                errors.forgive_same(error, path, lambda: has_bytes(self, key, data))
        return True

    @contextmanager
    def _translated(self, key: str) -> Iterator[None]:
        with translated(self._name, key):
            try:
                yield
            except FileNotFoundError as error:
                if self._is_missing():
                    raise BucketNotFound(f"There is no bucket {self._name!r}.") from error
                raise

    def _is_missing(self) -> bool:
        # GCS answers 404 for an object and for its bucket alike.
        try:
            self._fs.call("GET", "b/{}", self._name)
        except FileNotFoundError:
            return True
        except OSError:
            return False  # it is there, and we may not look at it
        return False
