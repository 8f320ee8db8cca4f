-- Work that ends a job comes before work that begins one; `take` in sql/runs.sql has the same order.
drop index runs_waiting;
create index runs_waiting on runs (customer_id, priority desc, (kind = 'process_job'), run_no) where launched_at is null;
