-- by_key --
-- Have the next statements of this transaction follow the keys: statistics do not know a fresh job.
select set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true),
       set_config('enable_sort', 'off', true);

-- labels --
-- Return labels of a job as arrays, in the order of the key, from behind one on.
select array_agg(task_no) as task_nos, array_agg(annotator_no) as annotator_nos, array_agg(option) as options
from (
    select task_no, annotator_no, option from labels
    where job_no = %(job_no)s and (task_no, annotator_no) > (%(task_no)s, %(annotator_no)s)
    order by task_no, annotator_no limit %(limit)s
) l;

-- outcomes --
-- Return the results of ended tasks as arrays, in the order of the tasks, from behind one on; not of those that failed by
-- skips, whose outcome is below 0.
select array_agg(task_no) as task_nos, array_agg(outcome) as outcomes
from (
    select task_no, outcome from tallies
    where job_no = %(job_no)s and task_no > %(task_no)s and outcome >= 0
    order by task_no limit %(limit)s
) y;
