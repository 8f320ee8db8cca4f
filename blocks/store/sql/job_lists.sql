-- list_jobs --
-- List a page of a customer's jobs, newest first, older than the one that the cursor names.
{jobs.job}
  and j.customer_id = %(customer_id)s and j.job_no < %(before)s
order by j.job_no desc
limit %(limit)s;

-- list_jobs_by_status --
-- The same for one status; a statement of its own uses the index of that.
{jobs.job}
  and j.customer_id = %(customer_id)s and j.status = %(status)s and j.job_no < %(before)s
order by j.job_no desc
limit %(limit)s;

-- list_jobs_of_all --
-- List a page of all customers' jobs.
{jobs.job}
  and j.job_no < %(before)s
order by j.job_no desc
limit %(limit)s;

-- list_jobs_by_status_of_all --
{jobs.job}
  and j.status = %(status)s and j.job_no < %(before)s
order by j.job_no desc
limit %(limit)s;

-- find_cursor --
select job_no from jobs
where job_id = %(job_id)s and (%(customer_id)s::text is null or customer_id = %(customer_id)s);

-- next_of_customer --
-- The next jobs of a customer, and what a search looks at of each.
select job_no, job_id, status, question, manifest_url from jobs
where customer_id = %(customer_id)s and job_no < %(before)s and manifest_url is not null
order by job_no desc limit %(searched_max)s;

-- next_of_all --
select job_no, job_id, status, question, manifest_url from jobs
where job_no < %(before)s and manifest_url is not null
order by job_no desc limit %(searched_max)s;

-- matching --
where (%(text)s::text is null
       or position(lower(%(text)s) in lower(concat_ws(' ', n.job_id, n.question, n.manifest_url))) > 0)
  and (%(stream)s::text is null or (  -- one look for each: what exists() asks may be hashed, with all streams in it
      select m.stream from stream_manifests m where m.job_no = n.job_no and m.stream = %(stream)s limit 1
  ) is not null)
  and (%(status)s::text is null or n.status = %(status)s)
order by n.job_no desc limit %(limit)s;

-- search --
-- Of the next jobs of a customer, list those in whose id, question or manifest a text stands, or that a stream has made.
{jobs.job}
  and j.job_no = any (array(select n.job_no from ({next_of_customer}) n {matching}))
order by j.job_no desc;

-- search_of_all --
{jobs.job}
  and j.job_no = any (array(select n.job_no from ({next_of_all}) n {matching}))
order by j.job_no desc;

-- last_searched --
-- Return the last of the jobs that a search looks at, if there are so many.
select (array_agg(n.job_id order by n.job_no))[1] as job_id from ({next_of_customer}) n having count(*) = %(searched_max)s;

-- last_searched_of_all --
select (array_agg(n.job_id order by n.job_no))[1] as job_id from ({next_of_all}) n having count(*) = %(searched_max)s;

-- list_followed --
-- List the newest jobs under way of some customers, those that a run of Prefect has in hand, and jobs that are named.
{jobs.job}
  and j.job_no = any (array(
      select u.job_no
      from unnest(%(customer_ids)s::text[]) c (customer_id)
      cross join (values ('accepted'), ('processing')) s (status)
      cross join lateral (
          select n.job_no from jobs n
          where n.customer_id = c.customer_id and n.status = s.status and n.manifest_url is not null
          order by n.job_no desc limit %(limit)s
      ) u
      union
      select l.job_no
      from unnest(%(customer_ids)s::text[]) c (customer_id)
      cross join lateral (
          select r.job_no from runs r
          where r.customer_id = c.customer_id and r.launched_at is not null
          limit %(limit)s
      ) l
      union
      select unnest(%(job_nos)s::bigint[])
  ))
order by j.job_no;

-- list_followed_of_all --
-- List what is under way of the newest jobs of all customers, what a run of Prefect has in hand, and jobs that are named.
{jobs.job}
  and j.job_no = any (array(
      select n.job_no
      from (
          select job_no, status from jobs where manifest_url is not null order by job_no desc limit %(searched_max)s
      ) n
      where n.status in ('accepted', 'processing')
      union
      select l.job_no from (select job_no from runs where launched_at is not null limit %(limit)s) l
      union
      select unnest(%(job_nos)s::bigint[])
  ))
order by j.job_no;

-- list_deleted --
select i.job_no from unnest(%(job_nos)s::bigint[]) as i (job_no)
where not exists (select from jobs j where j.job_no = i.job_no);
