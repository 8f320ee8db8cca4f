-- claim_chunk --
-- Insert the chunk's row, if there is none. A twin waits here until this transaction ends, and then finds nothing to
-- do. The share lock keeps the job from ending while its tasks are being added.
insert into chunks (job_no, chunk_no, lines, tasks, bad_lines)
select job_no, %(chunk_no)s, 0, 0, 0
from (select job_no from jobs where job_no = %(job_no)s and status = 'processing' for share) job
on conflict do nothing
returning chunk_no;

-- insert_gold --
insert into gold_tasks (job_no, task_no, option)
select %(job_no)s, u.task_no, u.option
from unnest(%(task_nos)s::bigint[], %(options)s::smallint[]) as u (task_no, option);

-- fill_chunk --
-- Record the counts of the chunk, now that all of it is there, and let its tasks be handed out. Gold is settled from the
-- beginning.
with filled as (
    update chunks
    set lines = %(lines)s, tasks = %(tasks)s, settled = %(gold)s, bad_lines = %(bad_lines)s, bad_codes = %(bad_codes)s,
        blank_lines = %(blank_lines)s, read_bytes = %(read_bytes)s, begun_lines = %(begun_lines)s
    where job_no = %(job_no)s and chunk_no = %(chunk_no)s
    returning job_no, chunk_no, tasks, settled, bad_lines, bad_codes
), counted as (
    insert into counts (name, label, amount)
    select 'lines', '', tasks + bad_lines from filled
    union all
    select 'bad_lines', code.key, code.value::bigint from filled, jsonb_each_text(bad_codes) code
), opened as (
    insert into open_chunks (job_no, chunk_no) select job_no, chunk_no from filled where tasks > settled
)
insert into lanes (job_no, chunk_no, ends_at, cursors, annotators)
select job_no, chunk_no, task_no(chunk_no, filled.tasks),
       array_fill(task_no(chunk_no, 0), array[j.consensus_threshold::integer]),
       array_fill(0, array[j.consensus_threshold::integer])
from filled join jobs j using (job_no)
where filled.tasks > filled.settled;

-- copy_bad_lines --
copy bad_lines (job_no, byte_offset, chunk_no, line_in_chunk, code, message, raw) from stdin;

-- list_committed --
-- List the committed chunks.
select chunk_no from chunks where job_no = %(job_no)s;

-- count_ingested --
-- Sum over the committed chunks, and count how many of their bad lines are not JSON at all.
select coalesce(sum(tasks), 0)::bigint     as tasks,
       coalesce(sum(bad_lines), 0)::bigint as bad_lines,
       coalesce(sum((
           select sum(code.value::bigint) from jsonb_each_text(bad_codes) code
           where code.key = any(%(not_json)s)
       )), 0)::bigint as not_json
from chunks where job_no = %(job_no)s;

-- read_ledger --
-- Sum what the committed chunks have read and recorded, beside the size of the manifest that they have to cover.
select coalesce(j.text_bytes, j.manifest_bytes, 0)                   as manifest_bytes,
       coalesce(sum(c.read_bytes), 0)::bigint                        as read_bytes,
       coalesce(sum(c.begun_lines), 0)::bigint                       as begun_lines,
       coalesce(sum(c.lines), 0)::bigint                             as lines,
       coalesce(sum(c.tasks), 0)::bigint                             as tasks,
       coalesce(sum(c.bad_lines), 0)::bigint                         as bad_lines,
       coalesce(sum(c.blank_lines), 0)::bigint                       as blank_lines,
       (coalesce(max(c.chunk_no) + 1, 0) - count(c.chunk_no))::bigint as missing_chunks
from jobs j left join chunks c using (job_no)
where j.job_no = %(job_no)s
group by j.job_no;

-- find_first_bad_line --
-- Find the bad line that comes before all others.
select byte_offset, line_in_chunk as line, code, message, raw from bad_lines
where job_no = %(job_no)s
order by byte_offset
limit 1;

-- count_bad_codes --
-- Count the bad lines of a job by code.
select code.key as code, sum(code.value::bigint)::bigint as lines
from chunks cross join jsonb_each_text(bad_codes) code
where job_no = %(job_no)s and bad_lines > 0
group by code.key;
