-- read_ended --
-- Return the results and votes of ended tasks as arrays, in the order of the tasks.
select array_agg(task_no) as task_nos, array_agg(outcome) as outcomes, array_agg(votes) as votes,
       array_agg(labelled_at) as labelled_at
from (
    select task_no, outcome, votes, labelled_at from tallies
    where job_no = %(job_no)s and task_no >= %(from_task)s and task_no < %(until_task)s and outcome is not null
    order by task_no
) y;
