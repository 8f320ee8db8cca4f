-- measure --
-- Return the rows, by the statistics, and the bytes of some tables, with what is stored beside their rows (TOAST). A table
-- that was never analyzed (-1) has the rows that were counted as they came.
select coalesce(sum(case when c.reltuples < 0 then pg_stat_get_live_tuples(c.oid) else c.reltuples end), 0)::bigint as rows,
       coalesce(sum(pg_table_size(c.oid)), 0)::bigint as table_bytes,
       coalesce(sum(pg_indexes_size(c.oid)), 0)::bigint as index_bytes
from pg_class c where c.oid = any (%(tables)s::text[]::regclass[]);

-- count_lines --
select coalesce(sum(tasks + bad_lines), 0)::bigint as lines from chunks;
