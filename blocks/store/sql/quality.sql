-- one_snapshot --
-- Labels come in between one query and the next.
set transaction isolation level repeatable read;

-- outcomes --
-- How tasks that have ended came out: how many with so many labels, of which so many agreed.
select outcome > 0 as settled, cardinality(annotators) as labels, coalesce(votes[nullif(outcome, 0)], 0) as agreed,
       count(*) as tasks
from tallies where job_no = %(job_no)s and outcome is not null
group by 1, 2, 3
order by 1, 2, 3;

-- options --
-- How often each option was voted for, and won, on tasks that have ended.
select u.option, sum(u.votes)::bigint as labels, count(*) filter (where y.outcome = u.option) as tasks
from tallies y cross join unnest(y.votes) with ordinality as u (votes, option)
where y.job_no = %(job_no)s and y.outcome is not null
group by u.option
order by u.option;

-- annotators --
-- How many labels each annotator gave to tasks that have settled, and how many agree with the consensus.
select a.annotator_id, count(*) as labels, count(*) filter (where l.option = y.outcome) as agreed
from labels l
join tallies y on (y.job_no, y.byte_offset) = (l.job_no, l.byte_offset)
join annotators a on a.annotator_no = l.annotator_no
where l.job_no = %(job_no)s and y.job_no = %(job_no)s and y.outcome > 0
group by a.annotator_id
order by a.annotator_id;
