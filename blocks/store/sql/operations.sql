-- shares --
-- Count the work of each customer that Prefect has in hand or that waits for its turn, among the first rows of all.
select r.customer_id, c.name,
       count(*) filter (where r.launched_at is not null) as under_way,
       count(*) filter (where r.launched_at is null) as waiting,
       extract(epoch from now() - min(r.waiting_since) filter (where r.launched_at is null))::float8 as oldest_s
from (select customer_id, launched_at, waiting_since from runs order by run_no limit %(counted_max)s) r
join customers c using (customer_id)
group by r.customer_id, c.name
order by waiting desc, under_way desc, r.customer_id
limit %(limit)s;

-- list_runs --
-- List work in hand of Prefect or in trouble, the oldest first.
select r.kind, j.job_id, r.customer_id, r.launched_at, r.flow_run_id, r.launches, r.tries, coalesce(r.reason, r.last_error) as reason
from (
    select * from runs where launched_at is not null or failures > 0 or tries > 0 order by run_no limit %(limit)s
) r
join jobs j using (job_no)
order by r.run_no;

-- list_outbox --
-- List the messages to Prefect that have waited longest.
select o.kind, o.event, j.job_id, o.created_at, o.tries, o.last_error
from (select * from outbox order by outbox_no limit %(limit)s) o
join jobs j using (job_no)
order by o.outbox_no;

-- list_failing_endpoints --
-- List endpoints that have failed and have messages to be sent.
select w.webhook_id, w.customer_id, w.callback_url, w.failures, w.resumes_at
from ({counts.waiting_endpoints}) n
join webhooks w using (webhook_no)
where w.failures > 0
order by w.failures desc
limit %(limit)s;

-- list_customers --
-- List a page of customers with what they have under way; nothing is counted further than up to a bound.
select c.customer_id, c.name, c.paused_at, j.jobs, u.runs_under_way, w.runs_waiting, w.oldest_s, t.open_tasks
from (
    select customer_id, name, paused_at from customers where customer_id > %(after)s order by customer_id limit %(limit)s
) c
cross join lateral (
    select jsonb_object_agg(s.status, n.jobs) as jobs
    from unnest(%(statuses)s::text[]) s (status)
    cross join lateral (
        select count(*) as jobs from (
            select from jobs
            where customer_id = c.customer_id and status = s.status and manifest_url is not null limit %(counted_max)s
        ) counted
    ) n
) j
cross join lateral (
    select count(*) as runs_under_way from (
        select from runs where customer_id = c.customer_id and launched_at is not null limit %(counted_max)s
    ) counted
) u
cross join lateral (
    select count(*) as runs_waiting, extract(epoch from now() - min(waiting_since))::float8 as oldest_s from (
        select waiting_since from runs where customer_id = c.customer_id and launched_at is null limit %(counted_max)s
    ) counted
) w
cross join lateral (
    select coalesce(sum(counted.open), 0)::bigint as open_tasks from (
        select k.open from (
            select job_no from jobs
            where customer_id = c.customer_id and status in ('accepted', 'processing')
            order by job_no limit %(counted_max)s
        ) o
        cross join lateral (
            select tasks - settled - failed as open from chunks where chunks.job_no = o.job_no limit %(counted_max)s
        ) k
        limit %(counted_max)s
    ) counted
) t
order by c.customer_id;

-- list_streams --
-- List a page of streams, with the latest of their manifests counted by what became of them.
select s.customer_id, s.stream, s.started_at, m.latest_at, m.open, m.failed
from (
    select customer_id, stream, started_at from streams
    where (customer_id, stream) > (%(after_customer)s, %(after_stream)s)
      and (%(customer_id)s::text is null or customer_id = %(customer_id)s)
    order by customer_id, stream limit %(limit)s
) s
cross join lateral (
    select max(l.created_at) as latest_at,
           count(*) filter (where l.ignored_at is null and (
               j.status in ('accepted', 'processing') or j.is_undelivered)) as open,
           count(*) filter (where l.ignored_at is null and (
               j.status = 'failed' or j.status = 'completed' and j.delivery_status = 'failed')) as failed
    from (
        select job_no, created_at, ignored_at from stream_manifests m
        where (m.customer_id, m.stream) = (s.customer_id, s.stream) order by created_at desc limit %(counted_max)s
    ) l
    cross join lateral (select * from jobs where jobs.job_no = l.job_no offset 0) j
) m
order by s.customer_id, s.stream;

-- list_work --
-- List a page of the work for Prefect of one status or in any, in the order in which it came, with the last that was
-- looked at.
with looked as materialized (
    select r.*, case when not isfinite(r.not_before) then 'stopped'
                     when r.launched_at is not null then 'under_way'
                     when r.is_paused or r.customer_id in ({runs.paused_customers}) then 'paused'
                     when r.failures > 0 or r.tries > 0 then 'failing'
                     else 'waiting' end as status
    from runs r where r.run_no > %(after)s order by r.run_no limit %(looked_max)s
)
select total.looked, total.last_no, found.*
from (select count(*) as looked, max(run_no) as last_no from looked) total
left join (
    select l.run_no, l.status, l.kind, j.job_id, l.customer_id, l.waiting_since, l.launched_at, l.flow_run_id,
           l.launches, l.tries, coalesce(l.reason, l.last_error) as reason
    from (
        select * from looked
        where (%(customer_id)s::text is null or customer_id = %(customer_id)s)
          and (%(status)s::text is null or status = %(status)s)
        order by run_no limit %(limit)s
    ) l
    cross join lateral (select job_id from jobs where jobs.job_no = l.job_no offset 0) j
) found on true
order by found.run_no;
