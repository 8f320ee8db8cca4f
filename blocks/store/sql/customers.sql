-- insert_customer --
insert into customers (customer_id, name) values (%(customer_id)s, %(name)s);

-- insert_customer_key --
insert into api_keys (key_hash, prefix, customer_id, key_name)
select %(key_hash)s, %(prefix)s, customer_id, %(key_name)s from customers where customer_id = %(customer_id)s
returning customer_id;

-- insert_annotator --
-- Return the annotator of that name; add one if there is none.
insert into annotators (annotator_id, name) values (%(annotator_id)s, %(name)s)
on conflict (name) do update set name = excluded.name
returning annotator_no, annotator_id;

-- insert_annotator_key --
insert into api_keys (key_hash, prefix, annotator_no, is_reviewer)
values (%(key_hash)s, %(prefix)s, %(annotator_no)s, %(is_reviewer)s);

-- insert_admin_key --
insert into api_keys (key_hash, prefix, admin_name) values (%(key_hash)s, %(prefix)s, %(admin_name)s);

-- principal --
-- Whose a key is, or a session that was begun with it.
k.customer_id, k.annotator_no, k.is_reviewer, case when k.admin_name is not null then k.key_id end as admin_key_id,
(select (c.limits ->> 'requests_per_minute')::bigint from customers c where c.customer_id = k.customer_id)
    as requests_per_minute_max,
(select (c.limits ->> 'body_bytes_per_minute')::bigint from customers c where c.customer_id = k.customer_id)
    as body_bytes_per_minute_max

-- find_key --
-- Return whose a key is, unless it was revoked.
select {principal}
from api_keys k
where key_hash = %(key_hash)s and revoked_at is null;

-- revoke_key --
-- Revoke a key, found by itself or by its id.
update api_keys set revoked_at = now()
where (key_hash = %(key_hash)s or key_id = %(key_id)s) and revoked_at is null
returning key_id, annotator_no, customer_id;

-- role --
-- What a key k may do.
case when k.admin_name is not null then 'admin' when k.is_reviewer then 'reviewer'
     when k.customer_id is null then 'annotator' else 'customer' end;

-- list_keys --
select k.key_id, {role} as kind,
       coalesce(k.customer_id, a.annotator_id, k.key_id) as owner_id, coalesce(c.name, a.name, k.admin_name) as name,
       a.customer_ids, k.key_name, k.created_at, k.last_used_at, k.revoked_at
from api_keys k
left join customers c using (customer_id)
left join annotators a using (annotator_no)
order by k.created_at, k.key_id;

-- list_customers --
select c.customer_id, c.name, c.created_at, coalesce(k.keys, 0) as keys
from customers c
left join (
    select customer_id, count(*) as keys from api_keys where revoked_at is null group by customer_id
) k using (customer_id)
order by c.created_at, c.customer_id;

-- get_limits --
select limits from customers where customer_id = %(customer_id)s;

-- lock_limits --
select limits from customers where customer_id = %(customer_id)s for no key update;

-- set_limits --
update customers set limits = %(limits)s::jsonb where customer_id = %(customer_id)s;

-- list_annotators --
select a.annotator_id, a.name, a.customer_ids, a.created_at,
       (select count(*) from api_keys k where k.annotator_no = a.annotator_no and k.revoked_at is null) as keys
from annotators a order by a.created_at, a.annotator_no;

-- find_annotator_names --
select annotator_id, name from annotators
where annotator_id = any (%(annotator_ids)s)
  and (%(shows_all)s or %(customer_id)s = any (customer_ids));

-- find_annotator --
-- Find an annotator by id or name, and lock the row, so that changes of whose tasks they are handed take turns.
select annotator_no, customer_ids from annotators
where annotator_id = %(annotator)s or name = %(annotator)s
order by annotator_id = %(annotator)s desc limit 1
for no key update;

-- unknown_customers --
select customer_id from unnest(%(customer_ids)s::text[]) as u (customer_id)
where not exists (select from customers c where c.customer_id = u.customer_id)
limit 1;

-- grant --
-- Hand the annotator the tasks of these customers too; if they were handed everybody's, of these alone.
update annotators
set customer_ids = array(select unnest(coalesce(customer_ids, '{}') || %(customer_ids)s::text[]) as c group by c order by c)
where annotator_no = %(annotator_no)s;

-- set_grants --
update annotators set customer_ids = %(customer_ids)s::text[] where annotator_no = %(annotator_no)s;

-- granted_customers --
select customer_ids from annotators where annotator_id = %(annotator_id)s;
