-- lock_keys --
-- Requests of one customer with idempotency keys take turns, so that none misses the key of another.
select pg_advisory_xact_lock(%(lock)s, hashtext(%(customer_id)s));

-- find_keys --
-- List the tasks that keys were used for, and the hashes of those requests.
select i.idempotency_key, i.body_hash, i.task_no, i.created_at, j.job_id, j.task_key
from inline_tasks i join jobs j using (job_no)
where i.customer_id = %(customer_id)s and i.idempotency_key = any (%(keys)s);

-- find_container --
-- Find the container of the inline tasks of one customer, question and rule.
select job_no, job_id, task_key from jobs where customer_id = %(customer_id)s and inline_key = %(inline_key)s;

-- insert_container --
-- Insert a container, with its one chunk, unless another request has just done so.
with job as (
    insert into jobs (
        job_id, task_key, customer_id, status, inline_key, question, options, consensus_threshold, task_type,
        priority, stop_early, skips_max, shown_metadata, instructions_digest, option_details,
        target_confidence, labels_max, failure_threshold_percent, started_at, ingested_at
    ) values (
        %(job_id)s, %(task_key)s, %(customer_id)s, 'processing', %(inline_key)s, %(question)s, %(options)s,
        %(consensus_threshold)s, %(task_type)s, %(priority)s, %(stop_early)s, %(skips_max)s,
        %(shown_metadata)s, %(instructions_digest)s, %(option_details)s::jsonb,
        %(target_confidence)s, %(labels_max)s, %(failure_threshold_percent)s, now(), now()
    )
    on conflict (customer_id, inline_key) where inline_key is not null do nothing
    returning job_no
)
insert into chunks (job_no, chunk_no, lines, tasks, bad_lines) select job_no, 0, 0, 0, 0 from job;

-- lengthen_chunk --
-- Make room for tasks at the end of the container's chunk. A request that appends holds the chunk until its commit, so
-- that a lane never passes over a task that is not visible yet.
update chunks
set lines = lines + %(tasks)s, tasks = tasks + %(tasks)s, settled = settled + %(gold)s,
    inline_bytes = inline_bytes + %(bytes)s
where job_no = %(job_no)s and chunk_no = 0
returning tasks - %(tasks)s as starts_at;

-- append_gold --
insert into gold_tasks (job_no, task_no, option)
select %(job_no)s, %(starts_at)s + u.place, u.option
from unnest(%(gold_places)s::bigint[], %(gold_options)s::smallint[]) as u (place, option);

-- append_tasks --
-- Write the tasks there, with their pages, and let the lanes go on to them. This is a statement of its own, to see the
-- lanes as the request before it has left them.
with place as (
    select job_no, consensus_threshold, %(starts_at)s::bigint as starts_at, %(starts_at)s + %(tasks)s as ends_at
    from jobs where job_no = %(job_no)s
), seen as (
    select version from lanes where (job_no, chunk_no) = (%(job_no)s, 0) order by version desc limit 1
), lengthened as (
    update lanes l set ends_at = p.ends_at, version = nextval('lane_versions')
    from place p
    where (l.job_no, l.chunk_no) = (p.job_no, 0) and l.version >= (select version from seen)
    returning l.job_no
), opened as (
    insert into open_chunks (job_no, chunk_no)
    select job_no, 0 from place where not exists (select from lengthened)
    returning job_no
), lane as (
    insert into lanes (job_no, chunk_no, ends_at, cursors, annotators)
    select p.job_no, 0, p.ends_at,
           array_fill(p.starts_at, array[p.consensus_threshold::integer]),
           array_fill(0, array[p.consensus_threshold::integer])
    from place p join opened using (job_no)
), task as materialized (
    select p.job_no, p.starts_at + n - 1 as task_no, n, callback_url, idempotency_key, body_hash
    from place p
    cross join unnest(
        %(callback_urls)s::text[], %(idempotency_keys)s::text[], %(body_hashes)s::bytea[]
    ) with ordinality as u (callback_url, idempotency_key, body_hash, n)
), written as (
    insert into pages (job_no, first_task, tasks, content)
    select p.job_no, p.starts_at + page.skipped, page.tasks, page.content
    from place p
    cross join unnest(
        %(page_skipped)s::bigint[], %(page_tasks)s::integer[], %(page_contents)s::bytea[]
    ) as page (skipped, tasks, content)
), noted as (
    insert into inline_tasks (
        job_no, task_no, customer_id, batch_id, callback_url, idempotency_key, body_hash
    )
    select job_no, task_no, %(customer_id)s, %(batch_id)s, callback_url, idempotency_key, body_hash
    from task
)
select task_no, now() as created_at from task order by n;

-- reopen_container --
-- Reopen a container that was completed when all its tasks had ended, so that claims need not look at it. This is a
-- statement of its own, to see all that was committed before this request got the chunk.
update jobs set status = 'processing', settled_at = null, completed_at = null
where job_no = %(job_no)s and status = 'completed';

-- get_task --
-- Find a task of a customer, from a manifest or inline. The number of its line in the manifest is known once all chunks
-- before its own are committed.
select j.job_id, j.manifest_url is null as inline, j.status as job_status, j.question, j.options,
       j.consensus_threshold, j.task_type, j.stop_early, j.skips_max, j.target_confidence, j.labels_max, j.job_no,
       j.instructions_digest, j.option_details,
       coalesce(i.created_at, o.created_at) as created_at, i.batch_id,
       case when j.manifest_url is null then i.callback_url else j.callback_url end as callback_url,
       case when j.manifest_url is not null then (
           select coalesce(sum(before.lines), 0)::bigint from chunks before
           where before.job_no = o.job_no and before.chunk_no < o.chunk_no
           having count(*) = o.chunk_no
       ) end as lines_before,
       nullif(y.outcome, under_review()) as outcome, y.votes, y.labelled_at,
       case when y.scores is not null and y.outcome > 0 then confidence_of(y.scores, y.outcome) end as confidence,
       g.option as gold, j.has_review,
       coalesce(%(task_no)s >= furthest(l.cursors), false) and y.job_no is null as untouched
from jobs j
join chunks o on (o.job_no, o.chunk_no) = (j.job_no, chunk_of(%(task_no)s))
left join inline_tasks i on (i.job_no, i.task_no) = (j.job_no, %(task_no)s)
left join tallies y on (y.job_no, y.task_no) = (j.job_no, %(task_no)s)
left join gold_tasks g on (g.job_no, g.task_no) = (j.job_no, %(task_no)s)
left join lateral ({annotation.lanes_of}) l on true
where j.job_id = %(job_id)s and (%(customer_id)s::text is null or j.customer_id = %(customer_id)s)
  and %(task_no)s < task_no(o.chunk_no, o.tasks);

-- list_skips --
-- List the skips of a task, in their order.
select reason, note, created_at from skips
where job_no = %(job_no)s and task_no = %(task_no)s
order by created_at, annotator_no;
