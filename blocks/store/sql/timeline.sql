-- span_of_lines --
-- Return when the first and the last chunk of a job were recorded.
select min(created_at) as first_at, max(created_at) as last_at from chunks where job_no = %(job_no)s;

-- lines --
select to_timestamp(floor(extract(epoch from created_at) / %(step_s)s) * %(step_s)s) as at, sum(lines)::bigint as count
from chunks where job_no = %(job_no)s
group by 1 order by 1;

-- span_of_labels --
-- Return when the first of the latest requests with labels came, and the last.
select min(created_at) as first_at, max(created_at) as last_at
from (
    select created_at from label_batches where job_no = %(job_no)s order by created_at desc limit %(requests_max)s
) b;

-- labels --
select to_timestamp(floor(extract(epoch from created_at) / %(step_s)s) * %(step_s)s) as at,
       sum(cardinality(task_nos))::bigint as count
from (
    select created_at, task_nos from label_batches
    where job_no = %(job_no)s order by created_at desc limit %(requests_max)s
) b
group by 1 order by 1;
