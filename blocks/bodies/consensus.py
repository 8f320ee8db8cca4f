"""How a job's labels become results: the fields of a job that say so."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Protocol

from msgspec import Meta

from blocks.bodies.fields import Body, Fault
from blocks.domain import limits
from blocks.domain.consensus import ALL
from blocks.domain.model import ConsensusMethod

_WEIGHTED_ONLY = ("target_confidence", "labels_min", "labels_max")

GoldShare = Annotated[float, Meta(ge=limits.GOLD_SHARE_MIN, le=limits.GOLD_SHARE_MAX)]
MinAccuracy = Annotated[float, Meta(ge=limits.MIN_ACCURACY_MIN, le=limits.MIN_ACCURACY_MAX)]
MinGoldSeen = Annotated[int, Meta(ge=limits.MIN_GOLD_SEEN_MIN, le=limits.MIN_GOLD_SEEN_MAX)]


class ConsensusBody(Body, frozen=True, kw_only=True):
    """How labels decide: by their number, or by what is known of those who gave them."""

    json_schema: ClassVar[Mapping[str, Any]] = {
        "if": {"properties": {"method": {"const": ConsensusMethod.MAJORITY.value}}},
        "then": {"properties": {field: {"type": "null"} for field in _WEIGHTED_ONLY}},
    }

    method: ConsensusMethod = ConsensusMethod.MAJORITY
    """`majority`: one label counts as much as another, with `consensus_threshold` and `stop_early`.
    `weighted`: labels count by the skill of their annotators, until one option is likely enough."""
    target_confidence: (
        Annotated[float, Meta(ge=limits.TARGET_CONFIDENCE_MIN, le=limits.TARGET_CONFIDENCE_MAX)]
        | None
    ) = None
    """`weighted` only: how likely an option has to be for a task to settle on it; 0.95 by default."""
    labels_min: (
        Annotated[int, Meta(ge=limits.CONSENSUS_THRESHOLD_MIN, le=limits.CONSENSUS_THRESHOLD_MAX)]
        | None
    ) = None
    """`weighted` only: how many labels a task has at the least; 2 by default. In a job with gold 1 is
    enough."""
    labels_max: Annotated[int, Meta(ge=1, le=limits.LABELS_MAX)] | None = None
    """`weighted` only: with how many labels a task ends that is not settled; 6 by default, or
    `labels_min` if that is more."""

    def joint_faults(self) -> Iterator[Fault]:
        """Yield bounds that contradict each other, and fields that the method does not have."""
        if self.method is ConsensusMethod.MAJORITY:
            for field in _WEIGHTED_ONLY:
                if getattr(self, field) is not None:
                    yield Fault(field, "This is for the method weighted only.")
        elif self.labels_max is not None and self.labels_max < self.least:
            yield Fault("labels_max", f"This must be at least labels_min, which is {self.least}.")

    @property
    def least(self) -> int:
        """The least number of labels of the weighted method."""
        return self.labels_min or limits.LABELS_MIN_DEFAULT


MAJORITY = ConsensusBody()


class _Asks(Protocol):
    @property
    def consensus(self) -> ConsensusBody: ...
    @property
    def consensus_threshold(self) -> int: ...
    @property
    def stop_early(self) -> bool: ...


def method_faults(asks: _Asks) -> Iterator[Fault]:
    """Yield the fields of the majority beside a weighted consensus."""
    if asks.consensus.method is ConsensusMethod.MAJORITY:
        return
    if asks.consensus_threshold != limits.CONSENSUS_THRESHOLD_DEFAULT:
        message = "This is for the method majority; weighted has labels_min and labels_max."
        yield Fault("consensus_threshold", message)
    if asks.stop_early:
        message = "This is for the method majority; weighted stops as soon as it may."
        yield Fault("stop_early", message)


def decision_of(asks: _Asks) -> dict[str, Any]:
    """Return when labels decide, as a job records it.

    `target_confidence`, in ten-thousandths, is None where the majority decides; else
    `consensus_threshold` is the least number of labels.
    """
    body = asks.consensus
    if body.method is ConsensusMethod.MAJORITY:
        return {
            "consensus_threshold": asks.consensus_threshold,
            "stop_early": asks.stop_early,
            "target_confidence": None,
            "labels_max": None,
        }
    return {
        "consensus_threshold": body.least,
        "stop_early": False,
        "target_confidence": to_parts(body.target_confidence or limits.TARGET_CONFIDENCE_DEFAULT),
        "labels_max": body.labels_max or max(limits.LABELS_MAX_DEFAULT, body.least),
    }


def to_parts(share: float) -> int:
    """Return a share of 0 to 1 in ten-thousandths."""
    return round(share * ALL)
