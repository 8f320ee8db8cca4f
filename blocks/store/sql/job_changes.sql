-- set_priority --
-- Change the priority of a job that has work left. A trigger copies it to its row in `runs`.
update jobs j set priority = %(priority)s
from (select job_no, priority from jobs where job_no = %(job_no)s for update) earlier
where j.job_no = earlier.job_no and j.priority <> %(priority)s
  and (j.status in ('accepted', 'processing') or j.is_undelivered)
returning earlier.priority;
