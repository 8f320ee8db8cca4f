-- without_nested_loops --
-- Before a long read: statistics do not know a job that has just been made, so the planner takes it for one
-- row, and joins its tasks and tallies by a nested loop that is quadratic in the job.
set local enable_nestloop = off;

-- export --
-- Settled tasks as JSON lines in manifest order, made by the server: %(after)s skips lines up to it.
-- A control character cannot stand in JSON, so CSV with control characters for delimiter and quote
-- passes it verbatim; where a carriage return makes COPY quote a line, the reader takes the quotes out.
copy (
    with job as (
        select job_no, job_id, options,
               array(select to_json(o)::text || ':' from unnest(options) o) as keys,
               array(select to_json(o)::text from unnest(options) o) as names
        from jobs where job_no = %(job_no)s
    ), chunk as (
        select chunk_no,
               -- A job that was cancelled may lack chunks before this one, and then nobody knows.
               case when row_number() over (order by chunk_no) - 1 = chunk_no
                    then sum(lines) over (order by chunk_no) - lines end as lines_before,
               rfc3339(created_at) as created_at
        from chunks where job_no = %(job_no)s
    )
    select '{"task_id":"' || task_id(job.job_id, t.byte_offset)
        || '","line":' || coalesce((c.lines_before + t.line_in_chunk)::text, 'null')
        || ',"data_url":' || to_json(t.data_url)
        || ',"metadata":' || coalesce(t.metadata, 'null')
        || ',"status":"settled","consensus_label":' || job.names[y.outcome]
        || ',"confidence":' || y.votes[y.outcome]::float8 / cardinality(y.annotators)
        || ',"worker_count":' || cardinality(y.annotators)
        || ',"agreement_count":' || y.votes[y.outcome]
        || ',"votes":{' || (
            select string_agg(k || v, ',') from unnest(job.keys, y.votes) as vote (k, v)
        ) || '},"created_at":"' || c.created_at
        || '","settled_at":"' || rfc3339(y.labelled_at) || '"}'
    from tasks t
    join tallies y on y.job_no = t.job_no and y.byte_offset = t.byte_offset
    join chunk c on c.chunk_no = t.chunk_no
    cross join job
    where t.job_no = %(job_no)s and y.job_no = %(job_no)s and y.outcome > 0
      and coalesce(c.lines_before + t.line_in_chunk > %(after)s, true)
    order by t.byte_offset
) to stdout (format csv, delimiter E'\x02', quote E'\x01');

-- bad_lines --
-- Bad lines in manifest order, of the chunks up to the first that is not committed yet: only there is
-- the number of a line known.
with chunk as (
    select chunk_no, sum(lines) over (order by chunk_no) - lines as lines_before,
           row_number() over (order by chunk_no) - 1 = chunk_no as contiguous
    from chunks where job_no = %(job_no)s
)
select (c.lines_before + b.line_in_chunk)::bigint as line, b.byte_offset, b.code, b.message,
       substring(b.raw from 1 for %(raw_bytes_max)s) as raw
from bad_lines b join chunk c using (chunk_no)
where b.job_no = %(job_no)s and c.contiguous
order by b.byte_offset;
