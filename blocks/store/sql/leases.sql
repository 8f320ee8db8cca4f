-- listed_at --
-- The place of a task in lists for annotators, by rows of its job and of the task: the order of the manifest would tell
-- which tasks are gold.
case when has_gold then id_number(task_key, task_no) else task_no end;

-- held --
-- The tasks that an annotator holds, of jobs that still want labels.
select l.lease_no, l.job_no, j.job_id, j.task_key, l.expires_at, l.claim_digest, o.task_no
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
{held} and (l.job_no, {listed_at}) > (%(after_job_no)s, %(after_place)s)
order by l.job_no, {listed_at}
limit %(limit)s;

-- find_job --
-- Return what tells where a task of a job is listed, for a page that begins after it; nothing of a job that the
-- annotator may not know of.
select job_no, has_gold, task_key from jobs where job_id = %(job_id)s and {annotation.is_granted};

-- count_held --
-- Count the tasks that the annotator holds, and find when the first of them runs out.
select count(*) as tasks, min(expires_at) as expires_at from ({held}) held;

-- renew --
-- Hold the claims that some tasks are of for longer, from now on; never for a shorter time than they are held.
-- Leases are locked in the order of labels, and looked up by keys that are given one by one, as in annotation.let_go.
-- None is parted: a label that waits for a lease would not see a new one. Leases of one claim are held for the same time:
-- its gold has a lease of its own, and must look like its other tasks.
with input as materialized (
    select distinct j.job_no, i.job_id, i.task_no, j.sign_urls
    from unnest(%(job_ids)s::text[], %(task_nos)s::bigint[]) as i (job_id, task_no)
    join jobs j on j.job_id = i.job_id and j.status = 'processing'
), lease as materialized (
    select l.* from (select distinct job_no from input order by job_no) i cross join lateral (
        select l.lease_no, l.job_no, l.task_nos, l.claimed_at,
               greatest(l.expires_at, now() + make_interval(secs => %(lease_s)s)) as renewed_until
        from leases l
        where (l.annotator_no, l.job_no) = (%(annotator_no)s, i.job_no) and l.expires_at > now()
        order by l.lease_no
        for update
    ) l
), held as materialized (
    select input.*, lease.claimed_at, lease.renewed_until
    from lease cross join unnest(lease.task_nos) as o (task_no) join input using (job_no, task_no)
), renewed as (
    update leases l set expires_at = (select lease.renewed_until from lease where lease.lease_no = l.lease_no)
    where l.lease_no = any (array(
        select lease_no from lease where (job_no, claimed_at) in (select job_no, claimed_at from held)
    ))
)
select job_no, job_id, task_no, renewed_until as expires_at, sign_urls from held;
