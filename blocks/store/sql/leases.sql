-- held --
-- The tasks that an annotator holds, of jobs that still want labels.
select l.lease_no, l.job_no, j.job_id, l.expires_at, l.claim_digest, o.task_no
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

-- count_held --
-- Count the tasks that the annotator holds, and find when the first of them runs out.
select count(*) as tasks, min(expires_at) as expires_at from ({held}) held;

-- renew --
-- Hold the claims that some tasks are of for longer, from now on; never for a shorter time than they are held.
-- Leases are locked in the order of labels, and looked up by keys that are given one by one, as in annotation.let_go.
-- None is parted: a label that waits for a lease would not see a new one.
with input as materialized (
    select distinct j.job_no, i.job_id, i.task_no
    from unnest(%(job_ids)s::text[], %(task_nos)s::bigint[]) as i (job_id, task_no)
    join jobs j on j.job_id = i.job_id and j.status = 'processing'
), lease as materialized (
    select l.* from (select distinct job_no from input order by job_no) i cross join lateral (
        select l.lease_no, l.job_no, l.task_nos,
               greatest(l.expires_at, now() + make_interval(secs => %(lease_s)s)) as renewed_until
        from leases l
        where (l.annotator_no, l.job_no) = (%(annotator_no)s, i.job_no) and l.expires_at > now()
        order by l.lease_no
        for update
    ) l
), held as materialized (
    select lease.lease_no, lease.renewed_until, input.job_id, o.task_no
    from lease cross join unnest(lease.task_nos) as o (task_no) join input using (job_no, task_no)
), renewed as (
    update leases l set expires_at = (select lease.renewed_until from lease where lease.lease_no = l.lease_no)
    where l.lease_no = any (array(select lease_no from held))
)
select job_id, task_no, renewed_until from held;
