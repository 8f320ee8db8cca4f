"""Object stores through fsspec: s3fs and gcsfs with a customer's credentials and nobody else's.

Every failure leaves here as `Transient` or `Terminal`, with a sentence for the customer.
"""

import hashlib
import io
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import datetime
from functools import partial
from typing import Any, Protocol
from urllib.parse import quote, urlencode

import msgspec

from blocks import answers, bucket_errors
from blocks.answers import GCS_SESSION, LISTING_S_MAX, Pages, check_encoding, time_limits
from blocks.bucket_errors import translated
from blocks.credentials import Credentials, GcsCredentials, S3Credentials
from blocks.egress import Egress, GuardedResolver, refusing_redirects
from blocks.errors import (
    AccessDenied,
    BucketNotFound,
    NotSupported,
    ObjectChanged,
    ObjectExists,
    ObjectNotFound,
    RefineryError,
    StoreAnswerInvalid,
    Transient,
)
from blocks.model import Pin
from blocks.object_urls import StoreType
from blocks.tls import trusted
from blocks.uploads import GcsUpload, S3Upload

_CONNECT_TIMEOUT_S = 10
_READ_TIMEOUT_S = 60
# Unfinished uploads cost their owner some cents. Who lists them without an end, or slowly, keeps them.
_ABORTS_S_MAX = 60.0
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

    def create(self, key: str, data: bytes, *, is_conditional: bool = True) -> bool:
        """A new object; `ObjectExists` if there is one with other content.

        Return False if the store has taken no notice of the condition: it was tried again, and has
        written again. A store that cannot write on condition raises `NotSupported`. Without the
        condition it is asked what stands there, and then written to: of two at the same moment, the
        last one stays.
        """

    def probe_write(self, key: str) -> None:
        """Pass if a delivery could write there: try what it will do, and remove what that made.

        An empty object stays if the credentials may write, but not delete.
        """

    def entries(self, prefix: str, *, seconds_max: float = LISTING_S_MAX) -> Iterator["Entry"]:
        """The objects whose keys begin with `prefix`, by their names; a page at a time is asked for.

        After `seconds_max` no further page is asked for, and `Transient` raised.
        """

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
    request_s: float | None = None,
) -> Bucket:
    """The bucket `name`, anonymously where there are no credentials.

    A request takes `request_s` seconds at most, by default `answers.REQUEST_S_MAX`.

    Raises:
        AddressRefused: its endpoint is at an address that we may not talk to.
        InvalidCredentials: Google does not accept the service account.
    """
    if store is StoreType.S3:
        assert not isinstance(credentials, GcsCredentials)  # the request was checked for that
        return S3Bucket(
            name, credentials, egress=egress, kms_key_id=kms_key_id, acl=acl, request_s=request_s
        )
    assert not isinstance(credentials, S3Credentials)
    return GcsBucket(name, credentials, endpoint_url=gcs_endpoint_url, request_s=request_s)


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
        request_s: float | None = None,
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
            "http_session_cls": partial(CustomerHttp, request_s=request_s or answers.REQUEST_S_MAX),
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
        self._region = credentials.region if credentials else ""
        self._is_amazons = endpoint_url is None

    def _translated(self, key: str) -> AbstractContextManager[None]:
        return translated(self._name, key, region=self._region)

    def console_url(self, prefix: str) -> str | None:
        where = f"{_AMAZON_CONSOLE_URL}/{self._name}?{urlencode({'prefix': prefix})}"
        return where if self._is_amazons else None

    def stat(self, key: str) -> Pin:
        with self._translated(key):
            try:
                head = self._fs.call_s3("head_object", Bucket=self._name, Key=key)
            except OSError as error:
                # The answer to a HEAD has no body: ask again in a way that gives the reason.
                if bucket_errors.is_bare_refusal(error):
                    self._close(self._get(key, 0, 1)["Body"])
                raise
            check_encoding(head.get("ContentEncoding"), f"{self._name}/{key}")
            return _pin(head.get("ContentLength"), head.get("ETag"))

    def read(self, key: str, pin: Pin, start: int, end: int) -> bytes:
        path = f"{self._name}/{key}"
        with self._translated(key):
            answer = self._get(key, start, end, IfMatch=pin.version)
            try:
                self._check_answer(answer, path, pin, start, end)
                check_encoding(answer.get("ContentEncoding"), path)
            except RefineryError:
                # Unread: it may be the whole of a large object.
                self._close(answer["Body"])
                raise
            data: bytes = bucket_errors.read_body(self._fs.loop, answer["Body"])
        return _whole(data, start, end)

    def _get(self, key: str, start: int, end: int, **conditions: str) -> Any:
        return self._fs.call_s3(
            "get_object",
            Bucket=self._name,
            Key=key,
            Range=f"bytes={start}-{end - 1}",
            **conditions,
        )

    def _close(self, body: Any) -> None:
        self._fs.loop.call_soon_threadsafe(body.close)

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
        with _upload(upload, lambda: self._translated(key)) as file:
            yield file
        with suppress(AccessDenied), self._translated(key):
            # Who may only write is not asked again: the store has checked each part by its MD5.
            head = self._fs.call_s3("head_object", Bucket=self._name, Key=key)
            if (head["ContentLength"], head["ETag"]) != (upload.size, upload.expected_etag):
                # The ETag follows from something else where the store encrypts by KMS, for one.
                _check_bytes(self, key, Pin(head["ContentLength"], head["ETag"]), file)

    def probe_write(self, key: str) -> None:
        self._check_exists()
        made = self._probe_create(key)
        upload = S3Upload(self._fs, self._name, key, self._fs.s3_additional_kwargs)
        try:
            with self._translated(key):
                upload.begin()
                upload.discard()
        finally:
            for each in made:
                self._remove_probe(key, each)

    def _probe_create(self, key: str) -> list[dict[str, Any]]:
        """Put an empty object where none stands; return the answers to what was written."""
        with self._translated(key):
            try:
                stands = self._stands(key)
            except AccessDenied:
                stands = False
        if stands:
            return []  # it is not ours to remove, and a store that heeds no condition would replace it
        try:
            return [self._probe_put(key, is_conditional=True)]
        except ObjectChanged:
            return []  # the condition was looked at
        except NotSupported:
            return [self._probe_put(key, is_conditional=False)]

    def _check_exists(self) -> None:
        # Some stores make a bucket with the first object that is put into it.
        try:
            with self._translated(""):
                self._fs.call_s3("head_bucket", Bucket=self._name)
        except (ObjectNotFound, BucketNotFound) as error:
            raise BucketNotFound(f"There is no bucket {self._name!r}.") from error
        except (AccessDenied, NotSupported):
            pass  # who may write need not be allowed to look

    def _probe_put(self, key: str, *, is_conditional: bool) -> dict[str, Any]:
        with self._translated(key):
            answer: dict[str, Any] = self._put(key, b"", is_conditional=is_conditional)
            return answer

    def _remove_probe(self, key: str, made: dict[str, Any]) -> None:
        # In a bucket with versions a plain delete adds a marker, and keeps the object.
        version = made.get("VersionId")
        for one in [{"VersionId": version}, {}] if version else [{}]:
            with suppress(RefineryError), self._translated(key):
                self._fs.call_s3("delete_object", Bucket=self._name, Key=key, **one)
                return

    def entries(self, prefix: str, *, seconds_max: float = LISTING_S_MAX) -> Iterator[Entry]:
        more: dict[str, str] = {}
        pages = Pages(seconds_max)
        while True:
            with self._translated(prefix):
                page = self._fs.call_s3("list_objects_v2", Bucket=self._name, Prefix=prefix, **more)
            for found in page.get("Contents", []):
                pin = Pin(found["Size"], found["ETag"])
                yield Entry(found["Key"], pin, found["LastModified"])
            if not page.get("IsTruncated"):
                return
            more = {"ContinuationToken": page.get("NextContinuationToken", "")}
            pages.turn(more["ContinuationToken"])

    def delete(self, key: str) -> None:
        with self._translated(key):
            self._fs.call_s3("delete_object", Bucket=self._name, Key=key)

    def abort_uploads(self, prefix: str) -> None:
        ends_at = time.monotonic() + _ABORTS_S_MAX
        for key, upload_id in self._uploads(prefix):
            if time.monotonic() > ends_at:
                return
            with self._translated(key):
                self._abort(key, upload_id)

    def _abort(self, key: str, upload_id: str) -> None:
        try:
            self._fs.call_s3(
                "abort_multipart_upload", Bucket=self._name, Key=key, UploadId=upload_id
            )
        except OSError as error:
            if not bucket_errors.is_upload_gone(error):  # a twin may have aborted it
                raise

    def _uploads(self, prefix: str) -> Iterator[tuple[str, str]]:
        more: dict[str, str] = {}
        pages = Pages(_ABORTS_S_MAX)
        while True:
            with self._translated(prefix):
                page = self._fs.call_s3(
                    "list_multipart_uploads", Bucket=self._name, Prefix=prefix, **more
                )
            for upload in page.get("Uploads", []):
                if upload["Key"].startswith(prefix):
                    yield upload["Key"], upload["UploadId"]
            if not page.get("IsTruncated"):
                return
            more = {
                "KeyMarker": page.get("NextKeyMarker", ""),
                "UploadIdMarker": page.get("NextUploadIdMarker", ""),
            }
            pages.turn("\n".join(more.values()))

    def create(self, key: str, data: bytes, *, is_conditional: bool = True) -> bool:
        path = f"{self._name}/{key}"
        # First, as nobody knows whether the store heeds conditions. Who may only write is not told.
        with suppress(AccessDenied), self._translated(key):
            if self._stands(key):
                if not _has(self, key, data):
                    raise ObjectExists(f"Another object stands in {path}.")
                return True
        with self._translated(key):
            try:
                self._put(key, data, is_conditional=is_conditional)
            except OSError as error:
                bucket_errors.forgive_same(error, path, lambda: _has(self, key, data))
                return True
        return not is_conditional or self._heeds_conditions(key, data)

    def _heeds_conditions(self, key: str, data: bytes) -> bool:
        """Whether the store refuses to write again, on condition, the object that stands there."""
        try:
            with self._translated(key):
                self._put(key, data, is_conditional=True)
        except ObjectChanged:
            return True
        return False

    def _put(self, key: str, data: bytes, *, is_conditional: bool) -> Any:
        condition = {"IfNoneMatch": "*"} if is_conditional else {}
        return self._fs.call_s3(
            "put_object",
            self._fs.s3_additional_kwargs,
            Bucket=self._name,
            Key=key,
            Body=data,
            **condition,
        )

    def _stands(self, key: str) -> bool:
        try:
            self.stat(key)
        except ObjectNotFound:
            return False
        return True


class GcsBucket:
    """A bucket in Google Cloud Storage."""

    def __init__(
        self,
        name: str,
        credentials: GcsCredentials | None,
        *,
        endpoint_url: str = "",
        request_s: float | None = None,
    ) -> None:
        from aiohttp import TCPConnector  # noqa: PLC0415 - as s3fs above

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
            session_kwargs=GCS_SESSION | {"trace_configs": [refusing_redirects()]},
            requests_timeout=time_limits(
                _CONNECT_TIMEOUT_S, _READ_TIMEOUT_S, request_s or answers.REQUEST_S_MAX
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
            check_encoding(info.get("contentEncoding"), f"{self._name}/{key}")
            return _pin(info.get("size"), info.get("generation"))

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
            check_encoding(headers.get("Content-Encoding"), path)
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
        """Nothing: unfinished uploads cost nothing in GCS, and are gone after a week."""

    def create(self, key: str, data: bytes, *, is_conditional: bool = True) -> bool:
        del is_conditional  # GCS knows conditions
        path = f"{self._name}/{key}"
        with self._translated(key):
            try:
                self._fs.pipe_file(path, data, mode="create")
            except OSError as error:
                bucket_errors.forgive_same(error, path, lambda: _has(self, key, data))
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


def _pin(size: Any, version: Any) -> Pin:
    """The pin of an object by what a store says of it, which may be anything.

    Raises:
        StoreAnswerInvalid: it does not say how long the object is, or of which version.
    """
    if not str(size).isdecimal() or not version:
        missing = "version (ETag)" if str(size).isdecimal() else "length"
        raise StoreAnswerInvalid(f"The store's answer does not tell the {missing} of the object.")
    return Pin(int(size), str(version))


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


def _has(bucket: Bucket, key: str, data: bytes) -> bool:
    """Whether an object holds just these bytes."""
    pin = bucket.stat(key)
    return pin.size == len(data) and (not data or bucket.read(key, pin, 0, pin.size) == data)


def _check_range(content_range: str | None, start: int) -> None:
    if not (content_range or "").startswith(f"bytes {start}-"):
        raise Transient("The store sent something else than the range that was asked for.")


def _whole(data: bytes, start: int, end: int) -> bytes:
    if len(data) != end - start:
        raise Transient(f"The store sent {len(data)} bytes where {end - start} were asked for.")
    return data
