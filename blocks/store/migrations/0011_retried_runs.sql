-- Work that has failed before waits beside the other work of its customer; `take` in sql/runs.sql has the same order.
drop index runs_waiting;
create index runs_waiting
    on runs (customer_id, num_nonnulls(failing_since), priority desc, (kind = 'process_job'), run_no)
    where launched_at is null;
