-- insert_job --
-- Insert a job; here and below, a trigger keeps its row in `runs`, in the same commit.
insert into jobs (
    job_id, task_key, customer_id, manifest_url, manifest_bytes, manifest_version, question, options,
    consensus_threshold, task_type, callback_url, metadata, priority, stop_early, skips_max,
    failure_threshold_percent, credentials, credentials_block, block_delivers_to, shown_metadata,
    instructions_digest, option_details, sign_urls,
    target_confidence, labels_max, gold_share, min_accuracy, min_gold_seen, include_labels,
    review_no_consensus, review_confidence_below, review_share, review_flagged, review_deadline,
    delivery_type, delivery_bucket, delivery_prefix, delivery_compression, delivery_format,
    delivery_kms_key_id, delivery_acl, traceparent
) values (
    %(job_id)s, %(task_key)s, %(customer_id)s, %(manifest_url)s, %(manifest_bytes)s, %(manifest_version)s,
    %(question)s, %(options)s, %(consensus_threshold)s, %(task_type)s, %(callback_url)s, %(metadata)s, %(priority)s,
    %(stop_early)s, %(skips_max)s, %(failure_threshold_percent)s, %(credentials)s, %(credentials_block)s,
    %(block_delivers_to)s, %(shown_metadata)s,
    %(instructions_digest)s, %(option_details)s::jsonb, %(sign_urls)s,
    %(target_confidence)s, %(labels_max)s, %(gold_share)s, %(min_accuracy)s, %(min_gold_seen)s, %(include_labels)s,
    %(review_no_consensus)s, %(review_confidence_below)s, %(review_share)s, %(review_flagged)s, %(review_deadline)s,
    %(delivery_type)s, %(delivery_bucket)s, %(delivery_prefix)s, %(delivery_compression)s,
    %(delivery_format)s, %(delivery_kms_key_id)s, %(delivery_acl)s, %(traceparent)s
) returning job_no;

-- claim_idempotency_key --
-- Bind the key to the job, unless another request did within the last day; return whether it is bound.
with bound as (
    insert into idempotency_keys as k (customer_id, key, body_hash, job_no)
    values (%(customer_id)s, %(key)s, %(body_hash)s, %(job_no)s)
    on conflict (customer_id, key) do update
        set body_hash = excluded.body_hash, job_no = excluded.job_no, created_at = now()
        where k.created_at < now() - interval '24 hours'
    returning job_no
)
select exists (select from bound);

-- find_idempotency_key --
-- Return the job that a key was used for within the last day, and the hash of that request.
select j.job_id, k.body_hash
from idempotency_keys k join jobs j using (job_no)
where k.customer_id = %(customer_id)s and k.key = %(key)s
  and k.created_at >= now() - interval '24 hours';

-- job --
-- A job as the customer sees it; its progress is a sum over its chunks. The open tasks of a job that was stopped count
-- as failed. Containers of inline tasks are not shown.
select j.*, c.total_tasks, c.tasks_done, c.lines_read,
       (select w.paused_at from customers w where w.customer_id = j.customer_id) as customer_paused_at,
       case when j.status in ('failed', 'cancelled') then c.total_tasks - c.tasks_done
            else c.tasks_failed end as tasks_failed
from jobs j
cross join lateral (
    select coalesce(sum(tasks + bad_lines), 0)::bigint  as total_tasks,
           coalesce(sum(settled), 0)::bigint            as tasks_done,
           coalesce(sum(failed + bad_lines), 0)::bigint as tasks_failed,
           coalesce(sum(lines), 0)::bigint              as lines_read
    from chunks where chunks.job_no = j.job_no
) c
where j.manifest_url is not null;

-- get_job --
{job}
  and j.job_id = %(job_id)s and (%(customer_id)s::text is null or j.customer_id = %(customer_id)s);

-- is_going --
-- True for a row of `jobs` that no operator has paused, by itself or with its customer.
paused_at is null and customer_id not in ({runs.paused_customers});

-- begin_job --
-- accepted → processing. A job that is already processing stays so: then this is a rerun.
update jobs set status = 'processing', started_at = now()
where job_no = %(job_no)s and status = 'accepted';

-- pin_manifest --
-- Record the version and the plan. The first of two runs decides, and both read its decision.
update jobs set manifest_bytes = %(size)s, manifest_version = %(version)s, chunk_bytes = %(chunk_bytes)s
where job_no = %(job_no)s and chunk_bytes is null;

-- fail_job --
-- accepted, processing → failed, as long as the manifest is being read: a slow twin of a run that has finished must
-- not fail the job. The credentials are wiped, as nothing needs them.
update jobs
set status = 'failed', error_code = %(code)s, error_message = %(message)s,
    completed_at = now(), credentials = null
where job_no = %(job_no)s and is_unread;

-- cancel_job --
-- accepted, processing → cancelled, and its delivery too, if there is one yet. A run that was not asked for will not
-- be; one that was is stopped by way of the outbox. The credentials are wiped.
with cancelled as (
    update jobs
    set status = 'cancelled', completed_at = now(), credentials = null,
        delivery_status = case when delivery_status is not null then 'failed' end,
        delivery_error_code = case when delivery_status is not null then 'cancelled' end,
        delivery_error_message = case when delivery_status is not null then 'The job was cancelled.' end
    where job_no = %(job_no)s and status in ('accepted', 'processing')
    returning job_no
), stopped as (
    insert into outbox (kind, job_no)
    select 'cancel_job', job_no from cancelled c
    where exists (select from runs r where r.job_no = c.job_no and r.launches > 0)
)
select job_no from cancelled;

-- purge_idempotency_keys --
-- Delete keys that are a day old: they protect nobody any more.
with old as (
    select customer_id, key from idempotency_keys
    where created_at < now() - interval '24 hours'
    order by created_at limit %(limit)s for update skip locked
)
delete from idempotency_keys k using old where (k.customer_id, k.key) = (old.customer_id, old.key);

-- end_vacancies --
-- Hand out nothing more of a job that has ended, or whose tasks all have. The vacancies of all jobs of a transaction are
-- deleted before any of their lanes, as a claim that holds vacancies may wait for lanes.
delete from vacancies where job_no = (
    select job_no from jobs
    where job_no = %(job_no)s and (status <> 'processing' or settled_at is not null)
);

-- end_lanes --
-- The same for lanes.
with job as (
    select job_no from jobs
    where job_no = %(job_no)s and (status <> 'processing' or settled_at is not null)
), ended as (
    delete from lanes where job_no = (select job_no from job) returning job_no, chunk_no
)
delete from open_chunks where (job_no, chunk_no) in (select job_no, chunk_no from ended);

-- lock_job --
-- Lock the row of a job that may end, so that of two last batches the second sees the first.
select job_no from jobs where job_no = %(job_no)s for update;

-- mark_gold --
update jobs set has_gold = true where job_no = %(job_no)s and not has_gold;

-- set_text_bytes --
-- Record the size of a compressed manifest's text.
update jobs set text_bytes = %(text_bytes)s where job_no = %(job_no)s;

-- mark_ingested --
-- Record that every line of the manifest is read. Without a delivery, and URLs to sign, nothing needs the credentials
-- any more.
update jobs
set ingested_at = now(),
    credentials = case when delivery_type is not null or sign_urls then credentials end
where job_no = %(job_no)s and status = 'processing' and ingested_at is null;

-- settle_job --
-- If all tasks have settled or failed: complete the job and wipe its credentials, or make its delivery pending if one is
-- asked for.
update jobs j
set settled_at = now(),
    status          = case when delivery_type is null then 'completed' else status end,
    completed_at    = case when delivery_type is null then now() end,
    credentials     = case when delivery_type is not null then credentials end,
    delivery_status = case when delivery_type is not null then 'pending' end
where job_no = %(job_no)s
  and status = 'processing' and ingested_at is not null and settled_at is null
  and not exists (
      select from chunks c where c.job_no = j.job_no and c.settled + c.failed < c.tasks
  )
  and not exists (select from exclusions e where e.job_no = j.job_no and e.done_at is null);

-- list_unsettled --
-- List jobs whose tasks have all ended without the job being settled.
select j.job_no from jobs j
where j.status = 'processing' and j.ingested_at is not null and j.settled_at is null and j.manifest_url is not null
  and not exists (select from chunks c where c.job_no = j.job_no and c.settled + c.failed < c.tasks)
  and not exists (select from exclusions e where e.job_no = j.job_no and e.done_at is null)
limit %(limit)s;

-- begin_delivery --
-- pending → delivering; a rerun finds it delivering already. The first run decides how large parts are: by two sizes, two
-- runs at once would write other bytes to one object.
update jobs
set delivery_status = 'delivering', delivery_part_bytes = coalesce(delivery_part_bytes, %(part_bytes)s)
where job_no = %(job_no)s and delivery_status = 'pending'
  and status in ('processing', 'completed');

-- finish_delivery --
-- delivering → delivered, and processing → completed.
update jobs
set delivery_status = 'delivered', delivery_objects = %(objects)s, delivered_at = now(),
    delivery_error_code = null, delivery_error_message = null,
    status = 'completed', completed_at = coalesce(completed_at, now()), credentials = null
where job_no = %(job_no)s and delivery_status = 'delivering'
  and status in ('processing', 'completed')
returning job_no;

-- refuse_delivery --
-- delivering → failed. The job is completed all the same: its results can be exported. Another try uses its
-- credentials, or the block, of which it needs no copy any more.
update jobs
set delivery_status = 'failed', delivery_error_code = %(code)s, delivery_error_message = %(message)s,
    delivery_failed_at = now(), credentials = case when credentials_block is null then credentials end,
    status = 'completed', completed_at = coalesce(completed_at, now())
where job_no = %(job_no)s and delivery_status = 'delivering'
  and status in ('processing', 'completed');

-- redeliver --
-- failed → pending, or a first delivery of a job that asked for none. The credentials of the job, or the operator's
-- block, are for the recorded place alone; another place comes with credentials of its own. The job stays completed.
update jobs
set delivery_status = 'pending', delivery_error_code = null, delivery_error_message = null,
    paused_at = null,  -- a pause has ended with the work that it was for
    credentials = coalesce(%(credentials)s, credentials),
    credentials_wiped_at = case when %(credentials)s::bytea is null then credentials_wiped_at end,
    credentials_block = case when %(credentials)s::bytea is null then credentials_block end,
    delivery_type = %(delivery_type)s, delivery_bucket = %(delivery_bucket)s,
    delivery_prefix = %(delivery_prefix)s, delivery_compression = %(delivery_compression)s,
    delivery_format = %(delivery_format)s, delivery_kms_key_id = %(delivery_kms_key_id)s,
    delivery_acl = %(delivery_acl)s
where job_no = %(job_no)s and status = 'completed'
  and coalesce(delivery_status, 'failed') = 'failed'
  and (%(credentials)s::bytea is not null
       or (delivery_type, delivery_bucket, delivery_prefix, delivery_kms_key_id, delivery_acl) is not distinct from
          (%(delivery_type)s::text, %(delivery_bucket)s::text, %(delivery_prefix)s::text,
           %(delivery_kms_key_id)s::text, %(delivery_acl)s::text))
returning job_no;

-- wipe_credentials --
-- Wipe the customer's credentials; a copy of the operator's is not theirs to wipe.
update jobs set credentials = null, credentials_wiped_at = now()
where job_no = %(job_no)s and credentials is not null and credentials_block is null
returning job_no;
