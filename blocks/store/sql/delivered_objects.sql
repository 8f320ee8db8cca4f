-- record --
insert into delivered_objects (job_no, object_no, key, rows, bytes, sha256)
select %(job_no)s, o.object_no, o.key, o.rows, o.bytes, o.sha256
from unnest(%(keys)s::text[], %(rows)s::bigint[], %(bytes)s::bigint[], %(sha256)s::bytea[])
     with ordinality as o (key, rows, bytes, sha256, object_no);

-- list --
select object_no, key, rows, bytes, encode(sha256, 'hex') as sha256 from delivered_objects
where job_no = %(job_no)s and object_no > %(after)s
order by object_no limit %(limit)s;
