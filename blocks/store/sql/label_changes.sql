-- entries --
-- The entries of a batch, by rows: a skip has a reason, a label or its replacement a label, a withdrawal neither.
(
    select n, job_id, task_no, label, reason, note
    from unnest(
        %(ns)s::integer[], %(job_ids)s::text[], %(task_nos)s::bigint[], %(labels)s::text[], %(reasons)s::smallint[],
        %(notes)s::text[]
    ) as i (n, job_id, task_no, label, reason, note)
);

-- open_jobs --
-- The jobs of a batch that take labels of the annotator.
job as materialized (
    select j.* from (select distinct job_id from {entries} i) i cross join lateral (
        select job_no, job_id, options, consensus_threshold as threshold, stop_early, skips_max,
               has_gold, review_flagged, target_confidence as target, labels_max
        from jobs
        where job_id = i.job_id and status = 'processing' and settled_at is null and {annotation.for_annotator} offset 0
    ) j
);

-- lock_leases --
-- Lock the annotator's leases on the jobs of a batch, in key order, as submit_labels does.
with {open_jobs}
select l.lease_no from (select job_no from job order by job_no) j cross join lateral (
    select l.lease_no from leases l
    where (l.annotator_no, l.job_no) = (%(annotator_no)s, j.job_no)
    order by l.lease_no
    for update
) l;

-- lock_tallies --
-- Lock the votes of all tasks of a batch that take labels, in key order, and write rows for those that have none. A row
-- that is there is only locked. Return which entries are of such tasks.
with {open_jobs}, valid as materialized (
    select i.n, j.job_no, i.task_no, chunk_of(i.task_no) as chunk_no, j.threshold, j.stop_early, j.skips_max,
           cardinality(j.options) as options, target, labels_max,
           case when j.has_gold then ({annotation.gold_of}) end as gold
    from {entries} i join job j using (job_id)
), {annotation.handed_out}, input as materialized (
    select v.* from valid v join handed_out h using (job_no, chunk_no)
    where case when gold is null then task_no < h.ends_at else {annotation.gold_was_given} end
), locked as (
    insert into tallies as y (
        job_no, task_no, labelled_at, latest, threshold, places, stop_early, votes, annotators,
        gold, scores, target, labels_max
    )
    select distinct on (job_no, task_no)
           job_no, task_no, now(), 0, threshold, threshold, stop_early,
           array_fill(0::smallint, array[options]), '{}', gold,
           case when gold is null and target is not null then array_fill(0, array[options]) end,
           case when gold is null then target end, case when gold is null then labels_max end
    from input
    order by job_no, task_no
    on conflict (job_no, task_no) do update set places = y.places where false
)
select n from input;

-- lock_chunks --
-- Lock the chunks of all tasks of a batch, in key order.
with {open_jobs}, named as materialized (
    select distinct j.job_no, chunk_of(i.task_no) as chunk_no from {entries} i join job j using (job_id)
)
select c.chunk_no from (select * from named order by job_no, chunk_no) o cross join lateral (
    select c.chunk_no from chunks c where (c.job_no, c.chunk_no) = (o.job_no, o.chunk_no) for update
) c;

-- gold_looks_ended --
-- True for a row y of `tallies` of a gold task of a job j, and the annotator's label l of it, if the label is answered as
-- one of a settled task would be; see gold_round.
(y.gold is not null and cardinality(y.annotators) >= {gold_round} * ceil(
    array_position(y.annotators, %(annotator_no)s::integer)::float8 / {gold_round}
));

-- gold_round --
labels_wanted(j.threshold, j.stop_early, j.target, j.labels_max, l.skill, cardinality(j.options));

-- among_input --
-- True for rows y of the tasks of "input", by lists of keys: a plan that is made while a table is empty would else join all
-- of it.
(y.job_no = any (array(select job_no from input)) and y.task_no = any (array(select task_no from input)));

-- withdraw --
-- Take labels back from the votes of open tasks, and record the change. The annotator holds the tasks whose labels they
-- replace, until submit_labels counts the new ones; the others become vacant. The place of a label stays the task's:
-- if it is one too many, a claim drops it. A skip before the label counts no more.
with {open_jobs}, input as materialized (
    select i.n, j.job_no, i.task_no, l.option, l.skill, l.created_at as labelled_at, y.gold,
           cardinality(j.options) as options, array_position(j.options, i.label)::smallint as new_option
    from {entries} i join job j using (job_id)
    cross join lateral (
        select * from tallies y where (y.job_no, y.task_no) = (j.job_no, i.task_no) offset 0
    ) y
    cross join lateral (
        select * from labels l
        where (l.job_no, l.task_no, l.annotator_no) = (j.job_no, i.task_no, %(annotator_no)s) offset 0
    ) l
    where y.outcome is null and not {gold_looks_ended}
      and (i.label is null or i.label = any (j.options) and array_position(j.options, i.label) <> l.option)
), {annotation.let_go}, leased as (
    insert into leases (job_no, annotator_no, task_nos, expires_at, claimed_at)
    select job_no, %(annotator_no)s, array_agg(task_no order by task_no), now() + interval '1 minute', null
    from input where new_option is not null group by job_no
), vacated as (
    insert into vacancies (job_no, task_no, annotator_no)
    select job_no, task_no, %(annotator_no)s from held where let_go
    union all
    select job_no, task_no, %(annotator_no)s from input where new_option is null
), taken_back as (
    update tallies y
    set votes = y.votes[:i.option - 1] || (y.votes[i.option] - 1)::smallint || y.votes[i.option + 1:],
        scores = case when y.scores is not null
                      then plus_at(y.scores, i.option, -label_weight(i.skill, i.options)) end,
        annotators = array_remove(y.annotators, %(annotator_no)s::integer),
        skippers = nullif(array_remove(y.skippers, %(annotator_no)s::integer), '{}'),
        -- From the threshold on there is one more than the labels; see places_wanted.
        places = case when cardinality(y.annotators) >= y.threshold
                      then greatest(y.places, cardinality(y.annotators) + 1) else y.places end
    from input i where (y.job_no, y.task_no) = (i.job_no, i.task_no) and {among_input}
), ungraded as (
    update job_annotators a
    set gold_seen = a.gold_seen - seen, gold_right = a.gold_right - correct
    from (
        select job_no, count(*) as seen, count(*) filter (where option = gold) as correct
        from input where gold is not null group by job_no
    ) g
    where (a.job_no, a.annotator_no) = (g.job_no, %(annotator_no)s)
), deleted as (
    delete from labels y using input i
    where (y.job_no, y.task_no, y.annotator_no) = (i.job_no, i.task_no, %(annotator_no)s) and {among_input}
), unskipped as (
    delete from skips y using input i
    where (y.job_no, y.task_no, y.annotator_no) = (i.job_no, i.task_no, %(annotator_no)s) and {among_input}
), recorded as (
    insert into label_changes (job_no, task_no, annotator_no, option, labelled_at, new_option)
    select job_no, task_no, %(annotator_no)s, option, labelled_at, new_option from input order by job_no, task_no
)
select n, new_option is not null as is_replaced from input;

-- skip --
-- Record skips: take the tasks off the annotator's leases, leave them vacant for others, and fail those that have been
-- skipped often enough for one reason. Skips of those who have labelled the task after all do not count. Tasks that are
-- under review, or that review_queue.hold_back may hold back, keep their places. Gold leaves none: it is for nobody else.
with {open_jobs}, input as materialized (
    select i.n, j.job_no, i.task_no, i.reason, i.note, j.review_flagged,
           y.gold is null and (y.outcome is null or y.outcome = under_review()) as may_need_place,
           y.outcome is null and not {annotation.is_known} as counts,
           (select count(*) from skips s
            where (s.job_no, s.task_no) = (j.job_no, i.task_no) and s.reason = i.reason
              and not y.annotators @> array[s.annotator_no]) + 1 >= j.skips_max and y.gold is null as fails
    from {entries} i join job j using (job_id)
    cross join lateral (
        select * from tallies y where (y.job_no, y.task_no) = (j.job_no, i.task_no) offset 0
    ) y
), {annotation.let_go}, vacated as (
    insert into vacancies (job_no, task_no, annotator_no)
    select job_no, task_no, %(annotator_no)s from held join input using (job_no, task_no)
    where held.let_go and may_need_place and not (counts and fails and not review_flagged)
), recorded as (
    insert into skips (job_no, task_no, annotator_no, reason, note)
    select job_no, task_no, %(annotator_no)s, reason, note from input where counts order by job_no, task_no
), skipped as (
    update tallies y
    set skippers = y.skippers || %(annotator_no)s::integer,
        labelled_at = case when i.fails then now() else y.labelled_at end,
        outcome = case when i.fails then -i.reason end
    from input i where (y.job_no, y.task_no) = (i.job_no, i.task_no) and i.counts and {among_input}
), moved as (
    update chunks c set failed = c.failed + by_chunk.failed
    from (
        select job_no, chunk_of(task_no) as chunk_no, count(*) as failed
        from input where counts and fails group by 1, 2
    ) by_chunk
    where (c.job_no, c.chunk_no) = (by_chunk.job_no, by_chunk.chunk_no)
    returning c.job_no, c.tasks = c.settled + c.failed as done
)
select n, job_no, task_no, fails and review_flagged as may_be_held_back,
       job_no in (select job_no from moved where done) as chunk_done
from input where counts;

-- explain_refused --
-- Say why skips, replacements and withdrawals were not taken. A replacement comes here only where the annotator has
-- labelled the task.
select i.n,
       case
           when c.job_no is null then 'unknown_task'
           when i.reason is not null and {annotation.is_known} then 'duplicate'
           when i.label = j.options[l.option] then 'duplicate'
           when j.is_excluded then 'excluded'
           when j.status <> 'processing' then 'already_settled'
           -- Whether the task has ended or not: else withdrawals tell which tasks never end, which are the gold.
           when i.reason is null and i.label is null and l.task_no is null then 'not_labelled'
           when y.outcome is not null or j.settled_at is not null or j.has_gold and exists ({annotation.gold_of})
               then 'already_settled'
           else 'unknown_task'
       end as outcome
from {entries} i
left join lateral (
    select *, consensus_threshold as threshold, target_confidence as target, {annotation.is_excluded} as is_excluded
    from jobs where job_id = i.job_id and {annotation.is_granted} offset 0
) j on true
left join lateral ({annotation.chunk_with}) c on true
left join lateral (
    select * from tallies y where (y.job_no, y.task_no) = (j.job_no, i.task_no) offset 0
) y on true
left join labels l on (l.job_no, l.task_no, l.annotator_no) = (j.job_no, i.task_no, %(annotator_no)s);
