-- Runs that are watched until their work is done; recurring manifests; what operators are told.

-- What Prefect has to do. A row stands as long as there is work: a manifest to be read, or results to be
-- delivered. So whoever dies on the way leaves it, and what has no live run is found by looking here.
--   waiting  → launched  its customer's turn has come, and a run was asked for
--   launched → waiting   the run ended without having done the work, or could not be had
--   any      → gone      the work is done, or the job has ended
create table runs (
    run_no      bigint generated always as identity primary key,
    job_no      bigint not null references jobs,
    kind        text not null check (kind in ('process_job', 'deliver_job')),
    customer_id text not null references customers,
    priority    smallint not null,                       -- the job's
    not_before  timestamptz not null default now(),      -- infinity: an operator has stopped it
    launched_at timestamptz,                             -- null: waiting
    flow_run_id uuid,                                    -- Prefect's answer; the last one's where it waits again
    launches    integer not null default 0,              -- runs that were asked for
    failures    integer not null default 0,              -- times that Prefect could not be asked
    last_error  text,
    created_at  timestamptz not null default now(),
    unique (job_no, kind)
);

-- Whose turn is next, and how much of whose is under way.
create index runs_waiting on runs (customer_id, priority desc, run_no) where launched_at is null;
create index runs_launched on runs (customer_id) where launched_at is not null;

create function notify_outbox_of_run() returns trigger language plpgsql as $$
begin
    perform pg_notify('outbox', '');
    return null;
end
$$;

-- One that is gone makes room for another.
create trigger runs_notify after insert or delete on runs
    for each statement execute function notify_outbox_of_run();

-- Whatever changes a job cannot forget its runs.
create function keep_runs() returns trigger language plpgsql as $$
declare
    unread      boolean := new.status in ('accepted', 'processing') and new.ingested_at is null;
    undelivered boolean := coalesce(new.delivery_status in ('pending', 'delivering'), false);
begin
    insert into runs (job_no, kind, customer_id, priority)
    select new.job_no, wanted.kind, new.customer_id, new.priority
    from (values ('process_job', unread), ('deliver_job', undelivered)) wanted (kind, now)
    where wanted.now
    on conflict do nothing;
    if tg_op = 'UPDATE' then
        delete from runs
        where job_no = new.job_no
          and case kind when 'process_job' then not unread else not undelivered end;
    end if;
    return null;
end
$$;

create trigger jobs_keep_runs after insert or update of status, ingested_at, delivery_status on jobs
    for each row when (new.manifest_url is not null) execute function keep_runs();

insert into runs (job_no, kind, customer_id, priority)
select job_no, 'process_job', customer_id, priority from jobs
where manifest_url is not null and status in ('accepted', 'processing') and ingested_at is null
union all
select job_no, 'deliver_job', customer_id, priority from jobs where delivery_status in ('pending', 'delivering');

-- Jobs that ought to have a run, for whoever looks whether they have.
create index jobs_unread on jobs (job_no)
    where manifest_url is not null and status in ('accepted', 'processing') and ingested_at is null;
create index jobs_undelivered on jobs (job_no) where delivery_status in ('pending', 'delivering');

-- The outbox keeps what is said once: stop the runs of a job, and events for Prefect's automations.
delete from outbox where kind in ('process_job', 'deliver_job');
alter table outbox drop constraint outbox_kind_check;
alter table outbox add column event text;                 -- refinery.job.…
alter table outbox add constraint outbox_kind_check
    check (kind in ('cancel_job', 'job_event') and (kind = 'job_event') = (event is not null));

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
    return null;
end
$$;

create trigger jobs_emit_event after insert or update of status, delivery_status on jobs
    for each row when (new.manifest_url is not null) execute function emit_job_event();

-- How many lines of a chunk are bad, by code: {"malformed_json": 3}.
alter table chunks add column bad_codes jsonb not null default '{}';
update chunks c set bad_codes = b.codes
from (
    select job_no, chunk_no, jsonb_object_agg(code, lines) as codes
    from (select job_no, chunk_no, code, count(*) as lines from bad_lines group by 1, 2, 3) counted
    group by job_no, chunk_no
) b
where (c.job_no, c.chunk_no) = (b.job_no, b.chunk_no);

-- An operator's credentials stay in a block of Prefect, and a job has its name: aws-credentials/etl.
alter table jobs add column credentials_block text;
alter table jobs add constraint jobs_credentials check (num_nonnulls(credentials, credentials_block) < 2);

-- Recurring ETL: a stream makes one job of each version of each manifest that it finds.
create table streams (
    customer_id text not null references customers,
    stream      text not null,
    started_at  timestamptz not null default now(),
    primary key (customer_id, stream)
);

create table stream_manifests (
    customer_id  text not null,
    stream       text not null,
    manifest_url text not null,
    version      text not null,                           -- an ETag, or a GCS generation
    job_no       bigint not null references jobs,
    created_at   timestamptz not null default now(),
    primary key (customer_id, stream, manifest_url, version),
    foreign key (customer_id, stream) references streams
);

-- What has run out is looked for by its age.
create index idempotency_keys_by_age on idempotency_keys (created_at);
