-- key --
select k.key_id, {customers.role} as role,
       coalesce(k.customer_id, a.annotator_id, k.key_id) as owner_id, k.customer_id,
       coalesce(k.key_name, a.name, k.admin_name) as name, a.customer_ids,
       k.prefix, k.created_at, k.last_used_at, k.revoked_at
from api_keys k left join annotators a using (annotator_no)

-- find --
{key}
where k.key_id = %(key_id)s;

-- list_all --
-- List keys of all owners, the newest first, from those before the key `after` on.
{key}
where %(after)s::text is null or (k.created_at, k.key_id) < (select created_at, key_id from api_keys where key_id = %(after)s)
order by k.created_at desc, k.key_id desc
limit %(limit)s;

-- list_of_customer --
-- The same for one customer's.
{key}
where k.customer_id = %(customer_id)s
  and (%(after)s::text is null
       or (k.created_at, k.key_id) < (select created_at, key_id from api_keys where key_id = %(after)s))
order by k.created_at desc, k.key_id desc
limit %(limit)s;

-- lock_customer --
-- Changes of one customer's keys take turns, so that two keys cannot revoke each other.
select from customers where customer_id = %(customer_id)s for no key update;

-- lock_asker --
-- Find the key that asks, unless it was revoked since the request was let in; it stays good to the end.
select from api_keys where key_hash = %(key_hash)s and revoked_at is null for share;

-- has_other --
-- Tell whether a customer has another good key.
select exists (
    select from api_keys where customer_id = %(customer_id)s and key_id <> %(key_id)s and revoked_at is null
) as has_other;

-- lock_answers --
-- Requests of one asker with idempotency keys take turns, so that none misses the answer of another.
select pg_advisory_xact_lock(%(lock)s, hashtext(%(asked_by)s));

-- find_answer --
select key_id, body_hash, sealed from new_key_answers
where asked_by = %(asked_by)s and key = %(key)s and created_at > now() - interval '24 hours';

-- record_answer --
-- An answer that is older than a day may still be there.
insert into new_key_answers (asked_by, key, body_hash, key_id, sealed)
values (%(asked_by)s, %(key)s, %(body_hash)s, %(key_id)s, %(sealed)s)
on conflict (asked_by, key) do update
    set body_hash = excluded.body_hash, key_id = excluded.key_id, sealed = excluded.sealed, created_at = now();

-- purge_answers --
delete from new_key_answers where (asked_by, key) in (
    select asked_by, key from new_key_answers where created_at < now() - interval '24 hours'
    order by created_at limit %(limit)s for update skip locked
);

-- note_use --
-- Whoever holds the row notes it, or the next request does.
update api_keys set last_used_at = now() where key_hash = any (array(
    select key_hash from api_keys where key_hash = %(key_hash)s for no key update skip locked
));
