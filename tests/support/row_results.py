"""The results of a job as PostgreSQL composes them from a row for each task, to compare ours with."""

from typing import Any

import psycopg
from psycopg.rows import dict_row

from blocks.store.jobs import Job
from blocks.store.results import LineError
from tests.support.store_shop import Shop

_TASKS = """
create temporary table tasks (
    job_no bigint, task_no bigint, byte_offset bigint, chunk_no integer, line_in_chunk integer,
    data_url text, metadata text
)
"""
_EXPORT = """
copy (
    with chunk as (
        select n.chunk_no,
               -- A cancelled job may lack chunks before this one; then the number of a line is not known.
               case when count(c.chunk_no) over (order by n.chunk_no) = n.chunk_no + 1
                    then (sum(c.lines) over (order by n.chunk_no) - c.lines)::bigint else -1 end as lines_before,
               rfc3339(coalesce(c.created_at, now()))::name as created_at
        from generate_series(0, (select max(chunk_no) from chunks where job_no = %(job_no)s)) n (chunk_no)
        left join chunks c on c.job_no = %(job_no)s and c.chunk_no = n.chunk_no
    ), job as materialized (
        select job_id,
               array(select to_json(o)::text || ':' from unnest(options) o) as keys,
               array(select to_json(o)::text from unnest(options) o) as names,
               array(select lines_before from chunk order by chunk_no) as lines_before,
               array(select created_at from chunk order by chunk_no) as created_at
        from jobs where job_no = %(job_no)s
    )
    select '{"task_id":"' || task_id((select job_id from job), t.task_no)
        || '","line":' || coalesce(line::text, 'null')
        || ',"data_url":' || to_json(t.data_url)
        || ',"metadata":' || coalesce(t.metadata, 'null')
        || ',"status":"settled","consensus_label":' || (select names from job)[y.outcome]
        || ',"confidence":' || y.votes[y.outcome]::float8 / cardinality(y.annotators)
        || ',"worker_count":' || cardinality(y.annotators)
        || ',"agreement_count":' || y.votes[y.outcome]
        || ',"votes":{' || $votes$ || '},"created_at":"' || (select created_at from job)[t.chunk_no + 1]
        || '","settled_at":"' || rfc3339(y.labelled_at) || '"}'
    from tasks t
    join tallies y on y.job_no = t.job_no and y.task_no = t.task_no
    cross join lateral (
        select nullif((select lines_before from job)[t.chunk_no + 1], -1) + t.line_in_chunk as line
    ) as numbered
    where t.job_no = %(job_no)s and y.job_no = %(job_no)s and y.outcome > 0
      and coalesce(line > %(after)s, true)
    order by t.task_no
) to stdout (format csv, delimiter E'\x02', quote E'\x01')
"""
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
join tasks t on t.job_no = y.job_no and t.task_no = y.task_no
cross join lateral convert_to(
    '{"data_url":' || to_json(t.data_url) || coalesce(',"metadata":' || t.metadata, '') || '}', 'UTF8'
) as raw
where y.job_no = %(job_no)s and t.job_no = %(job_no)s and y.outcome = 0
union all
select (c.lines_before + t.line_in_chunk)::bigint, t.byte_offset, job.code, job.message,
       substring(raw from 1 for %(raw_bytes_max)s)
from tasks t
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
        connection.execute(_TASKS)
        columns = "job_no", "task_no", "byte_offset", "chunk_no", "line", "data_url", "metadata"
        with connection.cursor().copy("copy tasks from stdin") as copy:
            for row in shop.tasks():
                copy.write_row([row[column] for column in columns])

    def export(self, job: Job, after: int) -> bytes:
        votes = " || ',' || ".join(
            f"(select keys from job)[{n}] || y.votes[{n}]" for n in range(1, len(job.options) + 1)
        )
        statement: Any = _EXPORT.replace("$votes$", votes)
        values = {"job_no": job.job_no, "after": after}
        with self._connection.cursor().copy(statement, values) as copy:
            return b"".join(copy).replace(b"\x01", b"")

    def errors(self, job: Job) -> list[LineError]:
        values = {"job_no": job.job_no, "raw_bytes_max": 1024}
        statement: Any = _ERRORS
        return [LineError(**row) for row in self._connection.execute(statement, values)]


def connect(shop: Shop) -> psycopg.Connection[dict[str, Any]]:
    return psycopg.connect(shop.url, row_factory=dict_row, options="-c timezone=UTC")
