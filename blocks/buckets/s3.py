"""Buckets in S3, and in stores that speak its protocol, through s3fs."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any
from urllib.parse import urlencode

from blocks.buckets import answers, errors
from blocks.buckets.answers import LISTING_S_MAX, Pages, check_encoding
from blocks.buckets.checks import check_bytes, check_length, check_range, has_bytes, pin_of
from blocks.buckets.errors import translated
from blocks.buckets.protocol import Entry, ObjectFile
from blocks.buckets.uploads import S3Upload, uploading
from blocks.domain.errors import (
    AccessDenied,
    BucketNotFound,
    InvalidCredentials,
    NotSupported,
    ObjectChanged,
    ObjectExists,
    ObjectNotFound,
    RefineryError,
)
from blocks.domain.model import Pin
from blocks.secrets.credentials import S3Credentials
from blocks.secrets.egress import Egress, GuardedResolver
from blocks.secrets.machine_identity import MachineIdentity, NoIdentity

# Unfinished uploads cost their owner some cents; a store that lists them too slowly keeps them.
_ABORTS_S_MAX = 60.0
_CONSOLE_URL = "https://console.aws.amazon.com/s3/buckets"


class S3Bucket:
    """A bucket in S3, or in a store that speaks its protocol."""

    def __init__(
        self,
        name: str,
        credentials: S3Credentials | MachineIdentity | None,
        *,
        egress: Egress,
        kms_key_id: str | None = None,
        acl: str | None = None,
        request_s: float | None = None,
    ) -> None:
        # Costs half a second that a worker needs, but not the API.
        import s3fs  # noqa: PLC0415

        from blocks.buckets.s3_session import CustomerHttp, new_session  # noqa: PLC0415

        keys = credentials if isinstance(credentials, S3Credentials) else None
        endpoint_url = credentials.endpoint_url if credentials else None
        if endpoint_url:
            egress.check_url(endpoint_url)
        resolver = GuardedResolver(egress)
        config: dict[str, Any] = {
            "connect_timeout": answers.CONNECT_TIMEOUT_S,
            "read_timeout": answers.READ_TIMEOUT_S,
            "connector_args": {"resolver": resolver, "socket_factory": resolver.open_socket},
            # Our own retries decide by type; the client's would multiply them.
            "retries": {"total_max_attempts": 1, "mode": "standard"},
            "http_session_cls": partial(CustomerHttp, request_s=request_s or answers.REQUEST_S_MAX),
            # By default botocore takes a proxy from the environment, and through a proxy nobody can
            # check which address is connected to.
            "proxies": {},
        }
        if endpoint_url:
            # Few S3-compatible stores know virtual hosts or the newer checksums.
            config["s3"] = {"addressing_style": "path"}
            config["request_checksum_calculation"] = "when_required"
            config["response_checksum_validation"] = "when_required"

        class Verbatim(s3fs.S3FileSystem):  # type: ignore[misc]
            """A file system that takes names as they are: `?versionId=` belongs to a name."""

            # By its protocols a file system would find settings in FSSPEC_* and ~/.config/fsspec.
            protocol = ()

            def split_path(self, path: str) -> tuple[str, str, None]:
                bucket, _, key = path.removeprefix("s3://").partition("/")
                return bucket, key, None

        self._fs = Verbatim(
            anon=credentials is None,
            key=keys.access_key_id if keys else None,
            secret=keys.secret_access_key if keys else None,
            token=keys.session_token if keys else None,
            endpoint_url=endpoint_url,
            client_kwargs={"region_name": credentials.region} if credentials else {},
            config_kwargs=config,
            session=new_session(credentials),
            s3_additional_kwargs=_write_options(kms_key_id, acl),
            use_listings_cache=False,
            skip_instance_cache=True,
        )
        self._fs.retries = 1
        self._name = name
        self._region = credentials.region if credentials else ""
        self._is_amazons = endpoint_url is None
        self._is_machines = isinstance(credentials, MachineIdentity)

    @contextmanager
    def _translated(self, key: str) -> Iterator[None]:
        try:
            with translated(self._name, key, region=self._region):
                yield
        except InvalidCredentials as error:
            # botocore goes on with a key that has ended while the machine's service gives no other.
            if self._is_machines:
                raise NoIdentity(error.message) from None
            raise

    def console_url(self, prefix: str) -> str | None:
        where = f"{_CONSOLE_URL}/{self._name}?{urlencode({'prefix': prefix})}"
        return where if self._is_amazons else None

    def stat(self, key: str) -> Pin:
        with self._translated(key):
            try:
                head = self._fs.call_s3("head_object", Bucket=self._name, Key=key)
            except OSError as error:
                # The answer to a HEAD has no body: ask again in a way that gives the reason.
                if errors.is_bare_refusal(error):
                    self._close(self._get(key, 0, 1)["Body"])
                raise
            check_encoding(head.get("ContentEncoding"), f"{self._name}/{key}")
            return pin_of(head.get("ContentLength"), head.get("ETag"))

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
            data: bytes = errors.read_body(self._fs.loop, answer["Body"])
        return check_length(data, start, end)

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
            check_range(answer.get("ContentRange"), start)

    @contextmanager
    def write(self, key: str) -> Iterator[ObjectFile]:
        upload = S3Upload(self._fs, self._name, key, self._fs.s3_additional_kwargs)
        with uploading(upload, lambda: self._translated(key)) as file:
            yield file
        with suppress(AccessDenied), self._translated(key):
            # Credentials that may only write pass: the store has checked each part by its MD5.
            head = self._fs.call_s3("head_object", Bucket=self._name, Key=key)
            if (head["ContentLength"], head["ETag"]) != (upload.size, upload.expected_etag):
                # Some stores compute the ETag in other ways, such as those that encrypt by KMS.
                check_bytes(self, key, Pin(head["ContentLength"], head["ETag"]), file)

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
        """Put an empty object where none stands; return the answers to the writes."""
        with self._translated(key):
            try:
                stands = self._stands(key)
            except AccessDenied:
                stands = False
        if stands:
            # It is not ours to remove, and a store that ignores conditions would replace it.
            return []
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
            pass  # credentials that may write need not be allowed to look

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
            if not errors.is_upload_gone(error):  # a twin may have aborted it
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
        # First look, as the store may ignore conditions. Credentials that may only write skip this.
        with suppress(AccessDenied), self._translated(key):
            if self._stands(key):
                if not has_bytes(self, key, data):
                    raise ObjectExists(f"Another object stands in {path}.")
                return True
        with self._translated(key):
            try:
                self._put(key, data, is_conditional=is_conditional)
            except OSError as error:
                errors.forgive_same(error, path, lambda: has_bytes(self, key, data))
                return True
        return not is_conditional or self._heeds_conditions(key, data)

    def _heeds_conditions(self, key: str, data: bytes) -> bool:
        """Return True if the store refuses, on condition, to write the object a second time."""
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


def _write_options(kms_key_id: str | None, acl: str | None) -> dict[str, str]:
    options = {"ACL": acl} if acl else {}
    if kms_key_id:
        options |= {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": kms_key_id}
    return options
