-- record_failure --
-- Record that a try of a run has failed; several tries of one run may fail at once.
update runs r
set tries = r.tries + 1,
    reason = %(reason)s,
    failing_since = coalesce(r.failing_since, now()),
    next_try_at = now() + make_interval(secs => %(delay_s)s),
    gives_up_at = coalesce(r.failing_since, now()) + make_interval(secs => %(wait_s_max)s),
    failure = coalesce(%(failure)s, r.failure),
    equal_failures = case when %(failure)s::text is null then r.equal_failures
                          when r.failure = %(failure)s then r.equal_failures + 1
                          else 1 end
from jobs j
where j.job_id = %(job_id)s and r.job_no = j.job_no and r.kind = %(kind)s
returning r.tries, r.failing_since as since, r.gives_up_at <= now() and j.paused_at is null
          and j.customer_id not in ({runs.paused_customers}) as is_over, r.equal_failures;

-- failed_for --
-- Return for how long the work has failed in a row.
select extract(epoch from now() - r.failing_since)::float8 as failed_for_s
from runs r join jobs j using (job_no)
where j.job_id = %(job_id)s and r.kind = %(kind)s and r.failing_since is not null;

-- forget_failures --
-- Forget the failures of work that has made progress: later ones are counted from the start.
update runs
set tries = 0, reason = null, failing_since = null, next_try_at = null, gives_up_at = null,
    failure = null, equal_failures = 0
where job_no = %(job_no)s and kind = %(kind)s and failing_since is not null;

-- list_runs --
-- List the pending work of jobs, and its state.
select r.job_no, r.kind, r.launched_at, r.launches, r.failures, r.waiting_since, r.tries, r.reason,
       r.failing_since, r.gives_up_at, not isfinite(r.not_before) as is_stopped,
       case when r.launched_at is not null and r.failures = 0 then r.next_try_at
            when isfinite(r.not_before) then r.not_before end as next_try_at,
       now() as now
from unnest(%(job_nos)s::bigint[]) as i (job_no)
cross join lateral (
    select * from runs where runs.job_no = i.job_no order by run_no limit 1
) r;

-- count_excluded --
-- Count the annotators who are excluded from some jobs.
select count(*) as annotators from job_annotators
where job_no = any (%(job_nos)s::bigint[]) and excluded_at is not null;

-- wanted_annotators --
-- Count how many more annotators jobs need, so that every open task can get its next labels. A task without labels needs
-- as many people as it collects labels; a task whose labels are tied needs one person who has not labelled it. Those
-- who have skipped a task are not handed it again. Gold wants no labels.
-- This looks at the tasks that a claim would look at first: vacancies, and the first chunk that has lanes. It looks at
-- none where there are so many annotators that no task can be short of them. Annotators for other customers, and
-- those who are excluded from the job, do not count.
with active as materialized (
    select c.customer_id, k.annotators
    from (select distinct customer_id from jobs where job_no = any (%(job_nos)s::bigint[])) c
    cross join lateral (
        select coalesce(array_agg(annotator_no), '{}') as annotators
        from (
            (select annotator_no from annotators where is_active and customer_ids is null
             order by annotator_no limit %(annotators_max)s)
            union all
            (select annotator_no from annotators where is_active and customer_ids @> array[c.customer_id]
             limit %(annotators_max)s)
            limit %(annotators_max)s
        ) granted
    ) k
)
select j.job_no, open.wanted, coalesce(open.since, j.ingested_at) as since
from unnest(%(job_nos)s::bigint[]) as i (job_no)
cross join lateral (
    select job_no, ingested_at, consensus_threshold, able.annotators, has_gold,
           case when stop_early then consensus_threshold / 2 + 1 else consensus_threshold end as labels_min
    from jobs join active using (customer_id)
    cross join lateral (
        select array(
            select a.annotator_no from unnest(active.annotators) as a (annotator_no)
            where a.annotator_no <> all (array(
                select o.annotator_no from job_annotators o where o.job_no = jobs.job_no and o.excluded_at is not null
            ))
        ) as annotators
    ) able
    where jobs.job_no = i.job_no
      and coalesce(labels_max, 2 * consensus_threshold) + case
              when exists (select from skips s where s.job_no = jobs.job_no) then %(reasons)s::integer * (skips_max - 1) else 0
          end > cardinality(able.annotators)
    offset 0
) j
cross join lateral (
    select max(s.wanted) as wanted, max(s.labelled_at) filter (where s.wanted > 0) as since
    from (
        select y.labelled_at,
               greatest(j.labels_min, coalesce(cardinality(y.annotators), 0) + 1)
               - coalesce(cardinality(y.annotators), 0)
               - (select count(*) from unnest(j.annotators) as a (annotator_no)
                  where not coalesce(y.annotators @> array[a.annotator_no] or y.skippers @> array[a.annotator_no], false)
                 ) as wanted
        from (
            (select v.task_no from vacancies v where v.job_no = j.job_no
             order by v.vacancy_no limit %(tasks_max)s)
            union all
            (select t.task_no
             from (
                 select (select min(c) from unnest(l.cursors) as c) as goes_on_at, l.ends_at
                 from open_chunks o cross join lateral ({annotation.lanes_of}) l
                 where o.job_no = j.job_no order by o.chunk_no limit 1
             ) lane
             cross join lateral generate_series(
                 goes_on_at, least(goes_on_at + %(tasks_max)s, ends_at) - 1
             ) as t (task_no))
        ) c
        left join lateral (
            select * from tallies y where (y.job_no, y.task_no) = (j.job_no, c.task_no) offset 0
        ) y on true
        where y.outcome is null and not (j.has_gold and exists (
            select from gold_tasks g where (g.job_no, g.task_no) = (j.job_no, c.task_no)
        ))
    ) s
) open
where open.wanted > 0;

-- count_under_review --
-- Count the tasks of jobs that wait for a reviewer, and find since when the last of them does.
select i.job_no, r.tasks, r.since from unnest(%(job_nos)s::bigint[]) as i (job_no)
cross join lateral (
    select count(*) as tasks, max(created_at) as since from reviews
    where reviews.job_no = i.job_no and state = 'open'
) r;
