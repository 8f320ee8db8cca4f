-- keep_little_in_memory --
-- Have the next statement write a file.
set local work_mem = '64kB';

-- fill_a_file --
-- A disk may have no room for another page of a table, and yet take a row into one that is there.
select count(*) from generate_series(1, 10000);

-- write --
-- Write one of several rows, so that the checks of several processes do not wait for each other.
update write_checks set checked_at = now() where slot = %(slot)s;
