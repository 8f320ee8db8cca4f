"""Read compressed manifests: they have no random access, so one reader cuts the text into chunks."""

import io
from collections.abc import Iterator
from itertools import count
from typing import Any

import pyarrow as pa

from blocks.domain.errors import ManifestCorrupt, ManifestTooLarge
from blocks.domain.model import Compression
from blocks.lines.validated_lines import Counted
from flows.reading import ranges
from flows.reading.ranges import Read

_BLOCK_BYTES = 4 * 1024 * 1024
# No honest manifest is compressed further; a bomb of a few bytes is.
_RATIO_MAX = 1000
_RATIO_FROM_BYTES = 64 * 1024 * 1024


def read_chunks(
    read: Read, size: int, codec: Compression, *, chunk_bytes: int, bytes_max: int
) -> Iterator[tuple[int, int, bytes, Counted]]:
    """Yield (chunk number, byte offset, text, counts) of each chunk of the decompressed text, in order.

    Chunks are cut as by `ranges.chunk_range` and `ranges.read_lines`. Little more than one chunk of the
    text is held in memory. Raises whatever `read` raises, and

    Raises:
        ManifestCorrupt: the manifest is not `codec` data, or ends in the middle.
        ManifestTooLarge: the text has more than `bytes_max` bytes, or 1,000 times those of the manifest.
    """
    window = _Window(_decompress(read, size, codec, bytes_max))
    for number in count():
        start, end = ranges.chunk_range(number, chunk_bytes)
        end = window.fill_to(end)
        if end <= start:
            return
        at, text, counted = ranges.read_lines(window.read, bytes_max, start, end)
        yield number, at, text, counted
        window.forget(end - 1)  # the next chunk looks at the byte before it


class _Window:
    """Hold a part of a stream, addressed by offsets in the whole stream."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._start = 0
        self._held = bytearray()

    def fill_to(self, end: int) -> int:
        """Hold everything up to `end`; return `end`, or where the stream ends before it."""
        while self._start + len(self._held) < end and (block := next(self._blocks, None)):
            self._held += block
        return min(end, self._start + len(self._held))

    def read(self, start: int, end: int) -> bytes:
        """Return bytes `start` to `end`; fewer where the stream ends."""
        self.fill_to(end)
        return bytes(self._held[start - self._start : end - self._start])

    def forget(self, before: int) -> None:
        del self._held[: before - self._start]
        self._start = before


class _Object(io.RawIOBase):
    """Make a file of the compressed object; `at` is how many bytes of it were read."""

    def __init__(self, read: Read, size: int) -> None:
        super().__init__()
        self._read = read
        self._size = size
        self.at = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        end = min(self.at + len(buffer), self._size)
        if end == self.at:
            return 0
        data = self._read(self.at, end)
        buffer[: len(data)] = data
        self.at = end
        return len(data)


def _decompress(read: Read, size: int, codec: Compression, bytes_max: int) -> Iterator[bytes]:
    """Yield the text in blocks; members or frames that follow each other count as one stream."""
    compressed = _Object(read, size)
    file = pa.PythonFile(io.BufferedReader(compressed, _BLOCK_BYTES), mode="r")
    stream = pa.CompressedInputStream(file, codec.value)
    total = 0
    while block := _next_block(stream, codec, total):
        total += len(block)
        if total > bytes_max:
            raise ManifestTooLarge(f"The manifest decompresses to more than {bytes_max} bytes.")
        if total > max(_RATIO_FROM_BYTES, _RATIO_MAX * compressed.at):
            raise ManifestTooLarge(
                f"The manifest decompresses to more than {_RATIO_MAX} times its size."
            )
        yield block


def _next_block(stream: pa.CompressedInputStream, codec: Compression, total: int) -> bytes:
    try:
        block: bytes = stream.read(_BLOCK_BYTES)
    except (OSError, pa.ArrowException) as error:
        raise ManifestCorrupt(
            f"The manifest is not valid {codec} data, or is cut short, after {total} bytes of text "
            f"({error}). Compress and submit it again."
        ) from None
    return block
