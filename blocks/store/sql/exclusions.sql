-- find --
-- Find an annotator who has to do with a job: they have labelled, skipped or reviewed some of it, or hold some.
select a.annotator_no from annotators a
where a.annotator_id = %(annotator_id)s
  and (exists (select from job_annotators o where (o.job_no, o.annotator_no) = (%(job_no)s, a.annotator_no))
       or exists (select from leases l where (l.annotator_no, l.job_no) = (a.annotator_no, %(job_no)s))
       or exists (select from label_batches b where b.annotator_no = a.annotator_no and b.job_no = %(job_no)s)
       or exists (select from labels l where l.job_no = %(job_no)s and l.annotator_no = a.annotator_no)
       or exists (select from skips s where s.job_no = %(job_no)s and s.annotator_no = a.annotator_no)
       or exists (select from reviews r where r.job_no = %(job_no)s and a.annotator_no in (r.reviewer_no, r.decided_by)));

-- find_begun --
-- Find an exclusion that was begun. Beginning it again would wait for a step that has just ended it, and waits for the job.
select job_no from exclusions where (job_no, annotator_no) = (%(job_no)s, %(annotator_no)s);

-- lock_leases --
select lease_no from leases where (annotator_no, job_no) = (%(annotator_no)s, %(job_no)s) order by lease_no for update;

-- exclude --
-- Have the annotator get no more tasks of the job, nor its labels from them.
insert into job_annotators as a (job_no, annotator_no, excluded_at, excluded_for)
values (%(job_no)s, %(annotator_no)s, now(), 'customer')
on conflict (job_no, annotator_no) do update
set excluded_at = coalesce(a.excluded_at, excluded.excluded_at),
    excluded_for = coalesce(a.excluded_for, excluded.excluded_for);

-- lock_open_job --
-- Lock a job whose tasks have not all ended, so that it does not settle meanwhile.
select job_no from jobs where job_no = %(job_no)s and status = 'processing' and settled_at is null for update;

-- begin --
-- Begin to set the annotator's labels aside.
insert into exclusions (job_no, annotator_no) values (%(job_no)s, %(annotator_no)s);

-- exclusion --
-- The exclusions from a job, with what became of labels where they are set aside.
select a.annotator_id, o.excluded_at, o.excluded_for as reason,
       coalesce(e.labels_set_aside, 0) as labels_set_aside, coalesce(e.tasks_reopened, 0) as tasks_reopened,
       e.job_no is not null and e.done_at is null as is_under_way, e.done_at
from job_annotators o join annotators a using (annotator_no)
left join exclusions e on (e.job_no, e.annotator_no) = (o.job_no, o.annotator_no)
where o.job_no = %(job_no)s and o.excluded_at is not null;

-- get --
{exclusion} and o.annotator_no = %(annotator_no)s;

-- list --
-- List the annotators who are excluded from a job, in order.
{exclusion}
order by o.excluded_at, o.annotator_no;

-- list_under_way --
select job_no, annotator_no from exclusions
where done_at is null and (%(job_no)s::bigint is null or job_no = %(job_no)s) order by job_no, annotator_no limit %(limit)s;

-- take --
-- Take one exclusion in hand, unless somebody else has it.
select e.job_no, e.annotator_no, coalesce(e.writers = '{}', false) as is_alone, e.last_task, e.last_annotator, job_id, {annotation.announces} as announces,
       status = 'processing' as is_open
from exclusions e join jobs using (job_no)
where (e.job_no, e.annotator_no) = (%(job_no)s, %(annotator_no)s) and e.done_at is null
for update of e skip locked;

-- await_writers --
-- Note the transactions that write labels or leases, the first time, and those of them that are not over, the next times.
-- A statement locks a table before it looks at its rows: those that do not see what was committed by now, and may count a
-- label of theirs or give up a place of a task that has ended (annotation.may_reopen), are among them.
update exclusions set writers = array(
    select virtualtransaction from pg_locks
    where database = (select oid from pg_database where datname = current_database())
      and relation in ('labels'::regclass, 'leases'::regclass)
      and mode = 'RowExclusiveLock' and granted and (writers is null or virtualtransaction = any (writers))
)
where (job_no, annotator_no) = (%(job_no)s, %(annotator_no)s)
returning writers = '{}' as is_alone;

-- scan --
-- Find labels of the annotator among the next labels of the job.
with seen as materialized (
    select task_no, annotator_no from labels
    where job_no = %(job_no)s and (task_no, annotator_no) > (%(last_task)s, %(last_annotator)s)
    order by task_no, annotator_no limit %(labels_max)s
)
select coalesce(array_agg(task_no order by task_no) filter (where annotator_no = %(annotator_no)s), '{}') as task_nos,
       count(*) as labels,
       (select task_no from seen order by task_no desc, annotator_no desc limit 1) as last_task,
       (select annotator_no from seen order by task_no desc, annotator_no desc limit 1) as last_annotator
from seen;

-- lock_tallies --
-- Lock the votes of tasks, in order, so that no label of them is counted meanwhile.
select y.task_no from unnest(%(task_nos)s::bigint[]) as i (task_no) cross join lateral (
    select y.task_no from tallies y where (y.job_no, y.task_no) = (%(job_no)s, i.task_no) for update
) y;

-- set_aside --
-- Take the annotator's labels out of the votes of some tasks, whose votes are locked, and judge these anew: a result that
-- the rest of the labels does not give is taken back. A task that is open then has as many places as it needs. Tasks
-- that have failed by skips stay so, and so do those under review and those that a reviewer has decided; gold has no result.
-- A skip before the label counts no more, as when a label is withdrawn.
with label as materialized (
    select l.*, cardinality(j.options) as options
    from unnest(%(task_nos)s::bigint[]) as i (task_no)
    cross join lateral (
        select * from labels l
        where (l.job_no, l.task_no, l.annotator_no) = (%(job_no)s, i.task_no, %(annotator_no)s) offset 0
    ) l
    cross join lateral (select options from jobs where job_no = %(job_no)s offset 0) j
), lessened as materialized (
    select y.job_no, y.task_no, chunk_of(y.task_no) as chunk_no, y.threshold, y.stop_early, y.gold, y.labels_max, y.target,
           y.outcome as old_outcome, cardinality(y.annotators) - 1 as labels,
           y.votes[:l.option - 1] || (y.votes[l.option] - 1)::smallint || y.votes[l.option + 1:] as votes,
           case when y.scores is not null
                then plus_at(y.scores, l.option, -label_weight(l.skill, l.options)) end as scores,
           y.outcome is not null and exists (
               select from reviews r where (r.job_no, r.task_no) = (y.job_no, y.task_no) and r.state = 'decided'
           ) as is_reviewed
    from label l cross join lateral (
        select * from tallies y where (y.job_no, y.task_no) = (l.job_no, l.task_no) offset 0
    ) y
), judged as materialized (
    select *, case
        when gold is not null then null
        when old_outcome < 0 or is_reviewed then old_outcome
        when scores is not null then weighted_outcome(scores, labels, threshold, labels_max, target)
        else task_outcome(votes, threshold, stop_early)
    end as outcome
    from lessened
), supplied as materialized (
    select j.*, greatest(j.threshold, j.labels + 1) - j.labels as wanted,
           coalesce(held.places, 0) + coalesce(vacant.places, 0) + coalesce(coming.places, 0) as supply
    from judged j
    left join (
        select o.task_no, count(*) as places from leases l cross join unnest(l.task_nos) as o (task_no)
        where l.job_no = %(job_no)s and o.task_no = any (%(task_nos)s::bigint[]) group by o.task_no
    ) held using (task_no)
    left join (
        select v.task_no, count(*) as places from vacancies v
        where v.job_no = %(job_no)s and v.task_no = any (%(task_nos)s::bigint[]) group by v.task_no
    ) vacant using (task_no)
    left join lateral (
        select (select count(*) from unnest(l.cursors) as u (c) where c <= j.task_no) as places
        from (
            select l.cursors from lanes l where (l.job_no, l.chunk_no) = (j.job_no, j.chunk_no)
            order by l.version desc limit 1
        ) l
    ) coming on true
), updated as (
    update tallies y
    set votes = s.votes, scores = s.scores, outcome = s.outcome,
        annotators = array_remove(y.annotators, %(annotator_no)s::integer),
        skippers = nullif(array_remove(y.skippers, %(annotator_no)s::integer), '{}'),
        labelled_at = case when s.outcome is distinct from s.old_outcome then now() else y.labelled_at end,
        places = s.labels + case when s.outcome = under_review() then s.supply
                                 else greatest(s.supply, s.wanted) end
    from supplied s
    where (y.job_no, y.task_no) = (s.job_no, s.task_no)
      and y.job_no = %(job_no)s and y.task_no = any (%(task_nos)s::bigint[])
), vacated as (
    insert into vacancies (job_no, task_no)
    select s.job_no, s.task_no from supplied s cross join generate_series(1, s.wanted - s.supply) as n
    where s.outcome is null and s.gold is null
), moved_labels as (
    insert into labels_set_aside (job_no, task_no, annotator_no, option, skill, created_at)
    select job_no, task_no, annotator_no, option, skill, created_at from label
), deleted as (
    delete from labels
    where job_no = %(job_no)s and task_no = any (%(task_nos)s::bigint[]) and annotator_no = %(annotator_no)s
), unskipped as (
    delete from skips
    where job_no = %(job_no)s and task_no = any (%(task_nos)s::bigint[]) and annotator_no = %(annotator_no)s
), by_chunk as (
    select job_no, chunk_no,
           count(*) filter (where outcome > 0) - count(*) filter (where old_outcome > 0) as settled,
           count(*) filter (where outcome <= 0) - count(*) filter (where old_outcome <= 0) as failed
    from judged where outcome is distinct from old_outcome group by 1, 2
), {annotation.counters_moved}
select count(*) as labels, count(*) filter (where old_outcome is not null and outcome is null) as reopened,
       coalesce(array_agg(task_no) filter (where outcome is not null and outcome is distinct from old_outcome), '{}') as ended
from judged;

-- record --
update exclusions
set last_task = coalesce(%(last_task)s, last_task), last_annotator = coalesce(%(last_annotator)s, last_annotator),
    labels_set_aside = labels_set_aside + %(labels)s, tasks_reopened = tasks_reopened + %(reopened)s,
    done_at = case when %(is_done)s then now() end
where (job_no, annotator_no) = (%(job_no)s, %(annotator_no)s);
