-- begin --
-- When the stream began; what its first run says stays.
with begun as (
    insert into streams (customer_id, stream, started_at)
    select customer_id, %(stream)s, %(at)s from customers where customer_id = %(customer_id)s
    on conflict do nothing
    returning started_at
)
select started_at from begun
union all
select started_at from streams where customer_id = %(customer_id)s and stream = %(stream)s;

-- known --
-- Which of these versions of manifests the stream has made jobs of.
select m.manifest_url, m.version, j.job_id
from unnest(%(manifest_urls)s::text[], %(versions)s::text[]) as asked (manifest_url, version)
join stream_manifests m on m.customer_id = %(customer_id)s and m.stream = %(stream)s
    and m.manifest_url = asked.manifest_url and m.version = asked.version
join jobs j using (job_no);

-- remember --
-- Bind a manifest to its job, unless that was done: then no row comes back.
insert into stream_manifests (customer_id, stream, manifest_url, version, job_no)
select %(customer_id)s, %(stream)s, %(manifest_url)s, %(version)s, job_no from jobs where job_id = %(job_id)s
on conflict do nothing
returning job_no;
