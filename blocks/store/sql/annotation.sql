-- open_to_annotator --
-- True for a row of `lanes` that may hold a task for this annotator: they have no lane in it, or theirs is not
-- at the end. Their own lane may be through before the others are.
coalesce(l.cursors[array_position(l.annotators, %(annotator_no)s)], -1) < l.ends_at;

-- lanes_of --
-- The row of `lanes` of a chunk o, given by its job_no and chunk_no; no row where all of it was handed out.
select * from lanes l where (l.job_no, l.chunk_no) = (o.job_no, o.chunk_no) order by l.version desc limit 1;

-- is_known --
-- True for a row y of `tallies` of a task that the annotator has labelled or skipped; false without a row.
coalesce(y.annotators @> array[%(annotator_no)s::integer] or y.skippers @> array[%(annotator_no)s::integer], false);

-- handed_out --
-- How far each chunk of "valid" was handed out; looked up once, whatever the number of labels.
handed_out as materialized (
    select o.job_no, o.chunk_no,
           coalesce(furthest(l.cursors), task_no(o.chunk_no, c.tasks)) as ends_at
    from (select distinct job_no, chunk_no from valid) o
    cross join lateral (
        select tasks from chunks c where (c.job_no, c.chunk_no) = (o.job_no, o.chunk_no) offset 0
    ) c
    left join lateral ({lanes_of}) l on true
);

-- has_key --
-- True if the annotator has a key that is not revoked, or never had one.
coalesce((select bool_or(revoked_at is null) from api_keys where annotator_no = %(annotator_no)s), true);

-- for_annotator --
-- True for a row of `jobs` whose customer's tasks the annotator may be handed.
coalesce(
    customer_id = any ((select customer_ids from annotators where annotator_no = %(annotator_no)s)::text[]), true
);

-- held_by_annotator --
-- The tasks of one job that the annotator holds.
held as materialized (
    select unnest(task_nos) from leases
    where annotator_no = %(annotator_no)s and job_no = %(job_no)s
);

-- lease_given --
-- One lease for all tasks of "given", which are of one job.
leased as (
    insert into leases (
        job_no, annotator_no, task_nos, expires_at, claim_key, claim_digest
    )
    select %(job_no)s, %(annotator_no)s, array_agg(task_no order by task_no),
           now() + make_interval(secs => %(lease_s)s),
           %(claim_key)s, %(claim_digest)s::bytea
    from given having count(*) > 0
    returning expires_at
);

-- let_go --
-- Take the tasks of "input" off the annotator's leases. "held" has all tasks of those leases, marked. Leases are looked
-- up by keys that are given one by one: statistics often know of none, and a plan that is made then reads all of them.
lease as materialized (
    select l.* from (select distinct job_no from input order by job_no) i cross join lateral (
        select l.lease_no, l.job_no, l.task_nos from leases l
        where (l.annotator_no, l.job_no) = (%(annotator_no)s, i.job_no)
        order by l.lease_no
        for update
    ) l
), held as materialized (
    select lease.lease_no, lease.job_no, o.task_no, input.job_no is not null as let_go
    from lease cross join unnest(lease.task_nos) as o (task_no)
    left join input using (job_no, task_no)
), rest as materialized (
    select lease_no, array_agg(task_no order by task_no) filter (where not let_go) as task_nos
    from held group by lease_no having bool_or(let_go)
), lessened as (
    update leases l set task_nos = (select rest.task_nos from rest where rest.lease_no = l.lease_no)
    where l.lease_no = any (array(select lease_no from rest where task_nos is not null))
), emptied as (
    delete from leases where lease_no = any (array(select lease_no from rest where task_nos is null))
);

-- batch --
-- The labels of a batch, by rows.
(
    select n, task_no, (%(job_ids)s::text[])[job_nth] as job_id, (%(labels)s::text[])[label_nth] as label
    from unnest(
        %(ns)s::integer[], %(job_nths)s::integer[], %(task_nos)s::bigint[], %(label_nths)s::integer[]
    ) as i (n, job_nth, task_no, label_nth)
);

-- places_wanted --
-- How many places the task of a row y of `tallies` needs: as many as its job collects labels, and one more than
-- it has labels, since an open task whose labels are tied asks for one more annotator.
greatest(y.threshold, cardinality(y.annotators) + 1);

-- is_superfluous --
-- True for a row y of `tallies` whose task needs one place less than it has; false without a row.
coalesce(y.places > {places_wanted}, false);

-- vacate_gone --
-- The tasks of leases that are gone become vacant, where they still need a label.
vacated as (
    insert into vacancies (job_no, task_no, annotator_no)
    select g.job_no, o.task_no, g.annotator_no
    from gone g
    join jobs j on j.job_no = g.job_no and j.status = 'processing'
    cross join unnest(g.task_nos) as o (task_no)
    where not exists (
        select from tallies y
        where (y.job_no, y.task_no) = (g.job_no, o.task_no) and y.outcome is not null
    )
);

-- returned_leases --
-- Take back leases that have run out in the last `overdue_s_max` seconds. One whose tasks are just being labelled is
-- left for the next time. Without that bound, a scan would pass over all leases that are gone, as long as a transaction
-- that is open anywhere keeps their rows.
expired as materialized (
    select lease_no from leases
    where expires_at < now() and expires_at >= now() - make_interval(secs => %(overdue_s_max)s)
    order by expires_at limit %(leases_max)s
    for update skip locked
), gone as (
    delete from leases where lease_no = any (array(select lease_no from expired))
    returning job_no, annotator_no, task_nos
), {vacate_gone}

-- return_leases --
with {returned_leases}
select lease_no from expired;

-- lock_claims --
-- Hold off the annotator's claims until the commit.
select pg_advisory_xact_lock(%(lock)s, %(annotator_no)s);

-- take_leases_back --
-- Take back what an annotator may not label any more: all of it without a good key, and else the tasks of customers
-- that they are not for.
with lease as materialized (
    select l.lease_no from leases l
    where l.annotator_no = %(annotator_no)s
      and (not {has_key}
           or not exists (select from jobs where job_no = l.job_no and {for_annotator}))
    order by l.job_no, l.lease_no
    for update
), gone as (
    delete from leases where lease_no = any (array(select lease_no from lease))
    returning job_no, annotator_no, task_nos
), {vacate_gone}
select coalesce(sum(cardinality(task_nos)), 0)::integer as tasks from gone;

-- begin_claim --
-- Begin a claim. The claims of one annotator take turns, so that each sees what the one before it took.
with {returned_leases}
select pg_advisory_xact_lock(%(lock)s, %(annotator_no)s);

-- claimable_jobs --
-- List jobs that may have work for the annotator, the next one first: by priority, then by lot, drawn anew for each
-- claim, first between customers and then between the jobs of each. So customers have equal shares, and so have the
-- jobs of a customer, however large. Where a job has many vacancies, one that is not looked at may be for them.
with held as materialized (
    select l.job_no, o.task_no from leases l cross join unnest(l.task_nos) as o (task_no)
    where l.annotator_no = %(annotator_no)s
)
select job_no, lanes, vacancies
from (
    select j.job_no, j.priority, j.customer_id,
           exists (
               select from open_chunks o cross join lateral ({lanes_of}) l
               where o.job_no = j.job_no
                 and {open_to_annotator}
           ) as lanes,
           exists (
               select from (
                   select v.job_no, v.task_no from vacancies v
                   where v.job_no = j.job_no order by v.vacancy_no limit %(vacancies_max)s
               ) v
               left join lateral (
                   select y.annotators, y.skippers from tallies y
                   where (y.job_no, y.task_no) = (v.job_no, v.task_no) offset 0
               ) y on true
               where not {is_known}
                 and (v.job_no, v.task_no) not in (table held)
           ) or exists (
               select from vacancies v where v.job_no = j.job_no offset %(vacancies_max)s
           ) as vacancies
    from jobs j
    where j.status = 'processing'
      and (%(job_id)s::text is null or j.job_id = %(job_id)s)
      and (%(task_types)s::text[] is null or j.task_type = any (%(task_types)s))
      and {has_key}
      and {for_annotator}
) j
where lanes or vacancies
order by priority desc, hashtextextended(customer_id, %(seed)s), hashint8extended(job_no, %(seed)s)
limit %(jobs_max)s;

-- outlook --
-- Return whether one job may have tasks later for an annotator who was given none just now; no row where they may not
-- be handed its customer's tasks. Of a manifest that is read, only tasks can come that somebody holds, that are vacant,
-- or that a cursor has still to reach, and of these only those that the annotator has neither labelled nor skipped. Where
-- there are too many to look at, it is true.
with job as materialized (
    select job_no, manifest_url is null or ingested_at is null as grows,
           status in ('accepted', 'processing')
           and (%(task_types)s::text[] is null or task_type = any (%(task_types)s)) as is_open
    from jobs where job_id = %(job_id)s and {for_annotator}
), candidate as materialized (
    select job_no, task_no from (
        select l.job_no, o.task_no
        from job cross join annotators a cross join lateral (
            select * from leases l where (l.annotator_no, l.job_no) = (a.annotator_no, job.job_no) offset 0
        ) l cross join unnest(l.task_nos) as o (task_no)
        where a.is_active
        union all
        select v.job_no, v.task_no from job join vacancies v using (job_no)
        union all
        select l.job_no, t.task_no
        from job join open_chunks o using (job_no) cross join lateral ({lanes_of}) l
        cross join lateral (select min(c) as goes_on_at from unnest(l.cursors) as u (c)) rearmost
        cross join lateral generate_series(
            goes_on_at, least(goes_on_at + %(tasks_max)s, l.ends_at - 1)
        ) as t (task_no)
    ) c limit %(tasks_max)s + 1
)
select job.is_open and (
           job.grows
           or (select count(*) from candidate) > %(tasks_max)s
           or exists (
               select from candidate c left join lateral (
                   select y.outcome, y.annotators, y.skippers from tallies y
                   where (y.job_no, y.task_no) = (c.job_no, c.task_no) offset 0
               ) y on true
               where y.outcome is null and not {is_known}
           )
       ) as may_come
from job;

-- take_vacancies --
-- Hand out vacancies of one job, scanning at most `vacancies_max` from the fraction `start_at` (0–1) of their
-- numbers. Skip those that this annotator gave up, unless `own`.
-- A tally that is just being written is passed over, and its vacancy left for the next time. A row comes back, if
-- only an empty one, where something was done, so that another look is worth it.
with {held_by_annotator}, candidate as materialized (
    select v.vacancy_no, v.task_no, y.job_no is not null as has_tally
    from (
        select * from vacancies
        where job_no = %(job_no)s and vacancy_no >= (
            select (min(vacancy_no) + (max(vacancy_no) - min(vacancy_no)) * %(start_at)s::float8)::bigint
            from vacancies where job_no = %(job_no)s
        )
        order by vacancy_no limit %(vacancies_max)s
    ) v
    left join lateral (
        select * from tallies y where (y.job_no, y.task_no) = (v.job_no, v.task_no) offset 0
    ) y on true
    where y.outcome is not null
       or (%(own)s or v.annotator_no is distinct from %(annotator_no)s)
          and not {is_known}
          and v.task_no not in (table held)
    order by v.vacancy_no
    limit %(limit)s
), vacancy as materialized (
    select v.vacancy_no, v.task_no, c.has_tally
    from candidate c cross join lateral (
        select * from vacancies v
        where (v.job_no, v.vacancy_no) = (%(job_no)s, c.vacancy_no)
        for update skip locked
    ) v
    order by v.vacancy_no
), tally as materialized (
    select y.*
    from (select distinct task_no from vacancy) v cross join lateral (
        select * from tallies y
        where (y.job_no, y.task_no) = (%(job_no)s, v.task_no)
        for update skip locked
    ) y
), judged as materialized (  -- of two vacancies of one task only the first
    select distinct on (v.task_no) v.vacancy_no, v.task_no,
           y.outcome is not null as ended, {is_superfluous} as superfluous
    from vacancy v left join tally y using (task_no)
    where y.job_no is not null or not v.has_tally
    order by v.task_no, v.vacancy_no
), filled as (
    delete from vacancies v using judged
    where v.job_no = %(job_no)s and v.vacancy_no = judged.vacancy_no
), lessened as (
    update tallies y set places = y.places - 1 from judged
    where y.job_no = %(job_no)s and y.task_no = judged.task_no
      and judged.superfluous and not judged.ended
), given as materialized (
    select task_no from judged where not ended and not superfluous
), {lease_given}
select given.task_no, leased.expires_at
from (select from judged limit 1) any_seen left join (leased cross join given) on true
order by given.task_no;

-- await_lane --
-- Wait for the lanes of a chunk, while no others are held. So an annotator does not come back empty only because
-- another one is just taking tasks, and no two wait for each other.
select l.chunk_no
from (
    select l.job_no, l.chunk_no, l.version from open_chunks o cross join lateral ({lanes_of}) l
    where o.job_no = %(job_no)s
      and {open_to_annotator}
    order by o.chunk_no
    limit 1
) seen cross join lateral (
    select * from lanes l
    where (l.job_no, l.chunk_no) = (seen.job_no, seen.chunk_no) and l.version >= seen.version
    order by l.version limit 1
    for update
) l;

-- take_lane --
-- Hand out the next tasks of one chunk of a job. A place that the annotator cannot take, because they were given the
-- task already, is left vacant, and so is one that the task does not need any more. Chunks that others hold are passed
-- over. A row comes back, if only an empty one, where the lane went on.
with {held_by_annotator}, chunk as materialized (
    select held.*, seen.version as seen_version
    from open_chunks o cross join lateral ({lanes_of}) seen cross join lateral (
        select job_no, chunk_no, ends_at, cursors, annotators
        from lanes l  -- as it is now; the version that was seen may be an older one
        where (l.job_no, l.chunk_no) = (o.job_no, o.chunk_no) and l.version >= seen.version
          and {open_to_annotator}
        order by l.version limit 1
        for update skip locked
    ) held
    where o.job_no = %(job_no)s
    order by o.chunk_no
    limit 1
), lane as materialized (
    select chunk.*, n, cursors[n] as goes_on_at, furthest(cursors) as fresh_from
    from chunk cross join lateral (
        select (coalesce(
            array_position(chunk.annotators, %(annotator_no)s),
            (select n from unnest(chunk.cursors) with ordinality as u (o, n) order by o, n limit 1)
        ))::integer as n
    ) mine
), seen as materialized (
    select t.task_no,
           y.outcome is not null as ended,
           t.task_no < lane.fresh_from and (
               {is_superfluous}
               or {is_known}
               or t.task_no in (table held)
           ) as left_vacant
    from lane cross join lateral generate_series(
        lane.goes_on_at, least(lane.goes_on_at + %(window_tasks)s, lane.ends_at) - 1
    ) as t (task_no)
    left join lateral (
        select * from tallies y
        where (y.job_no, y.task_no) = (lane.job_no, t.task_no) and t.task_no < lane.fresh_from
        offset 0
    ) y on true
), given as materialized (
    select task_no from seen
    where not ended and not left_vacant
    order by task_no limit %(limit)s
), upto as materialized (
    select coalesce(
        (select max(task_no) + 1 from given having count(*) = %(limit)s),
        (select max(task_no) + 1 from seen)
    ) as goes_on_at
), vacated as (
    insert into vacancies (job_no, task_no)
    select %(job_no)s, task_no from seen, upto
    where left_vacant and not ended and task_no < upto.goes_on_at
), moved as materialized (
    select job_no, chunk_no, seen_version, ends_at,
           cursors[:n - 1] || upto.goes_on_at || cursors[n + 1:] as cursors,
           annotators[:n - 1] || %(annotator_no)s::integer || annotators[n + 1:] as annotators
    from lane, upto
    where upto.goes_on_at is not null
), kept as (
    update lanes l set cursors = m.cursors, annotators = m.annotators, version = nextval('lane_versions')
    from moved m
    where (l.job_no, l.chunk_no) = (m.job_no, m.chunk_no) and l.version >= m.seen_version
      and m.ends_at > any (m.cursors)
), ended as (
    delete from lanes l using moved m
    where (l.job_no, l.chunk_no) = (m.job_no, m.chunk_no) and l.version >= m.seen_version
      and m.ends_at <= all (m.cursors)
), closed as (
    delete from open_chunks o using moved m
    where (o.job_no, o.chunk_no) = (m.job_no, m.chunk_no) and m.ends_at <= all (m.cursors)
), {lease_given}
select given.task_no, leased.expires_at
from moved left join (leased cross join given) on true
order by given.task_no;

-- describe --
-- Return the pages that runs of tasks are on, each with what annotators are shown of its job.
with {pages.on_runs}
select page.*, j.job_id, j.task_type, j.question, j.options, j.option_details, j.shown_metadata,
       j.instructions_digest
from page cross join lateral (select * from jobs j where j.job_no = page.job_no offset 0) j;

-- submit_labels --
-- Take one batch of labels of one annotator: take the tasks off their leases, count and record the votes, settle
-- tasks that have a winner, fail those that have none after twice the threshold, ask for one more annotator where
-- labels are tied and nobody holds the task, and move the counters. A label that comes without a lease, or after it
-- ran out, takes a place of its own. Annotators can be handed a task at the moment when such a label of theirs is
-- counted; when they label it again, the place that they hold becomes vacant. A task takes labels once it was handed
-- to somebody.
-- Locks, each in key order: leases, tallies, chunks. Claims wait for none of these while they hold any other lock,
-- so that no two wait for each other.
with job as materialized (
    select j.* from unnest(%(job_ids)s::text[]) as i (job_id) cross join lateral (
        select job_no, job_id, options, consensus_threshold as threshold, stop_early,
               manifest_url is null or exists (
                   select from webhooks w
                   where w.customer_id = jobs.customer_id and 'task.settled' = any (w.events)
               ) as announces
        from jobs where job_id = i.job_id and status = 'processing' and {for_annotator} offset 0
    ) j
), valid as materialized (
    select j.job_no, i.task_no, chunk_of(i.task_no) as chunk_no, i.n,
           array_position(j.options, i.label)::smallint as option,
           j.threshold, j.stop_early, cardinality(j.options) as options
    from {batch} i join job j on j.job_id = i.job_id and i.label = any (j.options)
), {handed_out}, input as materialized (  -- of two labels for one task in a batch, the first counts
    select distinct on (job_no, task_no)
           job_no, task_no, option, threshold, stop_early, options
    from valid join handed_out h using (job_no, chunk_no)
    where task_no < h.ends_at
    order by job_no, task_no, n
), {let_go}, counted as (
    insert into tallies as y (
        job_no, task_no, labelled_at, latest, threshold, places, outcome, stop_early, votes, annotators
    )
    select job_no, task_no, now(), option, threshold,
           threshold + (held.let_go is null)::integer,
           case when threshold = 1 then option end,  -- else one label is never enough, not with stop_early either
           stop_early,
           array_fill(0::smallint, array[option - 1]) || 1::smallint
           || array_fill(0::smallint, array[options - option]),
           array[%(annotator_no)s::integer]
    from input left join held using (job_no, task_no)
    order by job_no, task_no
    on conflict (job_no, task_no) do update
    set labelled_at = now(),
        latest = excluded.latest,
        -- One more for a label that held none; and from the threshold on at least one for each label.
        places = excluded.places - excluded.threshold + greatest(y.places, {places_wanted}),
        votes = y.votes[:excluded.latest - 1] || (y.votes[excluded.latest] + 1)::smallint
                || y.votes[excluded.latest + 1:],
        annotators = y.annotators || excluded.annotators,
        outcome = case
            when cardinality(y.annotators) + 1
                 >= case when y.stop_early then y.threshold / 2 + 1 else y.threshold end
            then task_outcome(
                y.votes[:excluded.latest - 1] || (y.votes[excluded.latest] + 1)::smallint
                || y.votes[excluded.latest + 1:],
                y.threshold, y.stop_early)
        end
    where y.outcome is null and not y.annotators @> excluded.annotators
    returning job_no, task_no, latest, outcome, places, threshold,
              cardinality(annotators) as labels
), recorded as (
    insert into labels (job_no, task_no, annotator_no, option)
    select job_no, task_no, %(annotator_no)s, latest from counted order by job_no, task_no
), tied as (
    insert into vacancies (job_no, task_no)
    select job_no, task_no from counted
    where outcome is null and labels >= threshold and places = labels
), by_chunk as (
    select job_no, chunk_of(task_no) as chunk_no, count(*) filter (where outcome > 0) as settled,
           count(*) filter (where outcome = 0) as failed
    from counted where outcome is not null group by 1, 2
), chunk as materialized (
    select c.job_no, c.chunk_no, by_chunk.settled, by_chunk.failed
    from chunks c join by_chunk using (job_no, chunk_no)
    order by c.job_no, c.chunk_no
    for update of c
), moved as (
    update chunks c set settled = c.settled + chunk.settled, failed = c.failed + chunk.failed
    from chunk where c.job_no = chunk.job_no and c.chunk_no = chunk.chunk_no
    returning c.job_no, c.tasks = c.settled + c.failed as done
)
select job.job_id, job_no, task_no, job.options[latest] as label, coalesce(outcome > 0, false) as settled,
       job.announces,
       job_no in (select job_no from moved where done) as chunk_done
from counted join job using (job_no)
union all  -- a task that was taken off a lease while its label did not count; see hand_back
select job.job_id, job_no, task_no, null, false, false, false
from held join job using (job_no) left join counted using (job_no, task_no)
where held.let_go and counted.latest is null;

-- hand_back --
-- Leave tasks vacant that the annotator held although a label of theirs was counted before: it was being counted while a
-- claim handed them the task. A statement of its own, as that label may have been committed after submit_labels began.
insert into vacancies (job_no, task_no, annotator_no)
select y.job_no, y.task_no, %(annotator_no)s
from unnest(%(job_nos)s::bigint[], %(task_nos)s::bigint[]) as i (job_no, task_no)
cross join lateral (
    select * from tallies y where (y.job_no, y.task_no) = (i.job_no, i.task_no) offset 0
) y
where y.outcome is null and y.annotators @> array[%(annotator_no)s::integer];

-- explain_refused --
-- Say why labels were not taken. It runs after submit_labels, and so sees what other batches have settled.
select i.n,
       case
           when c.job_no is null then 'unknown_task'
           when array_position(j.options, i.label) is null then 'unknown_option'
           when y.annotators @> array[%(annotator_no)s::integer] then 'duplicate'
           when y.outcome is not null or j.status <> 'processing' then 'already_settled'
           else 'unknown_task'
       end as outcome,
       j.job_no, i.task_no, c.job_no is not null and y.job_no is null and j.status <> 'processing' as may_be_archived
from {batch} i
left join lateral (
    select * from jobs where job_id = i.job_id and {for_annotator} offset 0
) j on true
left join lateral ({chunk_with}) c on true
left join lateral (
    select * from tallies y where (y.job_no, y.task_no) = (j.job_no, i.task_no) offset 0
) y on true;

-- chunk_with --
-- The chunk of a task i of a job j; no row where there is no such task.
select c.job_no from chunks c
where (c.job_no, c.chunk_no) = (j.job_no, chunk_of(i.task_no)) and i.task_no < task_no(c.chunk_no, c.tasks) offset 0;

-- list_options --
select job_id, options from jobs where job_id = any (%(job_ids)s);

-- find_not_handed_out --
-- List those of some tasks that exist and that the annotator may be handed; they took no label, as nobody had been
-- handed them yet.
select i.job_id, i.task_no
from unnest(%(job_ids)s::text[], %(task_nos)s::bigint[]) as i (job_id, task_no)
cross join lateral (
    select job_no from jobs where job_id = i.job_id and status = 'processing' and {for_annotator} offset 0
) j
cross join lateral ({chunk_with}) c;

-- release --
-- Make tasks vacant that the annotator holds; return those that they held.
with input as materialized (
    select distinct j.job_no, i.job_id, i.task_no
    from unnest(%(job_ids)s::text[], %(task_nos)s::bigint[]) as i (job_id, task_no)
    join jobs j using (job_id)
), {let_go}, vacated as (
    insert into vacancies (job_no, task_no, annotator_no)
    select h.job_no, h.task_no, %(annotator_no)s
    from held h join jobs j on j.job_no = h.job_no and j.status = 'processing'
    where h.let_go
)
select input.job_id, task_no from held join input using (job_no, task_no);
