"""All tasks of the store, one by one, out of their pages."""

from collections.abc import Callable
from typing import Any

from blocks.lines.pages import read_frame


def list_tasks(
    run: Callable[..., list[dict[str, Any]]], condition: str = "true", *values: object
) -> list[dict[str, Any]]:
    """The tasks of the jobs for which `condition` is true, by job and number."""
    query = f"""
        select p.*, chunk_of(p.first_task) as chunk_no, j.job_id, j.task_key from pages p join jobs j using (job_no) where {condition}
        order by p.job_no, p.first_task
    """
    found = []
    for page in run(query, *values):
        rows = read_frame([page["content"]]).rows(named=True)
        assert len(rows) == page["tasks"]
        place = {key: page[key] for key in ("job_no", "job_id", "task_key", "chunk_no")}
        for number, row in enumerate(rows, start=page["first_task"]):
            found.append(place | {"task_no": number} | row)
    return found
