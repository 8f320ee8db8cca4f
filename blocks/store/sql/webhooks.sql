-- register --
-- A customer's endpoint. What a job or a task has named before is registered now; one that is registered
-- already stays as it is, and no row comes back. One that was switched off is switched on again.
insert into webhooks as w (webhook_id, customer_id, callback_url, registered, events, secret)
values (%(webhook_id)s, %(customer_id)s, %(callback_url)s, true, %(events)s, null)
on conflict (customer_id, callback_url) do update
    set registered = true, events = excluded.events, disabled_at = null, failures = 0, resumes_at = now()
    where not w.registered or w.disabled_at is not null
returning webhook_no, webhook_id, callback_url, registered, events, disabled_at, created_at;

-- list --
-- A page of a customer's endpoints, in the order of their making.
select webhook_no, webhook_id, callback_url, registered, events, disabled_at, created_at
from webhooks
where customer_id = %(customer_id)s and (registered or %(everything)s) and webhook_no > %(after)s
order by webhook_no
limit %(limit)s;

-- find --
-- One endpoint of a customer; it is held, so that its changes take turns.
select webhook_no, webhook_id, callback_url, registered, events, disabled_at, created_at
from webhooks where customer_id = %(customer_id)s and webhook_id = %(webhook_id)s
for no key update;

-- unregister --
-- It is told nothing more, but for what jobs and tasks name it for. Here and below, whoever changes an endpoint
-- and its notifications begins with the endpoint.
update webhooks
set registered = false, events = '{}', secret = null, previous_secret = null, rotated_at = null
where webhook_no = %(webhook_no)s;

-- give_up --
-- What waits to be sent to an endpoint is not sent any more.
update notifications set status = 'failed' where webhook_no = %(webhook_no)s and status = 'pending';

-- switch_off --
-- 410: the endpoint wants nothing more.
update webhooks set disabled_at = now() where webhook_no = %(webhook_no)s and disabled_at is null;
