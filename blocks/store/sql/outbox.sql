-- claim --
-- Take the next entries that are due, held for this transaction; other launchers pass over them.
select o.outbox_no, o.kind, o.event, o.tries, o.created_at, j.job_id, j.customer_id
from outbox o join jobs j using (job_no)
where o.not_before <= now()
order by o.not_before, o.outbox_no
limit %(limit)s
for update of o skip locked;

-- mark_done --
-- Delete an entry: Prefect was told.
delete from outbox where outbox_no = %(outbox_no)s;

-- postpone --
-- Make an entry due again later: it could not be said.
update outbox
set tries = tries + 1, last_error = %(error)s, not_before = now() + make_interval(secs => %(delay_s)s)
where outbox_no = %(outbox_no)s;

-- wake --
select pg_notify(%(channel)s, '');
