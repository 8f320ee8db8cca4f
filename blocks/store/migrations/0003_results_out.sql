-- Webhooks; deliveries that are tried again, and their formats; cancelled jobs.

alter table jobs add column delivery_format text check (delivery_format in ('jsonl', 'parquet'));
update jobs set delivery_format = 'jsonl' where delivery_type is not null;

-- Newest first, by status: a status that a customer has few jobs of is found without reading the others.
create index jobs_by_status on jobs (customer_id, status, job_no) where manifest_url is not null;

alter table outbox drop constraint outbox_kind_check;
alter table outbox add constraint outbox_kind_check
    check (kind in ('process_job', 'deliver_job', 'cancel_job'));

-- Where notifications go: what customers have registered, and what their jobs and tasks name as their
-- callback_url. It is one row for both, so that its secret, its log and its being switched off are as well.
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

-- One event for one endpoint. Its body is what was true when it happened, and the same at every attempt.
--   pending → delivered  the endpoint answered 2xx
--   pending → failed     three days are over, or the endpoint was switched off or deleted
--   any     → pending    it is replayed
create table notifications (
    notification_no bigint generated always as identity primary key,
    webhook_no      bigint not null references webhooks,
    message_id      text not null,                       -- msg_…, the webhook-id of every attempt
    event           text not null,
    body            text not null,
    status          text not null default 'pending' check (status in ('pending', 'delivered', 'failed')),
    attempts        integer not null default 0,
    not_before      timestamptz not null default now(),
    expires_at      timestamptz not null default now() + interval '3 days',
    created_at      timestamptz not null default now()
);

create index notifications_due on notifications (webhook_no, not_before) where status = 'pending';
create index notifications_by_webhook on notifications (webhook_no, notification_no);
create unique index notifications_by_message on notifications (message_id);

-- The log: what was sent, and what came back.
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
