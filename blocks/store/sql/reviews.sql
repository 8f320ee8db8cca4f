-- claimable_jobs --
-- List jobs whose queue may have something for the reviewer, in the order of claims of tasks to label.
select job_no from jobs
where status = 'processing' and {jobs.is_going} and has_review
  and (%(job_id)s::text is null or job_id = %(job_id)s)
  and (%(task_types)s::text[] is null or task_type = any (%(task_types)s))
  and {annotation.has_key}
  and {annotation.for_annotator}
  and {has_waiting}
order by priority desc, hashtextextended(customer_id, %(seed)s), hashint8extended(job_no, %(seed)s)
limit %(jobs_max)s;

-- has_waiting --
-- True for a row of `jobs` with an open review, for one of the reasons asked for. The queue of each reason is looked up by
-- itself: a filter would read all of a queue that has none of it.
exists (
    select from unnest(%(reasons)s::text[]) as i (reason) cross join lateral (
        select from reviews r where (r.job_no, r.reason) = (jobs.job_no, i.reason) and r.state = 'open' limit 1
    ) r
);

-- count_waiting --
-- Count the open reviews of jobs by reason, up to `counted_max` of each; jobs that have some come first.
select job_id, task_type, question, waiting
from (
    select job_no, job_id, task_type, question, priority, {has_waiting} as has_waiting from jobs
    where status = 'processing' and {jobs.is_going} and has_review
      and (%(job_id)s::text is null or job_id = %(job_id)s)
      and {annotation.has_key}
      and {annotation.for_annotator}
    order by has_waiting desc, priority desc, job_no desc limit %(jobs_max)s
) jobs
cross join lateral (
    select json_object_agg(i.reason, (
        select count(*) from (
            select from reviews r where (r.job_no, r.reason) = (jobs.job_no, i.reason) and r.state = 'open'
            limit %(counted_max)s
        ) r
    )) as waiting
    from unnest(%(reasons)s::text[]) as i (reason)
) w
order by has_waiting desc, priority desc, job_no desc;

-- is_free --
-- True for a row r of `reviews` that nobody holds.
(r.reviewer_no is null or r.expires_at < now());

-- queue --
-- Some open reviews of one job, the oldest first: at most `reviews_max` from the fraction `start_at` (0–1) of their numbers.
select * from reviews r
where r.job_no = %(job_no)s and r.state = 'open' and r.review_no >= (
    select (min(review_no) + (max(review_no) - min(review_no)) * %(start_at)s::float8)::bigint
    from reviews where job_no = %(job_no)s and state = 'open'
)
order by r.review_no limit %(reviews_max)s;

-- queue_of_reason --
-- The same of those for one reason, which have an index of their own.
select * from reviews r
where r.job_no = %(job_no)s and r.reason = %(reason)s and r.state = 'open' and r.review_no >= (
    select (min(review_no) + (max(review_no) - min(review_no)) * %(start_at)s::float8)::bigint
    from reviews where job_no = %(job_no)s and reason = %(reason)s and state = 'open'
)
order by r.review_no limit %(reviews_max)s;

-- for_reviewer --
-- Pick up to `limit` of a part r of a queue that the reviewer may be handed: none of a task that they have labelled or
-- skipped, and only those that the annotator of an id has, unless that is null.
left join lateral (
    select y.annotators, y.skippers from tallies y
    where (y.job_no, y.task_no) = (r.job_no, r.task_no) offset 0
) y on true
where {is_free} and r.due_at > now() and not {annotation.is_known}
  and (%(annotator_id)s::text is null
       or y.annotators || coalesce(y.skippers, '{}') @> array[(select annotator_no from annotators where annotator_id = %(annotator_id)s)])
order by r.review_no limit %(limit)s;

-- handed_out --
-- Have the reviewer hold those of "candidate" that are still free. A lease ends at the deadline.
free as materialized (
    select r.* from candidate c cross join lateral (
        select r.job_no, r.task_no, r.review_no from reviews r
        where (r.job_no, r.task_no, r.review_no) = (c.job_no, c.task_no, c.review_no)
          and r.state = 'open' and {is_free}
        for update skip locked
    ) r
)
update reviews r
set reviewer_no = %(annotator_no)s, expires_at = least(now() + make_interval(secs => %(lease_s)s), r.due_at),
    claim_key = %(claim_key)s, claim_digest = %(claim_digest)s::bytea
from free where (r.job_no, r.task_no, r.review_no) = (free.job_no, free.task_no, free.review_no)
  and r.job_no = any (array(select job_no from free)) and r.task_no = any (array(select task_no from free))
returning r.job_no, r.task_no, r.review_no, r.expires_at;

-- take --
-- Hand out reviews of one job.
with candidate as materialized (
    select r.job_no, r.task_no, r.review_no from ({queue}) r {for_reviewer}
), {handed_out}

-- take_of_reason --
-- Hand out reviews of one job for one reason.
with candidate as materialized (
    select r.job_no, r.task_no, r.review_no from ({queue_of_reason}) r {for_reviewer}
), {handed_out}

-- may_come --
-- Return whether one job may have reviews later for a reviewer who was given none just now; no row where they may not be
-- handed its customer's tasks. It is true as long as a task may come to its end, or somebody holds a review.
select has_review and status in ('accepted', 'processing') and not {annotation.is_excluded} and (
           ingested_at is null
           or exists (
               select from chunks c where c.job_no = jobs.job_no and c.settled + c.failed < c.tasks
           )
       ) as may_come
from jobs where job_id = %(job_id)s and {annotation.is_granted};

-- held --
-- The reviews that a reviewer holds, of jobs that go on.
select r.job_no, j.job_id, j.task_key, j.has_gold, r.task_no, r.review_no, r.expires_at, r.claim_key, r.claim_digest
from reviews r join jobs j on j.job_no = r.job_no and j.status = 'processing'
where r.reviewer_no = %(annotator_no)s and r.state = 'open' and r.expires_at > now();

-- find_claimed --
-- List the reviews still held by the claim of one key.
with held as materialized ({held})
select * from held where claim_key = %(claim_key)s order by job_no, task_no;

-- list_page --
-- List a page of the reviews that the reviewer holds, from after a task on.
with held as materialized ({held})
select * from held where (job_no, {leases.listed_at}) > (%(after_job_no)s, %(after_place)s)
order by job_no, {leases.listed_at} limit %(limit)s;

-- count_held --
-- Count the reviews that the reviewer holds, and find when the first of them runs out.
with held as materialized ({held})
select count(*) as tasks, min(expires_at) as expires_at from held;

-- input --
-- Some tasks by their ids, with the open reviews of them that the reviewer holds, locked in the order of decisions.
input as materialized (
    select distinct j.job_no, i.job_id, i.task_no, j.sign_urls
    from unnest(%(job_ids)s::text[], %(task_nos)s::bigint[]) as i (job_id, task_no)
    join jobs j on j.job_id = i.job_id and j.status = 'processing'
), held as materialized (
    select i.job_id, i.sign_urls, r.* from (select * from input order by job_no, task_no) i cross join lateral (
        select r.job_no, r.task_no, r.review_no from reviews r
        where (r.job_no, r.task_no) = (i.job_no, i.task_no) and r.state = 'open'
          and r.reviewer_no = %(annotator_no)s and r.expires_at > now()
        for update
    ) r
);

-- renew --
-- Hold some reviews for longer, from now on, but not beyond their deadline; never for a shorter time than they are held.
with {input}
update reviews r
set expires_at = greatest(r.expires_at, least(now() + make_interval(secs => %(lease_s)s), r.due_at))
from held where (r.job_no, r.task_no, r.review_no) = (held.job_no, held.task_no, held.review_no)
  and r.job_no = any (array(select job_no from held)) and r.task_no = any (array(select task_no from held))
returning r.job_no, held.job_id, r.task_no, r.expires_at, held.sign_urls;

-- release --
-- Hand some reviews back.
with {input}
update reviews r set reviewer_no = null, expires_at = null, claim_key = null, claim_digest = null
from held where (r.job_no, r.task_no, r.review_no) = (held.job_no, held.task_no, held.review_no)
  and r.job_no = any (array(select job_no from held)) and r.task_no = any (array(select task_no from held))
returning held.job_id, r.task_no;

-- describe --
-- Return what a reviewer sees of tasks under review: why, what is proposed, and everything that annotators have said.
select j.job_id, j.task_key, i.task_no, r.reason, r.created_at, r.due_at, r.proposed,
       case when r.proposed > 0
            then confidence_shown(y.scores, y.votes, cardinality(y.annotators), r.proposed) end as confidence,
       j.options, y.votes, coalesce(l.labels, '[]') as labels, coalesce(s.skips, '[]') as skips
from unnest(%(job_nos)s::bigint[], %(task_nos)s::bigint[], %(review_nos)s::bigint[]) as i (job_no, task_no, review_no)
cross join lateral (select * from jobs j where j.job_no = i.job_no offset 0) j
cross join lateral (
    select y.* from tallies y where (y.job_no, y.task_no) = (i.job_no, i.task_no) offset 0
) y
cross join lateral (  -- labels may have been set aside since
    select r.reason, r.created_at, r.due_at, case when r.proposed < 0 then r.proposed else {outcome_now} end as proposed
    from reviews r
    where (r.job_no, r.task_no, r.review_no) = (i.job_no, i.task_no, i.review_no) offset 0
) r
cross join lateral (
    select json_agg(json_build_object(
        'annotator_id', a.annotator_id, 'label', j.options[l.option], 'created_at', rfc3339(l.created_at)
    ) order by l.created_at, l.annotator_no) as labels
    from labels l join annotators a using (annotator_no)
    where l.job_no = i.job_no and l.task_no = i.task_no
) l
cross join lateral (
    select json_agg(json_build_object(
        'annotator_id', a.annotator_id, 'reason', s.reason, 'note', s.note, 'created_at', rfc3339(s.created_at)
    ) order by s.created_at, s.annotator_no) as skips
    from skips s join annotators a using (annotator_no)
    where s.job_no = i.job_no and s.task_no = i.task_no
) s;

-- entries --
-- The decisions of a batch, by rows: a label, or the outcome of a failure, or neither to send the task back.
(
    select n, job_id, task_no, label, failure
    from unnest(
        %(ns)s::integer[], %(job_ids)s::text[], %(task_nos)s::bigint[], %(labels)s::text[], %(failures)s::smallint[]
    ) as i (n, job_id, task_no, label, failure)
);

-- decide --
-- Take one batch of decisions on reviews that the reviewer holds. Of two for one task the first counts. Locks, each in
-- key order: reviews, tallies, chunks. Labels lock no reviews; they only add some.
with input as materialized (
    select distinct on (j.job_no, i.task_no) i.n, j.job_no, i.task_no,
           coalesce(array_position(j.options, i.label)::smallint, i.failure) as decision
    from {entries} i cross join lateral (
        select job_no, options from jobs
        where job_id = i.job_id and status = 'processing' and {annotation.for_annotator} offset 0
    ) j
    where i.label is null or i.label = any (j.options)
    order by j.job_no, i.task_no, i.n
), review as materialized (
    select i.n, r.job_no, r.task_no, r.review_no, i.decision,
           case when i.decision is null then 'sent_back' else 'decided' end as state
    from (select * from input order by job_no, task_no) i cross join lateral (
        select r.job_no, r.task_no, r.review_no from reviews r
        where (r.job_no, r.task_no) = (i.job_no, i.task_no) and r.state = 'open'
          and r.reviewer_no = %(annotator_no)s
        for update
    ) r
), {end_reviews}

-- time_out --
-- Decide some tasks by what was proposed, as their deadline is over. Those that are just being decided are passed over, and
-- those of paused jobs wait. Of jobs that have ended, nothing is decided any more.
with overdue as materialized (
    select job_no, task_no, review_no, proposed from reviews
    where state = 'open' and due_at < now()
      and job_no not in (select job_no from jobs where status = 'processing' and not ({jobs.is_going}))
    order by due_at limit %(limit)s
    for update skip locked
), review as materialized (
    select 0 as n, o.job_no, o.task_no, o.review_no,
           case when j.status = 'processing' then o.proposed end as decision,
           case when j.status = 'processing' then 'timed_out' else 'dropped' end as state
    from overdue o cross join lateral (select status from jobs j where j.job_no = o.job_no offset 0) j
), {end_reviews}

-- outcome_now --
-- What the rule says of a row y of `tallies`, by the labels that it has now.
case when y.scores is not null
     then weighted_outcome(y.scores, cardinality(y.annotators), y.threshold, y.labels_max, y.target)
     else task_outcome(y.votes, y.threshold, y.stop_early) end;

-- end_reviews --
-- End the reviews of "review": tasks settle or fail by the decision and count in their chunks; one that is sent back is
-- open again, with as many open places as it needs. What was proposed holds unless labels were set aside since: then it is
-- what the rule says now, and a task that is open by it is sent back.
locked as materialized (
    select r.n, r.job_no, r.task_no, r.review_no, r.state, y.places, {annotation.places_wanted} as wanted,
           case when r.state <> 'timed_out' or r.decision < 0 then r.decision else {outcome_now} end as decision
    from (select * from review where state <> 'dropped' order by job_no, task_no) r cross join lateral (
        select * from tallies y where (y.job_no, y.task_no) = (r.job_no, r.task_no) for update
    ) y
), tally as materialized (
    select n, job_no, task_no, review_no, decision, places, wanted,
           case when decision is null then 'sent_back' else state end as state
    from locked
), closed as (
    update reviews r
    set state = t.state, decision = t.decision, decided_at = now(), decided_by = %(annotator_no)s::integer
    from (
        select job_no, task_no, review_no, decision, state from tally
        union all
        select job_no, task_no, review_no, decision, state from review where state = 'dropped'
    ) t
    where (r.job_no, r.task_no, r.review_no) = (t.job_no, t.task_no, t.review_no)
      and r.job_no = any (array(select job_no from review)) and r.task_no = any (array(select task_no from review))
), ended as (
    update tallies y
    set outcome = t.decision,
        labelled_at = case when t.decision is null then y.labelled_at else now() end,
        places = case when t.decision is null then greatest(y.places, t.wanted) else y.places end
    from tally t where (y.job_no, y.task_no) = (t.job_no, t.task_no)
      and y.job_no = any (array(select job_no from tally)) and y.task_no = any (array(select task_no from tally))
), vacated as (
    insert into vacancies (job_no, task_no)
    select job_no, task_no from tally cross join generate_series(1, wanted - places) where state = 'sent_back'
), by_chunk as (
    select job_no, chunk_of(task_no) as chunk_no, count(*) filter (where decision > 0) as settled,
           count(*) filter (where decision <= 0) as failed
    from tally where decision is not null group by 1, 2
), {annotation.counters_moved}, job as materialized (
    select j.* from (select distinct job_no from tally) t cross join lateral (
        select job_no, job_id, target_confidence is not null and not has_gold as compares,
               {annotation.announces} as announces
        from jobs where jobs.job_no = t.job_no offset 0
    ) j
), to_compare as (
    insert into comparisons (job_no, task_nos)
    select job_no, array_agg(task_no order by task_no) from tally join job using (job_no)
    where decision > 0 and compares group by job_no
)
select t.n, t.job_no, t.task_no, t.decision, job.job_id, job.announces,
       t.job_no in (select job_no from moved where done) as chunk_done
from tally t join job using (job_no)
union all
select n, job_no, task_no, null, null, false, false from review where state = 'dropped';

-- explain_refused --
-- Say why decisions were not taken.
select i.n,
       case
           when c.job_no is null then 'unknown_task'
           when i.label is not null and array_position(j.options, i.label) is null then 'unknown_option'
           when r.decided_by = %(annotator_no)s then 'duplicate'
           when j.status <> 'processing' or y.outcome is not null and y.outcome <> under_review()
               then 'already_settled'
           else 'not_held'
       end as outcome
from {entries} i
left join lateral (
    select * from jobs where job_id = i.job_id and {annotation.for_annotator} offset 0
) j on true
left join lateral ({annotation.chunk_with}) c on true
left join lateral (
    select * from tallies y where (y.job_no, y.task_no) = (j.job_no, i.task_no) offset 0
) y on true
left join lateral (
    select decided_by from reviews r where (r.job_no, r.task_no) = (j.job_no, i.task_no)
    order by r.review_no desc limit 1
) r on true;

-- list_settled --
-- List those of some tasks of a job that a reviewer has settled.
select task_no from reviews
where job_no = %(job_no)s and task_no >= %(from_task)s and task_no < %(until_task)s
  and state = 'decided' and decision > 0;
