-- One run of Prefect does the work of many small jobs of a customer, one after the other: each row that it holds is
-- launched and has its `flow_run_id`, and all of them take one place. What is large or has failed has a run of its own.
alter table runs add column needs_own_run boolean not null default false;
alter table runs add column place text generated always as (coalesce(flow_run_id::text, run_no::text)) stored;
