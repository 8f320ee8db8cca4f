"""Examples of what annotators hand in, look up and renew, for the OpenAPI document."""

from datetime import UTC, datetime

from api.http.document import Answer, Answers, Requests, Taken
from api.routes.annotation import Renewal, Renewals, RenewBody
from api.routes.job_views import LabelSpec
from api.routes.labels import LabelsBody, Outcome, Outcomes
from api.routes.own_work import JobToLabel, Me, OpenJob, OpenJobs, OpenLabel, OwnLabel, OwnLabels
from api.routes.reviews import (
    DecisionsBody,
    Reviewed,
    ReviewedTasks,
    ReviewQueue,
    ReviewQueues,
    ReviewsWaiting,
)
from blocks.domain.ids import task_id
from blocks.domain.model import (
    LabelOutcome,
    OptionDetail,
    RenewOutcome,
    ReviewOutcome,
    ReviewReason,
    SkipReason,
    TaskType,
)
from blocks.store.reviews import Case, SaidLabel, SaidSkip

_JOB_ID = "job_0s2m8x4c7v1bq9kd6hzt5n"
_TASK_KEY = 0
_TASK_IDS = [task_id(_JOB_ID, _TASK_KEY, task_no) for task_no in (0, 1)]
_QUESTION = "Is this a cat or a dog?"
_LABEL_SPEC = LabelSpec(
    _QUESTION, ["cat", "dog"], [OptionDetail(option="cat", description="No lynx.", hotkey="c")]
)
_VERSION = "5f0c1d8e9a7b3c42"


def _at(clock: str) -> datetime:
    return datetime.fromisoformat(f"2026-11-28T{clock}").replace(tzinfo=UTC)


CASE = Case(
    job_id=_JOB_ID,
    reason=ReviewReason.LOW_CONFIDENCE,
    proposed_label="cat",
    proposed_failure=None,
    confidence=0.6667,
    votes={"cat": 2, "dog": 1},
    labels=[SaidLabel("ann_5bq43f8k2m9x7c1vd6hzt5", "cat", _at("10:00:10"))],
    skips=[SaidSkip("ann_8k2m9x7c1vd6hzt55bq43f", SkipReason.UNCLEAR, "Dark.", _at("10:00:12"))],
    created_at=_at("10:00:14"),
    due_at=datetime(2026, 12, 5, 10, 0, 14, tzinfo=UTC),
)
"""What a reviewer sees of a task, beside what annotators see."""

OWN_WORK_REQUESTS: Requests = {
    "submit_labels": Taken(
        LabelsBody,
        {
            "labels": [
                {"task_id": _TASK_IDS[0], "label": "cat"},
                {"task_id": _TASK_IDS[1], "skip": "unclear", "note": "It is too dark."},
            ]
        },
    ),
    "submit_reviews": Taken(
        DecisionsBody,
        {
            "reviews": [
                {"task_id": _TASK_IDS[0], "label": "cat"},
                {"task_id": _TASK_IDS[1], "send_back": True},
            ]
        },
    ),
    "renew_leases": Taken(RenewBody, {"task_ids": _TASK_IDS, "lease_seconds": 600}),
}

OWN_WORK_ANSWERS: Answers = {
    "submit_labels": (
        Answer(
            200,
            Outcomes(
                [
                    Outcome(_TASK_IDS[0], LabelOutcome.ACCEPTED),
                    Outcome(_TASK_IDS[1], LabelOutcome.SKIPPED),
                    Outcome(
                        _TASK_IDS[1],
                        LabelOutcome.UNKNOWN_OPTION,
                        "The options are cat, dog. Did you mean cat?",
                    ),
                ]
            ),
        ),
    ),
    "submit_reviews": (
        Answer(
            200,
            ReviewedTasks(
                [
                    Reviewed(_TASK_IDS[0], ReviewOutcome.SETTLED),
                    Reviewed(
                        _TASK_IDS[1],
                        ReviewOutcome.NOT_HELD,
                        "You do not hold this task; claim it with queue=review.",
                    ),
                ]
            ),
        ),
    ),
    "list_review_queues": (
        Answer(
            200,
            ReviewQueues(
                [
                    ReviewQueue(
                        job_id=_JOB_ID,
                        task_type=TaskType.IMAGE_CLASSIFICATION,
                        question=_QUESTION,
                        waiting=ReviewsWaiting(
                            no_consensus=4, low_confidence=12, sample=1000, flagged=0
                        ),
                    )
                ]
            ),
        ),
    ),
    "renew_leases": (
        Answer(
            200,
            Renewals(
                [
                    Renewal(_TASK_IDS[0], RenewOutcome.RENEWED, _at("10:10:00")),
                    Renewal(_TASK_IDS[1], RenewOutcome.NOT_HELD),
                ]
            ),
        ),
    ),
    "get_me": (
        Answer(
            200,
            Me(
                annotator_id="ann_5bq43f8k2m9x7c1vd6hzt5",
                name="ann",
                tasks_held=8,
                reviews_held=2,
                lease_expires_at=_at("10:10:00"),
                labels=12_420,
                labels_today=310,
                settled=5_107,
                settled_today=122,
            ),
        ),
    ),
    "list_own_labels": (
        Answer(
            200,
            OwnLabels(
                [
                    OwnLabel(
                        task_id=_TASK_IDS[0],
                        job_id=_JOB_ID,
                        label="cat",
                        created_at=_at("10:01:30"),
                    )
                ],
                None,
            ),
        ),
    ),
    "get_own_label": (
        Answer(
            200,
            OpenLabel(
                task_id=_TASK_IDS[0],
                data_url="https://img.example.com/1.jpg",
                task_type=TaskType.IMAGE_CLASSIFICATION,
                label_spec=_LABEL_SPEC,
                label="cat",
                created_at=_at("10:01:30"),
            ),
        ),
    ),
    "list_open_jobs": (
        Answer(
            200,
            OpenJobs(
                [
                    OpenJob(
                        job_id=_JOB_ID,
                        task_type=TaskType.IMAGE_CLASSIFICATION,
                        question=_QUESTION,
                        instructions_version=_VERSION,
                    )
                ]
            ),
        ),
    ),
    "get_job_to_label": (
        Answer(
            200,
            JobToLabel(
                job_id=_JOB_ID,
                task_type=TaskType.IMAGE_CLASSIFICATION,
                label_spec=_LABEL_SPEC,
                instructions="# Cats and dogs\n\nIf there are both, take the **larger** one.\n",
                instructions_version=_VERSION,
                is_open=True,
            ),
        ),
    ),
}
