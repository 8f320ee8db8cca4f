"""Measure Label Studio's annotations: a thread for each annotator, one POST a label."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx

from benchmarks import label_studio
from benchmarks.annotation_jobs import OPTIONS
from benchmarks.label_studio import LabelStudioFailed
from benchmarks.sizes import Sizes

_CREATED = 201


def run(client: httpx.Client, sizes: Sizes, tasks: int, threshold: int) -> list[float]:
    """Annotate tasks of a new project, each `threshold` times; return the seconds of each request.

    These are the requests that were answered within `sizes.seconds`, after some that warm everything.

    Raises:
        LabelStudioFailed: an annotation was refused, or there were too few tasks.
    """
    task_ids = _import(client, tasks)
    begin_s = time.monotonic() + sizes.warm_seconds
    end_s = begin_s + sizes.seconds
    failed = threading.Event()

    def loop(number: int) -> list[tuple[float, float]]:
        times = []
        own_ids = task_ids[number :: sizes.annotators]
        try:
            for task_id in (task_id for task_id in own_ids for _ in range(threshold)):
                times.append(_annotate(client, task_id, OPTIONS[task_id % len(OPTIONS)]))
                if failed.is_set() or times[-1][1] >= end_s:
                    return times
            raise LabelStudioFailed(f"{tasks} tasks were annotated before the end.")
        except BaseException:
            failed.set()
            raise

    with ThreadPoolExecutor(sizes.annotators) as threads:
        times = [each for some in threads.map(loop, range(sizes.annotators)) for each in some]
    latencies_s = [end - begin for begin, end in times if begin_s <= end <= end_s]
    if not latencies_s:
        raise LabelStudioFailed(f"No annotation was made in {sizes.seconds:g} s.")
    return latencies_s


def _import(client: httpx.Client, tasks: int) -> list[int]:
    """Import tasks into a new project, and return their ids."""
    number = label_studio.make_project(client)
    url = "https://images.example.com/batch-7/{:08d}.jpg"
    body = json.dumps([{"data": {"data_url": url.format(n)}} for n in range(tasks)])
    answer = client.post(
        f"/api/projects/{number}/import",
        params={"return_task_ids": "true"},
        content=body,
        headers={"Content-Type": "application/json"},
    )
    task_ids: list[int] = answer.raise_for_status().json()["task_ids"]
    if len(task_ids) != tasks:
        raise LabelStudioFailed(f"{len(task_ids)} tasks of {tasks} were imported.")
    return task_ids


def _annotate(client: httpx.Client, task_id: int, option: str) -> tuple[float, float]:
    """Annotate a task; return when the request began and when it was answered."""
    choice = {
        "from_name": "choice",
        "to_name": "image",
        "type": "choices",
        "value": {"choices": [option]},
    }
    begin_s = time.monotonic()
    answer = client.post(f"/api/tasks/{task_id}/annotations/", json={"result": [choice]})
    end_s = time.monotonic()
    if answer.status_code != _CREATED:
        raise LabelStudioFailed(f"{answer.status_code}: {answer.text[-2000:]}")
    return begin_s, end_s
