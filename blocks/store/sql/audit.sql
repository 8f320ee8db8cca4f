-- record --
-- Append a line. Of a key, this finds who has it and how they are called now.
insert into audit_log (actor_role, actor_id, actor_name, action, target_kind, target_id, customer_id, details)
select case when k.key_hash is null then %(role)s else {customers.role} end,
       coalesce(k.key_id, %(role)s), coalesce(k.admin_name, k.key_name, c.name, %(name)s),
       %(action)s, %(target_kind)s, %(target_id)s, %(customer_id)s, %(details)s::jsonb
from (select) once
left join api_keys k on k.key_hash = %(key_hash)s
left join customers c on c.customer_id = k.customer_id;

-- record_deletions --
-- Append a line for each of some jobs, by somebody without a key.
insert into audit_log (actor_role, actor_id, actor_name, action, target_kind, target_id, customer_id, details)
select %(role)s, %(role)s, %(name)s, %(action)s, 'job', j.job_id, j.customer_id,
       jsonb_build_object('older_than_days', %(older_than_days)s::int)
from jobs j where j.job_no = any (%(job_nos)s::bigint[]);

-- find --
-- Find the line that a page begins after.
select at, audit_no from audit_log
where audit_id = %(audit_id)s and (%(customer_id)s::text is null or customer_id = %(customer_id)s);

-- place --
a.at >= coalesce(%(since)s::timestamptz, '-infinity')
    and (a.at, a.audit_no) < (coalesce(%(before_at)s::timestamptz, 'infinity'), %(before_no)s::bigint)
    order by a.at desc, a.audit_no desc
    limit %(looked_max)s

-- chosen --
-- Of the lines that are looked at, return those that are asked for, with how many were looked at, and the last of those.
select found.*, total.looked, total.last_id
from (select count(*) as looked, (array_agg(l.audit_id order by l.at, l.audit_no))[1] as last_id from looked l) total
left join (
    select * from looked l
    where (%(customer_id)s::text is null or l.customer_id = %(customer_id)s)
      and (%(actor)s::text is null or l.actor_id = %(actor)s)
      and (%(action)s::text is null or l.action = %(action)s)
    order by l.at desc, l.audit_no desc
    limit %(limit)s
) found on true
order by found.at desc, found.audit_no desc;

-- list --
-- List the newest lines.
with looked as materialized (select a.* from audit_log a where {place})
{chosen};

-- list_by_target --
with looked as materialized (select a.* from audit_log a where a.target_id = %(target)s and {place})
{chosen};

-- list_by_actor --
with looked as materialized (select a.* from audit_log a where a.actor_id = %(actor)s and {place})
{chosen};

-- list_by_customer --
with looked as materialized (select a.* from audit_log a where a.customer_id = %(customer_id)s and {place})
{chosen};

-- list_by_action --
with looked as materialized (select a.* from audit_log a where a.action = %(action)s and {place})
{chosen};

-- purge --
delete from audit_log where audit_no in (
    select audit_no from audit_log where at < now() - audit_kept()
    order by at limit %(limit)s for update skip locked
);
