-- begin --
-- Return when the stream began; its first run decides that.
with begun as (
    insert into streams (customer_id, stream, started_at)
    select customer_id, %(stream)s, %(at)s from customers where customer_id = %(customer_id)s
    on conflict do nothing
    returning started_at
)
select started_at from begun
union all
select started_at from streams where customer_id = %(customer_id)s and stream = %(stream)s;

-- outcomes --
-- The outcome of each manifest. It is replaced where a later version of it became a job.
select m.customer_id, m.stream, m.manifest_url, m.version, m.attempts, m.ignored_at, m.created_at,
    j.job_id, j.job_no, job.has_failed,
    case
        when m.ignored_at is not null then 'ignored'
        when exists (
            select from stream_manifests later
            where (later.customer_id, later.stream, later.manifest_url) = (m.customer_id, m.stream, m.manifest_url)
              and later.job_no > m.job_no
        ) then 'replaced'
        when job.has_failed then 'failed'
        when j.status = 'cancelled' then 'cancelled'
        when j.status = 'completed' and coalesce(j.delivery_status, 'delivered') = 'delivered' then 'done'
        else 'open'
    end as outcome,
    coalesce(j.error_code, j.delivery_error_code) as error_code,
    coalesce(j.error_message, j.delivery_error_message) as error_message
from stream_manifests m join jobs j using (job_no)
cross join lateral (
    select j.status = 'failed' or j.status = 'completed' and j.delivery_status = 'failed' as has_failed
) job;

-- find_known --
-- List those of some versions of manifests that the stream has made jobs of, with their outcomes; a job that was deleted
-- has not failed.
with outcomes as ({outcomes})
select o.manifest_url, o.version, o.has_failed and o.ignored_at is null as has_failed, o.attempts
from unnest(%(manifest_urls)s::text[], %(versions)s::text[]) as asked (manifest_url, version)
join outcomes o on o.customer_id = %(customer_id)s and o.stream = %(stream)s
    and o.manifest_url = asked.manifest_url and o.version = asked.version
union all
select asked.manifest_url, asked.version, false, 1
from unnest(%(manifest_urls)s::text[], %(versions)s::text[]) as asked (manifest_url, version)
join forgotten_manifests f on f.customer_id = %(customer_id)s and f.stream = %(stream)s
    and f.digest = manifest_digest(asked.manifest_url, asked.version);

-- list_manifests --
-- List manifests of all streams, or of some, newest first.
with outcomes as ({outcomes})
select * from outcomes
where customer_id = coalesce(%(customer_id)s, customer_id) and stream = coalesce(%(stream)s, stream)
  and manifest_url = coalesce(%(manifest_url)s, manifest_url) and version = coalesce(%(version)s, version)
  and outcome = any (coalesce(%(outcomes)s::text[], array[outcome]))
order by job_no desc
limit %(limit)s;

-- list_streams --
-- List a page of streams, with how many of their manifests have each outcome.
with page as materialized (
    select customer_id, stream, started_at from streams
    where (customer_id, stream) > (%(after_customer)s, %(after_stream)s)
      and (%(customer_id)s::text is null or customer_id = %(customer_id)s)
      and (%(stream)s::text is null or stream = %(stream)s)
    order by customer_id, stream limit %(limit)s
)
select s.customer_id, s.stream, s.started_at, o.*
from page s
cross join lateral (
    select max(o.created_at) as latest_at, count(o.outcome) as manifests,
        count(*) filter (where o.outcome = 'open') as open,
        count(*) filter (where o.outcome = 'done') as done,
        count(*) filter (where o.outcome = 'failed') as failed,
        count(*) filter (where o.outcome = 'cancelled') as cancelled,
        count(*) filter (where o.outcome = 'replaced') as replaced,
        count(*) filter (where o.outcome = 'ignored') as ignored
    from ({outcomes}) o
    where (o.customer_id, o.stream) = (s.customer_id, s.stream)
) o
order by s.customer_id, s.stream;

-- try_again --
-- Bind a manifest to another job, or to the same one once more, unless another operator or run was quicker.
update stream_manifests m set job_no = new.job_no, attempts = attempts + 1, ignored_at = null
from jobs old, jobs new
where (m.customer_id, m.stream, m.manifest_url, m.version)
    = (%(customer_id)s, %(stream)s, %(manifest_url)s, %(version)s)
  and m.job_no = old.job_no and old.job_id = %(old_job_id)s and new.job_id = %(job_id)s
returning m.job_no;

-- ignore --
update stream_manifests set ignored_at = now()
where customer_id = %(customer_id)s and stream = %(stream)s and manifest_url = %(manifest_url)s
  and ignored_at is null;

-- record_shown --
-- Record what is shown of a stream; no row comes back where it was the same before.
update streams set shown = %(shown)s
where customer_id = %(customer_id)s and stream = %(stream)s and shown is distinct from %(shown)s
returning stream;

-- remember --
-- Bind a manifest to its job, and count it; no row comes back where it has one already.
with remembered as (
    insert into stream_manifests (customer_id, stream, manifest_url, version, job_no)
    select %(customer_id)s, %(stream)s, %(manifest_url)s, %(version)s, job_no from jobs
    where job_id = %(job_id)s and not exists (
        select from forgotten_manifests f
        where (f.customer_id, f.stream, f.digest)
            = (%(customer_id)s, %(stream)s, manifest_digest(%(manifest_url)s, %(version)s))
    )
    on conflict do nothing
    returning job_no, customer_id, stream
), counted as (
    insert into counts (name, label, amount)
    select 'stream_manifests', customer_id || '/' || stream, 1 from remembered
)
select job_no from remembered;

-- list_delivery_folders --
-- List the folders of a bucket that some jobs are delivered to, whichever customers they are of.
select ltrim(delivery_prefix || '/' || job_id, '/') as folder
from jobs
where job_id = any (%(job_ids)s) and delivery_type = %(store)s and delivery_bucket = %(bucket)s;
