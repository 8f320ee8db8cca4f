"""Make manifests like real ones: 140 bytes a line with nested metadata, one line in a hundred bad."""

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.servers import BUCKET, Store

LINES_PER_BAD_LINE = 100
# One line for each of the most frequent faults of hand-written manifests.
BAD_LINES = (
    '{"data_url": "nowhere", "metadata": {"sku": "A-1", "shelf": 1}}',
    '{"data_url": "https://images.example.com/batch-7/1.jpg", "metadata": {"sku": "A-1"',
    '{"image": "https://images.example.com/batch-7/1.jpg"}',
    '{"data_url": "https://images.example.com/batch-7/1.jpg", "metadata": ["A-1"]}',
)
_BLOCK_LINES = 50_000
_PART_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True)
class Manifest:
    """Describe a manifest in the bucket."""

    key: str
    lines: int
    good_lines: int
    size: int
    """Bytes."""

    @property
    def path(self) -> str:
        return f"{BUCKET}/{self.key}"

    @property
    def url(self) -> str:
        return f"s3://{self.path}"


def put(store: Store, lines: int, *, bad: bool = True) -> Manifest:
    """Write a manifest of this many lines block by block, as a multipart upload.

    Without `bad` it has the good lines only, for peers that stop at a bad one.
    """
    bucket = store.open()
    bucket.makedirs(BUCKET, exist_ok=True)
    key = f"{'manifest' if bad else 'good'}-{lines}.jsonl"
    size = 0
    with bucket.open(f"{BUCKET}/{key}", "wb", block_size=_PART_BYTES) as file:
        for block in blocks(lines, bad=bad):
            size += file.write(block)
    good_lines = lines - len(range(0, lines, LINES_PER_BAD_LINE))
    return Manifest(key, lines if bad else good_lines, good_lines, size)


def blocks(lines: int, *, bad: bool = True) -> Iterator[bytes]:
    """Yield the text of a manifest of this many lines, some megabytes at a time."""
    for begin in range(0, lines, _BLOCK_LINES):
        numbers = range(begin, min(begin + _BLOCK_LINES, lines))
        yield "".join(
            good_line(n) if n % LINES_PER_BAD_LINE else bad_line(n)
            for n in numbers
            if bad or n % LINES_PER_BAD_LINE
        ).encode()


def good_line(n: int) -> str:
    """Return line number `n`, with its line feed."""
    return (
        f'{{"data_url": "https://images.example.com/batch-7/{n:08d}.jpg", "metadata": '
        f'{{"sku": "A-{n:08d}", "shelf": {n % 40}, "size": {{"w": 640, "h": {n % 480}}}}}}}\n'
    )


def bad_line(n: int) -> str:
    """Return a bad line for number `n`, with its line feed."""
    return BAD_LINES[n // LINES_PER_BAD_LINE % len(BAD_LINES)] + "\n"
