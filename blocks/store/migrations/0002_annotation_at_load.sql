-- Tasks are handed out by lanes, and votes are counted in one row for each task, so that what a claim costs
-- depends neither on how many tasks are open nor on how many of them this annotator had. Inline tasks.

-- How far the tasks of a chunk were handed out. A chunk has as many lanes as its job has labels to collect.
-- Each lane passes once over all tasks, in order, and is one annotator's at a time. Who has none takes over
-- the lane that is furthest behind: every task before it was handed out often enough, and none after it to
-- him. So a claim is a range of tasks, and writes nothing for each. The row goes when all lanes are through.
create table lanes (
    job_no      bigint not null,
    chunk_no    integer not null,
    fresh_from  bigint not null,                         -- the furthest lane: nobody had a task from here on
    ends_at     bigint not null,                         -- the byte offset after the last task's
    offsets     bigint[] not null,                       -- where each lane goes on
    annotators  integer[] not null,                      -- whose lane it is; 0: nobody's
    primary key (job_no, chunk_no)
) with (fillfactor = 50);

-- Places on tasks that lanes have passed: their holder let go of them, or the labels are tied and one more
-- is asked for. A task that has ended, or needs no more labels by now, drops out when it is looked at.
create table vacancies (
    job_no       bigint not null,
    vacancy_no   bigint generated always as identity,
    byte_offset  bigint not null,
    annotator_no integer,                                -- whose place it was; null: nobody's
    primary key (job_no, vacancy_no)
);

-- What the labels of a task come to, from its first label on. No column that changes is indexed, and each page
-- has room for three versions of its rows, which lanes that follow each other closely write before the first can
-- be pruned; so updates are HOT. A row stays, and is the task's result in the end.
create table tallies (
    job_no       bigint not null,
    byte_offset  bigint not null,
    labelled_at  timestamptz not null,                   -- the latest label; the end, where there is an outcome
    chunk_no     integer not null,
    latest       smallint not null,                      -- the option of the latest label
    threshold    smallint not null,
    -- Labels, and places that somebody holds, a lane has not reached yet, or are vacant. One more is vacant
    -- than that where labels are tied and all places are taken.
    places       smallint not null,
    outcome      smallint,                               -- null: open; 0: no consensus; else the option, 1-based
    stop_early   boolean not null,
    votes        smallint[] not null,                    -- labels for each option
    annotators   integer[] not null,                     -- whose labels they are
    primary key (job_no, byte_offset)
) with (fillfactor = 34);

-- The option that a task settles on, 1-based; 0 where it has none after twice the threshold; null while it is
-- open. The twin of blocks.domain.model.decide and exhausted.
create function task_outcome(votes smallint[], threshold smallint, stop_early boolean)
    returns smallint language plpgsql immutable parallel safe as $$
declare
    total  integer := 0;
    top    integer := 0;
    second integer := 0;
    winner integer := 0;
begin
    for n in 1 .. cardinality(votes) loop
        total := total + votes[n];
        if votes[n] > top then
            second := top;
            top := votes[n];
            winner := n;
        elsif votes[n] > second then
            second := votes[n];
        end if;
    end loop;
    if (stop_early or total >= threshold) and top >= threshold / 2 + 1 and top > second then
        return winner;
    end if;
    return case when total >= 2 * threshold then 0 end;
end
$$;

-- What was being labelled goes over. Nobody's hold on a task is kept: its places become vacant.
insert into tallies (
    job_no, byte_offset, labelled_at, chunk_no, latest, threshold, places, outcome, stop_early, votes, annotators
)
select t.job_no, t.byte_offset, l.labelled_at, tasks.chunk_no, l.options[cardinality(l.options)],
       j.consensus_threshold, t.places, t.outcome, j.stop_early, t.votes, l.annotators
from (
    select job_no, byte_offset, labels as places, coalesce(consensus, 0) as outcome, votes from results
    union all
    select job_no, byte_offset, wanted, null, votes from open_tasks where labels > 0
) t
join jobs j using (job_no)
join tasks using (job_no, byte_offset)
join (
    select job_no, byte_offset, max(created_at) as labelled_at,
           array_agg(option order by created_at, annotator_no) as options,
           array_agg(annotator_no order by created_at, annotator_no) as annotators
    from labels group by job_no, byte_offset
) l using (job_no, byte_offset);

insert into vacancies (job_no, byte_offset)
select o.job_no, o.byte_offset
from open_tasks o join jobs j using (job_no) cross join generate_series(1, o.wanted - o.labels)
where j.status = 'processing'
order by o.job_no, o.byte_offset;

insert into lanes (job_no, chunk_no, fresh_from, ends_at, offsets, annotators)
select c.job_no, c.chunk_no, c.fresh_from, t.ends_at,
       array_fill(c.fresh_from, array[j.consensus_threshold::integer]),
       array_fill(0, array[j.consensus_threshold::integer])
from chunks c join jobs j using (job_no)
join (
    select job_no, chunk_no, max(byte_offset) + 1 as ends_at from tasks
    where job_no in (select job_no from jobs where status = 'processing')
    group by job_no, chunk_no
) t using (job_no, chunk_no)
where c.fresh > 0;

drop table open_tasks, results, leases;
drop function consensus_winner;
alter table chunks drop column fresh, drop column fresh_from;

-- What a claim handed out, until all of it is labelled or the time is over. One row for a claim and not for a
-- task, found by its annotator.
create table leases (
    lease_no     bigint generated always as identity primary key,
    job_no       bigint not null,
    annotator_no integer not null,
    first_offset bigint not null,
    last_offset  bigint not null,
    byte_offsets bigint[] not null,                      -- the tasks that are still held
    expires_at   timestamptz not null
) with (fillfactor = 50);

create index leases_by_annotator on leases (annotator_no, job_no);
create index leases_by_expiry on leases (expires_at);

-- Tasks that came one by one, and not by a manifest, hang on a job that nobody sees and that never ends: one
-- for each customer, question and rule. Its one chunk grows; a task's byte offset is its number in it.
alter table jobs alter column manifest_url drop not null;
alter table jobs add column inline_key bytea;             -- SHA-256 of the question and the rule
alter table jobs add constraint jobs_source check (num_nonnulls(manifest_url, inline_key) = 1);
create unique index jobs_inline on jobs (customer_id, inline_key) where inline_key is not null;

create table inline_tasks (
    job_no          bigint not null,
    byte_offset     bigint not null,
    customer_id     text not null references customers,
    batch_id        text,                                 -- bat_…
    callback_url    text,
    idempotency_key text,
    body_hash       bytea,                                -- SHA-256 of the request, where it has a key
    created_at      timestamptz not null default now(),
    primary key (job_no, byte_offset)
);

create unique index inline_tasks_by_key on inline_tasks (customer_id, idempotency_key)
    where idempotency_key is not null;
