-- options --
-- List the gold tasks of a job with their right options.
select task_no, option from gold_tasks where job_no = %(job_no)s;

-- labels --
-- List their labels, those of a task in the order in which they were counted.
select l.task_no, l.option, coalesce(l.skill, 0) as skill
from labels l join tallies y on (y.job_no, y.task_no) = (l.job_no, l.task_no)
where l.job_no = %(job_no)s and y.job_no = %(job_no)s and y.gold is not null
order by l.task_no, array_position(y.annotators, l.annotator_no);
