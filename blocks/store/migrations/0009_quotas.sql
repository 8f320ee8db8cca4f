-- What quotas look at, a customer's jobs under way and manifests that are kept, without a look at the others.

create index jobs_under_way on jobs (customer_id, job_no) where status in ('accepted', 'processing');
create index jobs_kept on jobs (customer_id) include (manifest_bytes, status, job_no)
    where manifest_bytes is not null;

-- Of inline tasks, the URLs and the metadata; a manifest's chunks are counted by its size instead.
alter table chunks add column inline_bytes bigint not null default 0;
