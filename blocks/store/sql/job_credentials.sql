-- find_to_sign --
-- Return the envelopes of jobs that ask for signed URLs. Of one that has ended nothing is signed, even where its
-- credentials are kept for another try of its delivery.
select j.* from unnest(%(job_ids)s::text[]) as i (job_id) cross join lateral (
    select job_id, customer_id, manifest_url, signs_below,
           case when status = 'processing' then credentials end as credentials
    from jobs j where j.job_id = i.job_id and j.sign_urls offset 0
) j;

-- keep_copy --
-- Keep a copy of what the block of a job holds, for the URLs that are signed until the job has ended.
update jobs set credentials = %(credentials)s, signs_below = %(signs_below)s
where job_no = %(job_no)s and status = 'processing' and sign_urls and credentials_block is not null;

-- wipe_old --
-- Wipe credentials of jobs that have ended and are not being delivered, some time after the end or the last refused
-- delivery.
with old as (
    select job_no from jobs
    where credentials is not null and status in ('completed', 'failed', 'cancelled')
      and not is_undelivered
      and greatest(completed_at, delivery_failed_at) < now() - make_interval(secs => %(keep_s)s)
    limit %(limit)s for update skip locked
)
update jobs j set credentials = null, credentials_wiped_at = now() from old where j.job_no = old.job_no;

-- list --
-- List a batch of jobs that still have credentials, for a rotation of the key.
select job_no, job_id, customer_id, credentials from jobs
where credentials is not null and job_no > %(after)s order by job_no limit 500;

-- reseal --
-- Replace an envelope, unless it was wiped or replaced meanwhile.
update jobs set credentials = %(new)s where job_no = %(job_no)s and credentials = %(old)s;
