-- hold --
-- Find the newest migration and the oldest code that works with the schema. The lock, until the connection ends, tells
-- migrators which code is connected. This waits for a migrator that is about to shut older code out.
select max(name) as newest, (array_agg(version order by name desc))[1] as version,
       coalesce(max(oldest_code), 0) as oldest_code, pg_advisory_lock_shared(%(class)s, %(number)s)
from migrations;
