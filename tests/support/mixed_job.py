"""A job with all that results can have in them: bad lines, ties, open tasks, texts that JSON escapes."""

import random

from blocks.domain.model import BadLine, GoodLine, LineCode
from blocks.store import chunks, jobs
from blocks.store.jobs import Job
from tests.support.store_shop import Chunk, Shop

METADATA = [
    None,
    "{}",
    '{"b":1,"a":2,"b":3}',
    '{ "n" : 1.10, "e": 1E+5, "z": -0.0, "big": 12345678901234567890123456789012345678901 }',
    '{\r"cr"\r:\r[1,\r2]\r}',
    '{\t"tab":\t"\\t" }',
    '{"text":"caf\\u00e9 \\ud83d\\ude00 \\u0000 \\\\ \\" \\/","raw":"🦊 \u2028\x7fé"}',
    '{"backslashes":"\\\\\\\\N \\\\."}',
    '{"deep":' + "[" * 50 + "]" * 50 + "}",
    '{"long":"' + "x" * 300_000 + '"}',
]
URLS = [
    "https://x.example.com/a.jpg", "s3://bucket/a b", 'gs://bucket/"quoted"', "s3://bucket/back\\slash",
    "https://x.example.com/é/🦊", "s3://bucket/\x7f", "s3://bucket/\u2028",
]  # fmt: skip


def make_mixed_job(shop: Shop, end: str, options: int) -> Job:
    """A job of five chunks with that status, and one chunk missing unless it is completed."""
    rng = random.Random(f"{end} {options}")
    names = ['"', "\\", "é", "\n", "cat", *(f"option {n}" for n in range(20))][:options]
    made = [_mixed_chunk(rng, start * 10**6) for start in range(4)]
    job = shop.processing(*made, ingested=end == "completed", options=names)
    if end != "completed":  # a chunk is missing
        shop.do(chunks.commit, job.job_no, 5, _mixed_chunk(rng, 10**8), None)
    for _ in range(6 if end == "completed" else 4):
        annotator = shop.annotator()
        tasks = shop.claim(annotator, 2000)
        said = [(task.task_id, rng.choice(names[:3] * 2 + names)) for task in tasks]
        shop.label(annotator, *said if end == "completed" else said[: len(said) * 2 // 3])
    if end == "cancelled":
        shop.do(jobs.cancel, job.job_no)
    elif end == "failed":
        shop.do(jobs.fail, job.job_no, "manifest_changed", "It changed.")
    assert shop.job(job).status == end
    return job


def _mixed_chunk(rng: random.Random, start: int) -> Chunk:
    """Good and bad lines, some hundred; texts that JSON has to escape."""
    good, bad = [], []
    for n in range(300):
        place = start + n * 1000
        if rng.random() < 0.1:
            bad.append(BadLine(place, n + 1, LineCode.INVALID_METADATA, "It is bad.", b"\xff{"))
        elif rng.random() < 0.9:
            text = rng.choice(METADATA[:-1])
            good.append(GoodLine(place, n + 1, rng.choice(URLS) + str(n), text))
    return Chunk(300, good, bad)
