-- find --
-- Look at the votes of up to `tasks_max` tasks in the order of the manifest, from after one on, and return up to `limit` of
-- those tasks, but for gold, whose labels are not all alike, beside `until`, the last task that was looked at; null: that was the last of
-- all. A row comes back, if only an empty one.
with seen as materialized (
    select task_no, nullif(outcome, under_review()) as outcome, votes, annotators, gold from tallies
    where job_no = %(job_no)s and task_no > %(after)s
    order by task_no limit %(tasks_max)s
), bound as materialized (
    select case when count(*) = %(tasks_max)s then max(task_no) end as until from seen
)
select bound.until, found.task_no, found.outcome, found.votes
from bound left join (
    select task_no, outcome, votes from seen
    where cardinality(annotators)::smallint <> all (votes) and annotators <> '{}' and gold is null
      and (%(option)s::integer is null or votes[%(option)s::integer] > 0)
      and (%(annotator_id)s::text is null
           or annotators @> array[(select annotator_no from annotators where annotator_id = %(annotator_id)s)])
      and (%(states)s::text[] is null
           or case when outcome > 0 then 'settled' when outcome <= 0 then 'failed' else 'open' end = any (%(states)s))
    order by task_no limit %(limit)s
) found on true
order by found.task_no;

-- gold --
-- List those of some tasks that are gold.
select g.task_no from unnest(%(task_nos)s::bigint[]) as i (task_no) cross join lateral (
    select task_no from gold_tasks g where (g.job_no, g.task_no) = (%(job_no)s, i.task_no) offset 0
) g;

-- labels --
-- List the labels of some tasks.
select l.task_no, l.annotator_no, l.option, l.skill, l.created_at
from unnest(%(task_nos)s::bigint[]) as i (task_no) cross join lateral (
    select * from labels l where (l.job_no, l.task_no) = (%(job_no)s, i.task_no) offset 0
) l;

-- lines_before --
-- Count the lines before some chunks of a job: null behind a chunk that is missing, where that is not known.
select chunk_no, lines_before from (
    select chunk_no, case when row_number() over (order by chunk_no) - 1 = chunk_no
                          then (sum(lines) over (order by chunk_no) - lines)::bigint end as lines_before
    from chunks where job_no = %(job_no)s
) c
where chunk_no = any (%(chunk_nos)s::integer[]);
