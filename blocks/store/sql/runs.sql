-- waiting_customers --
-- Customers with work that waits, found from one to the next by index, so that the thousand rows of one of them are not
-- read. Those that an operator has paused are left out.
with_work (customer_id) as (
    (select customer_id from runs where launched_at is null order by customer_id limit 1)
    union all
    select (
        select r.customer_id from runs r
        where r.launched_at is null and r.customer_id > with_work.customer_id
        order by r.customer_id limit 1
    )
    from with_work where with_work.customer_id is not null
), customer as (
    select customer_id from with_work where customer_id is not null and customer_id not in ({paused_customers})
);

-- paused_customers --
-- The customers for whom nothing new is begun: a few, by an index of their own.
select p.customer_id from customers p where p.paused_at is not null;

-- begin_turn --
-- Launchers take turns, so that no two of them count the same free place.
select pg_advisory_xact_lock(%(lock)s);

-- take --
-- Take the next run to be launched: of the customer with the fewest runs under way, and between equals the work that has
-- waited longest. The work of one customer goes by priority, and within a priority deliveries come before manifests,
-- since a delivery ends its job and a thousand manifests may wait. No row comes back where there is no free place. All
-- work that one run of small jobs holds takes one place.
-- Work that has failed before has a few places of its own: it may fail again for hours, and takes no place that other
-- work of the customer could have. Work that an operator has paused takes none.
-- Where `queue_min` of the customer's next works may be done by a run of small jobs, this one `is_queue`.
with recursive {waiting_customers}, next as (
    select due.run_no
    from customer
    cross join lateral (
        select count(distinct r.place) as under_way,
               count(distinct r.place) filter (where r.failing_since < r.launched_at) as retried
        from runs r
        where r.customer_id = customer.customer_id and r.launched_at is not null and isfinite(r.not_before)
    ) own
    cross join lateral (
        select coalesce((c.limits ->> 'runs')::integer, %(per_customer_max)s) as runs_max
        from customers c where c.customer_id = customer.customer_id
    ) theirs
    cross join lateral (
        select first.run_no
        from (values (0, own.under_way - own.retried < theirs.runs_max),
                     (1, own.retried < greatest(theirs.runs_max / 2, 1))) turn (failed, has_room)
        cross join lateral (
            select r.run_no from runs r
            where turn.has_room and r.customer_id = customer.customer_id and r.launched_at is null
              and not r.is_paused and num_nonnulls(r.failing_since) = turn.failed and r.not_before <= now()
            order by r.priority desc, r.kind = 'process_job', r.run_no limit 1
        ) first
        order by turn.failed limit 1
    ) due
    where (
        select count(distinct r.place) from runs r where r.launched_at is not null and isfinite(r.not_before)
    ) < %(runs_max)s
    order by own.under_way, due.run_no limit 1
)
update runs r
set launched_at = now(), launches = r.launches + 1, flow_run_id = null
from next, jobs j
where r.run_no = next.run_no and j.job_no = r.job_no and r.launched_at is null -- nor adopted meanwhile
  and not r.is_paused
returning r.run_no, r.kind, r.launches, r.failures, j.job_id, r.customer_id, j.traceparent,
          not r.needs_own_run and r.launches = 1 and %(queue_min)s <= (
              select count(*) from (
                  select o.needs_own_run, o.launches from runs o
                  where o.customer_id = r.customer_id and o.launched_at is null and o.run_no <> r.run_no
                    and not o.is_paused and num_nonnulls(o.failing_since) = 0 and o.not_before <= now()
                  order by o.priority desc, o.kind = 'process_job', o.run_no limit 2 * %(queue_min)s
              ) ahead
              where not ahead.needs_own_run and ahead.launches = 0
          ) as is_queue;

-- take_more --
-- Take the customer's next small work, for a run that has a place and is about to finish its work. No row comes back
-- where other work has waited for a place for longer than a launch takes: that of a customer with fewer runs under way, and
-- fewer than they may have, or work of this customer that needs a run of its own.
with recursive {waiting_customers}, ahead as materialized (
    select r.run_no, r.priority, r.kind, r.needs_own_run or r.launches > 0 as is_alone,
           greatest(r.not_before, r.waiting_since) as due_since
    from runs r
    where r.customer_id = %(customer_id)s and r.launched_at is null and not r.is_paused
      and num_nonnulls(r.failing_since) = 0 and r.not_before <= now()
      and r.customer_id not in ({paused_customers})
    order by r.priority desc, r.kind = 'process_job', r.run_no limit %(ahead_max)s
), overdue as (
    select from customer
    cross join lateral (
        select from runs r
        where r.customer_id = customer.customer_id and r.launched_at is null and not r.is_paused
          and greatest(r.not_before, r.waiting_since) < now() - make_interval(secs => %(patience_s)s)
        limit 1
    ) due
    where customer.customer_id <> %(customer_id)s and (
        select count(distinct r.place) from runs r
        where r.customer_id = customer.customer_id and r.launched_at is not null and isfinite(r.not_before)
    ) < least((
        select count(distinct r.place) from runs r
        where r.customer_id = %(customer_id)s and r.launched_at is not null and isfinite(r.not_before)
    ), coalesce((
        select (c.limits ->> 'runs')::integer from customers c where c.customer_id = customer.customer_id
    ), %(per_customer_max)s))
    union all
    select from ahead where is_alone and due_since < now() - make_interval(secs => %(patience_s)s)
), next as (
    select run_no from ahead where not is_alone order by priority desc, kind = 'process_job', run_no limit 1
)
update runs r
set launched_at = now(), launches = 1, flow_run_id = %(flow_run_id)s
from next, jobs j
where r.run_no = next.run_no and not exists (select from overdue)
  and j.job_no = r.job_no and r.launched_at is null and not r.is_paused
returning r.kind, j.job_id, j.traceparent;

-- take_back --
-- Take the first work of a run of small jobs: that which it was asked for, and all that it held when it was stopped.
update runs r
set launched_at = now(), flow_run_id = %(flow_run_id)s, not_before = now(),
    launches = r.launches + (r.launched_at is null)::integer
where r.flow_run_id = %(flow_run_id)s
   or (r.job_no = %(job_no)s and (r.launched_at is null or r.flow_run_id is null))
returning r.kind, (select j.job_id from jobs j where j.job_no = r.job_no) as job_id,
          (select j.traceparent from jobs j where j.job_no = r.job_no) as traceparent;

-- hand_over --
-- Leave work of a run of small jobs to a run of its own: it is large, or has failed. A row that has changed meanwhile
-- stays as it is.
update runs r
set launched_at = null, flow_run_id = null, needs_own_run = true, waiting_since = now(), last_error = %(error)s,
    launches = case when %(error)s::text is null then 0 else r.launches end,
    not_before = now() + make_interval(secs => %(delay_s)s)
from jobs j
where j.job_id = %(job_id)s and r.job_no = j.job_no and r.kind = %(kind)s and r.flow_run_id = %(flow_run_id)s;

-- record_launch --
-- Record Prefect's run of a launch.
update runs set flow_run_id = %(flow_run_id)s, failures = 0, last_error = null
where run_no = %(run_no)s and launches = %(launches)s;

-- wake_workers --
select pg_notify(%(channel)s, '');

-- find_unanswered --
-- List launches whose run is not known: the launcher has died, or has lost the database before it could record it.
select r.run_no, r.kind, r.launches, r.failures, j.job_id, r.customer_id, j.traceparent, false as is_queue
from runs r join jobs j using (job_no)
where r.launched_at is not null and r.flow_run_id is null -- a few rows, by an index of those that were launched
  and r.launched_at < now() - make_interval(secs => %(after_s)s)
limit %(limit)s;

-- adopt --
-- Count a run that was started, retried or resumed manually as the one that was asked for, where none is under way: it
-- is looked after, and no other one is started beside it.
update runs
set launched_at = now(), flow_run_id = %(flow_run_id)s, launches = launches + 1, failures = 0, not_before = now()
where job_no = %(job_no)s and kind = %(kind)s and (launched_at is null or not isfinite(not_before));

-- postpone --
-- Take a launch back: Prefect could not be asked.
update runs
set launched_at = null, launches = launches - 1, failures = failures + 1, last_error = %(error)s,
    not_before = now() + make_interval(secs => %(delay_s)s)
where run_no = %(run_no)s and launches = %(launches)s and flow_run_id is null;

-- list_under_way --
-- List a page of the runs that were launched; reconcile asks Prefect for their states.
select run_no, kind, flow_run_id, launched_at, launches, now() - launched_at > interval '1 minute' as is_old,
       not isfinite(not_before) as is_paused
from runs where launched_at is not null and run_no > %(after)s
order by run_no limit %(limit)s;

-- wait_again --
-- Schedule another launch: the run has ended, and the work is not done. A row that has changed meanwhile stays as it is.
update runs r
set launched_at = null, last_error = %(error)s, waiting_since = now(),
    not_before = case when %(delay_s)s::float8 is null then 'infinity'
                      else now() + make_interval(secs => %(delay_s)s) end
where r.run_no = (
    select run_no from runs
    where run_no = %(run_no)s and launched_at = %(launched_at)s for update skip locked
)
returning r.run_no;

-- make_due --
-- Have a job's work that waits for a later time, or was stopped by an operator, launched when its turn comes.
update runs r set not_before = now()
from (select run_no from runs where job_no = %(job_no)s and launched_at is null for update) waiting
where r.run_no = waiting.run_no and r.not_before > now()
returning r.kind;

-- is_any_waiting --
select exists (select from runs where job_no = %(job_no)s and launched_at is null) as is_any;

-- set_paused --
-- An operator has paused a run that was launched, or has resumed it.
update runs r
set waiting_since = now(), not_before = case when %(is_paused)s then 'infinity' else now() end
where r.run_no = (
    select run_no from runs
    where run_no = %(run_no)s and launched_at = %(launched_at)s for update skip locked
)
returning r.run_no;

-- give_back --
-- Free the place of a run that ends itself because its work has to wait, and schedule another run.
update runs r
set launched_at = null, last_error = %(error)s, waiting_since = now(),
    not_before = now() + make_interval(
        secs => (%(delays_s)s::float8[])[least(greatest(r.launches, 1), cardinality(%(delays_s)s::float8[]))])
from jobs j
where j.job_id = %(job_id)s and r.job_no = j.job_no and r.kind = %(kind)s and r.flow_run_id = %(flow_run_id)s
  and r.launched_at is not null
returning r.run_no;

-- lay_down --
-- Free the place of a run that ends itself, since an operator has paused its job. The work is due as soon as it is not
-- paused any more.
update runs r
set launched_at = null, waiting_since = now(), not_before = now()
from jobs j
where j.job_id = %(job_id)s and r.job_no = j.job_no and r.kind = %(kind)s and r.flow_run_id = %(flow_run_id)s
  and r.launched_at is not null
returning r.run_no;

-- find_missing --
-- List work that ought to have a row and has none: an operator has deleted it by hand, or restored an old copy.
select job_no, 'process_job' as kind, customer_id, priority, paused_at is not null as is_paused from jobs j
where is_unread
  and not exists (select from runs r where r.job_no = j.job_no and r.kind = 'process_job')
union all
select job_no, 'deliver_job', customer_id, priority, paused_at is not null from jobs j
where is_undelivered
  and not exists (select from runs r where r.job_no = j.job_no and r.kind = 'deliver_job')
limit %(limit)s;

-- add_missing --
insert into runs (job_no, kind, customer_id, priority, is_paused)
{find_missing}
on conflict do nothing
returning run_no;
