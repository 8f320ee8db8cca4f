-- find_job --
-- Return what an annotator is told of a job whose tasks they may be handed.
select j.job_id, j.task_type, j.question, j.options, j.option_details, j.status = 'processing' as is_open,
       j.instructions_digest, i.text as instructions
from jobs j left join instructions i on i.digest = j.instructions_digest
where j.job_id = %(job_id)s and {annotation.for_annotator};

-- find_open_label --
-- Return the annotator's label of a task that takes labels. A gold task is answered as one of a settled task would be.
select j.job_no, l.task_no, j.options[l.option] as label, l.created_at
from (
    select *, consensus_threshold as threshold, target_confidence as target from jobs
    where job_id = %(job_id)s and status = 'processing' and settled_at is null and {annotation.for_annotator} offset 0
) j
cross join lateral (
    select * from labels
    where (job_no, task_no, annotator_no) = (j.job_no, %(task_no)s::bigint, %(annotator_no)s) offset 0
) l
join tallies y on (y.job_no, y.task_no) = (l.job_no, l.task_no)
where y.outcome is null and not {label_changes.gold_looks_ended};

-- list_open_jobs --
-- List jobs that may have work for the annotator; those that a claim takes first come first.
select j.job_id, j.task_type, j.question, j.options, j.option_details, j.instructions_digest
from ({annotation.claimable_jobs}) c join jobs j using (job_no)
order by j.priority desc, j.job_no;

-- find_annotator --
select annotator_id, name from annotators where annotator_no = %(annotator_no)s;
