"""Examples of what the routes for leads answer: how well annotators agree, and where they do not."""

from datetime import UTC, datetime

import msgspec

from api.http.document import Answer, Answers
from api.routes.disagreements import DisagreementsPage, DisagreementView, LabelGiven
from api.routes.inference import AnnotatorAccuracy, InferenceView, LabelChange, OptionPrior
from api.routes.quality_views import (
    AnnotatorQuality,
    ConfidenceBin,
    GoldAccuracy,
    LabelsPerTask,
    OpenQuality,
    OptionQuality,
    QualityView,
    SkipCounts,
)
from blocks.domain.ids import task_id
from blocks.domain.model import InferenceMethod, TaskStatus

_JOB_ID = "job_0s2m8x4c7v1bq9kd6hzt5n"
_TASK_KEY = 0
_ANNOTATORS = (
    "ann_5bq43f8k2m9x7c1vd6hzt5",
    "ann_7c1vd6hzt55bq43f8k2m9x",
    "ann_9m5w7t0q4x6zv23f2n8k1c",
)

_QUALITY = QualityView(
    job_id=_JOB_ID,
    tasks_settled=4,
    tasks_failed=0,
    agreed_share=1.0,
    unanimous_share=0.75,
    mean_confidence=0.9167,
    confidence=[ConfidenceBin(n / 10, (n + 1) / 10, {6: 1, 9: 3}.get(n, 0)) for n in range(10)],
    options=[OptionQuality("cat", 10, 3, 1), OptionQuality("dog", 2, 1, 0)],
    labels=12,
    labels_saved=0,
    labels_per_task=[LabelsPerTask(3, 4)],
    open=OpenQuality(1, 1),
    seconds_per_label=4.12,
    confusion=[[9, 0], [1, 2]],
    annotators=[
        AnnotatorQuality(
            annotator_id=_ANNOTATORS[0],
            name="Ann",
            labels=4,
            agreed=3,
            agreement=0.75,
            failed=0,
            open=1,
            skips=SkipCounts(unclear=1, broken=0, none_of_these=0),
            replaced=1,
            withdrawn=0,
            seconds_per_label=4.12,
            gold_seen=10,
            gold_right=9,
            gold_accuracy=0.9,
            earlier_gold_seen=30,
            earlier_gold_right=28,
            earlier_gold_accuracy=0.9333,
            skill=0.9146,
            excluded_at=None,
        )
    ],
    accuracy=GoldAccuracy(tasks=100, right=95, accuracy=0.95, low=0.8872, high=0.9836),
)
_CHANGE = LabelChange(task_id(_JOB_ID, _TASK_KEY, 1), "dog", "cat", 0.9312)
_INFERENCE = InferenceView(
    method=InferenceMethod.DAWID_SKENE, iterations=14, converged=True, tasks=4, labels=12,
    priors=[OptionPrior("cat", 0.7812), OptionPrior("dog", 0.2188)],
    annotators=[
        AnnotatorAccuracy(
            _ANNOTATORS[0], 4, 0.8341, [[0.8824, 0.1176], [0.2733, 0.7267]]
        )
    ],
    labels_changed=1, labels_added=0, changes=[_CHANGE],
)  # fmt: skip
_INFERRED = msgspec.structs.replace(_QUALITY, inference=_INFERENCE)


def _given(annotator: int, name: str | None, label: str) -> LabelGiven:
    return LabelGiven(
        annotator_id=_ANNOTATORS[annotator], name=name, label=label,
        created_at=datetime(2026, 11, 28, 9, 30, annotator, tzinfo=UTC),
    )  # fmt: skip


_DISAGREEMENT = DisagreementView(
    task_id=task_id(_JOB_ID, _TASK_KEY, 0), line=1, data_url="https://images.example/cats/1.jpg",
    metadata=msgspec.Raw(b'{"page":4}'), status=TaskStatus.SETTLED, reason=None,
    consensus_label="cat", confidence=2 / 3, votes={"cat": 2, "dog": 1},
    labels=[_given(0, "Ann", "cat"), _given(1, None, "dog"), _given(2, None, "cat")],
)  # fmt: skip

LEAD_ANSWERS: Answers = {
    "get_job_quality": (
        Answer(200, _QUALITY),
        Answer(200, _INFERRED, name="with a method"),
    ),
    "list_label_changes": (
        Answer(
            200,
            msgspec.json.encode(_CHANGE).decode() + "\n",
            "One JSON object for each task whose label would be another.",
        ),
    ),
    "list_disagreements": (
        Answer(200, DisagreementsPage([_DISAGREEMENT], "0"), name="a page"),
        Answer(200, DisagreementsPage([], None), name="the last page"),
    ),
}
