"""What annotators asked for and were told, as they wrote it down themselves."""

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass, field

# Times are seconds of the wall clock, which PostgreSQL's lease_expires_at is of, too: one machine has one.


@dataclass(frozen=True)
class Grant:
    """A task in the answer to a claim."""

    annotator_no: int
    task_id: str
    sent: float
    answered: float
    expires_at: float


@dataclass
class Vote:
    """A label that was sent; without an outcome its answer was lost, and nobody knows."""

    annotator_no: int
    task_id: str
    option: str
    sent: float
    answered: float = math.inf
    outcome: str | None = None

    @property
    def counted(self) -> bool:
        """Whether the answer said that it was new."""
        return self.outcome in {"accepted", "settled"}

    @property
    def is_there(self) -> bool:
        """Whether the answer said that this annotator's label is recorded: this one or one before."""
        return self.counted or self.outcome == "duplicate"


@dataclass(frozen=True)
class Release:
    """A task that was handed back, whatever became of the request."""

    annotator_no: int
    task_id: str
    sent: float


@dataclass
class Record:
    """Everything one annotator did, or all of them; each list in the order in which it was asked for."""

    grants: list[Grant] = field(default_factory=list)
    votes: list[Vote] = field(default_factory=list)
    releases: list[Release] = field(default_factory=list)

    @classmethod
    def of_all(cls, records: Iterable["Record"]) -> "Record":
        """The records of all annotators as one."""
        found, joined = list(records), itertools.chain.from_iterable
        return cls(
            sorted(joined(r.grants for r in found), key=lambda grant: grant.sent),
            sorted(joined(r.votes for r in found), key=lambda vote: vote.sent),
            sorted(joined(r.releases for r in found), key=lambda release: release.sent),
        )

    def by_task(self) -> dict[str, "Record"]:
        """The same, for each task by itself."""
        found: dict[str, Record] = {}
        for grant in self.grants:
            found.setdefault(grant.task_id, Record()).grants.append(grant)
        for vote in self.votes:
            found.setdefault(vote.task_id, Record()).votes.append(vote)
        for release in self.releases:
            found.setdefault(release.task_id, Record()).releases.append(release)
        return found
