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

-- Which endpoints have something to be sent, and what of each comes first.
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

create function notify_webhooks() returns trigger language plpgsql as $$
begin
    perform pg_notify('webhooks', '');
    return null;
end
$$;

create trigger notifications_notify after insert on notifications
    for each statement execute function notify_webhooks();

create function random_id(prefix text) returns text
    language sql volatile
    return prefix || '_' || replace(gen_random_uuid()::text, '-', '');

-- The endpoint that a customer's job or task names as its callback_url; a new row if nobody named it before.
create function webhook_named(customer text, url text) returns bigint language plpgsql as $$
declare
    found_no bigint;
begin
    loop
        select webhook_no into found_no from webhooks where customer_id = customer and callback_url = url;
        if found then
            return found_no;
        end if;
        insert into webhooks (webhook_id, customer_id, callback_url, registered, events)
        values (random_id('whk'), customer, url, false, '{}')
        on conflict do nothing;
    end loop;
end
$$;

-- Whatever changes a job's status, its customer is told in the same commit: at the job's own callback_url, and
-- wherever he wants to hear of all jobs.
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
    insert into notifications (webhook_no, message_id, event, body)
    select webhook_no, random_id('msg'), happened, content
    from webhooks w
    where w.customer_id = new.customer_id and w.disabled_at is null
      and (w.webhook_no = named or happened = any (w.events));
    return null;
end
$$;

create trigger jobs_announce after update of status on jobs
    for each row when (new.status <> old.status and new.manifest_url is not null)
    execute function announce_job();
