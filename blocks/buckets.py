"""Object stores through fsspec: s3fs and gcsfs with a customer's credentials and nobody else's.

Every failure leaves here as `Transient` or `Terminal`, with a sentence for the customer.
"""

import hashlib
import io
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import datetime
from typing import Any, Protocol
from urllib.parse import quote, urlencode

import msgspec

from blocks import bucket_errors
from blocks.bucket_errors import translated
from blocks.credentials import Credentials, GcsCredentials, S3Credentials
from blocks.egress import Egress, GuardedResolver, refusing_redirects
from blocks.errors import (
    AccessDenied,
    BucketNotFound,
    ManifestRefused,
    ObjectChanged,
    RefineryError,
    Transient,
)
from blocks.model import Pin
from blocks.object_urls import StoreType
from blocks.tls import trusted
from blocks.uploads import GcsUpload, S3Upload

_CONNECT_TIMEOUT_S = 10
_READ_TIMEOUT_S = 60
_READ_BACK_BYTES = 16 * 1024 * 1024
_AMAZON_CONSOLE_URL = "https://console.aws.amazon.com/s3/buckets"
_GOOGLE_CONSOLE_URL = "https://console.cloud.google.com/storage/browser"
_GOOGLE_STORAGE_URL = "https://storage.googleapis.com"


class Bucket(Protocol):
    """One bucket. Every method raises `Transient` or a kind of `Terminal`."""

    def stat(self, key: str) -> Pin:
        """Size and version of an object."""

    def read(self, key: str, pin: Pin, start: int, end: int) -> bytes:
        """Bytes `start` to `end` of the pinned version; `ObjectChanged` if it is gone."""

    def write(self, key: str) -> AbstractContextManager["ObjectFile"]:
        """A file whose content becomes the object, replacing any, if the block ends well.

        What arrived is checked against what was sent, by the store's own checksums where they can be
        told beforehand, and else by reading it back.
        """

    def console_url(self, prefix: str) -> str | None:
        """Where a browser shows the objects below `prefix`; None where that is not known."""

    def create(self, key: str, data: bytes) -> None:
        """A new object; `ObjectExists` if there is one with other content."""

    def probe_write(self, key: str) -> None:
        """Pass if an object could be written there: an upload is begun, and given up."""

    def entries(self, prefix: str) -> Iterator["Entry"]:
        """The objects whose keys begin with `prefix`, by their names; a page at a time is asked for."""

    def delete(self, key: str) -> None:
        """Remove an object, if it is there."""

    def abort_uploads(self, prefix: str) -> None:
        """Remove what unfinished uploads have left below `prefix`, where the store keeps such."""


class Entry(msgspec.Struct, frozen=True):
    """One object of a listing."""

    key: str
    pin: Pin
    modified_at: datetime


class ObjectFile(Protocol):
    """An object that is being written: its length and its SHA-256 so far."""

    @property
    def size(self) -> int: ...

    @property
    def sha256(self) -> str: ...

    def write(self, data: Any, /) -> int:
        """Add to it."""


def open_bucket(
    store: StoreType,
    name: str,
    credentials: Credentials | None,
    *,
    egress: Egress,
    gcs_endpoint_url: str = "",
    kms_key_id: str | None = None,
    acl: str | None = None,
) -> Bucket:
    """The bucket `name`, anonymously where there are no credentials.

    Raises:
        AddressRefused: its endpoint is at an address that we may not talk to.
        InvalidCredentials: Google does not accept the service account.
    """
    if store is StoreType.S3:
        assert not isinstance(credentials, GcsCredentials)  # the request was checked for that
        return S3Bucket(name, credentials, egress=egress, kms_key_id=kms_key_id, acl=acl)
    assert not isinstance(credentials, S3Credentials)
    return GcsBucket(name, credentials, endpoint_url=gcs_endpoint_url)


class S3Bucket:
    """A bucket in S3, or in a store that speaks its protocol."""

    def __init__(
        self,
        name: str,
        credentials: S3Credentials | None,
        *,
        egress: Egress,
        kms_key_id: str | None = None,
        acl: str | None = None,
    ) -> None:
        # Costs half a second that a worker needs, but not the API.
        import s3fs  # noqa: PLC0415

        from blocks.s3_session import CustomerHttp, new_session  # noqa: PLC0415

        endpoint_url = credentials.endpoint_url if credentials else None
        if endpoint_url:
            egress.check_url(endpoint_url)
        resolver = GuardedResolver(egress)
        config: dict[str, Any] = {
            "connect_timeout": _CONNECT_TIMEOUT_S,
            "read_timeout": _READ_TIMEOUT_S,
            "connector_args": {"resolver": resolver, "socket_factory": resolver.open_socket},
            # Our own retries decide by type; the client's would multiply them.
            "retries": {"total_max_attempts": 1, "mode": "standard"},
            "http_session_cls": CustomerHttp,
            # botocore asks the environment where it is told nothing. Through a proxy nobody could check
            # which address is connected to.
            "proxies": {},
        }
        if endpoint_url:
            # Few S3-compatible stores know virtual hosts or the newer checksums.
            config["s3"] = {"addressing_style": "path"}
            config["request_checksum_calculation"] = "when_required"
            config["response_checksum_validation"] = "when_required"

        class Verbatim(s3fs.S3FileSystem):  # type: ignore[misc]
            """Takes a name as it is: what looks like `?versionId=` belongs to it."""

            # By its protocols a file system finds what FSSPEC_* and ~/.config/fsspec have for it.
            protocol = ()

            def split_path(self, path: str) -> tuple[str, str, None]:
                bucket, _, key = path.removeprefix("s3://").partition("/")
                return bucket, key, None

        self._fs = Verbatim(
            anon=credentials is None,
            key=credentials.access_key_id if credentials else None,
            secret=credentials.secret_access_key if credentials else None,
            token=credentials.session_token if credentials else None,
            endpoint_url=endpoint_url,
            client_kwargs={"region_name": credentials.region} if credentials else {},
            config_kwargs=config,
            session=new_session(is_anonymous=credentials is None),
            s3_additional_kwargs=_s3_write_options(kms_key_id, acl),
            use_listings_cache=False,
            skip_instance_cache=True,
        )
        self._fs.retries = 1
        self._name = name
        self._is_amazons = endpoint_url is None

    def console_url(self, prefix: str) -> str | None:
        where = f"{_AMAZON_CONSOLE_URL}/{self._name}?{urlencode({'prefix': prefix})}"
        return where if self._is_amazons else None

    def stat(self, key: str) -> Pin:
        with translated(self._name, key):
            try:
                head = self._fs.call_s3("head_object", Bucket=self._name, Key=key)
            except OSError as error:
                # The answer to a HEAD has no body: ask again in a way that gives the reason.
                if bucket_errors.is_bare_refusal(error):
                    self._fs.cat_file(f"{self._name}/{key}", start=0, end=1)
                raise
            return Pin(head["ContentLength"], head["ETag"])

    def read(self, key: str, pin: Pin, start: int, end: int) -> bytes:
        with translated(self._name, key):
            answer = self._fs.call_s3(
                "get_object",
                Bucket=self._name,
                Key=key,
                Range=f"bytes={start}-{end - 1}",
                IfMatch=pin.version,
            )
            try:
                self._check_answer(answer, f"{self._name}/{key}", pin, start, end)
            except RefineryError:
                # Unread: it may be the whole of a large object.
                self._fs.loop.call_soon_threadsafe(answer["Body"].close)
                raise
            data: bytes = bucket_errors.read_body(self._fs.loop, answer["Body"])
        return _whole(data, start, end)

    @staticmethod
    def _check_answer(answer: Any, path: str, pin: Pin, start: int, end: int) -> None:
        # Not every store knows `If-Match`.
        if answer.get("ETag", pin.version) != pin.version:
            raise ObjectChanged(f"{path} was replaced while it was being read.")
        is_all = "ETag" in answer and (start, end) == (0, pin.size)
        if not (is_all and answer.get("ContentRange") is None):
            _check_range(answer.get("ContentRange"), start)

    @contextmanager
    def write(self, key: str) -> Iterator["ObjectFile"]:
        upload = S3Upload(self._fs, self._name, key, self._fs.s3_additional_kwargs)
        with _upload(upload, lambda: translated(self._name, key)) as file:
            yield file
        with suppress(AccessDenied), translated(self._name, key):
            # Who may only write is not asked again: the store has checked each part by its MD5.
            head = self._fs.call_s3("head_object", Bucket=self._name, Key=key)
            if (head["ContentLength"], head["ETag"]) != (upload.size, upload.expected_etag):
                # The ETag follows from something else where the store encrypts by KMS, for one.
                _check_bytes(self, key, Pin(head["ContentLength"], head["ETag"]), file)

    def probe_write(self, key: str) -> None:
        upload = S3Upload(self._fs, self._name, key, self._fs.s3_additional_kwargs)
        with translated(self._name, key):
            upload.begin()
            upload.discard()

    def entries(self, prefix: str) -> Iterator[Entry]:
        more: dict[str, str] = {}
        while True:
            with translated(self._name, prefix):
                page = self._fs.call_s3("list_objects_v2", Bucket=self._name, Prefix=prefix, **more)
            for found in page.get("Contents", []):
                pin = Pin(found["Size"], found["ETag"])
                yield Entry(found["Key"], pin, found["LastModified"])
            if not page.get("IsTruncated"):
                return
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def delete(self, key: str) -> None:
        with translated(self._name, key):
            self._fs.call_s3("delete_object", Bucket=self._name, Key=key)

    def abort_uploads(self, prefix: str) -> None:
        with translated(self._name, prefix):
            listed = self._fs.call_s3("list_multipart_uploads", Bucket=self._name, Prefix=prefix)
            for upload in listed.get("Uploads", []):
                if upload["Key"].startswith(prefix):
                    self._fs.call_s3(
                        "abort_multipart_upload",
                        Bucket=self._name,
                        Key=upload["Key"],
                        UploadId=upload["UploadId"],
                    )

    def create(self, key: str, data: bytes) -> None:
        with translated(self._name, key):
            try:
                self._fs.call_s3(
                    "put_object",
                    self._fs.s3_additional_kwargs,
                    Bucket=self._name,
                    Key=key,
                    Body=data,
                    IfNoneMatch="*",
                )
            except OSError as error:
                path = f"{self._name}/{key}"
                bucket_errors.forgive_same(error, path, data, lambda: self._fs.cat_file(path))


class GcsBucket:
    """A bucket in Google Cloud Storage."""

    def __init__(
        self, name: str, credentials: GcsCredentials | None, *, endpoint_url: str = ""
    ) -> None:
        from aiohttp import ClientTimeout, TCPConnector  # noqa: PLC0415 - as s3fs above

        # Not from the package itself: that has a variant which asks by gRPC for every bucket's layout,
        # and against anything but Google's own servers waits a minute for each answer.
        from gcsfs.core import GCSFileSystem  # noqa: PLC0415 - as s3fs above

        from blocks.google_accounts import open_account  # noqa: PLC0415 - as s3fs above

        class Once(GCSFileSystem):  # type: ignore[misc]
            """Asks once: our own retries decide by type, and gcsfs's would multiply them."""

            protocol = ()  # as in S3Bucket
            _request = GCSFileSystem._request.__wrapped__  # noqa: SLF001 - there is no other way

            async def _set_session(self) -> Any:
                if self._session is None:
                    # A connector wants the running loop. With this one no client certificate is used.
                    self.session_kwargs["connector"] = TCPConnector(ssl=trusted())
                return await super()._set_session()

        self._fs = Once(
            token=open_account(credentials) if credentials else "anon",
            access="read_write",
            project="",
            endpoint_url=endpoint_url or _GOOGLE_STORAGE_URL,
            session_kwargs={"trace_configs": [refusing_redirects()]},
            # Without it gcsfs waits for an answer for ever.
            requests_timeout=ClientTimeout(
                sock_connect=_CONNECT_TIMEOUT_S, sock_read=_READ_TIMEOUT_S
            ),
            use_listings_cache=False,
            skip_instance_cache=True,
        )
        self._name = name
        self._is_googles = not endpoint_url

    def console_url(self, prefix: str) -> str | None:
        where = f"{_GOOGLE_CONSOLE_URL}/{self._name}/{quote(prefix)}"
        return where if self._is_googles else None

    def stat(self, key: str) -> Pin:
        with self._translated(key):
            # Not `info`, which lists the bucket too, in case that the key is a prefix.
            info = self._fs.call("GET", "b/{}/o/{}", self._name, key, json_out=True)
            if info.get("contentEncoding", "identity") not in {"", "identity"}:
                # It would come out unpacked, and then no range of it can be read.
                raise ManifestRefused(
                    f"{self._name}/{key} is stored with a Content-Encoding; store it as plain text."
                )
            return Pin(int(info["size"]), str(info["generation"]))

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
            _check_range(headers.get("Content-Range"), start)
        return _whole(data, start, end)

    @contextmanager
    def write(self, key: str) -> Iterator["ObjectFile"]:
        with self._translated(key):
            upload = GcsUpload(self._fs, f"{self._name}/{key}")
        with _upload(upload, lambda: self._translated(key)) as file:
            yield file
        with suppress(AccessDenied), self._translated(key):
            info = self._fs.call("GET", "b/{}/o/{}", self._name, key, json_out=True)
            if (int(info["size"]), info.get("md5Hash")) != (upload.size, upload.md5):
                _check_bytes(self, key, Pin(int(info["size"]), str(info["generation"])), file)

    def probe_write(self, key: str) -> None:
        from fsspec.asyn import sync  # noqa: PLC0415 - loaded with gcsfs by now
        from gcsfs.core import initiate_upload  # noqa: PLC0415 - as above

        with self._translated(key):
            # It is never gone on with: GCS forgets it after a week, and shows nothing of it.
            sync(self._fs.loop, initiate_upload, self._fs, self._name, key)

    def entries(self, prefix: str) -> Iterator[Entry]:
        more: dict[str, str] = {}
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

    def delete(self, key: str) -> None:
        with self._translated(key), suppress(FileNotFoundError):
            self._fs.call("DELETE", "b/{}/o/{}", self._name, key)

    def abort_uploads(self, prefix: str) -> None:
        """Nothing: unfinished uploads cost nothing in GCS, and are gone after a week."""

    def create(self, key: str, data: bytes) -> None:
        path = f"{self._name}/{key}"
        with self._translated(key):
            try:
                self._fs.pipe_file(path, data, mode="create")
            except OSError as error:
                bucket_errors.forgive_same(error, path, data, lambda: self._fs.cat_file(path))

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


def _s3_write_options(kms_key_id: str | None, acl: str | None) -> dict[str, str]:
    options = {"ACL": acl} if acl else {}
    if kms_key_id:
        options |= {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": kms_key_id}
    return options


class _Translated(io.RawIOBase):
    """An upload whose failures are ours; what the writer itself raises is left alone."""

    def __init__(
        self,
        upload: S3Upload | GcsUpload,
        translated: Callable[[], AbstractContextManager[None]],
    ) -> None:
        super().__init__()
        self._upload = upload
        self._translated = translated

    @property
    def size(self) -> int:
        return self._upload.size

    @property
    def sha256(self) -> str:
        return self._upload.sha256

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        with self._translated():
            return self._upload.write(data)


@contextmanager
def _upload(
    upload: S3Upload | GcsUpload, translated: Callable[[], AbstractContextManager[None]]
) -> Iterator[Any]:
    try:
        yield _Translated(upload, translated)
        with translated():
            upload.finish()
    except BaseException:
        with suppress(Exception):  # the first failure is the one to be told
            upload.discard()
        raise


def _check_bytes(bucket: Bucket, key: str, pin: Pin, sent: ObjectFile) -> None:
    """Read an object back, and compare it with what was sent.

    Raises:
        Transient: it is another.
    """
    found = hashlib.sha256()
    if pin.size == sent.size:
        for start in range(0, pin.size, _READ_BACK_BYTES):
            end = min(start + _READ_BACK_BYTES, pin.size)
            found.update(bucket.read(key, pin, start, end))
    if pin.size != sent.size or found.hexdigest() != sent.sha256:
        raise Transient(f"{key} holds other bytes than were sent.")


def _check_range(content_range: str | None, start: int) -> None:
    if not (content_range or "").startswith(f"bytes {start}-"):
        raise Transient("The store sent something else than the range that was asked for.")


def _whole(data: bytes, start: int, end: int) -> bytes:
    if len(data) != end - start:
        raise Transient(f"The store sent {len(data)} bytes where {end - start} were asked for.")
    return data
