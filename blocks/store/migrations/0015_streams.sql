-- What became of a stream's manifests, and what is done about those that have no result.
alter table stream_manifests
    add column attempts    integer not null default 1 check (attempts > 0), -- jobs and deliveries begun for it
    add column ignored_at  timestamptz;                   -- nobody wants a result any more

-- A table of a stream that reads as the one before is not shown again.
alter table streams add column shown bytea;

-- A job that belongs to a stream is looked for by it.
create index stream_manifests_by_job on stream_manifests (job_no);
