"""What s3fs, gcsfs and the network raise, in our own types."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from blocks.errors import (
    AccessDenied,
    BucketNotFound,
    InvalidCredentials,
    ObjectChanged,
    ObjectExists,
    ObjectNotFound,
    RefineryError,
    Terminal,
    Transient,
)

# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
_S3_CODES: dict[str, tuple[type[Terminal], str]] = {
    "NoSuchBucket": (BucketNotFound, "There is no bucket {bucket!r}."),
    "NoSuchKey": (ObjectNotFound, "There is no object {key!r} in bucket {bucket!r}."),
    "404": (ObjectNotFound, "There is no object {key!r} in bucket {bucket!r}."),
    "AccessDenied": (AccessDenied, "Access to {key!r} in bucket {bucket!r} is denied."),
    "AllAccessDisabled": (AccessDenied, "Access to bucket {bucket!r} is denied."),
    "403": (AccessDenied, "Access to {key!r} in bucket {bucket!r} is denied."),
    "InvalidAccessKeyId": (InvalidCredentials, "The store does not know the access key id."),
    "SignatureDoesNotMatch": (
        InvalidCredentials,
        "The secret access key is wrong: the store computed another signature.",
    ),
    "ExpiredToken": (InvalidCredentials, "The session token has expired."),
    "InvalidToken": (InvalidCredentials, "The session token is not valid."),
    "RequestTimeTooSkewed": (InvalidCredentials, "The clocks of the store and of ours differ."),
    "PreconditionFailed": (ObjectChanged, "{bucket}/{key} was replaced while it was being read."),
    "412": (ObjectChanged, "{bucket}/{key} was replaced while it was being read."),
    "InvalidBucketName": (BucketNotFound, "{bucket!r} is not a bucket name."),
    "AccessControlListNotSupported": (AccessDenied, "Bucket {bucket!r} does not allow ACLs."),
    "KMS.NotFoundException": (AccessDenied, "The store does not know the KMS key."),
    "InvalidArgument": (AccessDenied, "The store refuses the request for {key!r} as invalid."),
    "InvalidRequest": (AccessDenied, "The store refuses the request for {key!r} as invalid."),
}
_GCS_STATUS: dict[int, tuple[type[Terminal], str]] = {
    400: (AccessDenied, "The store refuses the request for {key!r} as invalid."),
    401: (InvalidCredentials, "The store wants credentials, or does not accept these."),
    403: (AccessDenied, "Access to {key!r} in bucket {bucket!r} is denied."),
}


# What an S3 store says with these it will say again, whatever code it gives for it: an object in an
# archive, a wrong region, a key of KMS that is switched off.
_S3_PERMANENT_STATUS = {301, 400, 401, 403, 405, 410}
# But for these, which come with 400.
_S3_TRANSIENT_CODES = {
    "BadDigest",
    "IncompleteBody",
    "RequestLimitExceeded",
    "RequestTimeout",
    "Throttling",
    "ThrottlingException",
    "XAmzContentSHA256Mismatch",
}

# What botocore raises before it asks anybody.
_REFUSED_BY_CLIENT = {
    "NoCredentialsError",
    "ParamValidationError",
    "InvalidRegionError",
    "EndpointResolutionError",
    "EndpointProviderError",
}


@contextmanager
def translated(bucket: str, key: str) -> Iterator[None]:
    """Raise what is raised inside as `Transient` or a kind of `Terminal`."""
    try:
        yield
    except RefineryError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever the clients raise has to be classified
        # A refusal of ours, by the resolver, comes wrapped in the client's errors.
        for cause in _causes(error):
            if isinstance(cause, RefineryError):
                raise cause from None
        kind, sentence = _classify(error)
        # Not `from error`: that may quote the endpoint or the region, and Prefect keeps tracebacks.
        raise kind(sentence.format(bucket=bucket, key=key)) from None


def _classify(error: Exception) -> tuple[type[Terminal] | type[Transient], str]:
    code = _s3_code(error)
    if code in _S3_CODES:
        return _S3_CODES[code]
    if code:
        name = code.replace("{", "{{").replace("}", "}}")  # it becomes part of a format
        if _s3_status(error) in _S3_PERMANENT_STATUS and code not in _S3_TRANSIENT_CODES:
            return AccessDenied, f"The store refuses the request for {{key!r}}: {name}."
        return Transient, f"The store answered {name}."
    status = str(getattr(error, "code", ""))
    if status.isdigit() and int(status) in _GCS_STATUS:
        return _GCS_STATUS[int(status)]
    if isinstance(error, OSError) and str(error).startswith("Forbidden"):
        return _GCS_STATUS[403]
    if isinstance(error, FileNotFoundError):
        return _S3_CODES["NoSuchKey"]
    if type(error).__name__ in _REFUSED_BY_CLIENT:
        return InvalidCredentials, "The store wants credentials, or does not accept these."
    return Transient, f"The store cannot be reached ({type(error).__name__})."


def is_bare_refusal(error: BaseException) -> bool:
    """Whether a store said no to a HEAD, in whose answer there is no place for a reason."""
    return _s3_code(error) in {"301", "400", "403", "404"}


def _s3_code(error: BaseException) -> str | None:
    code: str | None = _s3_answer(error).get("Error", {}).get("Code")
    return code


def _s3_status(error: BaseException) -> int | None:
    status: int | None = _s3_answer(error).get("ResponseMetadata", {}).get("HTTPStatusCode")
    return status


def _s3_answer(error: BaseException) -> dict[str, Any]:
    """What is in a botocore ClientError, which s3fs keeps as the cause of its own errors."""
    for cause in _causes(error):
        response = getattr(cause, "response", None)
        if isinstance(response, dict):
            return response
    return {}


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def read_body(loop: Any, body: Any) -> bytes:
    """The whole of an aiobotocore body, from outside its event loop."""
    from fsspec.asyn import sync  # noqa: PLC0415 - loaded with s3fs by now

    async def read() -> bytes:
        async with body as stream:
            data: bytes = await stream.read()
            return data

    data: bytes = sync(loop, read)
    return data


def forgive_same(error: OSError, path: str, data: bytes, read: Callable[[], bytes]) -> None:
    """Pass over a lost race to create an object, if what stands there is what was to be written.

    Raises:
        ObjectExists: something else stands there.
        OSError: `error` was another one.
    """
    lost = isinstance(error, FileExistsError) or _s3_code(error) in {"PreconditionFailed", "412"}
    if not lost:
        raise error
    if read() != data:
        raise ObjectExists(f"Another object stands in {path}.") from error
