-- jobs --
-- Count no further than one over the quota.
select count(*) as amount from (
    select from jobs
    where customer_id = %(customer_id)s and status in ('accepted', 'processing') and manifest_url is not null
    limit %(most)s + 1
) as counted;

-- open_tasks --
-- Count tasks, inline ones too, that have neither settled nor failed, of jobs under way.
select coalesce(sum(c.tasks - c.settled - c.failed), 0)::bigint as amount
from jobs j join chunks c using (job_no)
where j.customer_id = %(customer_id)s and j.status in ('accepted', 'processing');

-- webhooks --
select count(*) as amount from webhooks where customer_id = %(customer_id)s and registered;

-- keys --
-- Count the keys of a customer, or of an annotator by id. Those that were just revoked count, since their rows stay.
select count(*) as amount from api_keys
where (customer_id = %(customer_id)s
       or annotator_no = (select annotator_no from annotators where annotator_id = %(customer_id)s))
  and (revoked_at is null or created_at > now() - interval '1 day');

-- stored_bytes --
-- A job that failed before a line was recorded keeps nothing. A sum of bigints may exceed a bigint.
select least((
    select coalesce(sum(manifest_bytes), 0) from jobs j
    where j.customer_id = %(customer_id)s and j.manifest_bytes is not null
      and (j.status <> 'failed' or exists (select from chunks c where c.job_no = j.job_no))
) + (
    select coalesce(sum(c.inline_bytes), 0) from jobs j join chunks c using (job_no)
    where j.customer_id = %(customer_id)s and j.inline_key is not null
), 9223372036854775807)::bigint as amount;
