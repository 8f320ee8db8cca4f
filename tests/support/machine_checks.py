"""What must hold of the store after every step of annotators and customers."""

from collections.abc import Sequence

from hypothesis.stateful import (
    invariant,
)

from blocks.domain.model import SkipReason
from tests.support.annotation_machine import OPTIONS, Steps
from tests.support.books import check_books
from tests.support.labelled_tasks import Job


class Checks(Steps):
    """What holds after every step, and what can be had from every state."""

    # What holds after every step

    @invariant()
    def agrees_with_the_model(self) -> None:
        self._check_leases()
        self._check_labels()
        self._check_skips_and_changes()
        self._check_reviews()
        for job in self.model.jobs.values():
            self._check_job(job)
            # Of a job that is over nothing changes any more.
            was_over = job.job_id in self.over
            self.over -= {job.job_id}
            if job.is_settled or not job.is_open:
                self.over.add(job.job_id)
            if not was_over or job.job_id not in self.over:
                check_books(self.world, job)
        self.is_sound = True

    def _check_leases(self) -> None:
        query = """
            select l.annotator_no, task_id(j.job_id, j.task_key, unnest(l.task_nos)) as id,
                   l.expires_at < now() as is_overdue
            from leases l join jobs j using (job_no)
        """
        held: dict[int, dict[str, bool]] = {annotator: {} for annotator in self.world.people}
        for row in self.world.run(query):
            assert row["id"] not in held[row["annotator_no"]], "held twice"
            held[row["annotator_no"]][row["id"]] = row["is_overdue"]
        assert held == self.model.held
        for task in self.model.tasks.values():
            holders = {annotator for annotator, tasks in held.items() if task.task_id in tasks}
            assert not holders & task.labels.keys(), "somebody holds what they have labelled"

    def _check_labels(self) -> None:
        query = """
            select task_id(j.job_id, j.task_key, l.task_no) as id, l.annotator_no, j.options[l.option] as option
            from labels l join jobs j using (job_no) where j.customer_id = %s
        """
        rows = self.world.run(query, self.world.customer_id)
        found = {(row["id"], row["annotator_no"]): row["option"] for row in rows}
        assert len(rows) == len(found)
        assert found == {
            (task.task_id, annotator): option
            for task in self.model.tasks.values()
            for annotator, option in task.labels.items()
        }

    def _check_skips_and_changes(self) -> None:
        query = """
            select task_id(j.job_id, j.task_key, s.task_no) as id, s.annotator_no, s.reason
            from skips s join jobs j using (job_no) where j.customer_id = %s
        """
        skips = {
            (row["id"], row["annotator_no"]): SkipReason.of_number(row["reason"])
            for row in self.world.run(query, self.world.customer_id)
        }
        assert skips == {
            (task.task_id, annotator): reason
            for task in self.model.tasks.values()
            for annotator, reason in task.skips.items()
        }
        query = """
            select task_id(j.job_id, j.task_key, c.task_no) as id, c.annotator_no, j.options[c.option] as option,
                   j.options[c.new_option] as new_option
            from label_changes c join jobs j using (job_no)
            where j.customer_id = %s order by c.change_no
        """
        found = [tuple(row.values()) for row in self.world.run(query, self.world.customer_id)]
        assert sorted(found, key=str) == sorted(self.model.changes, key=str)

    def _check_reviews(self) -> None:
        query = """
            select task_id(j.job_id, j.task_key, r.task_no) as id, r.reviewer_no, r.proposed
            from reviews r join jobs j using (job_no)
            where j.customer_id = %s and r.state = 'open' and j.status = 'processing'
        """
        found = {row["id"]: row for row in self.world.run(query, self.world.customer_id)}
        waiting = {
            task.task_id: task.proposed
            for task in self.model.tasks.values()
            if task.is_under_review and task.job.is_open
        }
        assert {id_: row["proposed"] for id_, row in found.items()} == waiting
        held = {id_: row["reviewer_no"] for id_, row in found.items() if row["reviewer_no"]}
        assert held == {id_: who for id_, who in self.model.reviewing.items() if id_ in waiting}

    def _check_job(self, job: Job) -> None:
        query = """
            select j.status, j.settled_at is not null as is_settled, coalesce(sum(c.tasks), 0) as tasks,
                   coalesce(sum(c.settled), 0) as settled, coalesce(sum(c.failed), 0) as failed,
                   (select count(*) from lanes l where l.job_no = j.job_no)
                   + (select count(*) from vacancies v where v.job_no = j.job_no) as to_be_had
            from jobs j left join chunks c using (job_no)
            where j.job_no = %s group by j.job_no
        """
        (row,) = self.world.run(query, job.job_no)
        outcomes = [task.outcome if task.has_ended else None for task in job.tasks]
        assert row["status"] == job.status
        assert row["is_settled"] == job.is_settled
        assert row["tasks"] == len(outcomes)
        assert row["settled"] == sum((outcome or 0) > 0 for outcome in outcomes)
        assert row["failed"] == sum(outcome is not None and outcome <= 0 for outcome in outcomes)
        if self.leaves_nothing and (job.is_settled or not job.is_open):
            assert row["to_be_had"] == 0

    # What can be had from every state

    def teardown(self) -> None:
        try:
            if self.is_sound:
                self._end_well()
        finally:
            self.world.end()

    def _end_well(self) -> None:
        for annotator in self.world.people:
            self._expire(annotator)
        self._return_leases()
        self._work(self.crew)
        self._check_that_nothing_is_left_to(self.crew)
        fresh = iter(self.fresh)
        while any(job.is_open and not job.has_ended for job in self.model.jobs.values()):
            self._take(self._time_out())
            newcomer = next(fresh, None)
            assert newcomer, "new annotators do not end every task"
            self._claim_and_label(newcomer)
        for job in self.model.jobs.values():
            self._finish_ingestion(job)
            assert job.is_settled or not job.is_open
        self._take(self._claim(self.fresh[-1], 1, None))
        self.agrees_with_the_model()

    def _work(self, crew: Sequence[int]) -> None:
        """Claim and label until all of them come back empty."""
        idle = 0
        while idle < len(crew):
            for annotator in crew:
                idle = 0 if self._claim_and_label(annotator) else idle + 1

    def _check_that_nothing_is_left_to(self, crew: Sequence[int]) -> None:
        """A crew that is large enough for a job lacks nobody for what was labelled in turn.

        In one that is not, or after an unasked label, the place may be of a cursor that is nobody's.
        """
        active = self.model.granted.intersection(crew)
        for task in self.model.tasks.values():
            able = len(active - task.skips.keys())
            if task.has_unasked or able < task.job.consensus_threshold:
                continue
            waiting = [who for who in crew if self.model.may_have(who, task)]
            assert not waiting, f"{task.task_id} could be labelled by {waiting}"

    def _claim_and_label(self, annotator: int) -> bool:
        self._take(self._claim(annotator, 100, None))
        held = list(self.model.held[annotator])
        if held:
            # Of every first task the same, of the others more and less.
            said = [OPTIONS[annotator * n % len(OPTIONS)] for n in range(len(held))]
            self._take(self._label_held(annotator, said))
        return bool(held)
