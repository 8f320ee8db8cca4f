"""Tell results that Refinery has delivered from manifests, wherever they lie.

A stream that took results for manifests would make two jobs of each of its own deliveries, and two of
each of theirs, without end.
"""

import re
from collections.abc import Sequence

from blocks.buckets.protocol import Bucket, Entry
from blocks.domain.errors import ObjectNotFound, RefineryError
from blocks.domain.ids import JOB_ID
from blocks.domain.object_urls import ObjectUrl
from blocks.store import streams
from blocks.store.database import Database
from blocks.store.jobs import DeliveryTarget
from flows.finding.sources import Source

# `deliver-job` writes everything of a job directly into a folder of the job's name.
_DELIVERED = re.compile(rf"(?P<folder>(?:.*/)?(?P<job_id>{JOB_ID}))/[^/]+")
_EXAMPLE = f"job_{22 * '0'}/errors.jsonl"


class DeliveredIntoSource(RefineryError):
    """The results would lie where the stream looks for manifests."""

    code = "delivered_into_source"


def check_delivery(target: DeliveryTarget, place: ObjectUrl, source: Source) -> None:
    """Check that a delivery to `target` does not lie below `source` in the bucket of `place`.

    Raises:
        DeliveredIntoSource: it does.
    """
    is_same_bucket = (target.type, target.bucket) == (place.store, place.bucket)
    if is_same_bucket and source.is_below(f"{target.prefix}/{_EXAMPLE}".lstrip("/")):
        raise DeliveredIntoSource(
            f"The delivery {target.url} lies below the source {source.template!r} of the same bucket: "
            "each result would become a manifest. Deliver to a place beside it, such as labels/ for in/."
        )


class OwnResults:
    """Find the objects of a bucket that Refinery has delivered into it."""

    def __init__(self, database: Database, bucket: Bucket, place: ObjectUrl) -> None:
        self._database = database
        self._bucket = bucket
        self._place = place
        self._is_delivery: dict[str, bool] = {}

    def are_among(self, entries: Sequence[Entry]) -> set[str]:
        """Return the keys of `entries` that are results of a job.

        A job of this Refinery is in its database; the results of another one have a `manifest.json`.
        """
        matches = {e.key: match for e in entries if (match := _DELIVERED.fullmatch(e.key))}
        folders = {match["folder"]: match["job_id"] for match in matches.values()}
        unseen = {f: job_id for f, job_id in folders.items() if f not in self._is_delivery}
        ours = self._recorded(list(unseen.values())) if unseen else set()
        for folder in unseen:
            self._is_delivery[folder] = folder in ours or self._is_marked(folder)
        return {key for key, match in matches.items() if self._is_delivery[match["folder"]]}

    def _recorded(self, job_ids: Sequence[str]) -> set[str]:
        with self._database.transaction() as tx:
            return streams.list_delivery_folders(
                tx, str(self._place.store), self._place.bucket, job_ids
            )

    def _is_marked(self, folder: str) -> bool:
        try:
            self._bucket.stat(f"{folder}/manifest.json")
        except ObjectNotFound:
            return False
        return True
