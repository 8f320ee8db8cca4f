-- set --
-- Set a new secret; the one before signs beside it for a day, where it is kept.
update webhooks
set previous_secret = case when %(keep_previous)s then secret end,
    rotated_at = case when %(keep_previous)s then now() end, secret = %(secret)s
where webhook_no = %(webhook_no)s;

-- add_default --
-- Add the secret of a customer's callback URLs that have none of their own, if there is none.
insert into webhook_defaults (customer_id, secret) values (%(customer_id)s, %(secret)s)
on conflict (customer_id) do nothing;

-- rotate_default --
insert into webhook_defaults as d (customer_id, secret) values (%(customer_id)s, %(secret)s)
on conflict (customer_id) do update
    set previous_secret = d.secret, rotated_at = now(), secret = excluded.secret;

-- find --
-- Find the secrets that sign for an endpoint: the current one, and for a day after a rotation the one before.
select w.webhook_id, w.customer_id, w.secret is not null as own,
       case when w.secret is not null then w.secret else d.secret end as secret,
       case when w.secret is not null
            then case when w.rotated_at > now() - interval '1 day' then w.previous_secret end
            else case when d.rotated_at > now() - interval '1 day' then d.previous_secret end
       end as previous_secret
from webhooks w left join webhook_defaults d using (customer_id)
where w.webhook_no = %(webhook_no)s;

-- list --
-- List a batch of endpoints with secrets, for a rotation of the key.
select webhook_no as no, webhook_id as id, secret, previous_secret from webhooks
where secret is not null and webhook_no > %(after)s order by webhook_no limit 500;

-- reseal --
update webhooks set secret = %(secret)s, previous_secret = %(previous_secret)s
where webhook_no = %(no)s and secret = %(old)s;

-- list_defaults --
select customer_id as id, secret, previous_secret from webhook_defaults for update;

-- reseal_default --
update webhook_defaults set secret = %(secret)s, previous_secret = %(previous_secret)s
where customer_id = %(id)s;
