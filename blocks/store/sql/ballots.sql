-- read_ended --
-- Return the results and votes of ended tasks as arrays, in the order of the tasks; and the scores of each option, where
-- the job weighs labels.
select array_agg(task_no) as task_nos, array_agg(outcome) as outcomes, array_agg(votes) as votes,
       array_agg(labelled_at) as labelled_at, array_agg(scores) filter (where scores is not null) as scores
from (
    select task_no, outcome, votes, labelled_at, scores from tallies
    where job_no = %(job_no)s and task_no >= %(from_task)s and task_no < %(until_task)s
      and outcome <> under_review()
    order by task_no
) y;

-- read_gold --
-- Return gold tasks, their right options, and their votes, zeros where there are none, as arrays, in the order of the
-- tasks.
select array_agg(task_no) as task_nos, array_agg(option) as options, array_agg(votes) as votes
from (
    select g.task_no, g.option, coalesce(y.votes, array_fill(0::smallint, array[%(options)s::integer])) as votes
    from gold_tasks g left join lateral (
        select y.votes from tallies y where (y.job_no, y.task_no) = (g.job_no, g.task_no) offset 0
    ) y on true
    where g.job_no = %(job_no)s and g.task_no >= %(from_task)s and g.task_no < %(until_task)s
    order by g.task_no
) g;

-- find_gold --
select task_no from gold_tasks
where job_no = %(job_no)s and task_no >= %(from_task)s and task_no < %(until_task)s
order by task_no;
