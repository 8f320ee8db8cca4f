"""Examples of what annotators hand in, look up and renew, for the OpenAPI document."""

from datetime import UTC, datetime

from api.http.document import Answer, Answers, Requests, Taken
from api.routes.annotation import Renewal, Renewals, RenewBody
from api.routes.job_views import LabelSpec
from api.routes.labels import LabelsBody, Outcome, Outcomes
from api.routes.own_work import JobToLabel, Me, OpenJob, OpenJobs, OwnLabel, OwnLabels
from blocks.domain.ids import task_id
from blocks.domain.model import LabelOutcome, OptionDetail, RenewOutcome, TaskType

_JOB_ID = "job_0s2m8x4c7v1bq9kd6hzt5n"
_TASK_IDS = [task_id(_JOB_ID, task_no) for task_no in (0, 1)]
_QUESTION = "Is this a cat or a dog?"
_LABEL_SPEC = LabelSpec(
    _QUESTION, ["cat", "dog"], [OptionDetail(option="cat", description="No lynx.", hotkey="c")]
)
_VERSION = "5f0c1d8e9a7b3c42"


def _at(clock: str) -> datetime:
    return datetime.fromisoformat(f"2026-11-28T{clock}").replace(tzinfo=UTC)


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
