-- The schema: all tables in the order of a line's life, then the functions, then the triggers.
--
-- Keys inside are bigint (job_no) and not the public text ids: with a text key an ingestion takes 1.45 times as long,
-- and with a foreign key from a row for each task to jobs 2.9 times. This is why tables of many rows have neither a foreign key nor
-- a second index. The measurements are in docs/decisions.md.
--
-- A change is made here and as a new file in migrations/; a test compares the databases that the two make.


---- Who: customers, annotators, keys

create table customers (
    customer_id text primary key,                       -- cust_…
    name        text not null,
    created_at  timestamptz not null default now(),
    paused_at   timestamptz,                            -- by an operator: nothing new is begun for any job of theirs
    -- Limits that operators have set for them, {"runs": 5}; the settings have those that are missing here.
    limits      jsonb not null default '{}' check (jsonb_typeof(limits) = 'object')
);

-- Claims and launchers pass over the jobs of these.
create index customers_paused on customers (customer_id) where paused_at is not null;

create table annotators (
    annotator_no integer generated always as identity primary key,
    annotator_id text not null unique,                  -- ann_…
    name         text not null unique,
    created_at   timestamptz not null default now(),
    customer_ids text[],                                -- whose tasks they are handed; null: every customer's
    is_active    boolean not null default false         -- they have a key that is not revoked (trigger 8)
);

-- Find annotators with a good key without a look at those whose keys were all revoked.
create index annotators_of_all on annotators (annotator_no) where is_active and customer_ids is null;
create index annotators_of_some on annotators using gin (customer_ids) where is_active;

-- A key is shown once, when it is made; this table has only its SHA-256.
create table api_keys (
    key_hash     bytea primary key,
    customer_id  text references customers,             -- of an sk_ key
    annotator_no integer references annotators,         -- of an ak_ key
    is_reviewer  boolean not null default false,        -- the key may decide tasks that are under review
    admin_name   text,                                  -- of an op_ key: the operator, who sees all customers
    key_name     text,                                  -- of an sk_ key: what its customer calls it
    prefix       text not null default '',              -- how the key begins, for people who look at one
    created_at   timestamptz not null default now(),
    last_used_at timestamptz,                           -- five minutes late at most
    revoked_at   timestamptz,
    -- Keys are listed and revoked by this id, which is no secret.
    key_id       text generated always as ('key_' || encode(substr(key_hash, 1, 10), 'hex')) stored unique,
    check (num_nonnulls(customer_id, annotator_no, admin_name) = 1),
    check (not is_reviewer or annotator_no is not null)
);

create index api_keys_by_annotator on api_keys (annotator_no) where annotator_no is not null;
create index api_keys_by_customer on api_keys (customer_id) where customer_id is not null;

-- Browsers that are signed in with a key, each by the hash of what its cookie holds. They end with the key.
create table sessions (
    session_hash bytea primary key,
    key_hash     bytea not null references api_keys,
    expires_at   timestamptz not null
);

create index sessions_by_key on sessions (key_hash, expires_at);
create index sessions_by_expiry on sessions (expires_at);

-- Links by which one browser may sign in once, without the key, each by the hash of its token.
create table sign_in_links (
    link_hash  bytea primary key,
    key_hash   bytea not null references api_keys,
    expires_at timestamptz not null
);

create index sign_in_links_by_key on sign_in_links (key_hash, expires_at);
create index sign_in_links_by_expiry on sign_in_links (expires_at);

-- What requests for new keys were answered, so that one that is sent again within a day is answered the same.
create table new_key_answers (
    asked_by   text not null,                            -- the customer, or the operator's key_id
    key        text not null,                            -- the request's Idempotency-Key
    body_hash  bytea not null,                           -- HMAC of the request
    key_id     text not null references api_keys (key_id),
    sealed     bytea not null,                           -- the key and its sign-in link, by AES-256-GCM
    created_at timestamptz not null default now(),
    primary key (asked_by, key)
);

create index new_key_answers_by_age on new_key_answers (created_at);

-- Who has changed what: a line for each act of an operator, and for those of customers that an owner asks about. It is
-- written with the act, in one transaction, and never changed (trigger 9); housekeeping deletes lines after audit_kept().
create table audit_log (
    audit_no    bigint generated always as identity primary key,
    audit_id    text not null unique default 'aud_' || replace(gen_random_uuid()::text, '-', ''),
    at          timestamptz not null default clock_timestamp(),
    actor_role  text not null check (actor_role in ('customer', 'admin', 'command_line', 'housekeeping')),
    actor_id    text not null,                           -- the key's key_id, or the role
    actor_name  text not null,                           -- at that time
    action      text not null,                           -- blocks/store/audit.py has them all
    target_kind text not null,
    target_id   text not null,
    customer_id text,                                    -- whose thing it was; null: nobody's alone
    details     jsonb not null default '{}' check (length(details::text) <= 2000)
);

-- A page is read by one of these, the newest lines first.
create index audit_log_by_age on audit_log (at, audit_no);
create index audit_log_by_customer on audit_log (customer_id, at, audit_no);
create index audit_log_by_actor on audit_log (actor_id, at, audit_no);
create index audit_log_by_action on audit_log (action, at, audit_no);
create index audit_log_by_target on audit_log (target_id, at, audit_no);


---- 1. A job is posted

-- What annotators read before they label. A text is stored once, however many jobs have it, such as those of a stream:
-- lists of jobs and claims carry its digest alone.
create table instructions (
    digest bytea primary key,                            -- SHA-256 of the text
    text   text not null                                 -- Markdown
);

create table jobs (
    job_no      bigint generated always as identity primary key,
    job_id      text not null unique,                   -- job_…
    customer_id text not null references customers,
    task_key    bigint not null                         -- of the ids of its tasks; shown to nobody
                check (task_key >= 0 and task_key < 1::bigint << 60),

    -- accepted   → processing  the flow has begun
    -- accepted   → failed      the manifest is missing or refused
    -- accepted   → cancelled   by the customer
    -- processing → completed   every task is settled or failed, and the delivery, if one was asked
    --                          for, stands in the bucket or has been refused for good
    -- processing → failed      the manifest changed, too many of its lines are bad, or an error of ours
    -- processing → cancelled   by the customer
    status      text not null default 'accepted'
                check (status in ('accepted', 'processing', 'completed', 'failed', 'cancelled')),

    -- As the customer wrote it; blocks/domain/limits.py has the same bounds.
    manifest_url                text,                    -- null: tasks come one by one, see inline_tasks
    inline_key                  bytea,                   -- SHA-256 of the question and the rule of such tasks
    question                    text not null,
    options                     text[] not null check (cardinality(options) between 2 and 100),
    option_details              jsonb,                   -- [{"option", "description", "hotkey"}]; null: none
    -- With a weighted consensus this is the least number of labels.
    consensus_threshold         smallint not null check (consensus_threshold between 1 and 10),
    stop_early                  boolean not null,
    target_confidence           smallint check (target_confidence between 5001 and 9999),  -- null: the majority decides
    labels_max                  smallint check (labels_max between consensus_threshold and 20),
    skips_max                   smallint not null default 3 check (skips_max between 1 and 10),
    -- Known answers, and what becomes of those who do not know them. Skills and shares are ten-thousandths.
    has_gold                    boolean not null default false,      -- one of its tasks is in gold_tasks
    gold_share                  smallint not null default 1000 check (gold_share between 1 and 5000),
    min_accuracy                smallint check (min_accuracy between 1 and 9999),
    min_gold_seen               smallint not null default 10 check (min_gold_seen between 1 and 1000),
    include_labels              boolean not null default false,      -- in exports and deliveries
    -- Which tasks reviewers decide that would else have ended. Shares and confidence are ten-thousandths.
    review_no_consensus         boolean not null default false,
    review_confidence_below     smallint check (review_confidence_below between 1 and 10000),
    review_share                smallint check (review_share between 1 and 10000),
    review_flagged              boolean not null default false,      -- those that fail by skips
    review_deadline             double precision not null default 168,  -- hours that a task waits at the most
    has_review                  boolean not null generated always as (
        review_no_consensus or review_flagged or num_nonnulls(review_confidence_below, review_share) > 0
    ) stored,
    task_type                   text not null,
    priority                    smallint not null check (priority between 0 and 9),
    failure_threshold_percent   double precision not null,
    callback_url                text,
    metadata                    text,                    -- a JSON object, as the customer wrote it
    shown_metadata              text[],                  -- members of a line's metadata that annotators see; null: all
    instructions_digest         bytea references instructions,

    -- Its buckets are opened by a sealed envelope, or by a block of Prefect (aws-credentials/etl). The envelope is kept
    -- until nothing needs it; with sign_urls until the job has ended.
    credentials                 bytea,                   -- null once wiped
    credentials_wiped_at        timestamptz,             -- by the customer or after the grace period, while still of use
    credentials_block           text,
    block_delivers_to           text,                    -- the one place besides the block's own: s3://bucket/prefix
    sign_urls                   boolean not null default false,  -- annotators get signed URLs, made with the envelope
    signs_below                 text,                    -- the envelope is a copy of the block's, for s3://bucket/prefix alone

    -- The pin: the version of the manifest that every read insists on, and the plan made of it.
    manifest_bytes   bigint,
    manifest_version text,                               -- an ETag, or a GCS generation
    chunk_bytes      bigint,
    text_bytes       bigint,                             -- of a compressed manifest, once all of it was read

    -- The span of OpenTelemetry that made it; its runs continue the trace. Null where nothing was traced.
    traceparent   text check (traceparent ~ '^00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]$'),

    error_code    text,
    error_message text,
    created_at    timestamptz not null default now(),
    started_at    timestamptz,                           -- the flow has begun
    ingested_at   timestamptz,                           -- every line is a task, a bad line or blank
    settled_at    timestamptz,                           -- every task is settled or failed
    completed_at  timestamptz,                           -- completed, failed or cancelled
    archived_at   timestamptz,                           -- all of its labels are in archived_labels
    paused_at     timestamptz,                           -- by an operator, alone; see customers.paused_at too

    -- Where the results go; null: they are exported only.
    delivery_type        text check (delivery_type in ('s3', 'gcs')),
    delivery_bucket      text,
    delivery_prefix      text,
    delivery_format      text check (delivery_format in ('jsonl', 'parquet')),
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
    delivery_failed_at   timestamptz,                    -- the credentials' grace period begins anew
    delivery_part_bytes  bigint,                         -- as its first run has it
    delivery_objects     integer,
    delivered_at         timestamptz,

    -- Work that Prefect has still to do for it: read its manifest, or deliver its results.
    is_unread      boolean not null generated always as (
        manifest_url is not null and status in ('accepted', 'processing') and ingested_at is null
    ) stored,
    is_undelivered boolean not null generated always as (
        coalesce(delivery_status in ('pending', 'delivering'), false)
    ) stored,

    constraint jobs_source check (num_nonnulls(manifest_url, inline_key) = 1),
    constraint jobs_consensus check (num_nonnulls(target_confidence, labels_max) in (0, 2)),
    constraint jobs_credentials check (num_nonnulls(credentials, credentials_block) < 2 or signs_below is not null)
);

-- A customer's list, newest first; and by status, so that a rare one is found without the others.
create index jobs_by_customer on jobs (customer_id, job_no);
create index jobs_by_status on jobs (customer_id, status, job_no) where manifest_url is not null;
create index jobs_of_all_by_status on jobs (status, job_no) where manifest_url is not null;
create unique index jobs_inline on jobs (customer_id, inline_key) where inline_key is not null;
-- Quotas count jobs under way, and the bytes of manifests that are kept.
create index jobs_under_way on jobs (customer_id, job_no) where status in ('accepted', 'processing');
create index jobs_kept on jobs (customer_id) include (manifest_bytes, status, job_no)
    where manifest_bytes is not null;
create index jobs_claimable on jobs (priority desc, job_no) where status = 'processing' and paused_at is null;
-- Those that have ended, the oldest first.
create index jobs_ended on jobs (completed_at) where manifest_url is not null and completed_at is not null;
-- Whether any job still has an endpoint, or a text.
create index jobs_by_callback on jobs (customer_id, hashtextextended(callback_url, 0)) where callback_url is not null;
create index jobs_by_instructions on jobs (instructions_digest) where instructions_digest is not null;
-- Jobs of the same question, in which an annotator's earlier skill was shown.
create index jobs_by_question on jobs (customer_id, hashtextextended(question, 0), job_no);
create index jobs_sealed on jobs (job_no) where credentials is not null;
create index jobs_to_archive on jobs (completed_at)
    where archived_at is null and manifest_url is not null and not is_undelivered;
-- Jobs that ought to have a row in runs; reconcile looks whether they have.
create index jobs_unread on jobs (job_no) where is_unread;
create index jobs_undelivered on jobs (job_no) where is_undelivered;

create table idempotency_keys (
    customer_id text not null references customers,
    key         text not null,
    body_hash   bytea not null,                          -- SHA-256 of the request
    job_no      bigint not null references jobs,
    created_at  timestamptz not null default now(),      -- a key is forgotten after a day
    primary key (customer_id, key)
);

create index idempotency_keys_by_age on idempotency_keys (created_at);
create index idempotency_keys_by_job on idempotency_keys (job_no);

-- Jobs that were deleted. Their row in jobs is gone, and so nobody is shown anything of them; they are here until housekeeping
-- has removed all other rows.
create table deleted_jobs (
    job_no              bigint primary key,
    deleted_at          timestamptz not null default now(),
    webhook_no          bigint,                          -- the endpoint of its callback_url
    instructions_digest bytea,
    -- Transactions that may not see the deletion, and write rows of the job; null before any were noted.
    writers             text[],
    -- Where the next step goes on: a table by its place among those that are emptied, and a value of its key.
    table_no            integer not null default 0,
    key_from            bigint not null default -1,
    has_found           boolean not null default false   -- rows, since it began with the first table
);

-- Recurring ETL: a stream makes one job of each version of each manifest that it finds.
create table streams (
    customer_id text not null references customers,
    stream      text not null,
    started_at  timestamptz not null default now(),
    shown       bytea,                                   -- digest of the table shown last; the same is not shown again
    primary key (customer_id, stream)
);

create table stream_manifests (
    customer_id  text not null,
    stream       text not null,
    manifest_url text not null,
    version      text not null,                          -- an ETag, or a GCS generation
    job_no       bigint not null references jobs,        -- the latest one
    created_at   timestamptz not null default now(),
    attempts     integer not null default 1 check (attempts > 0),  -- jobs and deliveries begun for it
    ignored_at   timestamptz,                            -- nobody wants a result any more
    primary key (customer_id, stream, manifest_url, version),
    foreign key (customer_id, stream) references streams
);

create index stream_manifests_by_job on stream_manifests (job_no);
-- Versions of manifests whose jobs were deleted: the stream makes no job of them again.
create table forgotten_manifests (
    customer_id  text not null,
    stream       text not null,
    digest       bytea not null,                         -- see manifest_digest()
    primary key (customer_id, stream, digest),
    foreign key (customer_id, stream) references streams
);

-- When each stream has found something last.
create index stream_manifests_by_age on stream_manifests (customer_id, stream, created_at);


---- 2. Prefect has something to do

-- Work pending in Prefect: one row for each job and kind until the work is done, however many runs that takes
-- (trigger 1). A process that dies on the way leaves the row, and reconcile finds work without a live run here.
--   waiting  → launched  its customer's turn has come, and a run was asked for
--   launched → waiting   the run ended without having done the work, or could not be had
--   any      → gone      the work is done, or the job has ended
create table runs (
    run_no      bigint generated always as identity primary key,
    job_no      bigint not null references jobs,
    kind        text not null check (kind in ('process_job', 'deliver_job')),
    customer_id text not null references customers,
    priority    smallint not null,                       -- the job's
    is_paused   boolean not null default false,          -- the job is, by itself; its customer may be as well
    created_at  timestamptz not null default now(),
    waiting_since timestamptz not null default now(),    -- to be launched
    not_before  timestamptz not null default now(),      -- infinity: an operator has stopped it
    launched_at timestamptz,                             -- null: waiting
    launches    integer not null default 0,              -- runs that were asked for
    failures    integer not null default 0,              -- times that Prefect could not be asked
    last_error  text,
    flow_run_id uuid,                                    -- Prefect's answer; the last one's where it waits again
    -- One run does the small jobs of a customer, one after the other: the rows that it holds take one place.
    -- Work that is large, or has failed, has a run of its own.
    needs_own_run boolean not null default false,
    place       text generated always as (coalesce(flow_run_id::text, run_no::text)) stored,

    -- Its failures since it last made progress, which resets all of these. A run that was killed says nothing, and
    -- so changes nothing here.
    failing_since  timestamptz,                          -- the first failure in a row
    tries          integer not null default 0,           -- failures in a row
    reason         text,                                 -- the latest one's, as its customer may read it
    next_try_at    timestamptz,
    gives_up_at    timestamptz,                          -- a failure after this fails the job
    failure        text,                                 -- type and place of the latest error of ours
    equal_failures integer not null default 0,           -- runs in a row that ended by it
    unique (job_no, kind)
);

-- Whose turn is next, in the order of `take` in sql/runs.sql. Work that has failed waits beside the rest, and a
-- delivery, which ends a job, comes before a manifest.
create index runs_waiting
    on runs (customer_id, is_paused, num_nonnulls(failing_since), priority desc, (kind = 'process_job'), run_no)
    where launched_at is null;
create index runs_launched on runs (customer_id) where launched_at is not null;
-- What operators look at.
create index runs_to_show on runs (run_no) where launched_at is not null or failures > 0 or tries > 0;

-- Messages to Prefect that follow from a commit in this database. A row stays until Prefect is told.
create table outbox (
    outbox_no  bigint generated always as identity primary key,
    kind       text not null,                            -- cancel_job: stop its runs; job_event: for automations
    job_no     bigint not null references jobs,
    event      text,                                     -- refinery.job.…
    not_before timestamptz not null default now(),
    tries      integer not null default 0,
    last_error text,
    created_at timestamptz not null default now(),
    constraint outbox_kind_check
        check (kind in ('cancel_job', 'job_event') and (kind = 'job_event') = (event is not null))
);

create index outbox_due on outbox (not_before);
create index outbox_by_job on outbox (job_no);


---- 3. Its lines are read

-- A byte range of a manifest. Its row is written in the transaction that writes its tasks: a row says that the
-- chunk is committed, and its primary key lets only one of two twins commit. The counters of its tasks change in
-- the statement that changes a task.
create table chunks (
    job_no       bigint not null,
    chunk_no     integer not null,
    lines        bigint not null,                        -- blank ones too
    tasks        bigint not null,                        -- good lines
    bad_lines    bigint not null,
    bad_codes    jsonb not null default '{}',            -- bad lines by code: {"malformed_json": 3}
    -- The ledger: counts of the raw bytes that were read, to be compared with those of its lines.
    blank_lines  bigint not null default 0,
    read_bytes   bigint not null default 0,              -- of the chunk's range, whatever lines it has
    begun_lines  bigint not null default 0,              -- lines that begin there, by their line feeds
    inline_bytes bigint not null default 0,              -- URLs and metadata of inline tasks, for the quota
    settled      bigint not null default 0,
    failed       bigint not null default 0,
    archived     bigint not null default 0,              -- its first tasks, whose labels are in archived_labels
    created_at   timestamptz not null default now(),
    primary key (job_no, chunk_no)
) with (fillfactor = 50);

-- Good lines: up to 256 tasks, compressed by blocks/lines/pages.py. Written once and never updated: the state of a
-- task is in tallies. A task has no row: it is its number, which is (chunk, ordinal among the chunk's good lines), see
-- task_no(). It exists if its ordinal is less than chunks.tasks.
create table pages (
    job_no        bigint not null,
    first_task    bigint not null,                       -- the number of its first task
    tasks         integer not null,
    content       bytea storage external not null,
    primary key (job_no, first_task)
);

-- Tasks whose answer is known. To annotators they are like any other; they are handed out apart from the cursors, to
-- as many as come, and no label settles them: they count as settled once their chunk is committed.
create table gold_tasks (
    job_no        bigint not null,
    task_no       bigint not null,
    option        smallint not null,                     -- the right one, 1-based
    primary key (job_no, task_no)
);

-- The gold tasks that each annotator was handed. Nobody is handed one twice, and no others take their labels.
create table gold_shown (
    job_no        bigint not null,
    task_no       bigint not null,
    annotator_no  integer not null,
    primary key (job_no, task_no, annotator_no)
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

-- Tasks without a manifest hang on a job that customers do not see and that never ends: one for each customer,
-- question and rule. Its one chunk grows.
create table inline_tasks (
    job_no          bigint not null,
    task_no         bigint not null,
    customer_id     text not null references customers,
    batch_id        text,                                -- bat_…
    callback_url    text,
    idempotency_key text,
    body_hash       bytea,                               -- SHA-256 of the request, where it has a key
    created_at      timestamptz not null default now(),
    primary key (job_no, task_no)
);

create unique index inline_tasks_by_key on inline_tasks (customer_id, idempotency_key)
    where idempotency_key is not null;
create index inline_tasks_by_callback on inline_tasks (customer_id, hashtextextended(callback_url, 0))
    where callback_url is not null;


---- 4. Its tasks are labelled (docs/annotation.md has an example)

-- How far the tasks of a chunk were handed out. A chunk has as many cursors as its job collects labels for a task.
-- Each passes once over all tasks, in order, and belongs to one annotator at a time. An annotator without one takes
-- over the cursor that is furthest behind: every task before it was handed out often enough, and none after it to
-- them. So a claim is a range of tasks, and writes nothing for each. No task from the furthest cursor on was handed
-- out. A chunk has one row, which is deleted when all cursors are through.
-- Every claim updates it, and a transaction that stays open anywhere keeps all versions of it. So each version has a
-- greater number in the key, and the row is found by its greatest, without a look at the others.
create sequence lane_versions;

create table lanes (
    job_no      bigint not null,
    chunk_no    integer not null,
    version     bigint not null default nextval('lane_versions'),
    ends_at     bigint not null,                         -- the number after the last task's
    cursors     bigint[] not null,                       -- where each goes on
    annotators  integer[] not null,                      -- whose each is; 0: nobody's
    primary key (job_no, chunk_no, version)
);

-- The chunks that have a row in lanes. This one is never updated.
create table open_chunks (
    job_no      bigint not null,
    chunk_no    integer not null,
    primary key (job_no, chunk_no)
);

-- The tasks that a claim handed out, until all are labelled or the time is over: one row a claim, and not a task.
create table leases (
    lease_no     bigint generated always as identity primary key,
    job_no       bigint not null,
    annotator_no integer not null,
    task_nos     bigint[] not null,                      -- the tasks that are still held, in order
    expires_at   timestamptz not null,
    claimed_at   timestamptz default now(),              -- null: it holds labels that are being replaced, not a claim
    -- A claim whose answer was lost can be repeated with its key, as long as its leases last.
    claim_key    text,
    claim_digest bytea                                   -- SHA-256 of what was asked for
) with (fillfactor = 50);

create index leases_by_annotator on leases (annotator_no, job_no);
create index leases_by_expiry on leases (expires_at);

-- Open places on tasks that the cursors have passed: the holder let go of the task, or its labels are tied and one
-- more annotator is wanted. The row of a task that has ended, or needs no more labels, goes when it is looked at.
create table vacancies (
    job_no       bigint not null,
    vacancy_no   bigint generated always as identity,
    task_no      bigint not null,
    annotator_no integer,                                -- whose place it was; null: nobody's
    primary key (job_no, vacancy_no)
);

-- Every label that counts: all results can be computed again from these. One that its annotator replaces is deleted, and
-- the new one inserted. Those of jobs that are over are in archived_labels.
create table labels (
    job_no       bigint not null,
    task_no      bigint not null,
    annotator_no integer not null,
    option       smallint not null,                      -- 1-based index into the job's options
    skill        smallint,                               -- the annotator's at that time; null: the majority decides
    created_at   timestamptz not null default now(),
    primary key (job_no, task_no, annotator_no)
);

-- What is known of an annotator in one job, where something has to be: it weighs labels or has gold, or they may get no
-- more of it. Counts of gold are of labels that stand; comparisons with the results of tasks are made once, when those
-- settle.
create table job_annotators (
    job_no       bigint not null,
    annotator_no integer not null,
    gold_seen    integer not null default 0,             -- gold tasks that they have labelled
    gold_right   integer not null default 0,
    compared     integer not null default 0,             -- labels of theirs on settled tasks
    agreed       integer not null default 0,
    -- The sums of the customer's earlier jobs of the same question, when they came to this one.
    earlier_gold_seen  integer not null default 0,
    earlier_gold_right integer not null default 0,
    earlier_compared   integer not null default 0,
    earlier_agreed     integer not null default 0,
    tasks_given  bigint not null default 0,              -- by claims, with gold
    gold_given   integer not null default 0,
    gold_after   bigint not null default -1,             -- where the next gold task is looked for
    excluded_at  timestamptz,                            -- they get no more tasks, and their labels are refused
    excluded_for text check (excluded_for in ('min_accuracy', 'customer')),
    primary key (job_no, annotator_no)
);

create index job_annotators_by_annotator on job_annotators (annotator_no, job_no);
create index job_annotators_excluded on job_annotators (annotator_no, job_no) where excluded_at is not null;

-- Annotators whose labels in a job a customer has set aside: for each the last label that was looked at, in the order of
-- the key of `labels`. The job does not settle before it is done.
create table exclusions (
    job_no       bigint not null,
    annotator_no integer not null,
    writers      text[],                                 -- transactions that may write labels of theirs; null before any were noted
    last_task    bigint not null default -1,
    last_annotator integer not null default -1,
    labels_set_aside bigint not null default 0,
    tasks_reopened bigint not null default 0,            -- that had ended
    created_at   timestamptz not null default now(),
    done_at      timestamptz,
    primary key (job_no, annotator_no)
);

create index exclusions_under_way on exclusions (job_no, annotator_no) where done_at is null;

-- Labels that do not count any more, since their annotator was excluded.
create table labels_set_aside (
    job_no       bigint not null,
    task_no      bigint not null,
    annotator_no integer not null,
    option       smallint not null,
    skill        smallint,
    created_at   timestamptz not null,                   -- when it was handed in
    set_aside_at timestamptz not null default now(),
    primary key (job_no, task_no, annotator_no)
);

-- Tasks whose labels are still to be compared with their results, for the skills of a job without gold: a row for each
-- request that has settled some. So no request waits for another's annotators.
create table comparisons (
    comparison_no bigint generated always as identity primary key,
    job_no       bigint not null,
    task_nos     bigint[] not null
);

-- What each annotator has handed in lately, for their own history and counts: a row for each request and job. The labels
-- themselves are in labels, whose key does not lead from an annotator to them: an index there would cost every label.
-- Rows are only appended, so that the requests of an annotator do not wait for each other; the oldest of many are
-- folded into annotator_days and label_times, and the first that is left then is told how long its labels took.
create table label_batches (
    annotator_no integer not null,
    batch_no     bigint generated always as identity,
    job_no       bigint not null,
    settled      integer not null,                       -- how many of the tasks these labels have settled
    created_at   timestamptz not null default now(),
    -- How long the labels of the request took at most: the time since the first claim of their tasks, nor did they take
    -- longer than since the request before. null: no task was held.
    held_s       real,
    task_nos     bigint[] not null,                      -- of each label, in the order of the request
    primary key (annotator_no, batch_no)
);

-- Find how fast a job is being labelled, and how long its labels took.
create index label_batches_by_job on label_batches (job_no, created_at);

create table annotator_days (
    annotator_no integer not null,
    day          date not null,                          -- in UTC
    labels       bigint not null,
    settled      bigint not null,
    primary key (annotator_no, day)
);

-- How long the labels of folded requests took, by time_bucket(): so the median of a job does not change when they are
-- folded.
create table label_times (
    job_no       bigint not null,
    annotator_no integer not null,
    bucket       smallint not null,
    labels       bigint not null,
    primary key (job_no, annotator_no, bucket)
);

-- The votes of a task, from its first label on, and in the end its result. A task's state is:
--   pending      no row, and no lease
--   in_progress  a lease, or a row without an outcome, or one under review
--   settled      outcome > 0
--   failed       outcome <= 0, and not under review
-- A row without labels is of a task that was only skipped, or whose labels were withdrawn.
-- Updates are HOT: no column that changes is indexed, and each page has room for three versions of its rows, which
-- cursors that follow each other closely write before the first can be pruned.
create table tallies (
    job_no       bigint not null,
    task_no      bigint not null,
    labelled_at  timestamptz not null,                   -- the latest label; the end, where there is an outcome
    latest       smallint not null,                      -- the option of the latest label
    threshold    smallint not null,                      -- the job's
    -- Labels given, leases, open places, and cursors still to come; one more where the labels are tied and all
    -- places are taken.
    places       smallint not null,
    -- null: open; above 0: the option, 1-based; 0: no consensus; -1 to -3: skips, by the reason in `skips`;
    -- -9: under review, see reviews
    outcome      smallint,
    stop_early   boolean not null,                       -- the job's
    votes        smallint[] not null,                    -- labels for each option
    annotators   integer[] not null,                     -- whose labels they are
    skippers     integer[],                              -- who has skipped it; null: nobody
    gold         smallint,                               -- the right option; null: no gold, and labels settle it
    -- Of a job that weighs labels, else null.
    scores       integer[],                              -- of each option, in millionths of a nat
    target       smallint,                               -- the job's target_confidence
    labels_max   smallint,                               -- the job's
    primary key (job_no, task_no)
) with (fillfactor = 34);

-- Who will not label a task, and why. A skip does not count once its annotator has labelled the task after all. Rows
-- stay here when the job is over.
create table skips (
    job_no       bigint not null,
    task_no      bigint not null,
    annotator_no integer not null,
    reason       smallint not null check (reason between 1 and 3),  -- 1: unclear, 2: broken, 3: none_of_these
    note         text,
    created_at   timestamptz not null default now(),
    primary key (job_no, task_no, annotator_no)
);

-- Tasks that reviewers decide, a row each time that a task comes to its end by the rule and is held back. As long as the
-- row is open, the outcome in tallies is under_review(), and the task counts neither as settled nor as failed.
--   open → decided    a reviewer has decided: `decision` is the outcome
--   open → sent_back  a reviewer wants one more label
--   open → timed_out  nobody has decided in time: `decision` is what was proposed
--   open → dropped    the job was cancelled or has failed
-- Rows stay here when the job is over.
create table reviews (
    job_no       bigint not null,
    task_no      bigint not null,
    review_no    bigint generated always as identity,
    reason       text not null check (reason in ('no_consensus', 'low_confidence', 'sample', 'flagged')),
    proposed     smallint not null,                      -- the outcome by the rule
    state        text not null default 'open' check (state in ('open', 'decided', 'sent_back', 'timed_out', 'dropped')),
    decision     smallint,                               -- the outcome in the end
    created_at   timestamptz not null default now(),
    due_at       timestamptz not null,                   -- then `proposed` decides
    -- Who holds it, and until when; one that has run out may be handed to others.
    reviewer_no  integer,
    expires_at   timestamptz,
    claim_key    text,                                   -- as in leases
    claim_digest bytea,
    decided_by   integer,                                -- the annotator_no of a reviewer
    decided_at   timestamptz,
    primary key (job_no, task_no, review_no),
    constraint reviews_state check ((state = 'open') = (decided_at is null))
);

create index reviews_open on reviews (job_no, review_no) where state = 'open';
create index reviews_open_by_reason on reviews (job_no, reason, review_no) where state = 'open';
create index reviews_due on reviews (due_at) where state = 'open';
create index reviews_held on reviews (reviewer_no) where state = 'open' and reviewer_no is not null;

-- The audit of labels: one row for each that its annotator has replaced or withdrawn. Rows are only inserted, and stay
-- here when the job is over. Of a label that was never changed, `labels` says all.
create table label_changes (
    job_no       bigint not null,
    task_no      bigint not null,
    change_no    bigint generated always as identity,
    annotator_no integer not null,
    option       smallint not null,                      -- the label before
    labelled_at  timestamptz not null,                   -- when that was handed in
    new_option   smallint,                               -- the label after; null: withdrawn
    changed_at   timestamptz not null default now(),
    primary key (job_no, task_no, change_no)
);

-- When a job is over, its labels and tallies move here, page by page, compressed by blocks/lines/archived_labels.py.
-- A page whose tasks have no labels, and of which none failed by skips, has no row.
create table archived_labels (
    job_no       bigint not null,
    first_task   bigint not null,                        -- the page's
    content      bytea storage external not null,
    primary key (job_no, first_task)
);


---- 5. Its customer is told

-- What stands in the bucket of a job that was delivered, as its manifest.json lists it.
create table delivered_objects (
    job_no    bigint not null,
    object_no integer not null,                          -- from 1 on, in the order of manifest.json
    key       text not null,
    rows      bigint not null,
    bytes     bigint not null,
    sha256    bytea not null check (octet_length(sha256) = 32),
    primary key (job_no, object_no)
);

-- Endpoints: those that customers have registered, and those that their jobs and tasks name as their callback_url.
-- One URL is one row for both, so that it has one secret, one log and one switch.
create table webhooks (
    webhook_no      bigint generated always as identity primary key,
    webhook_id      text not null unique,                -- whk_…
    customer_id     text not null references customers,
    callback_url    text not null,
    registered      boolean not null,
    events          text[] not null,                     -- what it is told of all jobs and tasks
    secret          bytea,                               -- a sealed envelope; null: the customer's default one
    previous_secret bytea,                               -- signs beside it for a day after a rotation
    rotated_at      timestamptz,
    disabled_at     timestamptz,                         -- it answered 410 Gone; a new registration ends that
    resumes_at      timestamptz not null default now(),  -- it failed, and is left alone until then
    failures        integer not null default 0,          -- since it last succeeded
    created_at      timestamptz not null default now(),
    unique (customer_id, callback_url)
);

-- The secret of a customer's callback URLs that have none of their own.
create table webhook_defaults (
    customer_id     text primary key references customers,
    secret          bytea not null,
    previous_secret bytea,
    rotated_at      timestamptz
);

-- A message: one event for one endpoint. Its body says what was true at the event, and is the same at each attempt.
--   pending → delivered  the endpoint answered 2xx
--   pending → failed     three days are over, or the endpoint was switched off or deleted
--   any     → pending    it is replayed
create table notifications (
    notification_no bigint generated always as identity primary key,
    webhook_no      bigint not null references webhooks,
    job_no          bigint not null,                     -- what it is about
    message_id      text not null,                       -- msg_…, the webhook-id of every attempt
    event           text not null,
    body            text not null,
    status          text not null default 'pending' check (status in ('pending', 'delivered', 'failed')),
    attempts        integer not null default 0,
    not_before      timestamptz not null default now(),
    expires_at      timestamptz not null default now() + interval '3 days',
    created_at      timestamptz not null default now()
);

-- Find the endpoints that have something to be sent, and the first message of each.
create index notifications_due on notifications (webhook_no, not_before) where status = 'pending';
create index notifications_by_webhook on notifications (webhook_no, notification_no);
create index notifications_by_job on notifications (job_no, notification_no);
create unique index notifications_by_message on notifications (message_id);

-- The log of attempts: what was sent, and what came back.
create table notification_attempts (
    notification_no bigint not null references notifications on delete cascade,
    attempt         integer not null,                    -- 1-based
    attempted_at    timestamptz not null,
    duration_ms     integer not null,
    status_code     integer,                             -- null: there was no answer
    error           text,                                -- why it did not count as delivered
    response        text,                                -- the beginning of what was answered
    primary key (notification_no, attempt)
);


---- How it goes: counts and checks

-- Sums for Prometheus, kept as the amounts that were added to them: name and label are those of a series, and its
-- value is the sum over its rows. Rows are only appended, so that no commit waits for another, and housekeeping folds
-- them.
--   jobs          by status: how many have it now; +1 where a job comes to it, -1 where one leaves
--   deliveries    by how they ended, each try of one
--   lines         good ones and bad ones, not blank ones
--   bad_lines     by code
--   start_s       jobs by the seconds from their POST to the first line of their flow; the label is the least bound
--                 that they stayed within. Their sum is in start_s_sum
--   stream_manifests, stream_failures   by customer_id/stream: manifests that became jobs, and jobs of theirs that
--                 failed or could not be delivered, each try of one
create table counts (
    count_no bigint generated always as identity primary key,
    name     text not null,
    label    text not null default '',
    amount   numeric not null                            -- exact: a sum must not fall when rows are folded
);

-- `/health/ready` writes to any of these rows to see whether the database takes writes.
create table write_checks (
    slot       integer primary key,
    checked_at timestamptz not null default now()
) with (fillfactor = 50);

insert into write_checks (slot) select * from generate_series(0, 63);

-- When housekeeping and reconcile were done last, by whichever process. Until the first time, when this table was made.
create table passes (
    name     text primary key,                           -- housekeeping, reconcile
    ended_at timestamptz not null default now()
) with (fillfactor = 50);

insert into passes (name) values ('housekeeping'), ('reconcile');


---- Functions

-- Return the number of a task by its chunk and its ordinal, 0-based, among the chunk's good lines. Numbers are in the
-- order of the manifest. It and the next three have twins in blocks/domain/ids.py.
create function task_no(chunk_no integer, ordinal bigint) returns bigint
    language sql immutable parallel safe
    return (chunk_no::bigint << 32) + ordinal;

create function chunk_of(task_no bigint) returns integer
    language sql immutable parallel safe
    return (task_no >> 32)::integer;

-- Return the number in a task's id, which only the job's key turns into the task's own: a Feistel network of two halves
-- of 30 bits.
create function id_number(task_key bigint, task_no bigint) returns bigint
    language plpgsql immutable parallel safe as $$
declare
    bits  bigint := (1 << 30) - 1;
    words text := encode(sha512(int8send(task_key)), 'hex');
    a     bigint := task_no >> 30;
    b     bigint := task_no & bits;
    c     bigint;
    mixed bigint;
begin
    for n in 0 .. 5 loop
        mixed := b # (('x' || substr(words, 16 * n + 1, 8))::bit(32)::bigint & bits);
        mixed := mixed * (mixed # (('x' || substr(words, 16 * n + 9, 8))::bit(32)::bigint & bits));
        c := a # (mixed >> 15 & bits);
        a := b;
        b := c;
    end loop;
    return a << 30 | b;
end
$$;

-- Return the public id of a task.
create function task_id(job_id text, task_key bigint, task_no bigint) returns text
    language sql immutable parallel safe
    return 'tsk_' || substr(job_id, 5) || id_number(task_key, task_no);

-- Return the outcome of a task in tallies that waits for a reviewer. It has a twin in blocks/domain/model.py.
create function under_review() returns smallint
    language sql immutable parallel safe
    return -9::smallint;

-- The rules of consensus (docs/consensus.md), which blocks/domain/consensus.py has once more.

-- Return the option that a task settles on by its votes, 1-based; 0 where there is none after twice the threshold; null
-- while the task is open.
create function task_outcome(votes smallint[], threshold smallint, stop_early boolean)
    returns smallint language plpgsql immutable parallel safe as $$
declare
    total  integer := 0;
    top    integer := 0;
    second integer := 0;
    winner integer := 0;
begin
    for n in 1 .. cardinality(votes) loop
        total := total + votes[n];
        if votes[n] > top then
            second := top;
            top := votes[n];
            winner := n;
        elsif votes[n] > second then
            second := votes[n];
        end if;
    end loop;
    if (stop_early or total >= threshold) and top >= threshold / 2 + 1 and top > second then
        return winner;
    end if;
    return case when total >= 2 * threshold then 0 end;
end
$$;

-- Return the skill of an annotator in ten-thousandths: on gold in a job that has it, else by agreement.
create function skill(has_gold boolean, gold_right bigint, gold_seen bigint, agreed bigint, compared bigint)
    returns smallint language sql immutable parallel safe
    return least(9900, case
        when has_gold then (10000 * (2 * gold_right + 1) + 1 + gold_seen) / (2 * (1 + gold_seen))
        else (2 * 10000 * (32 + 10 * agreed) + 10 * (4 + compared)) / (20 * (4 + compared))
    end)::smallint;

-- Return what a label adds to the score of its option, in millionths of a nat, by its annotator's skill.
create function label_weight(skill smallint, options integer) returns integer
    language sql immutable parallel safe
    return case
        when skill * options <= 10000 then 0
        else floor(1e6::float8 * ln(skill::float8 * (options - 1) / (10000 - skill)) + 0.5)::integer
    end;

-- Return the option with the highest score, 1-based; the first of several.
create function likeliest(scores integer[]) returns smallint language plpgsql immutable parallel safe as $$
declare
    best smallint := 1;
begin
    for n in 2 .. cardinality(scores) loop
        if scores[n] > scores[best] then
            best := n;
        end if;
    end loop;
    return best;
end
$$;

-- Return the posterior of an option, 1-based, in ten-thousandths.
create function confidence_of(scores integer[], option smallint) returns smallint
    language plpgsql immutable parallel safe as $$
declare
    best  integer := scores[1];
    total float8 := 0;
    score integer;
begin
    foreach score in array scores loop
        if score > best then
            best := score;
        end if;
    end loop;
    -- What is less than this adds nothing to ten-thousandths, and an underflow is an error.
    if best - scores[option] >= 100000000 then
        return 0;
    end if;
    foreach score in array scores loop
        if best - score < 100000000 then
            total := total + exp((score - best) / 1e6::float8);
        end if;
    end loop;
    return floor(10000 * exp((scores[option] - best) / 1e6::float8) / total + 0.5);
end
$$;

-- Return how likely an option is by the labels of its task, 0 to 1: its posterior where labels are weighed, else its share of
-- the labels; 0 without any.
create function confidence_shown(scores integer[], votes smallint[], labels integer, option smallint) returns float8
    language sql immutable parallel safe
    return case when scores is not null then confidence_of(scores, option) / 10000::float8
                else coalesce(votes[option]::float8 / nullif(labels, 0), 0) end;

-- Return the option that a task settles on by its scores, 1-based; 0 where there is none after `labels_max` labels; null
-- while the task is open. `target` is the confidence that it has to reach, more than 5000.
create function weighted_outcome(
    scores integer[], labels integer, labels_min smallint, labels_max smallint, target smallint
) returns smallint language plpgsql immutable parallel safe as $$
declare
    best smallint;
begin
    if labels >= labels_min then
        best := likeliest(scores);
        if confidence_of(scores, best) >= target then
            return best;
        end if;
    end if;
    return case when labels >= labels_max then 0 end;
end
$$;

-- Return how many labels of one skill would settle a task, if all agreed.
create function labels_wanted(
    threshold smallint, stop_early boolean, target smallint, labels_max smallint, skill smallint, options integer
) returns integer language sql immutable parallel safe
    return case
        when target is null then case when stop_early then threshold / 2 + 1 else threshold end
        when label_weight(skill, options) = 0 then labels_max
        else least(labels_max, greatest(threshold, ceil(
            1e6::float8 * ln(target::float8 * (options - 1) / (10000 - target)) / label_weight(skill, options)
        )::integer))
    end;

-- Return an array of zeros with a number in one place of it, 1-based.
create function with_one(place smallint, number integer, size integer) returns integer[]
    language sql immutable parallel safe
    return array_fill(0, array[place - 1]) || number || array_fill(0, array[size - place]);

-- Return an array with a number added in one place of it, 1-based.
create function plus_at(numbers integer[], place smallint, number integer) returns integer[]
    language sql immutable parallel safe
    return numbers[:place - 1] || (numbers[place] + number) || numbers[place + 1:];

-- Return the number of the bucket that a time of so many seconds is in. Buckets are 5 % wide from a millisecond on: the
-- middle of bucket n is 1.05 ^ n seconds.
create function time_bucket(seconds float8) returns smallint
    language sql immutable parallel safe
    return round(ln(greatest(seconds, 0.001)) / ln(1.05::float8))::smallint;

-- Write a time by RFC 3339, in UTC with a Z.
create function rfc3339(t timestamptz) returns text
    language sql stable parallel safe
    return to_char(t at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"');

-- Return the place of the furthest cursor: no task from there on was handed out.
create function furthest(cursors bigint[]) returns bigint
    language sql immutable parallel safe
    return (select max(c) from unnest(cursors) c);

-- Make a public id that cannot be guessed.
create function random_id(prefix text) returns text
    language sql volatile
    return prefix || '_' || replace(gen_random_uuid()::text, '-', '');

-- Return the number of the endpoint that a customer's job or task names as its callback_url; add it if it is new.
create function webhook_named(customer text, url text) returns bigint language plpgsql as $$
declare
    found_no bigint;
begin
    loop
        -- Housekeeping deletes endpoints that nobody names; this one stays until the commit.
        select webhook_no into found_no from webhooks where customer_id = customer and callback_url = url
        for key share;
        if found then
            return found_no;
        end if;
        insert into webhooks (webhook_id, customer_id, callback_url, registered, events)
        values (random_id('whk'), customer, url, false, '{}')
        on conflict do nothing;
    end loop;
end
$$;

-- Return what is kept of a version of a manifest whose job was deleted: a SHA-256.
create function manifest_digest(manifest_url text, version text) returns bytea
    language sql immutable parallel safe
    return sha256(convert_to(version || E'\n' || manifest_url, 'UTF8'));

-- Delete up to so many rows of a job from a table, in the order of a column of it, from a value of that on; return how many,
-- and the last value. The table has an index by the job and this column. From where the last step has ended: else each step
-- would pass over the entries of all rows that the steps before it have deleted.
create function delete_some_of(
    job bigint, from_table regclass, key_column text, key_from bigint, rows_max integer,
    out deleted integer, out key_last bigint
) language plpgsql as $$
begin
    execute format(
        'with batch as materialized (
             select ctid, %1$I::bigint as key from %2$s where job_no = $1 and %1$I >= $2 order by %1$I limit $3
         ), gone as (
             delete from %2$s where ctid = any (array(select ctid from batch))
         )
         select count(*), max(key) from batch', key_column, from_table
    ) into deleted, key_last using job, key_from, rows_max;
end
$$;

-- Return the bounds of start_s. All have rows from the start, since a quantile needs bounds that do not come and go.
create function start_bounds() returns numeric[] language sql immutable parallel safe
    return array[0.5, 1, 1.5, 2, 3, 4, 6, 10, 30, 60, 120, 600, 3600];

insert into counts (name, label, amount)
select 'start_s', bound::text, 0 from unnest(start_bounds()) bound
union all
values ('start_s', '+Inf', 0), ('start_s_sum', '', 0);

create function count_start(seconds numeric) returns void language sql as $$
    insert into counts (name, label, amount)
    select 'start_s', coalesce(
        (select bound::text from unnest(start_bounds()) bound where seconds <= bound order by bound limit 1),
        '+Inf'), 1
    union all
    select 'start_s_sum', '', seconds
$$;


---- Triggers
--
-- When jobs.status, delivery_status or ingested_at changes, or a job with a manifest is inserted or deleted, four
-- things happen in the same commit:
--   1  jobs_keep_runs    it has a row in runs for each thing that Prefect has still to do, and for no other; the row
--                        follows the job's paused_at and priority, too
--   2  jobs_announce     its customer's webhooks are told of its new status
--   3  jobs_emit_event   Prefect's automations are told, by way of the outbox
--   4  jobs_count        the metrics follow; jobs_count_gone, where a job is deleted
-- None of them sees the jobs of inline tasks. Three wake those who wait for rows:
--   5  runs_notify            a run is wanted, or one has made room for another: channel outbox
--   6  outbox_notify          Prefect has to be told something: channel outbox
--   7  notifications_notify   an endpoint has to be told something: channel webhooks
-- And
--   8  api_keys_keep_active   annotators.is_active follows their keys
--   9  audit_log_is_kept      nobody changes a line of the audit log, or deletes a young one

create function keep_runs() returns trigger language plpgsql as $$
begin
    insert into runs (job_no, kind, customer_id, priority, is_paused)
    select new.job_no, wanted.kind, new.customer_id, new.priority, new.paused_at is not null
    from (values ('process_job', new.is_unread), ('deliver_job', new.is_undelivered)) wanted (kind, now)
    where wanted.now
    on conflict do nothing;
    if tg_op = 'UPDATE' then
        delete from runs
        where job_no = new.job_no
          and case kind when 'process_job' then not new.is_unread else not new.is_undelivered end;
        if new.paused_at is distinct from old.paused_at or new.priority <> old.priority then
            update runs set is_paused = new.paused_at is not null, priority = new.priority where job_no = new.job_no;
        end if;
    end if;
    return null;
end
$$;

create trigger jobs_keep_runs
    after insert or update of status, ingested_at, delivery_status, paused_at, priority on jobs
    for each row when (new.manifest_url is not null) execute function keep_runs();

-- Tell a job's own callback_url, and the endpoints that want to hear of all jobs.
create function announce_job() returns trigger language plpgsql as $$
declare
    named   bigint := case when new.callback_url is not null
                           then webhook_named(new.customer_id, new.callback_url) end;
    happened text  := 'job.' || new.status;
    counted record;
    content text;
begin
    if not exists (
        select from webhooks
        where customer_id = new.customer_id and disabled_at is null
          and (webhook_no = named or happened = any (events))
    ) then
        return null;
    end if;
    select coalesce(sum(c.tasks + c.bad_lines), 0)::bigint as total, coalesce(sum(c.settled), 0)::bigint as done,
           coalesce(sum(c.failed + c.bad_lines), 0)::bigint as failed
    into counted from chunks c where c.job_no = new.job_no;
    content := '{"type":' || to_json(happened)
        || ',"timestamp":' || to_json(rfc3339(now()))
        || ',"data":{"job_id":' || to_json(new.job_id)
        || ',"status":' || to_json(new.status)
        || ',"total_tasks":' || counted.total
        || ',"tasks_done":' || counted.done
        || ',"tasks_failed":' || case when new.status in ('failed', 'cancelled')
                                      then counted.total - counted.done else counted.failed end
        || ',"metadata":' || coalesce(new.metadata, 'null')
        || ',"error":' || coalesce(case when new.error_code is not null then json_build_object(
               'code', new.error_code, 'message', new.error_message)::text end, 'null')
        || ',"delivery":' || coalesce(case when new.delivery_type is not null then json_build_object(
               'type', new.delivery_type, 'bucket', new.delivery_bucket, 'prefix', new.delivery_prefix,
               'status', new.delivery_status, 'objects', new.delivery_objects,
               'code', new.delivery_error_code, 'message', new.delivery_error_message)::text end, 'null')
        || ',"created_at":' || to_json(rfc3339(new.created_at))
        || ',"completed_at":' || coalesce(to_json(rfc3339(new.completed_at))::text, 'null')
        || '}}';
    insert into notifications (webhook_no, job_no, message_id, event, body)
    select webhook_no, new.job_no, random_id('msg'), happened, content
    from webhooks w
    where w.customer_id = new.customer_id and w.disabled_at is null
      and (w.webhook_no = named or happened = any (w.events));
    return null;
end
$$;

create trigger jobs_announce after update of status on jobs
    for each row when (new.status <> old.status and new.manifest_url is not null)
    execute function announce_job();

-- Emit refinery.job.<status>, .delivered, .delivery-failed, and .internal-error where an error of ours ended it.
create function emit_job_event() returns trigger language plpgsql as $$
begin
    if tg_op = 'INSERT' or new.status <> old.status then
        insert into outbox (kind, job_no, event) values ('job_event', new.job_no, 'refinery.job.' || new.status);
    end if;
    if tg_op = 'UPDATE' and new.delivery_status is distinct from old.delivery_status
       and new.delivery_status in ('delivered', 'failed') then
        insert into outbox (kind, job_no, event)
        values ('job_event', new.job_no,
                'refinery.job.' || case new.delivery_status when 'failed' then 'delivery-failed' else 'delivered' end);
    end if;
    if tg_op = 'UPDATE'
       and ((new.status = 'failed' and old.status <> 'failed' and new.error_code = 'internal_error')
         or (new.delivery_status = 'failed' and old.delivery_status <> 'failed'
             and new.delivery_error_code = 'internal_error')) then
        insert into outbox (kind, job_no, event) values ('job_event', new.job_no, 'refinery.job.internal-error');
    end if;
    return null;
end
$$;

create trigger jobs_emit_event after insert or update of status, delivery_status on jobs
    for each row when (new.manifest_url is not null) execute function emit_job_event();

create function count_job() returns trigger language plpgsql as $$
begin
    if tg_op <> 'INSERT' and (tg_op = 'DELETE' or new.status <> old.status) then
        insert into counts (name, label, amount) values ('jobs', old.status, -1);
    end if;
    if tg_op = 'DELETE' then
        return null;
    end if;
    if tg_op = 'INSERT' or new.status <> old.status then
        insert into counts (name, label, amount) values ('jobs', new.status, 1);
    end if;
    if tg_op = 'UPDATE' and old.started_at is null and new.started_at is not null then
        perform count_start(extract(epoch from new.started_at - new.created_at));
    end if;
    if tg_op = 'UPDATE' and new.delivery_status is distinct from old.delivery_status
       and new.delivery_status in ('delivered', 'failed')
       and new.delivery_error_code is distinct from 'cancelled' then
        insert into counts (name, label, amount) values ('deliveries', new.delivery_status, 1);
    end if;
    if tg_op = 'UPDATE'
       and ((new.status = 'failed' and old.status <> 'failed')
         or (new.delivery_status = 'failed' and old.delivery_status is distinct from 'failed'
             and new.delivery_error_code is distinct from 'cancelled')) then
        insert into counts (name, label, amount)
        select 'stream_failures', customer_id || '/' || stream, 1 from stream_manifests where job_no = new.job_no;
    end if;
    return null;
end
$$;

create trigger jobs_count after insert or update of status, delivery_status on jobs
    for each row when (new.manifest_url is not null) execute function count_job();
create trigger jobs_count_gone after delete on jobs
    for each row when (old.manifest_url is not null) execute function count_job();

create function notify_outbox() returns trigger language plpgsql as $$
begin
    perform pg_notify('outbox', '');
    return null;
end
$$;

create trigger runs_notify after insert or delete on runs
    for each statement execute function notify_outbox();
create trigger outbox_notify after insert on outbox
    for each statement execute function notify_outbox();

create function notify_webhooks() returns trigger language plpgsql as $$
begin
    perform pg_notify('webhooks', '');
    return null;
end
$$;

create trigger notifications_notify after insert on notifications
    for each statement execute function notify_webhooks();

create function keep_annotator_active() returns trigger language plpgsql as $$
declare
    whose integer := coalesce(new.annotator_no, old.annotator_no); -- null for a customer's key
begin
    -- Where two keys are revoked at once, the second revocation waits here, and then sees the first.
    perform from annotators where annotator_no = whose for update;
    update annotators a
    set is_active = exists (
        select from api_keys k where k.annotator_no = a.annotator_no and k.revoked_at is null
    )
    where a.annotator_no = whose;
    return null;
end
$$;

create trigger api_keys_keep_active after insert or delete or update of revoked_at on api_keys
    for each row execute function keep_annotator_active();

-- Return for how long lines of the audit log are kept.
create function audit_kept() returns interval language sql immutable parallel safe
    return interval '400 days';

create function keep_audit_log() returns trigger language plpgsql as $$
begin
    if tg_op = 'DELETE' and old.at < now() - audit_kept() then
        return old;
    end if;
    raise exception using message = 'lines of audit_log are never changed, and kept for ' || audit_kept();
end
$$;

create trigger audit_log_is_kept before update or delete on audit_log
    for each row execute function keep_audit_log();
