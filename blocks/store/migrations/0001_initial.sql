-- The whole schema. Rules that shape it, with what was measured, are in docs/decisions.md.
--
-- Keys inside are bigint (job_no) and not the public text ids: a text key costs an ingestion 1.45
-- times, and a foreign key from tasks to jobs 2.9 times. `tasks` is written once, by COPY, and never
-- updated: what changes lives in `open_tasks`, which holds only the tasks that are being labelled, and
-- in `results`, which is appended to. So the large tables neither bloat nor need a second index.

create table customers (
    customer_id text primary key,                       -- cust_…
    name        text not null,
    created_at  timestamptz not null default now()
);

create table annotators (
    annotator_no integer generated always as identity primary key,
    annotator_id text not null unique,                  -- ann_…
    name         text not null unique,
    created_at   timestamptz not null default now()
);

-- A key is shown once, when it is made; here is only its SHA-256.
create table api_keys (
    key_hash     bytea primary key,
    customer_id  text references customers,             -- an sk_ key
    annotator_no integer references annotators,         -- an ak_ key
    created_at   timestamptz not null default now(),
    revoked_at   timestamptz,
    check (num_nonnulls(customer_id, annotator_no) = 1)
);

create table jobs (
    job_no      bigint generated always as identity primary key,
    job_id      text not null unique,                   -- job_…
    customer_id text not null references customers,

    -- accepted   → processing  the flow has begun
    -- accepted   → failed      the manifest is missing or refused
    -- accepted   → cancelled   by the customer
    -- processing → completed   every task is settled or failed, and the delivery, if one was asked
    --                          for, stands in the bucket or has been refused for good
    -- processing → failed      the manifest changed, or too many of its lines are bad
    -- processing → cancelled   by the customer
    status      text not null default 'accepted'
                check (status in ('accepted', 'processing', 'completed', 'failed', 'cancelled')),

    manifest_url                text not null,
    question                    text not null,
    options                     text[] not null check (cardinality(options) between 2 and 100),
    consensus_threshold         smallint not null check (consensus_threshold between 2 and 10),
    task_type                   text not null,
    callback_url                text,
    metadata                    text,                    -- a JSON object, as the customer wrote it
    priority                    smallint not null check (priority between 0 and 9),
    stop_early                  boolean not null,
    failure_threshold_percent   double precision not null,
    credentials                 bytea,                   -- a sealed envelope; null once wiped

    delivery_type        text check (delivery_type in ('s3', 'gcs')),  -- null: none asked for
    delivery_bucket      text,
    delivery_prefix      text,
    delivery_compression text,
    delivery_kms_key_id  text,
    delivery_acl         text,
    -- null       → pending     every task is settled or failed
    -- pending    → delivering  the delivery's flow has begun
    -- delivering → delivered   manifest.json stands in the bucket
    -- delivering → failed      the store refused for good
    -- failed     → pending     the customer asked for another try
    delivery_status      text
                         check (delivery_status in ('pending', 'delivering', 'delivered', 'failed')),
    delivery_error_code    text,
    delivery_error_message text,
    delivery_objects     integer,
    delivered_at         timestamptz,

    -- The pin: the version of the manifest that every read insists on, and the plan made of it.
    manifest_bytes   bigint,
    manifest_version text,                               -- an ETag, or a GCS generation
    chunk_bytes      bigint,

    error_code    text,
    error_message text,
    created_at    timestamptz not null default now(),
    started_at    timestamptz,
    ingested_at   timestamptz,                           -- every line is a task or a bad line
    settled_at    timestamptz,                           -- every task is settled or failed
    completed_at  timestamptz                            -- completed, failed or cancelled
);

create index jobs_by_customer on jobs (customer_id, job_no);
create index jobs_claimable on jobs (priority desc, job_no) where status = 'processing';

-- A byte range of a manifest. Its row is written in the transaction that writes its tasks, so that it
-- says "committed" by being there, and its primary key lets only one of two twins commit.
-- Counters of what became of its tasks change in the statement that changes the task.
create table chunks (
    job_no       bigint not null,
    chunk_no     integer not null,
    lines        bigint not null,                        -- blank ones too
    tasks        bigint not null,                        -- good lines
    bad_lines    bigint not null,
    fresh        bigint not null,                        -- tasks that nobody was handed yet
    fresh_from   bigint not null,                        -- … which start at this byte offset
    settled      bigint not null default 0,
    failed       bigint not null default 0,
    created_at   timestamptz not null default now(),
    primary key (job_no, chunk_no)
) with (fillfactor = 50);

create index chunks_fresh on chunks (job_no, chunk_no) where fresh > 0;

-- A good line. Never updated. Its state is where else it stands:
--   in neither open_tasks nor results   pending
--   in open_tasks                       in_progress
--   in results                          settled, or failed where the consensus is null
create table tasks (
    job_no        bigint not null,
    byte_offset   bigint not null,                       -- of the line's first byte
    chunk_no      integer not null,
    line_in_chunk integer not null,                      -- 1-based
    data_url      text not null,
    metadata      text,                                  -- the manifest's bytes, verbatim
    primary key (job_no, byte_offset)
);

create table bad_lines (
    job_no        bigint not null,
    byte_offset   bigint not null,
    chunk_no      integer not null,
    line_in_chunk integer not null,
    code          text not null,
    message       text not null,
    raw           bytea not null,                        -- the line; cut where it was too long
    primary key (job_no, byte_offset)
);

-- A task between its first claim and its consensus. Small and hot: fillfactor leaves room for HOT
-- updates, and no column that changes is indexed.
create table open_tasks (
    job_no      bigint not null,
    byte_offset bigint not null,
    chunk_no    integer not null,
    wanted      smallint not null,                       -- labels to collect before the next look
    labels      smallint not null,                       -- labels that it has
    votes       smallint[] not null,                     -- labels for each option
    annotators  integer[] not null,                      -- who has labelled or holds it
    primary key (job_no, byte_offset)
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);

create table leases (
    job_no       bigint not null,
    byte_offset  bigint not null,
    annotator_no integer not null,
    expires_at   timestamptz not null,
    primary key (job_no, byte_offset, annotator_no)
);

create index leases_by_expiry on leases (expires_at);

-- The record that every result can be recomputed from. Never updated.
create table labels (
    job_no       bigint not null,
    byte_offset  bigint not null,
    annotator_no integer not null,
    option       smallint not null,                      -- 1-based index into the job's options
    created_at   timestamptz not null default now(),
    primary key (job_no, byte_offset, annotator_no)
);

create table results (
    job_no      bigint not null,
    byte_offset bigint not null,
    consensus   smallint,                                -- 1-based option; null: no_consensus
    labels      smallint not null,
    votes       smallint[] not null,
    settled_at  timestamptz not null default now(),
    primary key (job_no, byte_offset)
);

-- What has to happen outside the database because of a commit inside it. A row stays until it is done.
create table outbox (
    outbox_no  bigint generated always as identity primary key,
    kind       text not null check (kind in ('process_job', 'deliver_job')),
    job_no     bigint not null references jobs,
    not_before timestamptz not null default now(),
    tries      integer not null default 0,
    last_error text,
    created_at timestamptz not null default now()
);

create index outbox_due on outbox (not_before);

create function notify_outbox() returns trigger language plpgsql as $$
begin
    perform pg_notify('outbox', '');
    return null;
end
$$;

create trigger outbox_notify after insert on outbox
    for each statement execute function notify_outbox();

create table idempotency_keys (
    customer_id text not null references customers,
    key         text not null,
    body_hash   bytea not null,                          -- SHA-256 of the request
    job_no      bigint not null references jobs,
    created_at  timestamptz not null default now(),
    primary key (customer_id, key)
);

-- The public id of a task; the twin of blocks.domain.ids.task_id.
create function task_id(job_id text, byte_offset bigint) returns text
    language sql immutable parallel safe
    return 'tsk_' || substr(job_id, 5) || to_hex(byte_offset);

-- The option that a task settles on, 1-based, or null; the twin of blocks.domain.model.decide.
create function consensus_winner(votes smallint[], threshold smallint, stop_early boolean)
    returns integer language sql immutable parallel safe
    return (
        select case
            when (stop_early or sum(v) >= threshold)
                 and max(v) >= threshold / 2 + 1
                 and cardinality(array_positions(votes, max(v))) = 1
            then array_position(votes, max(v))
        end
        from unnest(votes) v
    );

-- RFC 3339 in UTC with a Z.
create function rfc3339(t timestamptz) returns text
    language sql stable parallel safe
    return to_char(t at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"');
