-- read --
-- Count the labels of each annotator of a job by how long they took, of folded requests and others. A request is timed by the
-- one before it, which may be of another job.
with b as materialized (
    select b.* from (select distinct annotator_no from label_batches where job_no = %(job_no)s) a cross join lateral (
        select * from label_batches b where b.annotator_no = a.annotator_no offset 0
    ) b
), request as materialized ({label_batches.seconds_of})
select annotator_no, bucket, sum(labels)::bigint as labels
from (
    select annotator_no, bucket, labels from label_times where job_no = %(job_no)s
    union all
    select annotator_no, time_bucket(seconds), labels from request where job_no = %(job_no)s
) t
group by 1, 2;
