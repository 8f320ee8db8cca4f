-- A job says what it waits for, and what time does not mend has an end.

-- What a run's failures come to since it last got on. Progress sets all of it back; a run that was killed
-- says nothing, and so changes nothing here.
alter table runs add column failing_since  timestamptz;                 -- the first failure in a row
alter table runs add column tries          integer not null default 0;  -- failures in a row
alter table runs add column reason         text;                        -- the latest one's, as its customer may read it
alter table runs add column next_try_at    timestamptz;
alter table runs add column gives_up_at    timestamptz;                 -- what fails after this fails the job
alter table runs add column failure        text;                        -- type and place of the latest error of ours
alter table runs add column equal_failures integer not null default 0;  -- runs in a row that ended by it

-- Since when the work waits to be launched.
alter table runs add column waiting_since timestamptz not null default now();

-- Operators are told of errors of ours that ended a job or its delivery, by an event of their own.
create or replace function emit_job_event() returns trigger language plpgsql as $$
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
