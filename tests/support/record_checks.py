"""What annotators were told, against what the database says: only what is certain of either."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from blocks.domain.consensus import majority_outcome
from tests.support.books import Job
from tests.support.records import Grant, Record, Vote

# Of each task with labels: who chose which option, in the order in which the labels were counted.
Ballots = Mapping[str, Mapping[int, str]]


def check_votes(record: Record, ballots: Ballots) -> None:
    """Every label that was taken is recorded once as it was sent, and nothing else is recorded."""
    sent: dict[tuple[str, int], list[Vote]] = defaultdict(list)
    for vote in record.votes:
        sent[vote.task_id, vote.annotator_no].append(vote)
        outcomes = {None, "accepted", "settled", "duplicate", "already_settled"}
        assert vote.outcome in outcomes, vote
    recorded = {(task, who) for task, ballot in ballots.items() for who in ballot}
    assert recorded <= sent.keys(), "labels that nobody sent"
    for (task_id, annotator_no), votes in sent.items():
        option = ballots.get(task_id, {}).get(annotator_no)
        taken = [vote.option for vote in votes if vote.counted]
        unanswered = {vote.option for vote in votes if vote.outcome is None}
        assert len(taken) <= 1, f"taken twice: {votes}"
        if taken:
            assert option == taken[0], f"{option} is recorded of {votes}"
        elif option is not None:
            assert option in unanswered, f"{option} is recorded of {votes}"
        outcomes = {vote.outcome for vote in votes}
        # A task that has ended takes no label any more, and a label is there before its twin is refused.
        assert option is None or "already_settled" not in outcomes, votes
        assert option is not None or "duplicate" not in outcomes, votes


def check_settled(record: Record, ballots: Ballots, jobs: Mapping[str, Job]) -> None:
    """Each task ended with the label that decided it, and only who sent that one was told so."""
    told = record.by_task()
    for task_id, ballot in ballots.items():
        job = jobs[task_id]
        votes = [0] * len(job.options)
        for number, option in enumerate(ballot.values(), 1):
            votes[job.options.index(option)] += 1
            assert (decided(job, votes) is not None) == (number == len(ballot)), (
                f"{task_id}: {ballot}"
            )
        settled = bool(decided(job, votes))
        decider = list(ballot)[-1]
        deciding = [vote for vote in told[task_id].votes if vote.annotator_no == decider]
        answered = any(vote.counted for vote in deciding)
        expected = [decider] if settled and answered else []
        found = [v.annotator_no for v in told[task_id].votes if v.outcome == "settled"]
        assert found == expected, f"{task_id}: settled by {decider}, told {found}"


def decided(job: Job, votes: Sequence[int]) -> int | None:
    """The outcome of a task with these votes: None if it takes more."""
    return majority_outcome(votes, job.consensus_threshold, stop_early=job.stop_early)


@dataclass(frozen=True)
class Place:
    """A time for which an annotator takes one of a task's places for certain: they hold or have labelled it."""

    annotator_no: int
    start: float
    end: float

    def covers(self, grant: Grant) -> bool:
        """All of the time in which the task may have been handed out."""
        return self.start <= grant.sent and grant.answered < self.end


def check_grants(record: Record, ballots: Ballots, jobs: Mapping[str, Job]) -> int:
    """Nobody was handed what they held or had labelled, or what had as many annotators as it needed.

    At the moment of a grant a task has, with the new holder, at most as many labels and holders as
    its threshold, or one more than it has labels by then. Of its places only those count that were
    taken all the time from the claim to its answer, so that a place that came free or was taken in
    between, by a lease that ran out or a label under way, is never held against it. And of the
    labels all those count that may have been there.

    Returns how many grants took the last place: one more annotator would have been seen there.
    """
    at_the_limit = 0
    for task_id, told in record.by_task().items():
        threshold = jobs[task_id].consensus_threshold
        places = certain_places(told)
        labelled_from = first_sent(told, ballots.get(task_id, {}))
        # Once each of its labels was answered, the last one was, and that ended it.
        known = {place.annotator_no: place.start for place in places if place.end == math.inf}
        over = max(known.get(who, math.inf) for who in ballots[task_id])
        for grant in told.grants:
            others = {place.annotator_no for place in places if place.covers(grant)}
            labels = sum(sent < grant.answered for sent in labelled_from)
            wanted = max(threshold, labels + 1)
            assert grant.annotator_no not in others, f"handed out again: {grant}"
            assert len(others) < wanted, f"{len(others)} of {wanted} were at it: {grant}"
            assert grant.sent < over, f"handed out after its end: {grant}"
            at_the_limit += len(others) + 1 == wanted
    return at_the_limit


def certain_places(told: Record) -> list[Place]:
    """Of one task. A label that was sent ends no hold: it takes the same place, once it is there."""
    places = [
        Place(vote.annotator_no, vote.answered, math.inf) for vote in told.votes if vote.is_there
    ]
    for grant in told.grants:
        given_up = min(
            (
                release.sent
                for release in told.releases
                if release.annotator_no == grant.annotator_no and release.sent >= grant.answered
            ),
            default=math.inf,
        )
        end = min(grant.expires_at, given_up)
        places.append(Place(grant.annotator_no, grant.answered, end))
    return places


def first_sent(told: Record, ballot: Mapping[int, str]) -> list[float]:
    """Of each label that is recorded, the earliest time at which it can have been sent."""
    earliest: dict[int, float] = {}
    for vote in told.votes:
        if vote.annotator_no in ballot and (vote.counted or vote.outcome is None):
            known = earliest.get(vote.annotator_no, math.inf)
            earliest[vote.annotator_no] = min(known, vote.sent)
    return list(earliest.values())


def late_labels(record: Record) -> list[Vote]:
    """Labels that were taken although the annotator's time for the task was over."""
    held = {task_id: certain_places(told) for task_id, told in record.by_task().items()}
    return [
        vote
        for vote in record.votes
        if vote.counted
        and all(
            place.end < vote.sent
            for place in held[vote.task_id]
            if place.annotator_no == vote.annotator_no and place.start < vote.sent
        )
    ]
