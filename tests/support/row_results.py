"""The results of a job as PostgreSQL composes them from a row for each task, to compare ours with."""

from typing import Any

import psycopg
from psycopg.rows import dict_row

from benchmarks.row_tasks import TABLE, build_export
from blocks.domain.ids import id_number
from blocks.store.jobs import Job
from blocks.store.results import LineError
from tests.support.store_shop import Shop

_ERRORS = """
with job as materialized (
    select options, status in ('cancelled', 'failed') as cut_short,
           case status when 'failed' then 'job_failed' else status end as code,
           'The job ' || case status when 'failed' then 'failed' else 'was cancelled' end || ' before this was settled.'
               as message
    from jobs where job_no = %(job_no)s
), chunk as materialized (
    select chunk_no, failed,
           case when row_number() over (order by chunk_no) - 1 = chunk_no
                then sum(lines) over (order by chunk_no) - lines end as lines_before
    from chunks where job_no = %(job_no)s
), shown as materialized (
    select * from chunk where lines_before is not null or (select cut_short from job)
)
select (c.lines_before + b.line_in_chunk)::bigint as line, b.byte_offset, b.code, b.message,
       substring(b.raw from 1 for %(raw_bytes_max)s) as raw
from bad_lines b join shown c using (chunk_no)
where b.job_no = %(job_no)s
union all
select (c.lines_before + t.line_in_chunk)::bigint, t.byte_offset, 'no_consensus',
       'No option won with ' || cardinality(y.annotators) || ' labels: ' || (
           select string_agg(o || ' ' || v, ', ') from job, unnest(job.options, y.votes) as vote (o, v) where v > 0
       ) || '.',
       substring(raw from 1 for %(raw_bytes_max)s)
from tallies y
join shown c on c.chunk_no = chunk_of(y.task_no) and c.failed > 0
join task_rows t on t.job_no = y.job_no and t.task_no = y.task_no
cross join lateral convert_to(
    '{"data_url":' || to_json(t.data_url) || coalesce(',"metadata":' || t.metadata, '') || '}', 'UTF8'
) as raw
where y.job_no = %(job_no)s and t.job_no = %(job_no)s and y.outcome = 0
union all
select (c.lines_before + t.line_in_chunk)::bigint, t.byte_offset, job.code, job.message,
       substring(raw from 1 for %(raw_bytes_max)s)
from task_rows t
join shown c using (chunk_no)
cross join job
left join tallies y on y.job_no = %(job_no)s and y.task_no = t.task_no
cross join lateral convert_to(
    '{"data_url":' || to_json(t.data_url) || coalesce(',"metadata":' || t.metadata, '') || '}', 'UTF8'
) as raw
where (select cut_short from job) and t.job_no = %(job_no)s and y.outcome is null
order by byte_offset
"""


class RowResults:
    """The tasks of a shop in a table, a row each."""

    def __init__(self, shop: Shop, connection: psycopg.Connection[dict[str, Any]]) -> None:
        self._connection = connection
        connection.execute(TABLE)
        connection.execute("alter table task_rows add byte_offset bigint")
        columns = (
            "job_no", "task_no", "id_number", "chunk_no", "line", "data_url", "metadata", "byte_offset"
        )  # fmt: skip
        with connection.cursor().copy("copy task_rows from stdin") as copy:
            for row in shop.tasks():
                values = row | {"id_number": id_number(row["task_key"], row["task_no"])}
                copy.write_row([values[column] for column in columns])

    def export(self, job: Job, after: int) -> bytes:
        statement: Any = build_export(len(job.options))
        values = {"job_no": job.job_no, "after": after}
        with self._connection.cursor().copy(statement, values) as copy:
            return b"".join(copy).replace(b"\x01", b"")

    def errors(self, job: Job) -> list[LineError]:
        values = {"job_no": job.job_no, "raw_bytes_max": 1024}
        statement: Any = _ERRORS
        return [LineError(**row) for row in self._connection.execute(statement, values)]


def connect(shop: Shop) -> psycopg.Connection[dict[str, Any]]:
    return psycopg.connect(shop.url, row_factory=dict_row, options="-c timezone=UTC")
