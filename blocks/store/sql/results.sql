-- without_nested_loops --
-- For a long read. Statistics do not know a fresh job, so the planner takes it for one row, and would join its tasks
-- and tallies by a nested loop, which is quadratic in the job.
set local enable_nestloop = off;

-- in_order --
-- For an export: two merged walks along primary keys give the first line in a millisecond. The planner would rather
-- sort half a gigabyte of lines, since it cannot know that a client reads no faster than the merge.
set local enable_nestloop = off;
set local enable_hashjoin = off;
set local enable_sort = off;
set local max_parallel_workers_per_gather = 0;

-- options --
select cardinality(options) as options from jobs where job_no = %(job_no)s;

-- export --
-- Stream settled tasks as JSON lines in manifest order, made by the server; lines up to %(after)s are skipped. Values
-- of a chunk are looked up in arrays of elements of one length; a join would need a sort. $votes$ is an expression,
-- since unnesting an array for each row would take a quarter of the time.
-- A control character cannot stand in JSON, so CSV with control characters for delimiter and quote passes it verbatim.
-- Where a carriage return makes COPY quote a line, the reader removes the quotes.
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
    select '{"task_id":"' || task_id((select job_id from job), t.byte_offset)
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
    join tallies y on y.job_no = t.job_no and y.byte_offset = t.byte_offset
    cross join lateral (
        select nullif((select lines_before from job)[t.chunk_no + 1], -1) + t.line_in_chunk as line
    ) as numbered
    where t.job_no = %(job_no)s and y.job_no = %(job_no)s and y.outcome > 0
      and coalesce(line > %(after)s, true)
    order by t.byte_offset
) to stdout (format csv, delimiter E'\x02', quote E'\x01');

-- errors --
-- List the lines without a result, in manifest order: bad lines, tasks without consensus, and the open tasks of a job
-- that ended early. A job that goes on is listed up to the first chunk that is not committed: behind that the numbers
-- of lines are not known yet.
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
join shown c on c.chunk_no = y.chunk_no and c.failed > 0
join tasks t on t.job_no = y.job_no and t.byte_offset = y.byte_offset
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
left join tallies y on y.job_no = %(job_no)s and y.byte_offset = t.byte_offset
cross join lateral convert_to(
    '{"data_url":' || to_json(t.data_url) || coalesce(',"metadata":' || t.metadata, '') || '}', 'UTF8'
) as raw
where (select cut_short from job) and t.job_no = %(job_no)s and y.outcome is null
order by byte_offset;

-- bad_lines --
-- List bad lines as they stand in the manifest, in its order, up to the first chunk that is not committed.
with chunk as (
    select chunk_no, row_number() over (order by chunk_no) - 1 = chunk_no as contiguous
    from chunks where job_no = %(job_no)s
)
select b.raw from bad_lines b join chunk c using (chunk_no)
where b.job_no = %(job_no)s and c.contiguous
order by b.byte_offset;
