-- read_totals --
-- Return the sums of all series.
select name, label, sum(amount)::float8 as total from counts group by name, label order by name, label;

-- read_queues --
-- Measure the queues: how many entries wait, counted up to a bound, and for how many seconds the oldest has. The age
-- of webhooks is that of messages due at endpoints that answer; those of dead endpoints are no fault of the service.
select 'outbox' as name,
       (select count(*) from (select from outbox limit %(counted_max)s) o) as depth,
       (select extract(epoch from now() - created_at)::float8 from outbox order by outbox_no limit 1) as oldest_s
union all
-- Work that Prefect could not be asked for waits, though it is not due. Work that an operator has stopped or paused does
-- not.
select 'runs_waiting', count(*), extract(epoch from now() - min(since))::float8
from (
    select case when failures > 0 then created_at else greatest(created_at, not_before) end as since
    from runs
    where launched_at is null and (not_before <= now() or failures > 0) and not_before < 'infinity'
      and not is_paused and customer_id not in ({runs.paused_customers})
    limit %(counted_max)s
) r
union all
select 'runs_under_way',
       (select count(*) from (select from runs where launched_at is not null limit %(counted_max)s) r),
       (select extract(epoch from now() - min(launched_at))::float8 from (
           select launched_at from runs where launched_at is not null limit %(counted_max)s) r)
union all
select 'webhooks',
       (select count(*) from (
           select from notifications where status = 'pending' limit %(counted_max)s) n),
       (select extract(epoch from now() - min(first.not_before))::float8
        from ({waiting_endpoints}) w
        join webhooks using (webhook_no)
        cross join lateral (
            select n.not_before from notifications n
            where n.webhook_no = w.webhook_no and n.status = 'pending' and n.not_before <= now()
            order by n.not_before limit 1
        ) first
        where webhooks.failures = 0);

-- waiting_endpoints --
-- List endpoints with messages to be sent, up to a bound, going from one to the next by index.
with recursive waiting as (
    (select webhook_no from notifications where status = 'pending' order by webhook_no limit 1)
    union all
    select (select n.webhook_no from notifications n
            where n.status = 'pending' and n.webhook_no > waiting.webhook_no order by n.webhook_no limit 1)
    from waiting where waiting.webhook_no is not null
)
select webhook_no from waiting where webhook_no is not null limit %(endpoints_max)s;

-- read_oldest_jobs --
-- Return for each stage how many seconds the job that has been in it longest is there, or null. Each is found by index.
-- Paused jobs are passed over, among the first ones: that they wait is no fault.
select 'open' as stage, extract(epoch from now() - min(first.created_at))::float8 as oldest_s
from (values ('accepted'), ('processing')) s (status)
cross join lateral (
    select j.created_at from (
        select * from jobs
        where status = s.status and manifest_url is not null order by job_no limit %(looked_max)s
    ) j
    where {jobs.is_going} order by j.job_no limit 1
) first
union all
select 'unread', extract(epoch from now() - min(first.created_at))::float8
from (
    select created_at from (select * from jobs where is_unread order by job_no limit %(looked_max)s) j
    where {jobs.is_going} order by job_no limit 1
) first
union all
-- A job that is delivered again is undelivered since then: since it has its row in runs.
select 'undelivered', extract(epoch from now() - min(r.created_at))::float8
from (
    select job_no from (select * from jobs where is_undelivered order by job_no limit %(looked_max)s) j
    where {jobs.is_going} order by job_no limit %(jobs_max)s
) j
cross join lateral (
    select r.created_at from runs r where r.job_no = j.job_no and r.kind = 'deliver_job' offset 0
) r;

-- read_open_tasks --
-- Count the tasks that are neither settled nor failed, by the counters of chunks and up to a bound. Those of paused jobs
-- are not handed out, and do not count.
select coalesce(sum(c.open), 0)::float8 as open
from (
    select c.open
    from (
        select job_no from jobs where status = 'processing' and {jobs.is_going}
        order by priority desc, job_no limit %(jobs_max)s
    ) j
    cross join lateral (
        select c.tasks - c.settled - c.failed as open from chunks c where c.job_no = j.job_no
        limit %(chunks_max)s
    ) c
    limit %(chunks_max)s
) c;

-- read_database_bytes --
select pg_database_size(current_database()) as bytes;

-- read_streams --
-- List streams, up to a bound, with the time when each has found a manifest last, or began.
select s.customer_id, s.stream, extract(epoch from coalesce(latest.created_at, s.started_at))::float8 as latest_at
from (select * from streams order by customer_id, stream limit %(streams_max)s) s
left join lateral (
    select m.created_at from stream_manifests m
    where (m.customer_id, m.stream) = (s.customer_id, s.stream) order by m.created_at desc limit 1
) latest on true
order by 1, 2;

-- fold --
-- Fold rows into one per series; two processes that fold at once pass over each other's rows. Where each series has
-- one row, nothing is written.
with gone as (
    delete from counts
    where exists (select from counts group by name, label having count(*) > 1) and count_no in (
        select count_no from counts order by count_no limit %(limit)s for update skip locked
    )
    returning name, label, amount
), kept as (
    insert into counts (name, label, amount)
    select name, label, sum(amount) from gone group by name, label
    returning count_no
)
select (select count(*) from gone) - (select count(*) from kept) as folded;
