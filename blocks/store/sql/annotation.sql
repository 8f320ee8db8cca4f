-- return_expired --
-- Leases that ran out go back to the pool; those of tasks that are over, and tasks of jobs that have ended,
-- are swept away. Tasks are locked first, as everywhere, so that this cannot deadlock with a label; a task
-- that somebody is just labelling is left for the next time.
with due as (
    select job_no, byte_offset, annotator_no from leases
    where expires_at < now() order by expires_at limit 1000
), locked as materialized (
    select o.job_no, o.byte_offset, j.status <> 'processing' as job_ended
    from open_tasks o join jobs j using (job_no)
    where (o.job_no, o.byte_offset) in (select job_no, byte_offset from due)
    order by o.job_no, o.byte_offset
    for update of o skip locked
), gone as (
    delete from leases l using due
    where (l.job_no, l.byte_offset, l.annotator_no) = (due.job_no, due.byte_offset, due.annotator_no)
      and l.expires_at < now()
      and ((l.job_no, l.byte_offset) in (select job_no, byte_offset from locked)
           or not exists (select from open_tasks o
                          where (o.job_no, o.byte_offset) = (l.job_no, l.byte_offset)))
    returning l.job_no, l.byte_offset, l.annotator_no
), gone_by_task as (
    select job_no, byte_offset, array_agg(annotator_no) as annotators
    from gone join locked using (job_no, byte_offset) where not job_ended group by 1, 2
), withdrawn as (
    delete from open_tasks o using locked
    where (o.job_no, o.byte_offset) = (locked.job_no, locked.byte_offset) and locked.job_ended
)
update open_tasks o
set annotators = array(select a from unnest(o.annotators) a where a <> all (g.annotators))
from gone_by_task g
where o.job_no = g.job_no and o.byte_offset = g.byte_offset;

-- highest_fresh --
-- The highest priority of a job that has tasks which nobody was handed yet.
select max(j.priority) as priority
from chunks c join jobs j using (job_no)
where c.fresh > 0 and j.status = 'processing'
  and (%(job_id)s::text is null or j.job_id = %(job_id)s)
  and (%(task_types)s::text[] is null or j.task_type = any (%(task_types)s));

-- lease_open --
-- Hand out tasks that others have begun on and that need more labels than they have annotators, of jobs
-- with at least the given priority.
with candidate as (
    select o.job_no, o.byte_offset
    from open_tasks o join jobs j using (job_no)
    where j.status = 'processing' and j.priority >= %(priority)s
      and cardinality(o.annotators) < o.wanted
      and not o.annotators @> array[%(annotator_no)s::integer]
      and (%(job_id)s::text is null or j.job_id = %(job_id)s)
      and (%(task_types)s::text[] is null or j.task_type = any (%(task_types)s))
    order by j.priority desc, o.job_no, o.byte_offset
    limit %(limit)s
    for update of o skip locked
), held as (
    update open_tasks o set annotators = o.annotators || %(annotator_no)s::integer
    from candidate c
    where o.job_no = c.job_no and o.byte_offset = c.byte_offset
    returning o.job_no, o.byte_offset
)
insert into leases (job_no, byte_offset, annotator_no, expires_at)
select job_no, byte_offset, %(annotator_no)s, now() + make_interval(secs => %(lease_s)s) from held
returning job_no, byte_offset, expires_at;

-- await_fresh_chunk --
-- Wait for the chunk that fresh tasks come from, while no other chunk is held: so nobody comes back empty
-- only because another is just taking some, and nobody waits in a circle.
select c.chunk_no
from chunks c join jobs j using (job_no)
where c.fresh > 0 and j.status = 'processing' and j.priority = %(priority)s
  and (%(job_id)s::text is null or j.job_id = %(job_id)s)
  and (%(task_types)s::text[] is null or j.task_type = any (%(task_types)s))
order by c.job_no, c.chunk_no
limit 1
for update of c;

-- lease_fresh --
-- Hand out tasks that nobody has had: the next ones of one chunk of a job with the given priority. Chunks
-- that others hold are passed over, since we may hold some as well.
with chunk as materialized (
    select c.job_no, c.chunk_no, c.fresh_from, j.consensus_threshold, cardinality(j.options) as options
    from chunks c join jobs j using (job_no)
    where c.fresh > 0 and j.status = 'processing' and j.priority = %(priority)s
      and (%(job_id)s::text is null or j.job_id = %(job_id)s)
      and (%(task_types)s::text[] is null or j.task_type = any (%(task_types)s))
    order by c.job_no, c.chunk_no
    limit 1
    for update of c skip locked
), fresh as materialized (
    select t.job_no, t.byte_offset, t.chunk_no, c.consensus_threshold, c.options
    from chunk c
    cross join lateral (
        select * from tasks t
        where t.job_no = c.job_no and t.byte_offset >= c.fresh_from
        order by t.byte_offset
        limit %(limit)s
    ) t
    where t.chunk_no = c.chunk_no
), opened as (
    insert into open_tasks (job_no, byte_offset, chunk_no, wanted, labels, votes, annotators)
    select job_no, byte_offset, chunk_no, consensus_threshold, 0,
           array_fill(0::smallint, array[options]), array[%(annotator_no)s::integer]
    from fresh
), taken as (
    select count(*) as tasks, max(byte_offset) + 1 as fresh_from from fresh
), moved as (
    update chunks c set fresh = c.fresh - taken.tasks, fresh_from = taken.fresh_from
    from chunk, taken
    where c.job_no = chunk.job_no and c.chunk_no = chunk.chunk_no
)
insert into leases (job_no, byte_offset, annotator_no, expires_at)
select job_no, byte_offset, %(annotator_no)s, now() + make_interval(secs => %(lease_s)s) from fresh
returning job_no, byte_offset, expires_at;

-- describe_leased --
-- What an annotator needs to know of the tasks that were just handed out.
select task_id(j.job_id, t.byte_offset) as task_id, t.data_url, t.metadata, j.task_type,
       j.question, j.options, l.expires_at as lease_expires_at
from unnest(%(job_nos)s::bigint[], %(byte_offsets)s::bigint[]) with ordinality as k (job_no, byte_offset, n)
join tasks t using (job_no, byte_offset)
join jobs j using (job_no)
join leases l on (l.job_no, l.byte_offset, l.annotator_no) = (t.job_no, t.byte_offset, %(annotator_no)s)
order by k.n;

-- submit_labels --
-- One batch of labels of one annotator: record them, count votes, settle what has a winner, fail what
-- has none after twice the threshold, ask for one more annotator otherwise, and move the counters.
-- Locks: tasks in key order, then chunks in key order, so that two batches cannot deadlock; nor can a
-- batch and a claim, which waits for nothing but its first chunk.
with input as (
    select i.n, j.job_no, i.byte_offset, array_position(j.options, i.label)::smallint as option,
           j.consensus_threshold, j.stop_early
    from unnest(%(ns)s::integer[], %(job_ids)s::text[], %(byte_offsets)s::bigint[], %(labels)s::text[])
         as i (n, job_id, byte_offset, label)
    join jobs j using (job_id)
    where j.status = 'processing'
), first as (  -- of two labels for one task in a batch the first counts
    select distinct on (job_no, byte_offset) * from input
    where option is not null order by job_no, byte_offset, n
), locked as materialized (
    select o.*, first.n, first.option, first.consensus_threshold, first.stop_early
    from open_tasks o join first using (job_no, byte_offset)
    order by o.job_no, o.byte_offset
    for update of o
), inserted as (
    insert into labels (job_no, byte_offset, annotator_no, option)
    select job_no, byte_offset, %(annotator_no)s, option from locked
    on conflict do nothing
    returning job_no, byte_offset
), counted as (
    select job_no, byte_offset, chunk_no, n, consensus_threshold, stop_early, wanted,
           (labels + 1)::smallint as labels,
           votes[:option - 1] || (votes[option] + 1)::smallint || votes[option + 1:] as votes,
           array_remove(annotators, %(annotator_no)s) || %(annotator_no)s::integer as annotators
    from locked join inserted using (job_no, byte_offset)
), decided as materialized (
    select *, consensus_winner(votes, consensus_threshold, stop_early) as winner,
           labels >= 2 * consensus_threshold as exhausted
    from counted
), ended as materialized (
    select * from decided where winner is not null or exhausted
), recorded as (
    insert into results (job_no, byte_offset, consensus, labels, votes)
    select job_no, byte_offset, winner, labels, votes from ended
), closed as (
    delete from open_tasks o using ended e
    where o.job_no = e.job_no and o.byte_offset = e.byte_offset
), advanced as (
    update open_tasks o
    set labels = d.labels, votes = d.votes, annotators = d.annotators,
        wanted = greatest(d.wanted, d.labels + case when d.labels >= d.consensus_threshold then 1 else 0 end)
    from decided d
    where o.job_no = d.job_no and o.byte_offset = d.byte_offset
      and d.winner is null and not d.exhausted
), released as (
    delete from leases l using decided d
    where l.job_no = d.job_no and l.byte_offset = d.byte_offset
      and (l.annotator_no = %(annotator_no)s or d.winner is not null or d.exhausted)
), by_chunk as (
    select job_no, chunk_no, count(winner) as settled, count(*) - count(winner) as failed
    from ended group by job_no, chunk_no
), chunk as materialized (
    select c.job_no, c.chunk_no, by_chunk.settled, by_chunk.failed
    from chunks c join by_chunk using (job_no, chunk_no)
    order by c.job_no, c.chunk_no
    for update of c
), moved as (
    update chunks c set settled = c.settled + chunk.settled, failed = c.failed + chunk.failed
    from chunk where c.job_no = chunk.job_no and c.chunk_no = chunk.chunk_no
    returning c.job_no, c.tasks = c.settled + c.failed as done
)
select n, winner is not null as settled,
       job_no in (select job_no from moved where done) as chunk_done, job_no
from decided;

-- explain_refused --
-- Why a label was not taken. Runs after submit_labels and so sees what other batches have settled.
select i.n,
       case
           when t.job_no is null then 'unknown_task'
           when array_position(j.options, i.label) is null then 'unknown_option'
           when l.job_no is not null then 'duplicate'
           when r.job_no is not null or j.status <> 'processing' then 'already_settled'
           else 'unknown_task'
       end as outcome
from unnest(%(ns)s::integer[], %(job_ids)s::text[], %(byte_offsets)s::bigint[], %(labels)s::text[])
     as i (n, job_id, byte_offset, label)
left join jobs j using (job_id)
left join tasks t on (t.job_no, t.byte_offset) = (j.job_no, i.byte_offset)
left join labels l
       on (l.job_no, l.byte_offset, l.annotator_no) = (t.job_no, t.byte_offset, %(annotator_no)s)
left join results r on (r.job_no, r.byte_offset) = (t.job_no, t.byte_offset);
