-- insert_customer --
insert into customers (customer_id, name) values (%(customer_id)s, %(name)s);

-- insert_customer_key --
insert into api_keys (key_hash, customer_id)
select %(key_hash)s, customer_id from customers where customer_id = %(customer_id)s
returning customer_id;

-- insert_annotator --
-- The annotator of that name, made if there is none.
insert into annotators (annotator_id, name) values (%(annotator_id)s, %(name)s)
on conflict (name) do update set name = excluded.name
returning annotator_no, annotator_id;

-- insert_annotator_key --
insert into api_keys (key_hash, annotator_no) values (%(key_hash)s, %(annotator_no)s);

-- find_key --
-- Who a key belongs to, unless it was revoked.
select customer_id, annotator_no from api_keys
where key_hash = %(key_hash)s and revoked_at is null;

-- revoke_key --
update api_keys set revoked_at = now() where key_hash = %(key_hash)s and revoked_at is null
returning key_hash;
