"""Whether a delivered line follows from its labels, by the rule of its job."""

from collections.abc import Iterator, Sequence

from api.cli.delivered_lines import Fault, ResultLine
from blocks.delivery_manifest import DeliveredRule, DeliveryManifest
from blocks.domain.consensus import (
    ALL,
    SKILL_MAX,
    confidence,
    confidence_of,
    majority_outcome,
    weight,
    weighted_outcome,
)
from blocks.domain.model import ConsensusMethod, SettledBy

Faults = Iterator[Fault]

_BY_REVIEW = SettledBy.REVIEW.value
_SETTLED_BY = {each.value for each in SettledBy}


class LineCheck:
    """Finds what does not follow from the labels of a line."""

    def __init__(self, manifest: DeliveryManifest, rule: DeliveredRule) -> None:
        self._options = manifest.options
        self._places = {option: n for n, option in enumerate(manifest.options)}
        self._has_gold = manifest.has_gold
        self._settled_by = _SETTLED_BY if manifest.has_review else {None}
        self._rule = rule
        self._is_weighted = rule.method is ConsensusMethod.WEIGHTED
        self._target = round((rule.target_confidence or 0) * ALL)
        self._weights: dict[float | None, int] = {}  # of the skills so far

    def __call__(self, line: ResultLine) -> Faults:
        """Yield the fields that do not agree; what follows from a wrong one is wrong as well."""
        yield from self._kind_faults(line)
        yield from self._label_faults(line)
        yield from _vote_faults(line, self._options)
        agreed = line.votes[line.consensus_label]
        if line.agreement_count != agreed:
            yield _fault("agreement_count", line.agreement_count, agreed)
        label, share = self._decide(line)
        if line.consensus_label != label:
            yield _fault("consensus_label", line.consensus_label, label)
        if line.confidence != share:
            yield _fault("confidence", line.confidence, share)

    def _kind_faults(self, line: ResultLine) -> Faults:
        if line.gold and not self._has_gold:
            yield "gold", "There is gold, and the job has none."
        if line.settled_by not in self._settled_by:
            yield "settled_by", f"It says {line.settled_by!r}, which no result of this job says."
        if line.gold and line.settled_by == _BY_REVIEW:
            yield "settled_by", "Gold was reviewed, which nobody is asked to."

    def _label_faults(self, line: ResultLine) -> Faults:
        if len({each.annotator for each in line.labels}) < len(line.labels):
            yield "labels", "An annotator has more than one label."
        for each in line.labels:
            if each.label not in self._places:
                yield "labels", f"{each.label!r} is no option of the job."
            if each.skill not in self._weights:
                yield from self._add_weight(each.skill)

    def _add_weight(self, skill: float | None) -> Faults:
        """Keep what labels of such a skill weigh, unless the job can have none."""
        if self._is_weighted and not _is_skill(skill):
            most = f"{SKILL_MAX / ALL:g}"
            yield "labels", f"{skill} is no skill: those are ten-thousandths up to {most}."
        elif not self._is_weighted and skill is not None:
            yield "labels", "There is a skill, and the job weighs no labels."
        else:
            self._weights[skill] = weight(round((skill or 0) * ALL), len(self._options))

    def _decide(self, line: ResultLine) -> tuple[str | None, float]:
        """Return the label on which the line settled, None for none, and its confidence.

        Which answer of gold is right, and on what a reviewer decided, labels cannot tell.
        """
        if line.gold:
            return line.consensus_label, 1.0
        decided = None if line.settled_by != _BY_REVIEW else self._places[line.consensus_label] + 1
        outcome, share = (self._weigh if self._is_weighted else self._count)(line, decided)
        return self._options[outcome - 1] if outcome else None, share

    def _count(self, line: ResultLine, decided: int | None) -> tuple[int | None, float]:
        """Return what was decided, or else the outcome of the majority, and its share of the labels."""
        votes = list(line.votes.values())
        labels = sum(votes) or 1
        if decided is not None:
            return decided, votes[decided - 1] / labels
        stop_early = self._rule.stop_early is True
        outcome = majority_outcome(votes, self._rule.threshold or 0, stop_early=stop_early)
        return outcome, max(votes) / labels

    def _weigh(self, line: ResultLine, decided: int | None) -> tuple[int | None, float]:
        """Return what was decided, or else the outcome by skills, and its confidence."""
        scores = [0] * len(self._options)
        for each in line.labels:
            scores[self._places[each.label]] += self._weights[each.skill]
        if decided is not None:
            return decided, confidence_of(scores, decided) / ALL
        outcome = weighted_outcome(
            scores,
            len(line.labels),
            labels_min=self._rule.labels_min or 0,
            labels_max=self._rule.labels_max or 0,
            target=self._target,
        )
        return outcome, confidence(scores) / ALL


def _is_skill(skill: float | None) -> bool:
    return skill is not None and 0 <= skill <= SKILL_MAX / ALL and round(skill * ALL) / ALL == skill


def _vote_faults(line: ResultLine, options: Sequence[str]) -> Faults:
    if list(line.votes) != list(options):
        yield "votes", "They are not of the options of the job, in their order."
        return
    said = [each.label for each in line.labels]
    for option, votes in line.votes.items():
        if votes != (labels := said.count(option)):
            yield "votes", f"{option!r} has {votes:,}, and there are {labels:,} such labels."
    if line.worker_count != len(line.labels):
        yield _fault("worker_count", line.worker_count, len(line.labels))
    if line.consensus_label not in line.votes:
        yield "consensus_label", f"{line.consensus_label!r} is no option of the job."


def _fault(field: str, said: object, found: object) -> Fault:
    return field, f"It says {said!r}, and the labels give {found!r}."
