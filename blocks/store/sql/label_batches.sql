-- record --
-- Record a request: a row for each of its jobs. How long its labels took is found when somebody asks.
insert into label_batches (annotator_no, job_no, settled, held_s, task_nos)
select %(annotator_no)s, i.job_no, count(*) filter (where i.settled), %(held_s)s::real,
       array_agg(i.task_no order by i.n)
from unnest(%(job_nos)s::bigint[], %(task_nos)s::bigint[], %(settled)s::boolean[])
     with ordinality as i (job_no, task_no, settled, n)
group by i.job_no order by i.job_no;

-- seconds_of --
-- The rows b of some requests, with the seconds of one label: the time since the claim, or since the annotator's request
-- before, whichever is shorter, divided by the labels of the request.
select annotator_no, batch_no, job_no, created_at, cardinality(task_nos) as labels,
       greatest(least(held_s, extract(epoch from created_at - before)::real), 0) / labels_in_all as seconds
from (
    select b.*, first_value(created_at) over (
               partition by annotator_no order by created_at groups between 1 preceding and 1 preceding
           ) as before,
           sum(cardinality(task_nos)) over (partition by annotator_no, created_at) as labels_in_all
    from b
) b
where held_s is not null;

-- fold --
-- Fold the annotator's oldest batches into sums of days and of times, but for the latest ones. Two requests that fold at
-- once pass over each other's rows. The first row that is left loses the one before it, so its time is found now.
with b as materialized (
    select * from label_batches
    where annotator_no = %(annotator_no)s and batch_no <= (
        select batch_no from label_batches where annotator_no = %(annotator_no)s
        order by batch_no desc offset greatest(%(kept)s - 1, 0) limit 1
    )
), old as materialized (
    select annotator_no, batch_no from label_batches
    where annotator_no = %(annotator_no)s and batch_no <= (
        select batch_no from label_batches where annotator_no = %(annotator_no)s
        order by batch_no desc offset %(kept)s limit 1
    )
    order by batch_no limit %(limit)s
    for update skip locked
), request as materialized ({seconds_of}), gone as (
    delete from label_batches b using old
    where (b.annotator_no, b.batch_no) = (old.annotator_no, old.batch_no)
    returning b.batch_no, (b.created_at at time zone 'UTC')::date as day, cardinality(b.task_nos) as labels, b.settled
), times as (
    insert into label_times as t (job_no, annotator_no, bucket, labels)
    select job_no, %(annotator_no)s, time_bucket(seconds), sum(labels)
    from request where batch_no in (select batch_no from gone)
    group by 1, 3 order by 1, 3
    on conflict (job_no, annotator_no, bucket) do update set labels = t.labels + excluded.labels
), rest as materialized (
    select * from request where batch_no > (select max(batch_no) from old)
), first_left as materialized (
    select batch_no from label_batches
    where annotator_no = %(annotator_no)s
      and batch_no in (select batch_no from rest where created_at = (select min(created_at) from rest))
    for update skip locked
), told as (
    update label_batches l set held_s = f.seconds * f.labels_in_all
    from (select batch_no, seconds, sum(labels) over () as labels_in_all from rest join first_left using (batch_no)) f
    where (l.annotator_no, l.batch_no) = (%(annotator_no)s, f.batch_no)
)
insert into annotator_days as d (annotator_no, day, labels, settled)
select %(annotator_no)s, day, sum(labels), sum(settled) from gone group by day order by day
on conflict (annotator_no, day) do update
set labels = d.labels + excluded.labels, settled = d.settled + excluded.settled;

-- count --
-- Count the labels of the annotator, and the tasks that these have settled: in all, and of today.
select coalesce(sum(labels), 0)::bigint as labels, coalesce(sum(settled), 0)::bigint as settled,
       coalesce(sum(labels) filter (where is_today), 0)::bigint as labels_today,
       coalesce(sum(settled) filter (where is_today), 0)::bigint as settled_today
from (
    select labels, settled, day = (now() at time zone 'UTC')::date as is_today
    from annotator_days where annotator_no = %(annotator_no)s
    union all
    select cardinality(task_nos), settled,
           (created_at at time zone 'UTC')::date = (now() at time zone 'UTC')::date
    from label_batches where annotator_no = %(annotator_no)s
) part;

-- list_page --
-- List a page of the annotator's labels, the latest first, from before a place in a batch on. The label is null where
-- it is not in the table any more: it is archived, or was taken back.
select p.batch_no, p.n, p.job_no, p.task_no, p.created_at, j.job_id, j.task_key, j.options[l.option] as label
from (
    select b.batch_no, u.n, b.job_no, u.task_no, b.created_at
    from (
        select * from label_batches
        where annotator_no = %(annotator_no)s and batch_no <= %(before_batch)s
        order by batch_no desc limit %(limit)s + 1
    ) b
    cross join lateral unnest(b.task_nos) with ordinality as u (task_no, n)
    where (b.batch_no, u.n) < (%(before_batch)s, %(before_n)s)
    order by b.batch_no desc, u.n desc limit %(limit)s
) p
join jobs j using (job_no)
left join lateral (
    select option from labels l
    where (l.job_no, l.task_no, l.annotator_no) = (p.job_no, p.task_no, %(annotator_no)s) offset 0
) l on true
order by p.batch_no desc, p.n desc;

-- list_options --
select options from jobs where job_no = %(job_no)s;
