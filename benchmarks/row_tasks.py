"""The tasks of a job with a row each, as other designs have them: what floors are measured on."""

import io

import polars as pl
from psycopg import sql

from benchmarks.servers import Servers
from blocks.domain.ids import id_number
from blocks.store import pages
from blocks.store.database import Database

TABLE = """
create table task_rows (
    job_no        bigint not null,
    task_no       bigint not null,
    id_number     bigint not null,
    chunk_no      integer not null,
    line_in_chunk integer not null,
    data_url      text not null,
    metadata      text,
    primary key (job_no, task_no)
)
"""
_COPY = sql.SQL("copy task_rows from stdin (format csv)")
# As the export was before tasks came to stand on pages: lines of JSON by PostgreSQL itself.
_EXPORT = """
copy (
    with chunk as (
        select n.chunk_no,
               -- A cancelled job may lack chunks; the numbers of lines behind one are not known.
               case when count(c.chunk_no) over (order by n.chunk_no) = n.chunk_no + 1
                    then (sum(c.lines) over (order by n.chunk_no) - c.lines)::bigint
                    else -1 end as lines_before,
               rfc3339(coalesce(c.created_at, now()))::name as created_at
        from generate_series(
            0, (select max(chunk_no) from chunks where job_no = %(job_no)s)
        ) n (chunk_no)
        left join chunks c on c.job_no = %(job_no)s and c.chunk_no = n.chunk_no
    ), job as materialized (
        select 'tsk_' || substr(job_id, 5) as ids,
               array(select to_json(o)::text || ':' from unnest(options) o) as keys,
               array(select to_json(o)::text from unnest(options) o) as names,
               array(select lines_before from chunk order by chunk_no) as lines_before,
               array(select created_at from chunk order by chunk_no) as created_at
        from jobs where job_no = %(job_no)s
    )
    select '{"task_id":"' || (select ids from job) || t.id_number
        || '","line":' || coalesce(line::text, 'null')
        || ',"data_url":' || to_json(t.data_url)
        || ',"metadata":' || coalesce(t.metadata, 'null')
        || ',"status":"settled","consensus_label":' || (select names from job)[y.outcome]
        || ',"confidence":' || y.votes[y.outcome]::float8 / cardinality(y.annotators)
        || ',"worker_count":' || cardinality(y.annotators)
        || ',"agreement_count":' || y.votes[y.outcome]
        || ',"votes":{' || $votes$ || '},"created_at":"' || (select created_at from job)[t.chunk_no + 1]
        || '","settled_at":"' || rfc3339(y.labelled_at) || '"}'
    from task_rows t
    join tallies y on y.job_no = t.job_no and y.task_no = t.task_no
    cross join lateral (
        select nullif((select lines_before from job)[t.chunk_no + 1], -1) + t.line_in_chunk as line
    ) as numbered
    where t.job_no = %(job_no)s and y.job_no = %(job_no)s and y.outcome > 0
      and coalesce(line > %(after)s, true)
    order by t.task_no
) to stdout (format csv, delimiter E'\x02', quote E'\x01')
"""


def build_export(options: int) -> str:
    """Return the COPY that composes the results of a job with so many options; `after` skips lines."""
    votes = " || ',' || ".join(
        f"(select keys from job)[{n}] || y.votes[{n}]" for n in range(1, options + 1)
    )
    return _EXPORT.replace("$votes$", votes)


def make(servers: Servers, job_no: int) -> None:
    """Make the table `task_rows` anew, with the tasks of one job."""
    with servers.connect() as connection:
        connection.execute("drop table if exists task_rows")
        connection.execute(TABLE)
    with (
        Database(servers.database_url, connections_max=1) as database,
        database.transaction() as tx,
    ):
        job = tx.execute("select task_key from jobs where job_no = %s", [job_no]).fetchone()
        assert job is not None  # the caller has made it
        chunks = tx.execute("select chunk_no from chunks where job_no = %s", [job_no]).fetchall()
        with servers.connect() as connection, connection.cursor().copy(_COPY) as copy:
            for chunk in chunks:
                for frame in pages.read_chunk(tx, job_no, chunk["chunk_no"]):
                    numbers = id_number(job["task_key"], frame["task_no"])
                    tasks = frame.with_columns(numbers.alias("id_number"))
                    copy.write(_csv(tasks, job_no, chunk["chunk_no"]))
    with servers.connect() as connection:
        connection.execute("vacuum analyze task_rows")


def _csv(frame: pl.DataFrame, job_no: int, chunk_no: int) -> bytes:
    encoded = io.BytesIO()
    rows = frame.select(
        pl.lit(job_no).alias("job_no"),
        "task_no",
        "id_number",
        pl.lit(chunk_no).alias("chunk_no"),
        "line",
        "data_url",
        "metadata",
    )
    rows.write_csv(encoded, include_header=False)
    return encoded.getvalue()
