-- What keeps customers apart: credentials that end, keys with names, annotators for some customers only.

-- Credentials that the customer, or the grace period, has ended while something might still have needed them.
alter table jobs add column credentials_wiped_at timestamptz;
alter table jobs add column delivery_failed_at timestamptz; -- the grace period begins anew with each refused delivery
create index jobs_sealed on jobs (job_no) where credentials is not null;

-- The one place, as s3://bucket/prefix, that results of a job with a block may go to, besides the block's own.
alter table jobs add column block_delivers_to text;
update jobs
set block_delivers_to = case delivery_type when 'gcs' then 'gs' else delivery_type end
                        || '://' || delivery_bucket || '/' || delivery_prefix
where credentials_block is not null and delivery_type is not null;

-- What annotators are shown of a line's metadata: these members. Null: all of it, as it stands.
alter table jobs add column shown_metadata text[];

-- A key is named by its id, which is no secret, wherever it is listed or revoked.
alter table api_keys add column key_id text
    generated always as ('key_' || encode(substr(key_hash, 1, 10), 'hex')) stored unique;
create index api_keys_by_annotator on api_keys (annotator_no) where annotator_no is not null;

-- Whose tasks an annotator is handed. Null: every customer's.
alter table annotators add column customer_ids text[];
