"""Sign the URLs of objects that annotators are shown, with the credentials of the tasks' jobs.

Nothing that is wrong with one job fails a claim: its tasks come with the reason instead.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from blocks.domain.model import UnsignedReason
from blocks.domain.object_urls import (
    InvalidObjectUrl,
    ObjectUrl,
    StoreType,
    parse_object_url,
    parse_place,
)
from blocks.logs import get_logger
from blocks.secrets.credentials import decode_credentials
from blocks.secrets.signing import NotSignable, Signer, open_signer
from blocks.secrets.vault import Vault
from blocks.store import job_credentials
from blocks.store.annotation import ClaimedTask
from blocks.store.database import Transaction
from blocks.store.job_credentials import SealedCredentials

# A label may come a moment late, and the annotator's clock may be wrong; a picture takes time to load.
_AFTER_LEASE_S = 60
_EXPIRES_S_MIN = 300
_EXPIRES_S_MAX = 24 * 3600 + _AFTER_LEASE_S  # the longest lease that can be asked for

_log = get_logger(__name__)

Sealed = Mapping[str, SealedCredentials]
"""By the ids of jobs that ask for signed URLs, what to sign with."""
Signed = Mapping[str, str | UnsignedReason]
"""By the ids of tasks their signed URLs, or why there is none; nothing for others."""


def find_sealed(tx: Transaction, tasks: Sequence[ClaimedTask]) -> Sealed:
    """Return what the URLs of `tasks` are signed with, which takes a while and no transaction."""
    return job_credentials.find_to_sign(
        tx, {task.job.job_id for task in tasks if task.job.sign_urls}
    )


class UrlSigner:
    """Signs URLs with credentials that it opens for one answer, and then forgets."""

    def __init__(self, vault: Vault, gcs_endpoint_url: str) -> None:
        self._vault = vault
        self._gcs_endpoint_url = gcs_endpoint_url

    def sign(self, tasks: Sequence[ClaimedTask], sealed: Sealed) -> Signed:
        """Sign the `s3://` and `gs://` URLs of those tasks whose jobs are in `sealed`.

        A URL outlives the task's lease by a minute, and lasts for 5 minutes at the least and for 24
        hours and a minute at the most.
        """
        now = datetime.now(UTC)
        signers = {job_id: self._open(each) for job_id, each in sealed.items()}
        return {
            task.task_id: _sign(task, signers[task.job.job_id], sealed[task.job.job_id], now)
            for task in tasks
            if task.job.job_id in signers and _is_of_bucket(task.data_url)
        }

    def _open(self, sealed: SealedCredentials) -> Signer | UnsignedReason:
        try:
            plain = job_credentials.open_sealed(
                sealed.credentials, sealed.job_id, sealed.customer_id, self._vault
            )
            store = parse_object_url(sealed.manifest_url).store
            credentials = decode_credentials(store, plain)
            if credentials is None:
                return UnsignedReason.NO_CREDENTIALS
            return open_signer(credentials, gcs_endpoint_url=self._gcs_endpoint_url)
        except Exception as error:  # noqa: BLE001 - other jobs' tasks are in the same claim
            # Only its type: a message may quote what could not be read.
            _log.warning("signing.refused", job_id=sealed.job_id, error=type(error).__name__)
            return UnsignedReason.CREDENTIALS_UNREADABLE


def _is_of_bucket(data_url: str | None) -> bool:
    scheme = (data_url or "").partition("://")[0].lower()
    return StoreType.of_scheme(scheme) is not None


def _lasts_s(task: ClaimedTask, now: datetime) -> int:
    held_s = int((task.lease_expires_at - now).total_seconds())
    return min(max(held_s + _AFTER_LEASE_S, _EXPIRES_S_MIN), _EXPIRES_S_MAX)


def _is_bound_to(url: ObjectUrl, place: str | None) -> bool:
    return place is None or url.lies_in(parse_place(place))


def _sign(
    task: ClaimedTask, signer: Signer | UnsignedReason, sealed: SealedCredentials, now: datetime
) -> str | UnsignedReason:
    if isinstance(signer, UnsignedReason):
        return signer
    try:
        url = parse_object_url(task.data_url or "")
        if url.store is not signer.store or not _is_bound_to(url, sealed.signs_below):
            return UnsignedReason.OTHER_PLACE
        return signer.sign(url, expires_s=_lasts_s(task, now), at=now)
    except (InvalidObjectUrl, NotSignable):
        return UnsignedReason.NOT_SIGNABLE
