-- record --
-- Record that a pass has ended. Of several that end at once, one records it, and none waits.
update passes set ended_at = now()
where name = (select name from passes where name = %(name)s for update skip locked);

-- read --
-- Return when each pass has ended last, in seconds of Unix time.
select name, extract(epoch from ended_at)::float8 as ended_at from passes order by name;
