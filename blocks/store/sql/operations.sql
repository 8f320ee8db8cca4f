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
