-- columns --
webhook_no, webhook_id, customer_id, callback_url, registered, events, disabled_at, created_at

-- register --
-- Register an endpoint of a customer. One that a job or a task has named before is registered now, and one that was
-- switched off is switched on again. One that is registered already stays as it is, and no row comes back.
insert into webhooks as w (webhook_id, customer_id, callback_url, registered, events, secret)
values (%(webhook_id)s, %(customer_id)s, %(callback_url)s, true, %(events)s, null)
on conflict (customer_id, callback_url) do update
    set registered = true, events = excluded.events, disabled_at = null, failures = 0, resumes_at = now()
    where not w.registered or w.disabled_at is not null
returning {columns};

-- is_listed --
-- Tell whether an endpoint is listed. One that is not registered is as long as its log has messages, or it is switched off:
-- nothing else is known of it.
(registered or %(everything)s and (
    disabled_at is not null or exists (select from notifications n where n.webhook_no = webhooks.webhook_no)
))

-- list --
-- List a page of a customer's endpoints, the oldest first.
select {columns}
from webhooks
where customer_id = %(customer_id)s and {is_listed} and webhook_no > %(after)s
order by webhook_no
limit %(limit)s;

-- list_of_all --
-- The same of all customers.
select {columns}
from webhooks
where {is_listed} and webhook_no > %(after)s
order by webhook_no
limit %(limit)s;

-- find --
-- Find an endpoint of a customer, and hold it, so that its changes take turns.
select {columns}
from webhooks
where webhook_id = %(webhook_id)s and (%(customer_id)s::text is null or customer_id = %(customer_id)s)
for no key update;

-- unregister --
-- Tell an endpoint nothing more but what jobs and tasks name it for. Here and elsewhere, a change of an endpoint and
-- its notifications locks the endpoint first.
update webhooks
set registered = false, events = '{}', secret = null, previous_secret = null, rotated_at = null
where webhook_no = %(webhook_no)s;

-- give_up --
-- Give up the messages that wait to be sent to an endpoint.
update notifications set status = 'failed' where webhook_no = %(webhook_no)s and status = 'pending';

-- switch_off --
-- Switch an endpoint off that has answered 410: it wants nothing more.
update webhooks set disabled_at = now() where webhook_no = %(webhook_no)s and disabled_at is null;
