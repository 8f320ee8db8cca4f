-- recent --
-- Sum up the latest requests of a job: how many, the labels of those after the first, and the seconds since the first. They
-- go back to where all requests of their annotators are still there, as old ones are folded.
with request as materialized (
    select annotator_no, created_at, cardinality(task_nos) as labels from label_batches
    where job_no = %(job_no)s and created_at > now() - make_interval(secs => %(window_s)s)
    order by created_at desc limit %(requests_max)s
), kept as materialized (
    select max(first.created_at) as since
    from (select distinct annotator_no from request) a cross join lateral (
        select created_at from label_batches b where b.annotator_no = a.annotator_no order by batch_no limit 1
    ) first
    where exists (select from annotator_days d where d.annotator_no = a.annotator_no)
), bound as materialized (
    select greatest((select min(created_at) from request), kept.since) as since from kept
)
select count(request.created_at) as requests,
       coalesce(sum(request.labels) filter (where request.created_at > bound.since), 0)::bigint as labels,
       extract(epoch from now() - bound.since)::float8 as seconds
from bound left join request on request.created_at >= bound.since
group by bound.since;

-- progress --
-- Count the open tasks of a job, those of them under review, and the places on the others that nobody was handed: by
-- cursors to come, and by vacancies. Where a cursor will pass over tasks that it does not hand out, since they have ended,
-- are under review, or gold, the first of them are looked at; and the first vacancies, of which some are not wanted any more.
-- Also the labels of the ended among the first tasks that have any.
with lane as materialized (
    select l.cursors, l.ends_at, c.tasks - c.settled - c.failed as open, task_no(o.chunk_no, 0) as starts_at,
           (select min(at) from unnest(l.cursors) at) as goes_on_at, furthest(l.cursors) as fresh_from
    from open_chunks o cross join lateral ({annotation.lanes_of}) l
    join chunks c on (c.job_no, c.chunk_no) = (o.job_no, o.chunk_no)
    where o.job_no = %(job_no)s
), begun as materialized (
    select lane.*, cardinality(cursors) * ends_at - (select sum(at) from unnest(cursors) at) as passes
    from lane where fresh_from > starts_at order by starts_at limit %(chunks_max)s
), coming as (
    select cardinality(cursors) * open as places from lane where fresh_from = starts_at
    union all
    select greatest(0, least(cardinality(cursors) * open, begun.passes - ended.passes - gold.passes))
    from begun
    cross join lateral (
        select case when count(*) = %(sample_max)s
                    then (fresh_from - goes_on_at)::numeric / (max(task_no) + 1 - goes_on_at) else 1 end
               * coalesce(sum((select count(*) from unnest(cursors) at where at <= task_no))
                          filter (where outcome is not null), 0) as passes
        from (
            select task_no, outcome from tallies
            where job_no = %(job_no)s and task_no >= goes_on_at and task_no < fresh_from
            order by task_no limit %(sample_max)s
        ) y
    ) ended
    cross join lateral (
        select case when count(*) = %(sample_max)s
                    then (ends_at - goes_on_at)::numeric / (max(task_no) + 1 - goes_on_at) else 1 end
               * coalesce(sum((select count(*) from unnest(cursors) at where at <= task_no)), 0) as passes
        from (
            select task_no from gold_tasks
            where job_no = %(job_no)s and task_no >= goes_on_at and task_no < ends_at
            order by task_no limit %(sample_max)s
        ) g
    ) gold
), vacancy as materialized (
    select v.task_no, count(*) as places
    from (
        select task_no from vacancies where job_no = %(job_no)s order by vacancy_no limit %(sample_max)s
    ) v group by v.task_no
), wanted as (
    select coalesce(sum(v.places), 0) as looked_at,
           coalesce(sum(greatest(0, v.places - greatest(0, coalesce(y.places - {annotation.places_wanted}, 0))))
                    filter (where y.outcome is null and not exists (
                        select from gold_tasks g where (g.job_no, g.task_no) = (%(job_no)s, v.task_no)
                    )), 0) as places
    from vacancy v left join lateral (
        select * from tallies y where (y.job_no, y.task_no) = (%(job_no)s, v.task_no) offset 0
    ) y on true
)
select (select coalesce(sum(tasks - settled - failed), 0)::bigint from chunks where job_no = %(job_no)s) as open,
       (select count(*) from reviews where job_no = %(job_no)s and state = 'open') as under_review,
       (select coalesce(sum(places), 0)::float8 from coming) as coming,
       (select coalesce(places / nullif(looked_at, 0), 0)::float8 from wanted) * (
           select count(*) from (select from vacancies where job_no = %(job_no)s limit %(vacancies_max)s) v
       ) as vacant,
       y.sampled, y.labels
from (
    select count(*) as sampled, coalesce(sum(cardinality(annotators)), 0)::bigint as labels
    from (
        select outcome, annotators from tallies where job_no = %(job_no)s order by task_no limit %(sample_max)s
    ) y where outcome >= 0
) y;
