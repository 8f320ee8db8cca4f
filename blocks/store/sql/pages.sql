-- copy --
copy pages (job_no, first_task, tasks, content) from stdin (format binary);

-- on_runs --
-- The pages that runs of tasks are on, each once.
place as materialized (
    select distinct i.job_no, p.first_task
    from unnest(%(job_nos)s::bigint[], %(firsts)s::bigint[], %(lasts)s::bigint[]) as i (job_no, first, last)
    cross join lateral (
        (select p.first_task from pages p where p.job_no = i.job_no and p.first_task <= i.first
         order by p.first_task desc limit 1)
        union all
        select p.first_task from pages p
        where p.job_no = i.job_no and p.first_task > i.first and p.first_task <= i.last
    ) p
), page as materialized (
    select p.job_no, p.first_task, p.tasks, p.content
    from place cross join lateral (
        select * from pages p where (p.job_no, p.first_task) = (place.job_no, place.first_task) offset 0
    ) p
);

-- find --
with {on_runs}
table page;

-- list --
-- List pages of a job in the order of the manifest, from the one that begins with a task on, up to a task.
select first_task, tasks, content from pages
where job_no = %(job_no)s and first_task >= %(from_task)s and first_task < %(until_task)s
order by first_task
limit %(limit)s;
