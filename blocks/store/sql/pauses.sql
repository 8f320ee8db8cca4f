-- begin_turn --
-- Resumptions take turns, so that no review is given the same time twice.
select pg_advisory_xact_lock(%(lock)s);

-- pause_job --
-- Begin nothing new for a job that has work left. A trigger copies that to its row in `runs`.
update jobs set paused_at = now()
where job_no = %(job_no)s and paused_at is null and (status in ('accepted', 'processing') or is_undelivered)
returning job_no;

-- resume_job --
update jobs set paused_at = null where job_no = %(job_no)s and paused_at is not null returning job_no;

-- pause_customer --
-- Begin nothing new for any job of a customer, also those that are posted later. Claims and launchers look here, so
-- that this is one row however many jobs there are, and no job that is just being posted is missed.
update customers set paused_at = now() where customer_id = %(customer_id)s and paused_at is null returning customer_id;

-- resume_customer --
update customers set paused_at = null
where customer_id = %(customer_id)s and paused_at is not null returning customer_id;

-- list_reviewed --
-- List a customer's jobs that may have open reviews, in the order in which they are locked.
select job_no from jobs
where customer_id = %(customer_id)s and status = 'processing' and has_review order by job_no;

-- prolong_reviews --
-- Give open reviews of a job the time that they have lost by its pause, or by its customer's: from when it began, or they
-- did, till now, or till the other pause began, if that goes on. Reviews are locked before jobs, in the order of decisions.
with pause as materialized (
    select case when %(is_customers)s then c.paused_at else j.paused_at end as begun_at,
           least(now(), case when %(is_customers)s then j.paused_at else c.paused_at end) as ended_at
    from jobs j join customers c using (customer_id)
    where j.job_no = %(job_no)s
), review as materialized (
    select r.review_no from pause cross join lateral (
        select r.review_no from reviews r
        where r.job_no = %(job_no)s and r.state = 'open' and pause.begun_at is not null
          and pause.ended_at > greatest(pause.begun_at, r.created_at)
        order by r.task_no for update
    ) r
)
update reviews r
set due_at = r.due_at + ((select ended_at from pause) - greatest((select begun_at from pause), r.created_at))
where r.job_no = %(job_no)s and r.state = 'open' and r.review_no = any (array(select review_no from review));

-- anew --
-- Work that is resumed has all its time to wait for a store again.
set tries = 0, reason = null, failing_since = null, next_try_at = null, gives_up_at = null, failure = null,
    equal_failures = 0, not_before = case when isfinite(not_before) then least(not_before, now()) else not_before end

-- begin_job_anew --
update runs {anew}
where run_no = any (array(select run_no from runs where job_no = %(job_no)s order by run_no for update));

-- begin_customer_anew --
update runs {anew}
where run_no = any (array(
    select r.run_no from (
        select run_no from runs
        where customer_id = %(customer_id)s and launched_at is null and failing_since is not null
        union all
        select run_no from runs
        where customer_id = %(customer_id)s and launched_at is not null and failing_since is not null
        order by run_no
    ) failing cross join lateral (select run_no from runs where runs.run_no = failing.run_no for update) r
));

-- find_customer --
select customer_id, name, paused_at, limits from customers where customer_id = %(customer_id)s;
