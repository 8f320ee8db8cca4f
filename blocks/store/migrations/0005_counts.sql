-- What Prometheus asks for every few seconds, at a price that does not depend on how many jobs there ever were.

-- Sums, kept as what was added to them: name and label are those of a series, and its value is the sum over its
-- rows. Rows are only appended, so nobody waits for another one's commit, and reconcile folds them.
--   jobs          by status: how many are in it now; +1 where a job comes to it, -1 where one leaves
--   deliveries    by how they ended, each try of one
--   lines         good ones and bad ones, not blank ones
--   bad_lines     by code
--   start_s       jobs by the seconds from their POST to the first line of their flow, the label being the least
--                 bound that they stayed within; and their sum in start_s_sum
create table counts (
    count_no bigint generated always as identity primary key,
    name     text not null,
    label    text not null default '',
    amount   numeric not null                            -- exact: a sum must not fall when rows are folded
);

create function start_bounds() returns numeric[] language sql immutable parallel safe
    return array[0.5, 1, 1.5, 2, 3, 4, 6, 10, 30, 60, 120, 600, 3600];

create function count_start(seconds numeric) returns void language sql as $$
    insert into counts (name, label, amount)
    select 'start_s', coalesce(
        (select bound::text from unnest(start_bounds()) bound where seconds <= bound order by bound limit 1),
        '+Inf'), 1
    union all
    select 'start_s_sum', '', seconds
$$;

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
    return null;
end
$$;

-- Inline tasks hang on jobs that nobody sees; those are not counted.
create trigger jobs_count after insert or update of status, delivery_status on jobs
    for each row when (new.manifest_url is not null) execute function count_job();
create trigger jobs_count_gone after delete on jobs
    for each row when (old.manifest_url is not null) execute function count_job();

insert into counts (name, label, amount)
-- All bounds are there from the start: a quantile is taken of bounds that do not come and go.
select 'start_s', bound::text, 0 from unnest(start_bounds()) bound
union all
values ('start_s', '+Inf', 0), ('start_s_sum', '', 0)
union all
select 'jobs', status, count(*) from jobs where manifest_url is not null group by status
union all
select 'deliveries', delivery_status, count(*) from jobs
where delivery_status in ('delivered', 'failed') and delivery_error_code is distinct from 'cancelled'
group by delivery_status
union all
select 'lines', '', coalesce(sum(c.tasks + c.bad_lines), 0)
from chunks c join jobs j using (job_no) where j.manifest_url is not null
union all
select 'bad_lines', code.key, sum(code.value::bigint)
from chunks cross join jsonb_each_text(bad_codes) code where bad_lines > 0 group by code.key;
