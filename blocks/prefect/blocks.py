"""Define block types: an operator fills them in once, in the Prefect UI, and flows use them by name.

Credentials in here are the operator's own. A customer's come with a job, are sealed in the database,
and never become a block: whoever can reach Prefect's API can read every block.

`refinery blocks register` makes the types known. https://docs.prefect.io/v3/concepts/blocks
"""

import json
from typing import Any, TypeVar

import httpx
from botocore.exceptions import BotoCoreError, ClientError
from google.auth.exceptions import GoogleAuthError
from prefect.blocks.core import Block
from prefect_aws import AwsCredentials, MinIOCredentials
from prefect_aws.client_parameters import AwsClientParameters
from prefect_gcp import GcpCredentials
from pydantic import Field, SecretStr, field_validator

from blocks.buckets.opening import open_bucket
from blocks.buckets.protocol import Bucket
from blocks.domain.errors import RefineryError, Terminal
from blocks.domain.model import Compression, ResultFormat
from blocks.domain.object_urls import ObjectUrl, StoreType, parse_place
from blocks.secrets.credentials import Credentials, GcsCredentials, S3Credentials
from blocks.secrets.egress import Egress
from blocks.secrets.machine_identity import MachineIdentity
from blocks.settings import Settings
from blocks.store.jobs import DeliveryTarget

_REGION = "us-east-1"
_TIMEOUT_S = 30.0

_B = TypeVar("_B", bound=Block)


class UnusableBlock(RefineryError):
    """A block is missing, or lacks what is needed; an operator has to mend it."""

    code = "unusable_block"


class PlaceNotBound(Terminal):
    """The block's credentials are for other places: its bucket and prefix, and its jobs' deliveries."""

    code = "place_not_bound"


class ManifestSource(Block):
    """Name a bucket of the operator's, and hold the credentials for it."""

    _block_type_name = "Refinery Manifest Source"
    _block_type_slug = "refinery-manifest-source"
    _description = (
        "A bucket in S3, GCS or a store that speaks S3, with the operator's own credentials. "
        "`submit-manifests` looks for manifests in it, and its jobs are read and delivered with them."
    )
    _code_example = """\
```python
from prefect_aws import AwsCredentials

from blocks.prefect.blocks import ManifestSource

ManifestSource(
    bucket_url="s3://my-bucket",
    aws_credentials=AwsCredentials.load("etl"),
).save("my-bucket")
```"""

    bucket_url: str = Field(
        title="Bucket", description="`s3://bucket` or `gs://bucket`, without a path."
    )
    # Each kind has a field of its own: with one field, Pydantic would try every kind on a stored block,
    # and GcpCredentials looks for the machine's own credentials as soon as it is made.
    aws_credentials: AwsCredentials | None = Field(
        default=None, description="For S3; without credentials the bucket must be public."
    )
    minio_credentials: MinIOCredentials | None = Field(
        default=None, description="For a store that speaks S3, with its `endpoint_url`."
    )
    gcp_credentials: GcpCredentials | None = Field(default=None, description="For GCS.")

    prefix: str = Field(
        default="",
        title="Prefix",
        description="Such as `in/`: the credentials are for objects below it only; by default for all.",
    )

    @field_validator("bucket_url")
    @classmethod
    def _check_bucket(cls, url: str) -> str:
        if parse_place(url).key.strip("/"):
            raise ValueError("This must be s3://bucket or gs://bucket; the path is for the prefix.")
        return url.rstrip("/")

    @field_validator("prefix")
    @classmethod
    def _check_prefix(cls, prefix: str) -> str:
        return prefix.strip("/")

    @property
    def place(self) -> ObjectUrl:
        """Return the bucket, with the prefix as the key."""
        return parse_place(f"{self.bucket_url}/{self.prefix}")

    def url_of(self, key: str) -> str:
        """Return the URL of an object in the bucket."""
        return f"{self.bucket_url}/{key}"

    def read_credentials(self) -> Credentials | MachineIdentity | None:
        """Return the credentials in the form that our buckets take.

        A block without a key stands for the identity of the machine that the run is on.

        Raises:
            UnusableBlock: they are for another store, or hold half a key.
        """
        amazon = self.aws_credentials or self.minio_credentials
        is_google = self.place.store is StoreType.GCS
        if (amazon if is_google else self.gcp_credentials) is not None:
            raise UnusableBlock(f"The credentials of {self.bucket_url} are for another store.")
        if self.gcp_credentials:
            return _google(self.gcp_credentials)
        return _amazon(amazon) if amazon else None

    def read_key(self) -> Credentials | None:
        """Return the credentials, if any, with a key that URLs can be signed with.

        Raises:
            UnusableBlock: as `read_credentials`, or they hold none.
        """
        found = self.read_credentials()
        assumes = self.aws_credentials is not None and self.aws_credentials.assume_role_arn
        if assumes or isinstance(found, MachineIdentity):
            raise UnusableBlock(
                f"The credentials of {self.bucket_url} hold no key to sign URLs with, and those of a "
                "role or of the machine do not last as long as a job. Give the block a key, or set "
                "sign_urls to false."
            )
        return found

    def open(
        self,
        settings: Settings,
        url: ObjectUrl,
        *,
        delivers_to: str | None = None,
        kms_key_id: str | None = None,
        acl: str | None = None,
    ) -> Bucket:
        """Return the bucket of `url`, which must lie in the block's own place or in `delivers_to`.

        Raises:
            PlaceNotBound: the credentials are for other places.
            UnusableBlock: as `read_credentials`.
            Terminal: its endpoint is at an address that the settings do not allow.
        """
        bound = [self.place, *([parse_place(delivers_to)] if delivers_to else [])]
        if not any(url.lies_in(place) for place in bound):
            raise PlaceNotBound(
                f"The operator's credentials are not for {url.bucket}/{url.key}; "
                "give credentials of your own."
            )
        return open_bucket(
            url.store,
            url.bucket,
            self.read_credentials(),
            egress=Egress(settings.egress_allow),
            gcs_endpoint_url=settings.gcs_endpoint_url,
            kms_key_id=kms_key_id,
            acl=acl,
        )


class ResultsDelivery(Block):
    """Name where results go, and in which format."""

    _block_type_name = "Refinery Results Delivery"
    _block_type_slug = "refinery-results-delivery"
    _description = (
        "Where the results of jobs of `submit-manifests` go, and in which format. They are written with "
        "the credentials of the manifest source, so it has to be a bucket that those can write."
    )
    _code_example = """\
```python
from blocks.prefect.blocks import ResultsDelivery

ResultsDelivery(url="s3://my-bucket/labels", format="parquet").save("labels")
```"""

    url: str = Field(description="`s3://bucket/prefix` or `gs://bucket/prefix`.")
    format: ResultFormat = Field(
        default=ResultFormat.JSONL, description="JSON lines, or Parquet files."
    )
    compression: Compression = Field(
        default=Compression.NONE, description="Of whole objects; in Parquet files, of their pages."
    )
    kms_key_id: str | None = Field(
        default=None, description="S3 only: the KMS key that objects are encrypted with."
    )
    acl: str | None = Field(
        default=None, description="S3 only: a canned ACL, such as bucket-owner-full-control."
    )

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        parse_place(url)
        return url.rstrip("/")

    def target(self) -> DeliveryTarget:
        """Return the delivery of a job."""
        place = parse_place(self.url)
        return DeliveryTarget(
            type=place.store,
            bucket=place.bucket,
            prefix=place.key.strip("/"),
            compression=self.compression,
            format=self.format,
            kms_key_id=self.kms_key_id,
            acl=self.acl,
        )


class RefineryService(Block):
    """Call the API of a Refinery, from flows of your own."""

    _block_type_name = "Refinery Service"
    _block_type_slug = "refinery-service"
    _description = "The HTTP API of Refinery Jobs and a customer's key, for flows that submit jobs."
    _code_example = """\
```python
from prefect import flow

from blocks.prefect.blocks import RefineryService


@flow
def label(manifest_url: str) -> str:
    service = RefineryService.load("refinery")
    return service.submit_job(
        {
            "manifest_url": manifest_url,
            "label_spec": {"question": "Which animal is it?", "options": ["cat", "dog"]},
        },
        idempotency_key=manifest_url,
    )
```"""

    api_url: str = Field(description="Such as `https://labels.example.com`.")
    api_key: SecretStr = Field(description="A customer's key, `sk_…`.")

    def submit_job(self, body: dict[str, Any], *, idempotency_key: str | None = None) -> str:
        """Submit a job; return its id, or that of the job made with this key within the last day.

        Raises:
            httpx.HTTPStatusError: the API refused the job; its answer says why.
        """
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        return str(self._ask("POST", "/v1/jobs", json=body, headers=headers)["job_id"])

    def get_job(self, job_id: str) -> dict[str, Any]:
        """Return the job as `GET /v1/jobs/{id}` shows it.

        Raises:
            httpx.HTTPStatusError: there is no job of that id.
        """
        return self._ask("GET", f"/v1/jobs/{job_id}")

    def _ask(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self.api_key.get_secret_value()}"}
        headers |= more.pop("headers", {})
        with httpx.Client(base_url=self.api_url, headers=headers, timeout=_TIMEOUT_S) as client:
            answer = client.request(method, path, **more).raise_for_status()
        found: dict[str, Any] = answer.json()
        return found


BLOCKS: tuple[type[Block], ...] = (ManifestSource, ResultsDelivery, RefineryService)
"""The types that `refinery blocks register` registers."""


def load_source(name: str) -> ManifestSource:
    """Return the block of that name: `my-bucket` or `refinery-manifest-source/my-bucket`.

    Raises:
        UnusableBlock: there is no such block.
    """
    return _load(ManifestSource, name)


def load_delivery(name: str) -> ResultsDelivery:
    """Return the `refinery-results-delivery` of that name; raises as `load_source` does."""
    return _load(ResultsDelivery, name)


def _load(kind: type[_B], name: str) -> _B:
    slug = kind.get_block_type_slug()
    try:
        found = kind.load(name.removeprefix(f"{slug}/"))
    except GoogleAuthError as error:
        raise UnusableBlock(
            f"The block {slug}/{name} holds no service account, and this machine has no identity of "
            "Google's."
        ) from error
    except ValueError as error:
        raise UnusableBlock(
            f"There is no block {slug}/{name}; make it in the Prefect UI."
        ) from error
    assert isinstance(found, kind)  # in a sync function, load is no coroutine
    return found


def _check_trust(parameters: AwsClientParameters) -> None:
    """Check that the block asks for the usual verification of certificates.

    Raises:
        UnusableBlock: it asks for another one, which would not be heeded.
    """
    said = {
        "verify": parameters.verify not in {None, True},
        "verify_cert_path": parameters.verify_cert_path is not None,
    }
    for name in (name for name, is_said in said.items() if is_said):
        raise UnusableBlock(
            f"aws_client_parameters.{name} of a credentials block is not used: certificates are always "
            "verified, by the authorities in SSL_CERT_FILE. Put your own there, and clear the field."
        )


def _in_session(block: AwsCredentials) -> Any:
    """Return the block's key, or one of the role that it assumes."""
    try:
        return block.get_boto3_session().get_credentials().get_frozen_credentials()
    except (BotoCoreError, ClientError) as error:
        raise UnusableBlock(f"The AwsCredentials block cannot be used: {error}") from error


def _amazon(block: AwsCredentials | MinIOCredentials) -> S3Credentials | MachineIdentity:
    _check_trust(block.aws_client_parameters)
    if isinstance(block, MinIOCredentials):
        key, token = block.minio_root_user, None
        secret: str | None = block.minio_root_password.get_secret_value()
    else:
        if not (block.assume_role_arn or block.aws_access_key_id or block.aws_secret_access_key):
            return MachineIdentity(
                region=block.region_name or _REGION,
                endpoint_url=block.aws_client_parameters.endpoint_url,
                profile=block.profile_name,
            )
        found = _in_session(block)
        key, secret, token = found.access_key, found.secret_key, found.token
    if not key or not secret:
        raise UnusableBlock("The credentials block holds no key, or no secret.")
    return S3Credentials(
        access_key_id=key,
        secret_access_key=secret,
        session_token=token,
        region=block.region_name or _REGION,
        endpoint_url=block.aws_client_parameters.endpoint_url,
    )


def _google(block: GcpCredentials) -> GcsCredentials | MachineIdentity:
    info = block.service_account_info
    if info is not None:
        return GcsCredentials(service_account_json=json.dumps(info.get_secret_value()))
    if block.service_account_file is not None:
        return GcsCredentials(service_account_json=block.service_account_file.read_text("utf-8"))
    return MachineIdentity()
