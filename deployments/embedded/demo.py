"""Run `refinery demo`: a job from its manifest to the results in a bucket, by the product itself.

A customer and annotators act here over HTTP and S3 alone. The database is used only for the keys that
an operator would make.
"""

import json
import random
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import s3fs
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from blocks.store import customers
from blocks.store.database import Database
from deployments.embedded.demo_pictures import ANIMALS, draw
from deployments.embedded.first_links import add_reviewer_key, make_links
from deployments.embedded.object_stores import ObjectStoreAddress
from deployments.embedded.stack import Stack
from deployments.errors import DemoFailed

_LINES = 2000
_PICTURES = 25  # of each animal; the lines of the manifest go through them again and again
_QUESTION = "Which animal is it?"
_ANNOTATORS = 5
_MISTAKEN = 0.12  # the share of labels in which an annotator is wrong
_CLAIM = 100
_POLL_S = 0.1
_TIMEOUT_S = 120
_MANIFESTS, _RESULTS, _GALLERY = "demo-manifests", "demo-results", "demo-pictures"
_REVIEWED = 12  # pictures of the second job that are labelled, so that there is something to review
_DELIVERY = {"type": "s3", "bucket": _RESULTS, "prefix": "labels"}
_INSTRUCTIONS = """\
Say which animal you see.

- **cat**: pointed ears, whiskers
- **dog**: ears that hang down
- **bird**: a beak, and two legs
"""
_BAD_LINES = (
    b'{"data_url": "https://images.example.com/truncated.jpg"',
    b'{"data_url": "not a url"}',
    b'{"metadata": {"note": "no data_url"}}',
    b'{"data_url": "https://images.example.com/a.jpg", "metadata": ["not", "an", "object"]}',
    b'["an", "array"]',
    b'{"data_url": "https://images.example.com/a.jpg", "label": "a field we do not know"}',
    b'{"data_url": "https://images.example.com/\xff.jpg"}',
)


def run_demo(console: Console, *, keep: bool = False) -> None:
    """Start the stack, run a job through it, show the results, and stop.

    Raises:
        DemoFailed: the job did not end as it should.
    """
    began = time.monotonic()
    with _data_dir() as data_dir:
        stack = Stack(data_dir, object_store=True)
        console.print("[bold]Starting[/] PostgreSQL, SeaweedFS, Prefect, a worker and the API")
        try:
            stack.start(lambda step: console.print(f"  [dim]{step}[/]"))
            demo = Demo(console, stack)
            demo.run()
            console.print(f"\nAll of it took {time.monotonic() - began:.0f} s.")
            if keep:
                demo.leave_work()
                console.print("\n[bold]The servers stay up[/] until Ctrl-C.")
                stack.wait()
        finally:
            stack.stop()


class Demo:
    """Act as a customer with one job, and as the annotators who label it."""

    def __init__(self, console: Console, stack: Stack) -> None:
        assert stack.object_store is not None  # it was asked for
        self._console = console
        self._stack = stack
        self._store: ObjectStoreAddress = stack.object_store
        self._customer_key, self._annotator_keys = _make_keys(stack.database_url)

    def run(self) -> None:
        """Take a job through its whole life."""
        bucket = self._put_manifest()
        with self._client(self._customer_key) as client:
            job_id = self._post_job(
                client, f"{_MANIFESTS}/animals.jsonl", consensus_threshold=3, delivery=_DELIVERY
            )
            with _progress(self._console) as progress:
                self._watch_ingestion(client, job_id, progress)
                self._label(client, job_id, progress)
            job = self._watch_delivery(client, job_id)
            self._show_results(client, job)
        self._show_delivery(bucket)
        self._show_links(job_id)

    def _put_manifest(self) -> s3fs.S3FileSystem:
        bucket = self._open_store()
        for name in (_MANIFESTS, _RESULTS):
            bucket.mkdir(name)
        bucket.pipe_file(f"{_MANIFESTS}/animals.jsonl", make_manifest())
        self._console.print(
            f"\n[bold]Manifest[/] s3://{_MANIFESTS}/animals.jsonl, {_LINES} lines, some of them bad"
        )
        return bucket

    def _open_store(self) -> s3fs.S3FileSystem:
        return s3fs.S3FileSystem(
            key=self._store.access_key_id,
            secret=self._store.secret_access_key,
            endpoint_url=self._store.endpoint_url,
        )

    def _post_job(self, client: httpx.Client, manifest: str, **more: Any) -> str:
        body = {
            "manifest_url": f"s3://{manifest}",
            "label_spec": {"question": _QUESTION, "options": list(ANIMALS)},
            "credentials": {
                "access_key_id": self._store.access_key_id,
                "secret_access_key": self._store.secret_access_key,
                "region": "us-east-1",
                "endpoint_url": self._store.endpoint_url,
            },
            # Browsers get the pictures from the store, by URLs that say who may.
            "sign_urls": True,
            **more,
        }
        answer = _read_answer(client.post("/v1/jobs", json=body))
        self._console.print(f"[bold]POST /v1/jobs[/] → {answer['job_id']} ({answer['status']})\n")
        job_id: str = answer["job_id"]
        return job_id

    def _watch_ingestion(self, client: httpx.Client, job_id: str, progress: Progress) -> None:
        bar = progress.add_task("Reading the manifest", total=_LINES)
        for job in _watch(client, job_id):
            progress.update(bar, completed=job["total_tasks"])
            if job["total_tasks"] == _LINES:
                return

    def _label(self, client: httpx.Client, job_id: str, progress: Progress) -> None:
        bar = progress.add_task("Labelling by consensus", total=_LINES)
        done = threading.Event()
        with ThreadPoolExecutor(_ANNOTATORS) as pool:
            futures = [
                pool.submit(self._annotate, key, seed, done)
                for seed, key in enumerate(self._annotator_keys)
            ]
            try:
                for job in _watch(client, job_id):
                    progress.update(bar, completed=job["tasks_done"] + job["tasks_failed"])
                    if job["tasks_done"] + job["tasks_failed"] == _LINES:
                        break
            finally:
                done.set()
        for future in futures:
            future.result()

    def _annotate(self, key: str, seed: int, done: threading.Event) -> None:
        """Act as one annotator: claim tasks, label each, and be wrong sometimes."""
        dice = random.Random(seed)  # noqa: S311 - not a secret
        with self._client(key) as client:
            while not done.is_set():
                if not _label_some(client, {"limit": _CLAIM}, dice):
                    done.wait(_POLL_S)

    def _watch_delivery(self, client: httpx.Client, job_id: str) -> dict[str, Any]:
        with self._console.status("Delivering the results"):
            for job in _watch(client, job_id):
                if job["status"] == "completed":
                    return job
        raise AssertionError  # _watch ends only by raising

    def _show_results(self, client: httpx.Client, job: dict[str, Any]) -> None:
        self._console.print(
            f"\n[bold]GET /v1/jobs/{job['job_id']}[/] → {job['status']}: {job['tasks_done']} settled, "
            f"{job['tasks_failed']} failed, {job['progress_percent']}%"
        )
        lines = client.get(f"/v1/jobs/{job['job_id']}/export").raise_for_status().text.splitlines()
        table = Table(title=f"Five of the {len(lines)} lines of …/export", title_justify="left")
        for column in ("line", "data_url", "consensus", "confidence", "votes"):
            table.add_column(column, overflow="fold")
        for line in lines[:: max(len(lines) // 5, 1)][:5]:
            result = json.loads(line)
            votes = ", ".join(f"{k} {v}" for k, v in result["votes"].items() if v)
            confidence = f"{result['confidence']:.2f}"
            label = result["consensus_label"]
            table.add_row(str(result["line"]), result["data_url"], label, confidence, votes)
        self._console.print(table)
        errors = client.get(f"/v1/jobs/{job['job_id']}/errors").raise_for_status().text.splitlines()
        table = Table(title=f"Three of the {len(errors)} lines of …/errors", title_justify="left")
        for column in ("line", "byte_offset", "code", "message"):
            table.add_column(column, overflow="fold")
        for line in errors[:3]:
            table.add_row(*(str(json.loads(line)[column.header]) for column in table.columns))
        self._console.print(table)

    def _show_delivery(self, bucket: s3fs.S3FileSystem) -> None:
        self._console.print("\n[bold]Delivered[/]")
        bucket.invalidate_cache()
        for path, details in sorted(bucket.find(_RESULTS, detail=True).items()):
            self._console.print(f"  s3://{path}  {details['size']:,} bytes")

    def _show_links(self, job_id: str) -> None:
        self._console.print(
            f"\n[bold]To look at[/]\n"
            f"  Prefect UI   {self._stack.prefect_sign_in_url}\n"
            f"               (look for {job_id} in Runs)\n"
            f"  OpenAPI      {self._stack.openapi_url}",
            soft_wrap=True,  # a link that is broken over two lines cannot be clicked
        )

    def leave_work(self) -> None:
        """Post a second job for whoever signs in, with some of it to review, and print their links."""
        self._console.print("\n[bold]A job for you[/] to label and to review")
        lines = self._put_pictures()
        with self._client(self._customer_key) as client:
            job_id = self._post_job(
                client,
                f"{_GALLERY}/all.jsonl",
                consensus_threshold=1,
                review_share=0.5,
                instructions=_INSTRUCTIONS,
            )
            for job in _watch(client, job_id):
                if job["total_tasks"] == lines:
                    break
        with self._client(self._annotator_keys[0]) as client:
            claim = {"limit": _REVIEWED, "job_id": job_id}
            _label_some(client, claim, random.Random(0))  # noqa: S311 - not a secret
        links = make_links(self._stack, self._keys_of_people())
        self._console.print(f"\n{links}", end="", soft_wrap=True)

    def _put_pictures(self) -> int:
        """Put the pictures into the store, now that somebody may look at them; return how many."""
        store, pictures = self._open_store(), make_pictures()
        store.mkdir(_GALLERY)
        # A browser shows what is called an SVG, and nothing that only looks like one.
        store.pipe(pictures, ContentType="image/svg+xml")
        store.pipe_file(f"{_GALLERY}/all.jsonl", make_gallery())
        return len(pictures)

    def _keys_of_people(self) -> dict[str, str]:
        with (
            Database(self._stack.database_url, connections_max=1) as database,
            database.transaction() as tx,
        ):
            return {
                "annotator": customers.add_annotator_key(tx, "Ann")[1],
                "reviewer": add_reviewer_key(tx, "Rae"),
                "customer": self._customer_key,
                "operator": customers.add_admin_key(tx, "Ona"),
            }

    def _client(self, key: str) -> httpx.Client:
        headers = {"Authorization": f"Bearer {key}"}
        return httpx.Client(base_url=self._stack.api_url, headers=headers, timeout=30)


def _label_some(client: httpx.Client, claim: dict[str, Any], dice: random.Random) -> int:
    """Label what a claim gives; return how many tasks that were."""
    tasks = _read_answer(client.post("/v1/annotation/claim", json=claim))["tasks"]
    labels = [
        {"task_id": task["task_id"], "label": _look_at(task["data_url"], dice)} for task in tasks
    ]
    if labels:
        _read_answer(client.post("/v1/annotation/labels", json={"labels": labels}))
    return len(labels)


def make_pictures() -> dict[str, bytes]:
    """Return all pictures, by where they are in the store."""
    return {_path(animal, n): draw(animal, n) for animal in ANIMALS for n in range(_PICTURES)}


def make_gallery() -> bytes:
    """Return a manifest in which each picture is one line, in an order that tells nothing."""
    paths = [_path(animal, n) for animal in ANIMALS for n in range(_PICTURES)]
    random.Random(0).shuffle(paths)  # noqa: S311 - not a secret
    return b"".join(json.dumps({"data_url": f"s3://{path}"}).encode() + b"\n" for path in paths)


def make_manifest() -> bytes:
    """Return a manifest of `_LINES` lines, one in a hundred of them bad."""
    dice = random.Random(0)  # noqa: S311 - not a secret
    lines = [_line(n, dice.choice(ANIMALS)) for n in range(_LINES)]
    for n, at in enumerate(range(50, _LINES, 100)):
        lines[at] = _BAD_LINES[n % len(_BAD_LINES)]
    return b"\n".join(lines) + b"\n"


def _line(n: int, animal: str) -> bytes:
    data_url = f"s3://{_path(animal, n % _PICTURES)}"
    return json.dumps({"data_url": data_url, "metadata": {"sku": f"A-{n:04d}"}}).encode()


def _path(animal: str, n: int) -> str:
    return f"{_GALLERY}/{animal}/{n:02d}.svg"


def _look_at(data_url: str, dice: random.Random) -> str:
    """Return what a picture shows, or sometimes a mistake; the path says it, as nobody looks."""
    truth = urlsplit(data_url).path.split("/")[-2]
    return dice.choice(ANIMALS) if dice.random() < _MISTAKEN else truth


def _watch(client: httpx.Client, job_id: str) -> Iterator[dict[str, Any]]:
    """Yield the job again and again.

    Raises:
        DemoFailed: the job failed, or does not end.
    """
    deadline = time.monotonic() + _TIMEOUT_S
    while True:
        job = _read_answer(client.get(f"/v1/jobs/{job_id}"))
        if job["error"]:
            raise DemoFailed(f"the job failed: {job['error']['message']}")
        yield job
        if time.monotonic() > deadline:
            raise DemoFailed(f"the job is still {job['status']} after {_TIMEOUT_S} s")
        time.sleep(_POLL_S)


def _read_answer(response: httpx.Response) -> dict[str, Any]:
    if response.is_error:
        raise DemoFailed(f"{response.request.url} answered {response.status_code}: {response.text}")
    answer: dict[str, Any] = response.json()
    return answer


def _make_keys(database_url: str) -> tuple[str, list[str]]:
    with Database(database_url, connections_max=1) as database, database.transaction() as tx:
        customer_key = customers.add_customer_key(tx, customers.add_customer(tx, "Demo"))
        names = [f"annotator {n}" for n in range(_ANNOTATORS)]
        return customer_key, [customers.add_annotator_key(tx, name)[1] for name in names]


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:24}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )


@contextmanager
def _data_dir() -> Iterator[Path]:
    """Make a directory for one demo, which PostgreSQL's user can pass through, and remove it."""
    folder = Path(tempfile.mkdtemp(prefix="refinery-demo-"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
