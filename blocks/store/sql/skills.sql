-- compare --
-- Compare labels with the results of their tasks, of some requests that settled tasks, and count for each annotator.
with taken as (
    delete from comparisons where comparison_no = any (array(
        select comparison_no from comparisons order by comparison_no limit %(limit)s for update skip locked
    ))
    returning job_no, task_nos
), task as materialized (
    select distinct t.job_no, u.task_no from taken t cross join unnest(t.task_nos) as u (task_no)
    where exists (select from jobs j where j.job_no = t.job_no)
), counted as materialized (
    select l.job_no, l.annotator_no, count(*) as compared, count(*) filter (where l.option = y.outcome) as agreed
    from task t
    cross join lateral (
        select outcome from tallies y where (y.job_no, y.task_no) = (t.job_no, t.task_no) and y.outcome > 0 offset 0
    ) y
    cross join lateral (
        select * from labels l where (l.job_no, l.task_no) = (t.job_no, t.task_no) offset 0
    ) l
    group by 1, 2
), recorded as (
    insert into job_annotators as a (job_no, annotator_no, compared, agreed)
    select job_no, annotator_no, compared, agreed from counted order by job_no, annotator_no
    on conflict (job_no, annotator_no) do update
    set compared = a.compared + excluded.compared, agreed = a.agreed + excluded.agreed
)
select count(*) as requests from taken;
