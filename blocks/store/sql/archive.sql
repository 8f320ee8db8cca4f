-- due --
-- Some of the jobs that were over for so long, and still have labels to archive; those that ended first.
select job_no from jobs
where completed_at < now() - make_interval(secs => %(after_s)s)
  and archived_at is null and manifest_url is not null and not is_undelivered
order by completed_at limit %(jobs_max)s;

-- mark_archived --
-- Record which jobs have no label left to archive.
update jobs j set archived_at = now()
where j.job_no in ({due} for update skip locked)
  and not exists (select from chunks c where c.job_no = j.job_no and c.archived < c.tasks);

-- take_chunks --
-- Hold a chunk of each job whose labels are not all archived. Chunks that others hold are passed over.
select c.job_no, c.chunk_no, c.tasks, c.archived
from ({due}) j cross join lateral (
    select * from chunks c where c.job_no = j.job_no and c.archived < c.tasks
    order by c.chunk_no limit 1
    for update skip locked
) c
order by c.job_no;

-- find_pages --
-- List pages of a chunk, from the one that begins with a task on.
select first_task, tasks from pages
where job_no = %(job_no)s and first_task >= %(from_task)s and first_task < %(until_task)s
order by first_task
limit %(limit)s;

-- read_labels --
-- Return the labels of some tasks as arrays, in the order in which they were counted, and behind those of a task that
-- failed by skips, or whose review has ended, a row for its end: of option 0, by nobody. Tasks under review were open.
select array_agg(task_no) as task_nos,
       array_agg(coalesce(nullif(outcome, under_review()), %(open)s)::smallint) as outcomes,
       array_agg(option) as options, array_agg(annotator_no) as annotator_nos,
       array_agg(coalesce(skill, %(no_skill)s)::smallint) as skills, array_agg(created_at) as created_at
from (
    select l.task_no, y.outcome, l.option, l.annotator_no, l.skill, l.created_at,
           array_position(y.annotators, l.annotator_no) as nth
    from labels l join tallies y on (y.job_no, y.task_no) = (l.job_no, l.task_no)
    where l.job_no = %(job_no)s and l.task_no >= %(from_task)s and l.task_no < %(until_task)s
    union all
    select task_no, outcome, 0::smallint, 0, null, labelled_at, null from tallies
    where job_no = %(job_no)s and task_no >= %(from_task)s and task_no < %(until_task)s
      and (outcome < 0 and outcome <> under_review() or outcome >= 0 and exists (
          select from reviews r where (r.job_no, r.task_no) = (tallies.job_no, tallies.task_no)
            and r.state in ('decided', 'timed_out')
      ))
    order by task_no, nth
) l;

-- copy --
copy archived_labels (job_no, first_task, content) from stdin (format binary);

-- delete_labels --
delete from labels where job_no = %(job_no)s and task_no >= %(from_task)s and task_no < %(until_task)s;

-- delete_unlabelled --
-- Delete the votes of open tasks that have none: `skips` and `label_changes` keep what annotators did.
delete from tallies
where job_no = %(job_no)s and task_no >= %(from_task)s and task_no < %(until_task)s
  and coalesce(outcome = under_review(), true) and annotators = '{}';

-- delete_gold_shown --
delete from gold_shown where job_no = %(job_no)s and task_no >= %(from_task)s and task_no < %(until_task)s;

-- delete_tallies --
delete from tallies where job_no = %(job_no)s and task_no >= %(from_task)s and task_no < %(until_task)s;

-- record --
update chunks set archived = %(archived)s where job_no = %(job_no)s and chunk_no = %(chunk_no)s;

-- list --
-- List archived pages of a job, up to a task.
select first_task, content from archived_labels
where job_no = %(job_no)s and first_task >= %(from_task)s and first_task < %(until_task)s
order by first_task
limit %(limit)s;

-- list_next --
-- List archived pages of a job, from the one that a task after some number is on, or would be.
select first_task, content from archived_labels
where job_no = %(job_no)s and first_task >= coalesce(
    (select max(first_task) from archived_labels where job_no = %(job_no)s and first_task <= %(after)s + 1), 0
)
order by first_task
limit %(limit)s;

-- find --
-- Find the archived labels of the pages that some tasks are on; a page may be another one, if theirs has none.
with place as materialized (
    select distinct a.first_task from unnest(%(task_nos)s::bigint[]) as i (task_no) cross join lateral (
        select a.first_task from archived_labels a where a.job_no = %(job_no)s and a.first_task <= i.task_no
        order by a.first_task desc limit 1
    ) a
)
select a.first_task, a.content from place cross join lateral (
    select * from archived_labels a where (a.job_no, a.first_task) = (%(job_no)s, place.first_task) offset 0
) a
order by a.first_task;
