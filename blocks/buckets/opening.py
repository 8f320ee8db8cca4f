"""Open a bucket of either store, with the credentials that are given and nobody else's."""

from blocks.buckets.gcs import GcsBucket
from blocks.buckets.protocol import Bucket
from blocks.buckets.s3 import S3Bucket
from blocks.domain.object_urls import StoreType
from blocks.secrets.credentials import Credentials, GcsCredentials, S3Credentials
from blocks.secrets.egress import Egress
from blocks.secrets.machine_identity import MachineIdentity


def open_bucket(
    store: StoreType,
    name: str,
    credentials: Credentials | MachineIdentity | None,
    *,
    egress: Egress,
    gcs_endpoint_url: str = "",
    kms_key_id: str | None = None,
    acl: str | None = None,
    request_s: float | None = None,
) -> Bucket:
    """Return the bucket `name`, opened anonymously where there are no credentials.

    The machine's own identity comes from an operator's block alone.

    A request takes `request_s` seconds at most, by default `answers.REQUEST_S_MAX`.

    Raises:
        AddressRefused: its endpoint is at an address that we may not talk to.
        InvalidCredentials: Google does not accept the service account.
        NoIdentity: the machine has no identity of Google's, or none now.
    """
    if store is StoreType.S3:
        assert not isinstance(credentials, GcsCredentials)  # the request was checked for that
        return S3Bucket(
            name, credentials, egress=egress, kms_key_id=kms_key_id, acl=acl, request_s=request_s
        )
    assert not isinstance(credentials, S3Credentials)
    return GcsBucket(name, credentials, endpoint_url=gcs_endpoint_url, request_s=request_s)
