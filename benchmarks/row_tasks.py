"""The tasks of a job with a row each, as other designs have them: what floors are measured on."""

import io

import polars as pl
from psycopg import sql

from benchmarks.servers import Servers
from blocks.domain.ids import chunk_of
from blocks.store import pages
from blocks.store.database import Database

_TABLE = """
create table task_rows (
    job_no        bigint not null,
    task_no       bigint not null,
    chunk_no      integer not null,
    line_in_chunk integer not null,
    data_url      text not null,
    metadata      text,
    primary key (job_no, task_no)
)
"""
_COPY = sql.SQL("copy task_rows from stdin (format csv)")
# As the export was before tasks came to stand on pages: lines of JSON by PostgreSQL itself.
EXPORT = """
copy (
    with chunk as (
        select chunk_no, (sum(lines) over (order by chunk_no) - lines)::bigint as lines_before,
               rfc3339(created_at)::name as created_at
        from chunks where job_no = %(job_no)s
    ), job as materialized (
        select job_id,
               array(select to_json(o)::text || ':' from unnest(options) o) as keys,
               array(select to_json(o)::text from unnest(options) o) as names,
               array(select lines_before from chunk order by chunk_no) as lines_before,
               array(select created_at from chunk order by chunk_no) as created_at
        from jobs where job_no = %(job_no)s
    )
    select '{"task_id":"' || task_id((select job_id from job), t.task_no)
        || '","line":' || (select lines_before from job)[t.chunk_no + 1] + t.line_in_chunk
        || ',"data_url":' || to_json(t.data_url)
        || ',"metadata":' || coalesce(t.metadata, 'null')
        || ',"status":"settled","consensus_label":' || (select names from job)[y.outcome]
        || ',"confidence":' || y.votes[y.outcome]::float8 / cardinality(y.annotators)
        || ',"worker_count":' || cardinality(y.annotators)
        || ',"agreement_count":' || y.votes[y.outcome]
        || ',"votes":{' || (select keys from job)[1] || y.votes[1]
        || ',' || (select keys from job)[2] || y.votes[2]
        || '},"created_at":"' || (select created_at from job)[t.chunk_no + 1]
        || '","settled_at":"' || rfc3339(y.labelled_at) || '"}'
    from task_rows t join tallies y using (job_no, task_no)
    where job_no = %(job_no)s and y.outcome > 0
    order by task_no
) to stdout (format csv, delimiter E'\\x02', quote E'\\x01')
"""


def make(servers: Servers, job_no: int) -> None:
    """Make the table `task_rows` anew, with the tasks of one job."""
    with servers.connect() as connection:
        connection.execute("drop table if exists task_rows")
        connection.execute(_TABLE)
    with (
        Database(servers.database_url, connections_max=1) as database,
        database.transaction() as tx,
    ):
        chunks = tx.execute("select chunk_no from chunks where job_no = %s", [job_no]).fetchall()
        with servers.connect() as connection, connection.cursor().copy(_COPY) as copy:
            for chunk in chunks:
                for frame in pages.read_chunk(tx, job_no, chunk["chunk_no"]):
                    copy.write(_csv(frame, job_no))
    with servers.connect() as connection:
        connection.execute("vacuum analyze task_rows")


def _csv(frame: pl.DataFrame, job_no: int) -> bytes:
    encoded = io.BytesIO()
    rows = frame.select(
        pl.lit(job_no),
        "task_no",
        pl.lit(chunk_of(frame["task_no"][0])),
        "line",
        "data_url",
        "metadata",
    )
    rows.write_csv(encoded, include_header=False)
    return encoded.getvalue()
