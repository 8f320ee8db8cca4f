"""Options that say how labels decide."""

from dataclasses import dataclass
from typing import Annotated, Any

from cyclopts import Parameter

from api.cli.fields import field_option
from blocks.bodies.consensus import ConsensusBody


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Consensus:
    """How labels decide a task."""

    consensus: Annotated[
        str | None,
        field_option(ConsensusBody, "method", "How labels decide: by number, or by skill."),
    ] = None
    target_confidence: Annotated[
        float | None,
        field_option(ConsensusBody, "target_confidence", "How likely an option has to be."),
    ] = None
    labels_min: Annotated[
        int | None, field_option(ConsensusBody, "labels_min", "Labels of a task at the least.")
    ] = None
    labels_max: Annotated[
        int | None, field_option(ConsensusBody, "labels_max", "Labels of a task at the most.")
    ] = None

    def body(self) -> dict[str, Any]:
        """Return the field of the API, if one of these was given."""
        found = {
            "method": self.consensus,
            "target_confidence": self.target_confidence,
            "labels_min": self.labels_min,
            "labels_max": self.labels_max,
        }
        given = {name: value for name, value in found.items() if value is not None}
        return {"consensus": {"method": "weighted"} | given} if given else {}


CONSENSUS = Consensus()
