"""All tasks of the store, one by one, out of their pages."""

from collections.abc import Callable
from typing import Any

from blocks.domain.ids import chunk_of
from blocks.lines.pages import read_frame


def list_tasks(
    run: Callable[..., list[dict[str, Any]]], condition: str = "true", *values: object
) -> list[dict[str, Any]]:
    """The tasks of the jobs for which `condition` is true, by job and number."""
    query = f"""
        select p.*, j.job_id from pages p join jobs j using (job_no) where {condition}
        order by p.job_no, p.first_task
    """
    found = []
    for page in run(query, *values):
        rows = read_frame([page["content"]]).rows(named=True)
        assert len(rows) == page["tasks"]
        for number, row in enumerate(rows, start=page["first_task"]):
            place = {"job_no": page["job_no"], "job_id": page["job_id"], "task_no": number}
            found.append(place | {"chunk_no": chunk_of(number)} | row)
    return found
