"""Uploads of objects: bounded in memory, hashed, and checked against what the store has got."""

import base64
import hashlib
import io
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any, NamedTuple

# The least that S3 takes, since several parts are kept in memory.
_PART_BYTES = 5 * 1024 * 1024
# S3 takes 10,000 parts of an object: each time after so many they become larger by as much again.
_PARTS_OF_A_SIZE = 2000
# Parts are sent while the next one is made; each part under way is kept in memory.
_PARTS_IN_FLIGHT = 2


class HashedFile(io.RawIOBase):
    """A file to write to that knows the SHA-256 and the length of what was written."""

    def __init__(self) -> None:
        super().__init__()
        self._sha256 = hashlib.sha256()
        self.size = 0

    @property
    def sha256(self) -> str:
        """The digest of all that was written so far, in hexadecimal digits."""
        return self._sha256.hexdigest()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._sha256.update(data)
        self.size += len(data)
        return len(data)


class _Part(NamedTuple):
    """A part that the store has taken."""

    md5: bytes
    etag: str


class S3Upload(HashedFile):
    """An upload to S3: one request for a small object, else parts.

    Each request carries its MD5, so that the store refuses bytes that were altered on the way. The
    ETag of the object, which most stores compute from the parts, shows that all of them are there.
    """

    def __init__(self, fs: Any, bucket: str, key: str, options: dict[str, str]) -> None:
        super().__init__()
        self._fs = fs
        self._place = {"Bucket": bucket, "Key": key}
        self._options = options
        self._waiting: list[bytes | memoryview] = []
        self._waiting_bytes = 0
        self._upload_id: str | None = None
        self._sent: deque[Future[_Part]] = deque()
        self._parts: list[_Part] = []
        self._threads = ThreadPoolExecutor(_PARTS_IN_FLIGHT, thread_name_prefix="upload")
        self.expected_etag = ""

    def write(self, data: Any) -> int:
        rest = memoryview(data)
        while self._waiting_bytes + len(rest) >= self._part_bytes():
            size = self._part_bytes() - self._waiting_bytes
            self._send(self._take(rest[:size]))
            rest = rest[size:]
        if rest:
            # A compressor may use its buffer again, but bytes never change and need no copy.
            self._waiting.append(rest if isinstance(data, bytes) else bytes(rest))
            self._waiting_bytes += len(rest)
        return super().write(data)

    def finish(self) -> None:
        """Make the object appear."""
        last = self._take()
        if self._upload_id is None:
            md5 = hashlib.md5(last, usedforsecurity=False)
            self.expected_etag = f'"{md5.hexdigest()}"'
            self._call("put_object", Body=last, ContentMD5=_base64(md5.digest()), **self._options)
        else:
            if last:
                self._send(last)
            while self._sent:
                self._receive()
            md5s = b"".join(part.md5 for part in self._parts)
            whole = hashlib.md5(md5s, usedforsecurity=False).hexdigest()
            self.expected_etag = f'"{whole}-{len(self._parts)}"'
            numbered = [
                {"PartNumber": number, "ETag": part.etag}
                for number, part in enumerate(self._parts, start=1)
            ]
            self._call(
                "complete_multipart_upload",
                UploadId=self._upload_id,
                MultipartUpload={"Parts": numbered},
            )
        self._threads.shutdown()

    def discard(self) -> None:
        """Give up: nothing appears, and no unfinished upload is left to be paid for."""
        self._threads.shutdown(cancel_futures=True)
        if self._upload_id is not None:
            self._call("abort_multipart_upload", UploadId=self._upload_id)

    def begin(self) -> None:
        """Begin an upload of parts, which shows nothing until its end."""
        self._upload_id = self._call("create_multipart_upload", **self._options)["UploadId"]

    def _part_bytes(self) -> int:
        return _PART_BYTES * (1 + self._parts_begun() // _PARTS_OF_A_SIZE)

    def _parts_begun(self) -> int:
        return len(self._parts) + len(self._sent)

    def _take(self, more: memoryview | bytes = b"") -> bytes:
        """Return what waits to be sent, and `more` behind it."""
        data = b"".join([*self._waiting, more])
        self._waiting.clear()
        self._waiting_bytes = 0
        return data

    def _send(self, data: bytes) -> None:
        if self._upload_id is None:
            self.begin()
        if len(self._sent) >= _PARTS_IN_FLIGHT:
            self._receive()
        number = self._parts_begun() + 1
        self._sent.append(self._threads.submit(self._send_part, number, data))

    def _send_part(self, number: int, data: bytes) -> _Part:
        md5 = hashlib.md5(data, usedforsecurity=False).digest()
        answer = self._call(
            "upload_part",
            UploadId=self._upload_id,
            PartNumber=number,
            Body=data,
            ContentMD5=_base64(md5),
        )
        return _Part(md5, answer["ETag"])

    def _receive(self) -> None:
        self._parts.append(self._sent.popleft().result())

    def _call(self, method: str, **values: Any) -> dict[str, Any]:
        answer: dict[str, Any] = self._fs.call_s3(method, **self._place, **values)
        return answer


class GcsUpload(HashedFile):
    """A resumable upload to GCS; `md5` is that of the whole object, in base 64."""

    def __init__(self, fs: Any, path: str) -> None:
        super().__init__()
        self._file = fs.open(path, "wb", block_size=_PART_BYTES)
        self._md5 = hashlib.md5(usedforsecurity=False)

    @property
    def md5(self) -> str:
        """The MD5 of what was written so far, in the form that GCS has."""
        return _base64(self._md5.digest())

    def write(self, data: Any) -> int:
        self._file.write(data)
        self._md5.update(data)
        return super().write(data)

    def finish(self) -> None:
        """Make the object appear."""
        self._file.close()

    def discard(self) -> None:
        """Give up, so that nothing appears."""
        try:
            self._file.discard()
        finally:
            self._file.closed = True


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode()


class _Translated(io.RawIOBase):
    """An upload whose failures are translated; exceptions of the writer itself are not."""

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
def uploading(
    upload: S3Upload | GcsUpload, translated: Callable[[], AbstractContextManager[None]]
) -> Iterator[Any]:
    """Write to an upload, and finish it if the block ends well; discard it if not."""
    try:
        yield _Translated(upload, translated)
        with translated():
            upload.finish()
    except BaseException:
        with suppress(Exception):  # the first failure is the one to be told
            upload.discard()
        raise
