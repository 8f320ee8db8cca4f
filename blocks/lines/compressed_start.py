"""The first text of a compressed manifest, of its first bytes alone: bounded, whatever it comes to."""

from typing import NamedTuple

import pyarrow as pa

from blocks.domain.errors import ManifestCorrupt
from blocks.domain.model import Compression

# What was decompressed within one step is lost where the compressed bytes end in the middle.
_STEP_BYTES = 1024


class Start(NamedTuple):
    """The first text of a manifest, and whether it is all of it."""

    text: bytes
    is_whole: bool


def decompress_start(
    compressed: bytes, codec: Compression, *, has_more: bool, bytes_max: int
) -> Start:
    """Return up to `bytes_max` bytes of text; no more of it is made, so that a bomb comes to nothing.

    `has_more` says that the manifest goes on behind `compressed`; then the text may end anywhere.

    Raises:
        ManifestCorrupt: it is not `codec` data, or ends in the middle.
    """
    stream = pa.CompressedInputStream(pa.BufferReader(compressed), codec.value)
    text = bytearray()
    try:
        while len(text) < bytes_max:
            block = stream.read(min(_STEP_BYTES, bytes_max - len(text)))
            if not block:
                return Start(bytes(text), is_whole=not has_more)
            text += block
        return Start(bytes(text), is_whole=not has_more and not stream.read(1))
    except (OSError, pa.ArrowException) as error:
        # Of bytes that end in the middle, the text before is good.
        if has_more and text:
            return Start(bytes(text), is_whole=False)
        raise ManifestCorrupt(
            f"The manifest is not valid {codec} data, or is cut short, after {len(text)} bytes of text "
            f"({error}). Compress it again."
        ) from None
