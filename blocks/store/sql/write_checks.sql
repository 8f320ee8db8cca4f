-- keep_little_in_memory --
-- So that the next statement writes a file.
set local work_mem = '64kB';

-- fill_a_file --
-- A disk may have no room for another page of a table, and yet take a row into one that is there.
select count(*) from generate_series(1, 10000);

-- write --
-- One of several rows, so that checks of several processes do not wait for each other.
update write_checks set checked_at = now() where slot = %(slot)s;
