"""Quality as customers see it."""

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime

import msgspec

from api.routes.inference import InferenceView
from api.routes.job_views import Share
from blocks.domain.consensus import ALL
from blocks.domain.gold import GoldEstimate
from blocks.domain.model import SkipReason
from blocks.store.jobs import Job
from blocks.store.quality import AnnotatorCount, Outcomes, Quality, VoteCount

_BINS = 10


class ConfidenceBin(msgspec.Struct, frozen=True):
    """Settled tasks with a confidence above `above`, up to `upto`."""

    above: Share
    """The lower bound, which is not part of it, unless it is 0."""
    upto: Share
    """The upper bound, which is."""
    tasks: int
    """How many tasks settled with such a confidence."""


class OptionQuality(msgspec.Struct, frozen=True):
    """How often an option was voted for, and how many tasks settled on it.

    `open` counts its votes on tasks that are open.
    """

    option: str
    """The option."""
    labels: int
    """How many labels on ended tasks have it."""
    tasks: int
    """How many tasks settled on it."""
    open: int
    """How many labels on open tasks have it."""


class LabelsPerTask(msgspec.Struct, frozen=True):
    """How many tasks ended with so many labels."""

    labels: int
    """A number of labels."""
    tasks: int
    """How many tasks ended with so many."""


class SkipCounts(msgspec.Struct, frozen=True, kw_only=True):
    """How many tasks an annotator has skipped, by reason."""

    unclear: int
    """Tasks that were unclear to them."""
    broken: int
    """Tasks whose data they could not see."""
    none_of_these: int
    """Tasks for which no option was right."""


class AnnotatorQuality(msgspec.Struct, frozen=True, kw_only=True):
    """What an annotator has done, and the share of their labels that agrees with the consensus.

    `failed` and `open` count their labels on tasks that failed and on open ones.
    """

    annotator_id: str
    """The annotator."""
    name: str | None
    """Their name; null where you may not see it."""
    labels: int
    """Their labels on settled tasks."""
    agreed: int
    """Those that agree with the consensus."""
    agreement: Share | None
    """The share of those; null where there are no labels."""
    failed: int
    """Their labels on tasks that failed."""
    open: int
    """Their labels on open tasks."""
    skips: SkipCounts
    """The tasks that they have skipped."""
    replaced: int
    """Labels that they have replaced."""
    withdrawn: int
    """Labels that they have withdrawn."""
    seconds_per_label: float | None
    """The median time that one label took, within 2.5 %; null where it is not known."""
    gold_seen: int | msgspec.UnsetType = msgspec.UNSET
    """Their labels on gold, which are in no other count; missing, as what follows, in a job that neither
    has gold nor weighs labels."""
    gold_right: int | msgspec.UnsetType = msgspec.UNSET
    """Those that were right."""
    gold_accuracy: Share | msgspec.UnsetType | None = msgspec.UNSET
    """The share of those; null where there are no labels on gold."""
    earlier_gold_seen: int | msgspec.UnsetType = msgspec.UNSET
    """Their labels on gold in your earlier jobs of the same question, when they came to this one."""
    earlier_gold_right: int | msgspec.UnsetType = msgspec.UNSET
    """Those that were right."""
    earlier_gold_accuracy: Share | msgspec.UnsetType | None = msgspec.UNSET
    """The share of those; null where there are no labels on gold."""
    skill: Share | msgspec.UnsetType | None = msgspec.UNSET
    """How often they are taken to be right: by gold, or without gold by agreement, with earlier jobs."""
    excluded_at: datetime | msgspec.UnsetType | None = msgspec.UNSET
    """Since when they get no more tasks of the job; null if they do."""


class OpenQuality(msgspec.Struct, frozen=True):
    """Tasks that have labels and no result yet, and the labels that they have."""

    tasks: int
    """How many tasks have labels and no result yet."""
    labels: int
    """How many labels these have."""


class GoldAccuracy(msgspec.Struct, frozen=True):
    """How often results are right, by gold tasks whose labels come to a result by the job's rule."""

    tasks: int
    """Gold tasks whose labels come to a result."""
    right: int
    """Those of which it is the known answer."""
    accuracy: Share | None
    """The share of those; null where there are none."""
    low: Share
    """The lower end of the interval that holds the accuracy of the job's results at 95 %."""
    high: Share
    """The upper end."""


class QualityView(msgspec.Struct, frozen=True, kw_only=True):
    """Agreement over the tasks that have ended so far; shares are null where there are none.

    What is called `open` is of tasks that are still labelled, and is in no other count.

    `agreed_share` of them have settled, `unanimous_share` without a vote against. `labels_saved`
    counts what `stop_early` made unnecessary.
    """

    job_id: str
    """The job."""
    tasks_settled: int
    """Tasks that are settled."""
    tasks_failed: int
    """Tasks that failed."""
    agreed_share: Share | None
    """The share of ended tasks that settled."""
    unanimous_share: Share | None
    """The share of ended tasks that settled without a vote against."""
    mean_confidence: Share | None
    """The mean confidence of settled tasks."""
    confidence: list[ConfidenceBin]
    """How many tasks settled with which confidence, in tenths."""
    options: list[OptionQuality]
    """Labels and tasks of each option."""
    labels: int
    """Labels on ended tasks."""
    labels_saved: int
    """Labels that `stop_early` made unnecessary."""
    labels_per_task: list[LabelsPerTask]
    """How many tasks ended with how many labels."""
    open: OpenQuality
    """Tasks that are still labelled; they are in no other count."""
    seconds_per_label: float | None
    """The median time that one label took, within 2.5 %; null where it is not known."""
    confusion: list[list[int]]
    """Labels on settled tasks: a row for each option on which tasks settled, a column for each option
    that annotators chose, both in the order of `options`. With `annotator`, the labels of that one."""
    annotators: list[AnnotatorQuality]
    """What each annotator has done, and their agreement with the consensus."""
    accuracy: GoldAccuracy | None
    """How often results are right; null in a job without gold."""
    inference: InferenceView | msgspec.UnsetType = msgspec.UNSET
    """What the labels say of true options and of annotators; not there without `method`."""


def view(job: Job, measured: Quality, names: Mapping[str, str]) -> QualityView:
    """Return what was measured of a job; `names` has those of annotators whom the customer may know."""
    confidence: Counter[tuple[int, int]] = Counter()
    per_task: Counter[int] = Counter()
    open_tasks = [each for each in measured.outcomes if not each.has_ended]
    for each in measured.outcomes:
        if not each.has_ended:
            continue
        per_task[each.labels] += each.tasks
        if each.is_settled:
            confidence[_confidence(each)] += each.tasks
    settled = [each for each in measured.outcomes if each.is_settled]
    ended, agreed = per_task.total(), confidence.total()
    saved = sum(
        max(job.consensus_threshold - each.labels, 0) * each.tasks
        for each in settled
        if job.stop_early  # else it was a reviewer who settled a task with fewer labels
    )
    unanimous = sum(each.tasks for each in settled if each.agreed == each.labels)
    total = sum(tasks * part / whole for (part, whole), tasks in confidence.items())
    return QualityView(
        job_id=job.job_id,
        tasks_settled=agreed,
        tasks_failed=ended - agreed,
        agreed_share=_share(agreed, ended),
        unanimous_share=_share(unanimous, ended),
        mean_confidence=_share(total, agreed),
        confidence=_bins(confidence),
        options=_options(job, settled, measured.votes),
        labels=sum(n * tasks for n, tasks in per_task.items()),
        labels_saved=saved,
        labels_per_task=[LabelsPerTask(n, tasks) for n, tasks in sorted(per_task.items())],
        open=OpenQuality(
            sum(each.tasks for each in open_tasks),
            sum(each.tasks * each.labels for each in open_tasks),
        ),
        seconds_per_label=measured.seconds,
        confusion=_confusion(job, measured.confusion),
        annotators=[_annotator(each, names) for each in measured.annotators],
        accuracy=_accuracy(measured.gold),
    )


def _annotator(counted: AnnotatorCount, names: Mapping[str, str]) -> AnnotatorQuality:
    shown = AnnotatorQuality(
        annotator_id=counted.annotator_id,
        name=names.get(counted.annotator_id),
        labels=counted.labels,
        agreed=counted.agreed,
        agreement=_share(counted.agreed, counted.labels),
        failed=counted.failed,
        open=counted.open,
        skips=SkipCounts(**{reason.value: counted.skips.get(reason, 0) for reason in SkipReason}),
        replaced=counted.replaced,
        withdrawn=counted.withdrawn,
        seconds_per_label=counted.seconds,
    )
    known = counted.known
    if known is None:
        return shown
    return msgspec.structs.replace(
        shown,
        gold_seen=known.gold_seen,
        gold_right=known.gold_right,
        gold_accuracy=_share(known.gold_right, known.gold_seen),
        earlier_gold_seen=known.earlier_gold_seen,
        earlier_gold_right=known.earlier_gold_right,
        earlier_gold_accuracy=_share(known.earlier_gold_right, known.earlier_gold_seen),
        skill=None if known.skill is None else known.skill / ALL,
        excluded_at=known.excluded_at,
    )


def _accuracy(found: GoldEstimate | None) -> GoldAccuracy | None:
    if found is None:
        return None
    right, seen, low, high = found
    return GoldAccuracy(seen, right, _share(right, seen), round(low, 4), round(high, 4))


def _confidence(each: Outcomes) -> tuple[int, int]:
    """Return the confidence of tasks that settled alike, as a part of a whole."""
    if each.confidence is not None:
        return each.confidence, ALL
    return each.agreed, max(each.labels, 1)


def _options(
    job: Job, settled: Iterable[Outcomes], votes: Iterable[VoteCount]
) -> list[OptionQuality]:
    labels, tasks, open_labels = Counter[int](), Counter[int | None](), Counter[int]()
    for ended in settled:
        tasks[ended.outcome] += ended.tasks
    for each in votes:
        (open_labels if each.outcome is None else labels)[each.option] += each.labels
    return [
        OptionQuality(option, labels[n], tasks[n], open_labels[n])
        for n, option in enumerate(job.options, start=1)
    ]


def _confusion(job: Job, votes: Iterable[VoteCount]) -> list[list[int]]:
    matrix = [[0] * len(job.options) for _ in job.options]
    for each in votes:
        assert each.outcome is not None  # they are on settled tasks
        matrix[each.outcome - 1][each.option - 1] = each.labels
    return matrix


def _bins(confidence: Counter[tuple[int, int]]) -> list[ConfidenceBin]:
    bins = [0] * _BINS
    for (part, whole), tasks in confidence.items():
        # Whole numbers are exact: 3 of 5 is not above 0.6. A reviewer may decide on what nobody chose.
        bins[max(-(-part * _BINS // whole) - 1, 0)] += tasks
    return [ConfidenceBin(n / _BINS, (n + 1) / _BINS, tasks) for n, tasks in enumerate(bins)]


def _share(part: float, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None
