-- take --
-- Lock those of some jobs that have ended, and that no run of Prefect has to deliver. One that is being delivered again, or
-- deleted, at this moment is waited for.
select job_no from jobs
where job_no = any (%(job_nos)s::bigint[]) and manifest_url is not null
  and status in ('completed', 'failed', 'cancelled') and not is_undelivered
order by job_no for update;

-- is_old --
-- True for a row j of `jobs` that ended so many days ago, and whose results no run of Prefect has to deliver.
j.completed_at < now() - make_interval(days => %(days)s) and j.completed_at is not null and j.manifest_url is not null
and not j.is_undelivered and (%(customer_id)s::text is null or j.customer_id = %(customer_id)s);

-- take_old --
-- Lock jobs that ended long ago, the oldest first; those that others hold are passed over.
select j.job_no from jobs j where {is_old}
order by j.completed_at limit %(limit)s for update skip locked;

-- measure_old --
select count(*) as jobs, coalesce(sum(c.lines), 0)::bigint as lines, coalesce(sum(j.manifest_bytes), 0)::bigint as bytes
from jobs j cross join lateral (select sum(tasks + bad_lines) as lines from chunks c where c.job_no = j.job_no) c
where {is_old};

-- count_left --
select count(*) as jobs from deleted_jobs;

-- remember --
-- Record what is still to be removed of jobs.
insert into deleted_jobs (job_no, webhook_no, instructions_digest)
select j.job_no, w.webhook_no, j.instructions_digest
from jobs j left join webhooks w on w.customer_id = j.customer_id and w.callback_url = j.callback_url
where j.job_no = any (%(job_nos)s::bigint[]);

-- forget_manifests --
-- Of manifests that streams have found, keep the digests alone: no job is made of these again.
with gone as (
    delete from stream_manifests where job_no = any (%(job_nos)s::bigint[])
    returning customer_id, stream, manifest_url, version
)
insert into forgotten_manifests (customer_id, stream, digest)
select customer_id, stream, manifest_digest(manifest_url, version) from gone
on conflict do nothing;

-- delete_keys --
delete from idempotency_keys where job_no = any (%(job_nos)s::bigint[]);

-- delete_outbox --
-- Prefect is told nothing more of them.
delete from outbox where job_no = any (%(job_nos)s::bigint[]);

-- delete_runs --
delete from runs where job_no = any (%(job_nos)s::bigint[]);

-- delete_jobs --
-- Delete the jobs themselves; a trigger has the metrics follow.
delete from jobs where job_no = any (%(job_nos)s::bigint[]);

-- is_kept --
select exists (select from jobs where job_no = %(job_no)s) as is_kept;

-- await_writers --
-- Note the transactions that may write rows of deleted jobs, the first time, and those of them that are not over, the next
-- times. A statement locks a table before it looks at its rows: those that do not see the deletion are among them.
update deleted_jobs d set writers = array(
    select distinct virtualtransaction from pg_locks
    where database = (select oid from pg_database where datname = current_database())
      and relation = any (%(tables)s::text[]::regclass[]) and pid <> pg_backend_pid()
      and mode in ('RowShareLock', 'RowExclusiveLock') and granted
      and (d.writers is null or virtualtransaction = any (d.writers))
)
where job_no = any (array(
    select job_no from deleted_jobs where writers is distinct from '{}'
    order by job_no limit %(limit)s for update skip locked
));

-- next --
-- Take a deleted job in hand whose rows nobody writes any more; others pass over it.
select job_no, webhook_no, instructions_digest, table_no, key_from, has_found from deleted_jobs
where writers = '{}' order by job_no limit 1
for update skip locked;

-- delete_some --
select deleted, key_last from delete_some_of(
    %(job_no)s, %(table)s::text::regclass, %(key_column)s, %(key_from)s, %(rows_max)s
);

-- delete_batches --
-- Delete requests of annotators, and add them to the sums of days, as label_batches.fold does: what an annotator has done
-- is no less because a customer has deleted a job.
with old as materialized (
    select annotator_no, batch_no from label_batches where job_no = %(job_no)s
    order by created_at limit %(rows_max)s for update
), gone as (
    delete from label_batches b using old
    where (b.annotator_no, b.batch_no) = (old.annotator_no, old.batch_no)
    returning b.annotator_no, (b.created_at at time zone 'UTC')::date as day, cardinality(b.task_nos) as labels, b.settled
), added as (
    insert into annotator_days as d (annotator_no, day, labels, settled)
    select annotator_no, day, sum(labels), sum(settled) from gone group by 1, 2 order by 1, 2
    on conflict (annotator_no, day) do update
    set labels = d.labels + excluded.labels, settled = d.settled + excluded.settled
)
select count(*) as deleted from gone;

-- record --
update deleted_jobs set table_no = %(table_no)s, key_from = %(key_from)s, has_found = %(has_found)s
where job_no = %(job_no)s;

-- lock_webhook --
select webhook_no from webhooks where webhook_no = %(webhook_no)s and not registered for update;

-- delete_webhook --
-- Delete an endpoint, which is locked, if it is not registered, its log is empty, and no job or task names it.
delete from webhooks w
where webhook_no = %(webhook_no)s and not registered
  and not exists (select from notifications n where n.webhook_no = w.webhook_no)
  and not exists (
      select from jobs j where j.customer_id = w.customer_id and j.callback_url = w.callback_url
        and hashtextextended(j.callback_url, 0) = hashtextextended(w.callback_url, 0)
  )
  and not exists (
      select from inline_tasks i where i.customer_id = w.customer_id and i.callback_url = w.callback_url
        and hashtextextended(i.callback_url, 0) = hashtextextended(w.callback_url, 0)
  );

-- lock_text --
select digest from instructions where digest = %(digest)s for update;

-- delete_text --
-- Delete a text, which is locked, if no job has it.
delete from instructions i
where digest = %(digest)s and not exists (select from jobs where instructions_digest = i.digest);

-- forget --
-- Nothing of a job is left.
delete from deleted_jobs where job_no = %(job_no)s;
