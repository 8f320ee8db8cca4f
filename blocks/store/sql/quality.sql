-- one_snapshot --
-- All queries see one moment, though labels come in between them.
set transaction isolation level repeatable read;

-- without_nested_loops --
-- Statistics do not know a fresh job, so the planner takes it for one row, and would join its labels and tallies by a
-- nested loop, which is quadratic in the job.
set local enable_nestloop = off;

-- rule --
select cardinality(options) as options, consensus_threshold, stop_early, target_confidence, labels_max
from jobs where job_no = %(job_no)s;

-- outcomes --
-- Count tasks that have labels or have ended by their outcome, by their labels and by how many agreed, and by the
-- confidence where labels are weighed; null stands for open ones, and for those under review. Gold is not among them, here
-- and below.
select nullif(outcome, under_review()) as outcome, cardinality(annotators) as labels,
       coalesce(votes[nullif(outcome, 0)], 0) as agreed,
       case when scores is not null and outcome > 0 then confidence_of(scores, outcome) end as confidence,
       count(*) as tasks
from tallies where job_no = %(job_no)s and (outcome is not null or annotators <> '{}') and gold is null
group by 1, 2, 3, 4;

-- votes --
-- Count the votes for each option by the outcome of their tasks, null for open ones.
select nullif(y.outcome, under_review()) as outcome, u.option, sum(u.votes)::bigint as labels
from tallies y cross join unnest(y.votes) with ordinality as u (votes, option)
where y.job_no = %(job_no)s and u.votes > 0 and y.gold is null
group by 1, 2;

-- votes_of --
-- Count the labels of one annotator in the same way.
select nullif(y.outcome, under_review()) as outcome, l.option, count(*) as labels
from labels l
join tallies y on (y.job_no, y.task_no) = (l.job_no, l.task_no)
where l.job_no = %(job_no)s and y.job_no = %(job_no)s and l.annotator_no = %(annotator_no)s
  and y.gold is null
group by 1, 2;

-- annotators --
-- Count the labels of each annotator on settled tasks, those that agree with the consensus, and those on failed and on open
-- tasks.
select l.annotator_no, count(*) filter (where y.outcome > 0) as labels,
       count(*) filter (where l.option = y.outcome) as agreed,
       count(*) filter (where y.outcome <= 0 and y.outcome <> under_review()) as failed,
       count(*) filter (where coalesce(y.outcome = under_review(), true)) as open
from labels l
join tallies y on (y.job_no, y.task_no) = (l.job_no, l.task_no)
where l.job_no = %(job_no)s and y.job_no = %(job_no)s and y.gold is null
group by l.annotator_no;

-- skips --
-- Count the tasks that each annotator has skipped, by reason.
select annotator_no, reason, count(*) as tasks from skips where job_no = %(job_no)s group by 1, 2;

-- changes --
-- Count the labels that each annotator has replaced and withdrawn.
select annotator_no, count(new_option) as replaced, count(*) - count(new_option) as withdrawn
from label_changes where job_no = %(job_no)s
group by 1;

-- skills --
-- List what is known of annotators beside their labels, where the job weighs labels, has gold, or gives them no more.
select a.annotator_no, a.gold_seen, a.gold_right, a.earlier_gold_seen, a.earlier_gold_right, a.excluded_at,
       case when j.has_gold or j.target_confidence is not null then {annotation.skill_of} end as skill
from job_annotators a join jobs j using (job_no)
where a.job_no = %(job_no)s;

-- find_annotator --
select annotator_no from annotators where annotator_id = %(annotator_id)s;

-- annotator_ids --
select annotator_no, annotator_id from annotators where annotator_no = any (%(nos)s);
