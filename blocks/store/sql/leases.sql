-- held --
-- The tasks that an annotator holds, of jobs that still want labels.
select l.lease_no, l.job_no, l.expires_at, l.claim_digest, o.task_no
from leases l
join jobs j on j.job_no = l.job_no and j.status = 'processing'
cross join unnest(l.task_nos) as o (task_no)
where l.annotator_no = %(annotator_no)s and l.expires_at > now();

-- find_claimed --
-- List the tasks still held by the claim of one key, in the order of its answer.
{held} and l.claim_key = %(claim_key)s
order by l.lease_no, task_no;

-- list_page --
-- List a page of all tasks that the annotator holds, from after a task on.
{held} and (l.job_no, o.task_no) > (%(after_job_no)s, %(after_task_no)s)
order by l.job_no, task_no
limit %(limit)s;

-- find_job_no --
-- Return the number of a job, for a page that begins inside it.
select job_no from jobs where job_id = %(job_id)s;
