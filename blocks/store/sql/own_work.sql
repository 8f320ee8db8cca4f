-- find_job --
-- Return what an annotator is told of a job whose tasks they may be handed.
select j.job_id, j.task_type, j.question, j.options, j.option_details, j.status = 'processing' as is_open,
       j.instructions_digest, i.text as instructions
from jobs j left join instructions i on i.digest = j.instructions_digest
where j.job_id = %(job_id)s and {annotation.for_annotator};
