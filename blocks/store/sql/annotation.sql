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

-- is_granted --
-- True for a row of `jobs` whose customer's tasks the annotator may be handed.
coalesce(
    customer_id = any ((select customer_ids from annotators where annotator_no = %(annotator_no)s)::text[]), true
);

-- is_excluded --
-- True for a row of `jobs` that the annotator gets no more tasks of.
job_no = any (array(
    select a.job_no from job_annotators a where a.annotator_no = %(annotator_no)s and a.excluded_at is not null
));

-- for_annotator --
-- True for a row of `jobs` that takes labels of the annotator.
({is_granted} and not {is_excluded});

-- skill_of --
-- The skill of a row a of `job_annotators`, by whether its job has gold.
skill(has_gold, a.gold_right + a.earlier_gold_right, a.gold_seen + a.earlier_gold_seen,
      a.agreed + a.earlier_agreed, a.compared + a.earlier_compared);

-- skill_now --
-- The skill of the annotator in a row of `jobs` that weighs labels.
coalesce(
    (select {skill_of}
     from job_annotators a where (a.job_no, a.annotator_no) = (jobs.job_no, %(annotator_no)s)),
    skill(jobs.has_gold, 0, 0, 0, 0)
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

-- counters_moved --
-- Add what "by_chunk" has to the counters of chunks, in key order; "moved" says whether all tasks of each have ended.
chunk as materialized (
    select c.job_no, c.chunk_no, by_chunk.settled, by_chunk.failed
    from chunks c join by_chunk using (job_no, chunk_no)
    order by c.job_no, c.chunk_no
    for update of c
), moved as (
    update chunks c set settled = c.settled + chunk.settled, failed = c.failed + chunk.failed
    from chunk where c.job_no = chunk.job_no and c.chunk_no = chunk.chunk_no
    returning c.job_no, c.tasks = c.settled + c.failed as done
);

-- let_go --
-- Take the tasks of "input" off the annotator's leases. "held" has all tasks of those leases, marked. Leases are looked
-- up by keys that are given one by one: statistics often know of none, and a plan that is made then reads all of them.
lease as materialized (
    select l.* from (select distinct job_no from input order by job_no) i cross join lateral (
        select l.lease_no, l.job_no, l.task_nos, l.claimed_at from leases l
        where (l.annotator_no, l.job_no) = (%(annotator_no)s, i.job_no)
        order by l.lease_no
        for update
    ) l
), held as materialized (
    select lease.lease_no, lease.job_no, lease.claimed_at, o.task_no, input.job_no is not null as let_go
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

-- may_reopen --
-- True for a row j with a job_no whose ended tasks an exclusion may open again. A place of such a task is given up only
-- with its tally locked, as exclusions lock it when they count the places that there are.
exists (select from exclusions e where e.job_no = j.job_no and e.done_at is null);

-- vacate_gone --
-- The tasks of leases that are gone become vacant, where they still need a label, or may need one later.
vacated as (
    insert into vacancies (job_no, task_no, annotator_no)
    select g.job_no, o.task_no, g.annotator_no
    from gone g
    join jobs j on j.job_no = g.job_no and j.status = 'processing'
    cross join unnest(g.task_nos) as o (task_no)
    where not exists (
        select from tallies y
        where (y.job_no, y.task_no) = (g.job_no, o.task_no) and y.outcome <> under_review()
    ) or {may_reopen}
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
select job_no, lanes, vacancies, has_gold, gold_share, is_enrolled, tasks_given, gold_given, gold_after
from (
    select j.job_no, j.priority, j.customer_id, j.has_gold, j.gold_share,
           a.tasks_given is not null or not j.has_gold and j.target_confidence is null as is_enrolled,
           a.tasks_given, a.gold_given, a.gold_after,
           exists (
               select from open_chunks o cross join lateral ({lanes_of}) l
               where o.job_no = j.job_no
                 and {open_to_annotator}
           ) as lanes,
           exists (
               select from (
                   select v.job_no, v.task_no, v.annotator_no from vacancies v
                   where v.job_no = j.job_no order by v.vacancy_no limit %(vacancies_max)s
               ) v
               left join lateral (
                   select y.annotators, y.skippers from tallies y
                   where (y.job_no, y.task_no) = (v.job_no, v.task_no) offset 0
               ) y on true
               where not {is_known}
                 and (v.job_no, v.task_no) not in (table held)
                 and (not j.has_gold or v.annotator_no = %(annotator_no)s
                      or not exists (select from gold_tasks g where (g.job_no, g.task_no) = (v.job_no, v.task_no)))
           ) or exists (
               select from vacancies v where v.job_no = j.job_no offset %(vacancies_max)s
           ) as vacancies
    from jobs j left join lateral (
        select a.tasks_given, a.gold_given, a.gold_after from job_annotators a
        where (j.has_gold or j.target_confidence is not null)
          and (a.job_no, a.annotator_no) = (j.job_no, %(annotator_no)s) offset 0
    ) a on true
    where j.status = 'processing' and {jobs.is_going}
      and (%(job_id)s::text is null or j.job_id = %(job_id)s)
      and (%(task_types)s::text[] is null or j.task_type = any (%(task_types)s))
      and {has_key}
      and {for_annotator}
) j
where lanes or vacancies
order by priority desc, hashtextextended(customer_id, %(seed)s), hashint8extended(job_no, %(seed)s)
limit %(jobs_max)s;

-- enrol --
-- Begin what is to be known of an annotator in a job, with their latest counts in the customer's earlier jobs of the same
-- question.
insert into job_annotators (
    job_no, annotator_no, earlier_gold_seen, earlier_gold_right, earlier_compared, earlier_agreed
)
select j.job_no, %(annotator_no)s, coalesce(sum(a.gold_seen), 0), coalesce(sum(a.gold_right), 0),
       coalesce(sum(a.compared), 0), coalesce(sum(a.agreed), 0)
from jobs j left join lateral (
    select a.* from job_annotators a join jobs e using (job_no)
    where a.annotator_no = %(annotator_no)s and e.customer_id = j.customer_id and e.job_no <> j.job_no
      and hashtextextended(e.question, 0) = hashtextextended(j.question, 0)
      and e.question = j.question and e.options = j.options
    order by a.job_no desc limit %(earlier_max)s
) a on true
where j.job_no = %(job_no)s
group by j.job_no
on conflict do nothing;

-- count_given --
-- Count what an annotator was given of jobs that have gold. The last statement of a claim, in key order: labels hold these
-- rows while they wait for others, and claims hold much else before.
with own as materialized (
    select a.job_no from job_annotators a
    where a.annotator_no = %(annotator_no)s and a.job_no = any (%(job_nos)s::bigint[])
    order by a.job_no
    for update
)
update job_annotators a
set tasks_given = a.tasks_given + i.tasks, gold_given = a.gold_given + i.gold,
    gold_after = coalesce(i.gold_after, a.gold_after)
from unnest(
    %(job_nos)s::bigint[], %(tasks)s::bigint[], %(gold)s::integer[], %(gold_after)s::bigint[]
) as i (job_no, tasks, gold, gold_after)
where (a.job_no, a.annotator_no) = (i.job_no, %(annotator_no)s) and a.job_no = any (array(select job_no from own));

-- take_gold --
-- Hand out gold tasks that the annotator was never handed: first those among the tasks from `first` to `last`, which they
-- have just been given, then the next ones in turn, from the beginning again after the last. `gold_after` is where the next
-- claim goes on. A row comes back, if only an empty one.
with looked as materialized (
    select g.task_no, g.task_no between %(first)s and %(last)s as is_among,
           not exists (
               select from gold_shown s
               where (s.job_no, s.task_no, s.annotator_no) = (%(job_no)s, g.task_no, %(annotator_no)s)
           ) as is_new
    from (
        (select task_no from gold_tasks
         where job_no = %(job_no)s and task_no between %(first)s and %(last)s order by task_no limit %(gold_max)s)
        union
        (select task_no from gold_tasks
         where job_no = %(job_no)s and task_no > %(gold_after)s order by task_no limit %(gold_max)s)
    ) g
), given as materialized (
    select task_no, is_among from looked where is_new order by not is_among, task_no limit %(limit)s
), upto as (
    select coalesce(
        (select max(task_no) from given where not is_among),
        (select max(task_no) from looked where task_no > %(gold_after)s having count(*) filter (where is_new) = 0),
        case when exists (select from looked where task_no > %(gold_after)s) then %(gold_after)s::bigint else -1 end
    ) as gold_after
), shown as (
    insert into gold_shown (job_no, task_no, annotator_no) select %(job_no)s, task_no, %(annotator_no)s from given
), {lease_given}
select given.task_no, leased.expires_at, upto.gold_after from upto left join (given cross join leased) on true;

-- outlook --
-- Return whether one job may have tasks later for an annotator who was given none just now; no row where they may not
-- be handed its customer's tasks. Of a manifest that is read, only tasks can come that somebody holds, that are vacant,
-- or that a cursor has still to reach, and of these only those that the annotator has neither labelled nor skipped. Gold
-- comes only beside other tasks, but for what they hold or let go of. Where there are too many to look at, it is true.
with job as materialized (
    select job_no, manifest_url is null or ingested_at is null as grows,
           status in ('accepted', 'processing') and not {is_excluded}
           and (%(task_types)s::text[] is null or task_type = any (%(task_types)s)) as is_open, has_gold
    from jobs where job_id = %(job_id)s and {is_granted}
), candidate as materialized (
    select job_no, task_no, is_own from (
        select l.job_no, o.task_no, a.annotator_no = %(annotator_no)s as is_own
        from job cross join annotators a cross join lateral (
            select * from leases l where (l.annotator_no, l.job_no) = (a.annotator_no, job.job_no) offset 0
        ) l cross join unnest(l.task_nos) as o (task_no)
        where a.is_active
        union all
        select v.job_no, v.task_no, coalesce(v.annotator_no = %(annotator_no)s, false) from job join vacancies v using (job_no)
        union all
        select r.job_no, r.task_no, false from job join reviews r using (job_no) where r.state = 'open'
        union all
        select l.job_no, t.task_no, false
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
               where (y.outcome is null or y.outcome = under_review()) and not {is_known}
                 and not (job.has_gold and not c.is_own and exists (
                     select from gold_tasks g where (g.job_no, g.task_no) = (c.job_no, c.task_no)
                 ))
           )
       ) as may_come
from job;

-- take_vacancies --
-- Hand out vacancies of one job, scanning at most `vacancies_max` from the fraction `start_at` (0–1) of their
-- numbers. Skip those that this annotator gave up, unless `own`. Those of gold are for nobody else.
-- Rows are changed by lists of keys and not by joins: a plan that is made while a table is empty would scan all of a job.
-- A tally that is just being written is passed over, and its vacancy left for the next time. A row comes back, if
-- only an empty one, where something was done; `may_have_more` says whether another look is worth it.
with {held_by_annotator}, candidate as materialized (
    select v.vacancy_no, v.task_no, y.job_no is not null as has_tally, gold.option is not null as is_gold
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
    left join lateral (
        select option from gold_tasks g
        where %(has_gold)s and (g.job_no, g.task_no) = (v.job_no, v.task_no) offset 0
    ) gold on true
    where y.outcome is not null
       or case when gold.option is null then %(own)s or v.annotator_no is distinct from %(annotator_no)s
               else %(own)s and v.annotator_no = %(annotator_no)s end
          and not {is_known}
          and v.task_no not in (table held)
    order by v.vacancy_no
    limit %(limit)s
), vacancy as materialized (
    select v.vacancy_no, v.task_no, c.has_tally, c.is_gold
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
           y.outcome is not null as ended, {is_superfluous} and not v.is_gold as superfluous,
           coalesce(y.outcome = under_review(), false) as is_under_review
    from vacancy v left join tally y using (task_no)
    where y.job_no is not null or not v.has_tally
    order by v.task_no, v.vacancy_no
), filled as (
    delete from vacancies
    where job_no = %(job_no)s and vacancy_no = any (array(select vacancy_no from judged))
), lessened as (
    update tallies set places = places - 1
    where job_no = %(job_no)s
      and task_no = any (array(select task_no from judged where superfluous and not ended or is_under_review))
), given as materialized (
    select task_no from judged where not ended and not superfluous
), {lease_given}
select given.task_no, leased.expires_at, (select count(*) from candidate) = %(limit)s as may_have_more
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
           coalesce(y.outcome <> under_review(), false) and not reopening.may
           or gold.option is not null as ended,  -- gold is not handed out here
           t.task_no < lane.fresh_from and (
               {is_superfluous}
               or y.outcome is not null
               or {is_known}
               or t.task_no in (table held)
           ) as left_vacant
    from lane cross join (select {may_reopen} as may from (select %(job_no)s::bigint as job_no) j) reopening
    cross join lateral generate_series(
        lane.goes_on_at, least(lane.goes_on_at + %(window_tasks)s, lane.ends_at) - 1
    ) as t (task_no)
    left join lateral (
        select * from tallies y
        where (y.job_no, y.task_no) = (lane.job_no, t.task_no) and t.task_no < lane.fresh_from
        offset 0
    ) y on true
    left join lateral (
        select option from gold_tasks g
        where %(has_gold)s and (g.job_no, g.task_no) = (lane.job_no, t.task_no) offset 0
    ) gold on true
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
select page.*, j.job_id, j.task_key, j.has_gold, j.task_type, j.question, j.options, j.option_details, j.shown_metadata,
       j.instructions_digest, j.sign_urls
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
        select job_no, job_id, options, consensus_threshold as threshold, stop_early, skips_max, has_gold, has_review,
               review_share, target_confidence as target, labels_max, min_accuracy is not null as bars,
               case when target_confidence is not null then {skill_now} end as skill,
               {announces} as announces
        from jobs
        -- Gold takes labels until the other tasks have ended: results do not change any more then.
        where job_id = i.job_id and status = 'processing' and settled_at is null and {for_annotator} offset 0
    ) j
), valid as materialized (
    select j.job_no, i.task_no, chunk_of(i.task_no) as chunk_no, i.n,
           array_position(j.options, i.label)::smallint as option,
           j.threshold, j.stop_early, j.skips_max, cardinality(j.options) as options, j.target, j.labels_max,
           label_weight(j.skill, cardinality(j.options)) as weight,
           case when j.has_gold then ({gold_of}) end as gold
    from {batch} i join job j on j.job_id = i.job_id and i.label = any (j.options)
), {handed_out}, input as materialized (  -- of two labels for one task in a batch, the first counts
    select distinct on (job_no, task_no)
           job_no, task_no, option, threshold, stop_early, options, gold,
           case when gold is null and target is not null then with_one(option, weight, options) end as scores,
           case when gold is null then target end as target,
           case when gold is null then labels_max end as labels_max
    from valid v join handed_out h using (job_no, chunk_no)
    where case when gold is null then task_no < h.ends_at else {gold_was_given} end
    order by job_no, task_no, n
), {let_go}, counted as (
    insert into tallies as y (
        job_no, task_no, labelled_at, latest, threshold, places, outcome, stop_early, votes, annotators,
        gold, scores, target, labels_max
    )
    select job_no, task_no, now(), option, threshold,
           threshold + (held.let_go is null)::integer,
           case
               when gold is not null then null
               when scores is not null then weighted_outcome(scores, 1, threshold, labels_max, target)
               when threshold = 1 then option  -- else one label is never enough, not with stop_early either
           end,
           stop_early,
           array_fill(0::smallint, array[option - 1]) || 1::smallint
           || array_fill(0::smallint, array[options - option]),
           array[%(annotator_no)s::integer],
           gold, scores, target, labels_max
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
        scores = case when y.scores is not null
                      then plus_at(y.scores, excluded.latest, excluded.scores[excluded.latest]) end,
        outcome = case
            when y.gold is not null then null
            when y.scores is not null then weighted_outcome(
                plus_at(y.scores, excluded.latest, excluded.scores[excluded.latest]),
                cardinality(y.annotators) + 1, y.threshold, y.labels_max, y.target)
            when cardinality(y.annotators) + 1
                 >= case when y.stop_early then y.threshold / 2 + 1 else y.threshold end
            then task_outcome(
                y.votes[:excluded.latest - 1] || (y.votes[excluded.latest] + 1)::smallint
                || y.votes[excluded.latest + 1:],
                y.threshold, y.stop_early)
        end
    where y.outcome is null and not y.annotators @> excluded.annotators
    returning job_no, task_no, latest, outcome, places, threshold, gold,
              cardinality(annotators) as labels, case when gold is not null then annotators end as labelled_by
), recorded as (
    insert into labels (job_no, task_no, annotator_no, option, skill)
    select job_no, task_no, %(annotator_no)s, latest, job.skill
    from counted join job using (job_no) order by job_no, task_no
), graded as (
    insert into job_annotators as a (job_no, annotator_no, gold_seen, gold_right)
    select job_no, %(annotator_no)s, count(*), count(*) filter (where latest = gold)
    from counted where gold is not null group by job_no order by job_no
    on conflict (job_no, annotator_no) do update
    set gold_seen = a.gold_seen + excluded.gold_seen, gold_right = a.gold_right + excluded.gold_right
), to_compare as (
    insert into comparisons (job_no, task_nos)
    select job_no, array_agg(task_no order by task_no) from counted join job using (job_no)
    where outcome > 0 and job.target is not null and not job.has_gold and not job.has_review group by job_no
), tied as (
    insert into vacancies (job_no, task_no)
    select job_no, task_no from counted
    where outcome is null and gold is null and labels >= threshold and places = labels
), by_chunk as (
    select job_no, chunk_of(task_no) as chunk_no, count(*) filter (where outcome > 0) as settled,
           count(*) filter (where outcome = 0) as failed
    from counted where outcome is not null group by 1, 2
), {counters_moved}
select job.job_id, job_no, task_no, job.options[latest] as label,
       case when gold is not null then {gold_looks_settled}
            when job.has_review and outcome is not null then null  -- review_queue.hold_back decides that
            else coalesce(outcome > 0, false) end as settled,
       job.announces and gold is null as announces, job.bars and gold is not null as may_bar,
       job_no in (select job_no from moved where done) as chunk_done,
       (select extract(epoch from now() - min(claimed_at))::float8 from held where let_go) as held_s
from counted join job using (job_no)
union all  -- a task that was taken off a lease while its label did not count; see hand_back
select job.job_id, job_no, task_no, null, false, false, false, false, null
from held join job using (job_no) left join counted using (job_no, task_no)
where held.let_go and counted.latest is null;

-- announces --
-- True for a row of `jobs` if endpoints may want to hear of its tasks that settle.
(
    manifest_url is null
    or exists (select from webhooks w where w.customer_id = jobs.customer_id and 'task.settled' = any (w.events))
);

-- gold_of --
-- The right option of a task i of a job j; null where it is not known.
select g.option from gold_tasks g where (g.job_no, g.task_no) = (j.job_no, i.task_no);

-- gold_was_given --
-- True for a label or a skip v of a gold task that the annotator was handed, unless the task looks ended to them: they let
-- go of it and others have labelled it since, or it would have failed by skips, one of which is theirs.
exists (
    select from gold_shown s
    where (s.job_no, s.task_no, s.annotator_no) = (v.job_no, v.task_no, %(annotator_no)s)
) and not exists (
    select from tallies y
    where (y.job_no, y.task_no) = (v.job_no, v.task_no) and not y.annotators @> array[%(annotator_no)s::integer]
      and (
          v.skips_max <= (
              select count(*) from skips m join skips s using (job_no, task_no, reason)
              where (m.job_no, m.task_no, m.annotator_no) = (v.job_no, v.task_no, %(annotator_no)s)
          )
          or cardinality(y.annotators) >= v.threshold and not exists (
              select from leases l
              where (l.annotator_no, l.job_no) = (%(annotator_no)s, v.job_no) and v.task_no = any (l.task_nos)
          )
      )
);

-- gold_looks_settled --
-- True for a label of a gold task in "counted", of a row `job`, that would have settled another task: it completes a round
-- of labels, most of which agree, and its job does not have the task reviewed.
case when mod(labels, {gold_round}) <> 0 then false
     when job.has_review
          and (select {review_queue.is_sampled} from (select counted.task_no) y, (select job.review_share) j) then false
     else coalesce(task_outcome(array(
         select ((o = counted.latest)::integer + (
             select count(*) from labels l
             where (l.job_no, l.task_no) = (counted.job_no, counted.task_no) and l.option = o
               and l.annotator_no = any (labelled_by[labels - {gold_round} + 1 : labels - 1])
         ))::smallint from generate_series(1, cardinality(job.options)) o order by o
     ), {gold_round}::smallint, false) > 0, false)
end;

-- gold_round --
-- So many labels would settle a task of a row `job` if all were as the annotator's. The labels of gold are answered as if
-- such a number of them settled it, so that answers do not tell which tasks are gold.
labels_wanted(job.threshold, job.stop_early, job.target, job.labels_max, job.skill, cardinality(job.options));

-- bar_inaccurate --
-- Exclude the annotator from jobs whose gold they get wrong too often, and take back what they hold of these. Leases that
-- another batch of theirs holds run out.
with barred as (
    update job_annotators a set excluded_at = now(), excluded_for = 'min_accuracy'
    from jobs j
    where (a.job_no, a.annotator_no) = (j.job_no, %(annotator_no)s) and a.job_no = any (%(job_nos)s::bigint[])
      and a.excluded_at is null and a.gold_seen >= j.min_gold_seen
      and skill(true, a.gold_right, a.gold_seen, 0, 0) < j.min_accuracy
    returning a.job_no
), lease as materialized (
    select lease_no from leases where annotator_no = %(annotator_no)s and job_no in (select job_no from barred)
    for update skip locked
), gone as (
    delete from leases where lease_no = any (array(select lease_no from lease))
    returning job_no, annotator_no, task_nos
), {vacate_gone}
select job_no from barred;

-- hand_back --
-- Leave tasks vacant that the annotator held although a label of theirs was counted before: it was being counted while a
-- claim handed them the task. A statement of its own, as that label may have been committed after submit_labels began.
-- The same for tasks under review, and for those that were sent back since submit_labels refused the label.
insert into vacancies (job_no, task_no, annotator_no)
select y.job_no, y.task_no, %(annotator_no)s
from unnest(%(job_nos)s::bigint[], %(task_nos)s::bigint[]) as i (job_no, task_no)
cross join lateral (
    select * from tallies y where (y.job_no, y.task_no) = (i.job_no, i.task_no) offset 0
) y
where y.outcome is null or y.outcome = under_review();

-- explain_refused --
-- Say why labels were not taken. It runs after submit_labels, and so sees what other batches have settled.
select i.n,
       case
           when c.job_no is null then 'unknown_task'
           when j.is_excluded then 'excluded'
           when array_position(j.options, i.label) is null then 'unknown_option'
           when y.annotators @> array[%(annotator_no)s::integer] then 'duplicate'
           when y.outcome is not null or j.status <> 'processing' or j.settled_at is not null
                or j.has_gold and exists ({gold_of}) then 'already_settled'
           else 'unknown_task'
       end as outcome,
       j.job_no, i.task_no, c.job_no is not null and y.job_no is null and j.status <> 'processing' as may_be_archived
from {batch} i
left join lateral (
    select *, {is_excluded} as is_excluded from jobs where job_id = i.job_id and {is_granted} offset 0
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
