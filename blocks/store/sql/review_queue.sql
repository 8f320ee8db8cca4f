-- is_sampled --
-- True for a row y of `tallies` that is in the sample of a job j. It depends on the task's number alone, so the same lines
-- are reviewed when a manifest is submitted again.
(mod(hashint8extended(y.task_no, 0) & 9223372036854775807, 10000) < j.review_share);

-- hold_back --
-- Put those of some tasks into the queue that have just ended, in this transaction, and that a reviewer is to decide. They
-- have not ended then: the counters of their chunks go back. The transaction holds the votes and the chunks already.
with ended as materialized (
    select y.job_no, y.task_no, y.outcome, j.review_deadline,
           j.target_confidence is not null and not j.has_gold as compares,
           case when y.outcome < 0 then case when j.review_flagged then 'flagged' end
                when y.outcome = 0 and j.review_no_consensus then 'no_consensus'
                when y.outcome > 0 and round((10000 * confidence_shown(y.scores, y.votes, cardinality(y.annotators), y.outcome))::numeric) < j.review_confidence_below
                    then 'low_confidence'
                when {is_sampled} then 'sample'
           end as reason
    from unnest(%(job_nos)s::bigint[], %(task_nos)s::bigint[]) as i (job_no, task_no)
    cross join lateral (select * from jobs j where j.job_no = i.job_no offset 0) j
    cross join lateral (
        select y.* from tallies y where (y.job_no, y.task_no) = (i.job_no, i.task_no) offset 0
    ) y
), queued as (
    insert into reviews (job_no, task_no, reason, proposed, due_at)
    select job_no, task_no, reason, outcome, now() + make_interval(secs => 3600 * review_deadline)
    from ended where reason is not null order by job_no, task_no
), held_back as (
    update tallies y
    set outcome = under_review(),
        places = case when ended.outcome < 0 then greatest(y.places, {annotation.places_wanted}) else y.places end
    from ended where (y.job_no, y.task_no) = (ended.job_no, ended.task_no) and ended.reason is not null
      and y.job_no = any (array(select job_no from ended)) and y.task_no = any (array(select task_no from ended))
), moved_back as (
    update chunks c set settled = c.settled - by_chunk.settled, failed = c.failed - by_chunk.failed
    from (
        select job_no, chunk_of(task_no) as chunk_no, count(*) filter (where outcome > 0) as settled,
               count(*) filter (where outcome <= 0) as failed
        from ended where reason is not null group by 1, 2
    ) by_chunk
    where (c.job_no, c.chunk_no) = (by_chunk.job_no, by_chunk.chunk_no)
), to_compare as (
    insert into comparisons (job_no, task_nos)
    select job_no, array_agg(task_no order by task_no) from ended
    where reason is null and outcome > 0 and compares group by job_no
)
select job_no, task_no, reason is null and outcome > 0 as settled from ended;

-- take_back --
-- Take back the reviews that a reviewer holds and may not decide any more.
with held as materialized (
    select r.job_no, r.task_no, r.review_no from reviews r
    where r.reviewer_no = %(annotator_no)s and r.state = 'open'
      and (not {annotation.has_key}
           or not exists (select from jobs where job_no = r.job_no and {annotation.for_annotator}))
    order by r.job_no, r.task_no
    for update
)
update reviews r set reviewer_no = null, expires_at = null, claim_key = null, claim_digest = null
from held where (r.job_no, r.task_no, r.review_no) = (held.job_no, held.task_no, held.review_no)
  and r.job_no = any (array(select job_no from held)) and r.task_no = any (array(select task_no from held));
