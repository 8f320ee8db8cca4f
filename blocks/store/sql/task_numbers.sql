-- find_keys --
-- List the keys of the ids of jobs' tasks.
select job_id, task_key from jobs where job_id = any (%(job_ids)s);
