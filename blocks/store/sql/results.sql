-- chunks --
-- List the committed chunks of a job, with how many lines come before each: null behind a chunk that is missing, where
-- that is not known.
select chunk_no, lines, tasks, settled, failed, created_at,
       case when row_number() over (order by chunk_no) - 1 = chunk_no
            then (sum(lines) over (order by chunk_no) - lines)::bigint end as lines_before
from chunks where job_no = %(job_no)s
order by chunk_no;

-- job --
select job_id, task_key, options, skips_max, status, has_review, target_confidence, has_gold, include_labels
from jobs where job_no = %(job_no)s;

-- bad_lines --
-- List bad lines in the order of the manifest, from after one on.
select byte_offset, chunk_no, line_in_chunk, code, message, substring(raw from 1 for %(raw_bytes_max)s) as raw
from bad_lines
where job_no = %(job_no)s and byte_offset > %(after)s
order by byte_offset
limit %(limit)s;
