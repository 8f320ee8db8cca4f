-- find_job --
-- Return what an annotator is told of a job whose tasks they may be handed.
select j.job_id, j.task_type, j.question, j.options, j.option_details, j.status = 'processing' as is_open,
       j.instructions_digest, i.text as instructions
from jobs j left join instructions i on i.digest = j.instructions_digest
where j.job_id = %(job_id)s and {annotation.for_annotator};

-- list_open_jobs --
-- List jobs that may have work for the annotator; those that a claim takes first come first.
select j.job_id, j.task_type, j.question, j.options, j.option_details, j.instructions_digest
from ({annotation.claimable_jobs}) c join jobs j using (job_no)
order by j.priority desc, j.job_no;

-- find_annotator --
select annotator_id, name from annotators where annotator_no = %(annotator_no)s;
