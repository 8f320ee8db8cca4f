-- What `/health/ready` writes to see that the database takes writes. Any of its rows will do.
create table write_checks (
    slot       integer primary key,
    checked_at timestamptz not null default now()
) with (fillfactor = 50);

insert into write_checks (slot) select * from generate_series(0, 63);
