-- name_endpoints --
-- Add the endpoints that inline tasks name as their callback_url. This is a statement of its own, so that the next one
-- sees them.
select webhook_named(customer_id, callback_url)
from (
    select distinct i.customer_id, i.callback_url
    from unnest(%(job_ids)s::text[], %(task_nos)s::bigint[]) as u (job_id, task_no)
    join jobs j on j.job_id = u.job_id
    cross join lateral (
        select * from inline_tasks i where (i.job_no, i.task_no) = (j.job_no, u.task_no) offset 0
    ) i
    where i.callback_url is not null
    order by i.customer_id, i.callback_url
) named;

-- announce_tasks --
-- Add a message for each settled task and each endpoint that wants to hear of it: those that are registered for it, and
-- the one that an inline task names. Metadata stays text, as reading it as JSON could fail.
with settled as materialized (
    select j.job_no, j.job_id, j.task_key, j.customer_id, j.options, j.manifest_url is null as inline,
           u.task_no, u.data_url, u.text, u.metadata, c.created_at as committed_at,
           i.created_at, i.batch_id, i.callback_url, y.outcome, y.votes, y.annotators, y.labelled_at, y.scores,
           case when j.has_review then exists (
               select from reviews r where (r.job_no, r.task_no) = (j.job_no, u.task_no)
                 and r.state = 'decided' and r.decision > 0
           ) end as is_reviewed
    from unnest(
        %(job_ids)s::text[], %(task_nos)s::bigint[], %(data_urls)s::text[], %(texts)s::text[], %(metadata)s::text[]
    ) as u (job_id, task_no, data_url, text, metadata)
    join jobs j on j.job_id = u.job_id
    cross join lateral (
        select * from tallies y where (y.job_no, y.task_no) = (j.job_no, u.task_no) offset 0
    ) y
    cross join lateral (
        select * from chunks c where (c.job_no, c.chunk_no) = (j.job_no, chunk_of(u.task_no)) offset 0
    ) c
    left join lateral (
        select * from inline_tasks i where (i.job_no, i.task_no) = (j.job_no, u.task_no) offset 0
    ) i on true
)
insert into notifications (webhook_no, job_no, message_id, event, body)
select w.webhook_no, s.job_no, random_id('msg'), 'task.settled',
    '{"type":"task.settled","timestamp":' || to_json(rfc3339(now()))
    || ',"data":{"task_id":' || to_json(task_id(s.job_id, s.task_key, s.task_no))
    || ',"job_id":' || case when s.inline then 'null' else to_json(s.job_id)::text end
    || ',"batch_id":' || coalesce(to_json(s.batch_id)::text, 'null')
    || ',"data_url":' || coalesce(to_json(s.data_url)::text, 'null')
    || coalesce(',"text":' || to_json(s.text)::text, '')
    || ',"metadata":' || coalesce(s.metadata, 'null')
    || ',"status":"settled","consensus_label":' || to_json(s.options[s.outcome])
    || coalesce(',"settled_by":' || case when s.is_reviewed then '"review"' when not s.is_reviewed then '"consensus"' end, '')
    || ',"confidence":' || confidence_shown(s.scores, s.votes, cardinality(s.annotators), s.outcome)
    || ',"worker_count":' || cardinality(s.annotators)
    || ',"agreement_count":' || s.votes[s.outcome]
    || ',"votes":{' || (
        select string_agg(to_json(o)::text || ':' || v, ',') from unnest(s.options, s.votes) as vote (o, v)
    ) || '},"created_at":' || to_json(rfc3339(coalesce(s.created_at, s.committed_at)))
    || ',"settled_at":' || to_json(rfc3339(s.labelled_at)) || '}}'
from settled s
join webhooks w on w.customer_id = s.customer_id and w.disabled_at is null
 and ('task.settled' = any (w.events) or w.callback_url = s.callback_url)
where s.outcome > 0;

-- is_kept --
-- True for a row n of `notifications` whose job was not deleted.
not exists (select from deleted_jobs d where d.job_no = n.job_no);

-- waiting --
-- Endpoints with messages that wait, going from one to the next by index, so that the length of their queues does not
-- matter; null after the last one.
waiting as (
    (select webhook_no from notifications
     where status = 'pending' and webhook_no > %(after)s order by webhook_no limit 1)
    union all
    select (select n.webhook_no from notifications n
            where n.status = 'pending' and n.webhook_no > waiting.webhook_no order by n.webhook_no limit 1)
    from waiting where waiting.webhook_no is not null
)

-- due_endpoints --
-- List endpoints that have something to be sent, some at a time.
with recursive {waiting}
select s.webhook_no, w.failures > 0 as failing,
       w.resumes_at <= now() and exists (
           select from notifications n
           where n.webhook_no = s.webhook_no and n.status = 'pending' and n.not_before <= now() and {is_kept}
       ) as is_due
from (select webhook_no from waiting where webhook_no is not null limit %(looks_max)s) s
join webhooks w using (webhook_no)
order by s.webhook_no;

-- claim --
-- Take the next messages of some endpoints; nobody else sends them for as long as an attempt may take. If the sender
-- dies, they become due again when the hold expires.
with due as materialized (
    select n.notification_no
    from unnest(%(webhook_nos)s::bigint[], %(limits)s::integer[]) as e (webhook_no, most)
    cross join lateral (
        select n.notification_no from notifications n
        where n.webhook_no = e.webhook_no and n.status = 'pending' and n.not_before <= now() and {is_kept}
        order by n.not_before limit e.most
        for update skip locked
    ) n
)
update notifications n
set not_before = now() + make_interval(secs => %(hold_s)s), attempts = n.attempts + 1
from due, webhooks w
where n.notification_no = due.notification_no and w.webhook_no = n.webhook_no
returning n.notification_no, n.webhook_no, n.message_id, n.event, n.body, n.attempts, n.created_at,
          n.expires_at, w.callback_url, w.failures,
          (select j.traceparent from jobs j where j.job_no = n.job_no) as traceparent;

-- log_attempt --
-- Log an attempt, unless the message was deleted with its job meanwhile.
insert into notification_attempts (
    notification_no, attempt, attempted_at, duration_ms, status_code, error, response
)
select notification_no, %(attempt)s, %(attempted_at)s::timestamptz, %(duration_ms)s, %(status_code)s::integer,
       %(error)s::text, %(response)s::text
from notifications where notification_no = %(notification_no)s for key share;

-- mark_delivered --
update notifications set status = 'delivered' where notification_no = %(notification_no)s;

-- mark_recovered --
update webhooks set failures = 0, resumes_at = now() where webhook_no = %(webhook_no)s and failures > 0;

-- pause_endpoint --
-- Leave an endpoint that has failed alone for a while.
update webhooks
set failures = failures + 1, resumes_at = now() + make_interval(secs => %(pause_s)s)
where webhook_no = %(webhook_no)s;

-- postpone --
-- Try a message again, unless its time would be over by then.
update notifications
set not_before = now() + make_interval(secs => %(delay_s)s),
    status = case when now() + make_interval(secs => %(delay_s)s) > expires_at then 'failed' else status end
where notification_no = %(notification_no)s and status = 'pending';

-- list --
-- List the log of an endpoint, newest first.
select n.notification_no, n.message_id, n.event, n.status, n.body, n.created_at,
       case when n.status = 'pending' then greatest(n.not_before, w.resumes_at) end as next_attempt_at,
       coalesce((
           select json_agg(json_build_object(
               'attempt', a.attempt, 'attempted_at', rfc3339(a.attempted_at),
               'duration_ms', a.duration_ms, 'status_code', a.status_code, 'error', a.error,
               'response', a.response) order by a.attempt)
           from notification_attempts a where a.notification_no = n.notification_no
       ), '[]') as attempts
from notifications n join webhooks w using (webhook_no)
where n.webhook_no = %(webhook_no)s and n.notification_no < %(before)s and {is_kept}
order by n.notification_no desc
limit %(limit)s;

-- find --
select n.notification_no, n.webhook_no
from notifications n join webhooks w using (webhook_no)
where n.message_id = %(message_id)s and (%(customer_id)s::text is null or w.customer_id = %(customer_id)s) and {is_kept};

-- resume_endpoint --
-- Try an endpoint at once; switch it on again if it was switched off.
update webhooks set resumes_at = now(), disabled_at = null where webhook_no = %(webhook_no)s returning customer_id;

-- replay --
-- Send a message again, at once, and for three days from now.
update notifications
set status = 'pending', not_before = now(), expires_at = now() + interval '3 days'
where notification_no = %(notification_no)s;

-- wake --
select pg_notify(%(channel)s, '');

-- expire --
-- Give messages up that have waited for three days to be tried, so that their time is over: an endpoint that fails is
-- tried with one message at a time, and may be told of more than that. One that does not fail is asked with each, also after
-- an outage of ours. The index has them in this order.
with recursive {waiting}, over as materialized (
    select n.notification_no
    from (select webhook_no from waiting where webhook_no is not null limit %(looks_max)s) s
    join webhooks w on w.webhook_no = s.webhook_no and w.failures > 0
    cross join lateral (
        select n.notification_no from notifications n
        where n.webhook_no = s.webhook_no and n.status = 'pending' and n.not_before < now() - interval '3 days'
        order by n.not_before limit %(limit)s
        for update skip locked
    ) n
    limit %(limit)s
)
update notifications set status = 'failed' where notification_no = any (array(select notification_no from over));

-- purge --
-- Delete old messages among those with the lowest numbers, which are the oldest; those that wait stay.
with oldest as (
    select notification_no, status, created_at from notifications order by notification_no limit %(limit)s
), old as (
    select n.notification_no from notifications n join oldest using (notification_no)
    where oldest.status <> 'pending' and oldest.created_at < now() - make_interval(days => %(days)s)
    for update of n skip locked
)
delete from notifications n using old where n.notification_no = old.notification_no;
