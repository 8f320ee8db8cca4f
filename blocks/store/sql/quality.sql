-- one_snapshot --
-- All queries see one moment, though labels come in between them.
set transaction isolation level repeatable read;

-- without_nested_loops --
-- Statistics do not know a fresh job, so the planner takes it for one row, and would join its labels and tallies by a
-- nested loop, which is quadratic in the job.
set local enable_nestloop = off;

-- outcomes --
-- Count tasks that have labels or have ended by whether they settled, by their labels and by how many agreed; null stands
-- for open ones.
select outcome > 0 as settled, cardinality(annotators) as labels, coalesce(votes[nullif(outcome, 0)], 0) as agreed,
       count(*) as tasks
from tallies where job_no = %(job_no)s and (outcome is not null or annotators <> '{}')
group by 1, 2, 3;

-- options --
-- Count the votes for each option on tasks that have ended, the tasks it won, and its votes on open tasks.
select u.option, coalesce(sum(u.votes) filter (where y.outcome is not null), 0)::bigint as labels,
       count(*) filter (where y.outcome = u.option) as tasks,
       coalesce(sum(u.votes) filter (where y.outcome is null), 0)::bigint as open
from tallies y cross join unnest(y.votes) with ordinality as u (votes, option)
where y.job_no = %(job_no)s
group by u.option;

-- annotators --
-- Count the labels of each annotator on settled tasks, those that agree with the consensus, and those on open tasks.
select l.annotator_no, count(*) filter (where y.outcome > 0) as labels,
       count(*) filter (where l.option = y.outcome) as agreed,
       count(*) filter (where y.outcome is null) as open
from labels l
join tallies y on (y.job_no, y.task_no) = (l.job_no, l.task_no)
where l.job_no = %(job_no)s and y.job_no = %(job_no)s and (y.outcome is null or y.outcome > 0)
group by l.annotator_no;

-- annotator_ids --
select annotator_no, annotator_id from annotators where annotator_no = any (%(nos)s);
