"""Parts of an upload: all bytes in their order, however they were written."""

import base64
import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.buckets import uploads
from blocks.buckets.uploads import S3Upload


class Store:
    """Takes the parts of one upload, each with its checksum."""

    def __init__(self) -> None:
        self.parts: dict[int, bytes] = {}
        self.etag = ""

    def call_s3(self, method: str, **values: Any) -> dict[str, Any]:
        match method:
            case "create_multipart_upload":
                return {"UploadId": "one"}
            case "complete_multipart_upload":
                numbers = [part["PartNumber"] for part in values["MultipartUpload"]["Parts"]]
                assert numbers == sorted(self.parts)
                digests = b"".join(hashlib.md5(self.parts[n]).digest() for n in numbers)
                self.etag = f'"{hashlib.md5(digests).hexdigest()}-{len(numbers)}"'
                return {}
            case "put_object":
                self._check(values)
                self.parts[1] = values["Body"]
                self.etag = f'"{hashlib.md5(values["Body"]).hexdigest()}"'
                return {}
        self._check(values)
        self.parts[values["PartNumber"]] = values["Body"]
        return {"ETag": f'"{values["PartNumber"]}"'}

    @staticmethod
    def _check(values: dict[str, Any]) -> None:
        digest = hashlib.md5(values["Body"]).digest()
        assert values["ContentMD5"] == base64.b64encode(digest).decode()


@pytest.fixture(autouse=True, scope="module")
def small_parts() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(uploads, "_PART_BYTES", 10)
        patch.setattr(uploads, "_PARTS_OF_A_SIZE", 3)
        yield


@given(st.lists(st.binary(max_size=35), max_size=9), st.booleans())
def test_the_parts_together_are_what_was_written(pieces: list[bytes], is_reused: bool) -> None:
    store = Store()
    upload = S3Upload(store, "bucket", "key", {})
    for piece in pieces:
        buffer = bytearray(piece) if is_reused else piece
        upload.write(buffer)
        if isinstance(buffer, bytearray):  # a compressor uses its buffer again
            buffer[:] = b"\0" * len(buffer)
    upload.finish()
    whole = b"".join(pieces)
    assert b"".join(store.parts[n] for n in sorted(store.parts)) == whole
    assert (upload.size, upload.sha256) == (len(whole), hashlib.sha256(whole).hexdigest())
    assert upload.expected_etag == store.etag


def test_parts_become_larger_so_that_ten_thousand_are_enough() -> None:
    store = Store()
    upload = S3Upload(store, "bucket", "key", {})
    upload.write(b"x" * 165)
    upload.finish()
    sizes = [len(store.parts[n]) for n in sorted(store.parts)]
    assert sizes == [10, 10, 10, 20, 20, 20, 30, 30, 15]
