"""Translate what s3fs, gcsfs and the network raise to our own types."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from blocks.domain.errors import (
    AccessDenied,
    BucketNotFound,
    InvalidCredentials,
    NotSupported,
    ObjectChanged,
    ObjectExists,
    ObjectNotFound,
    RefineryError,
    Terminal,
    Transient,
    WrongRegion,
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
    501: (NotSupported, "The store does not support the request for {key!r}."),
}


# A store repeats an answer with any other status, whatever code it gives: for an object in an archive, a
# wrong region, a key of KMS that is switched off.
_TRANSIENT_STATUS = {408, 409, 425, 429, *range(500, 600)}
_NOT_IMPLEMENTED = 501
_UPLOAD_GONE = 410  # of GCS: a new one has to be begun
# S3 answers a request in another region than the bucket's with one of these; without a body there is
# only the status. The region is in the body, or in a header.
_S3_REGION_CODES = {
    "301",
    "400",
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
    "PermanentRedirect",
}
_NO_PATTERNS = "A * in a key stands for itself; patterns are not supported."
_REGION = re.compile(r"[a-z0-9-]{1,40}")
# A code of S3. A hostile store may put megabytes there, and codes are shown and stored.
_CODE = re.compile(r"[A-Za-z0-9._-]{1,64}")
_STATUS = re.compile(r"[1-9][0-9]{2}")
# These come with 400 or 404, and yet time may mend them: an upload is gone that a twin, or a rule of the
# bucket, has tidied up, and the next attempt begins another.
_S3_TRANSIENT_CODES = {
    "NoSuchUpload",
    "BadDigest",
    "IncompleteBody",
    "RequestLimitExceeded",
    "RequestTimeout",
    "Throttling",
    "ThrottlingException",
    "XAmzContentSHA256Mismatch",
}

# botocore raises these before it asks anybody.
_REFUSED_BY_CLIENT = {
    "NoCredentialsError",
    "ParamValidationError",
    "InvalidRegionError",
    "EndpointResolutionError",
    "EndpointProviderError",
}


@contextmanager
def translated(bucket: str, key: str, *, region: str = "") -> Iterator[None]:
    """Translate what is raised inside to `Transient` or a kind of `Terminal`.

    `region` is the one that the requests are signed for, if any.
    """
    try:
        yield
    except RefineryError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever the clients raise has to be classified
        # A refusal of ours, by the resolver, comes wrapped in the client's errors.
        for cause in _causes(error):
            if isinstance(cause, RefineryError):
                raise cause from None
        other = _other_region(error, region)
        if other:
            raise WrongRegion(
                f"Bucket {bucket!r} is in region {other!r}, and the credentials say {region!r}."
            ) from None
        kind, sentence = _classify(error)
        if kind is ObjectNotFound and "*" in key:
            sentence = f"{sentence} {_NO_PATTERNS}"
        # Not `from error`: that may quote the endpoint or the region, and Prefect keeps tracebacks.
        raise kind(sentence.format(bucket=bucket, key=key)) from None


def _classify(error: Exception) -> tuple[type[Terminal] | type[Transient], str]:
    code = _s3_code(error)
    if code:
        return _classify_s3(code, _s3_status(error))
    if _STATUS.fullmatch(str(getattr(error, "code", ""))):
        return _classify_gcs(int(error.code))  # type: ignore[attr-defined]
    if isinstance(error, OSError) and str(error).startswith("Forbidden"):
        return _GCS_STATUS[403]
    if isinstance(error, FileNotFoundError):
        return _S3_CODES["NoSuchKey"]
    if type(error).__name__ in _REFUSED_BY_CLIENT:
        return InvalidCredentials, "The store wants credentials, or does not accept these."
    if any(_is_slow(cause) for cause in _causes(error)):
        return Transient, "The store did not answer in time."
    # Raised where an answer is parsed.
    is_parsing = type(error).__name__ == "ResponseParserError"
    if is_parsing or isinstance(error, (LookupError, TypeError, ValueError)):
        return Transient, f"The store's answer cannot be understood ({type(error).__name__})."
    return Transient, f"The store cannot be reached ({type(error).__name__})."


def _classify_s3(code: str, status: int | None) -> tuple[type[Terminal] | type[Transient], str]:
    if code in _S3_CODES:
        return _S3_CODES[code]
    name = code if _CODE.fullmatch(code) else f"status {status}"
    if status == _NOT_IMPLEMENTED:
        return NotSupported, f"The store does not support the request for {{key!r}} ({name})."
    if status not in _TRANSIENT_STATUS and code not in _S3_TRANSIENT_CODES:
        return AccessDenied, f"The store refuses the request for {{key!r}}: {name}."
    return Transient, f"The store answered {name}."


def _classify_gcs(status: int) -> tuple[type[Terminal] | type[Transient], str]:
    if status in _GCS_STATUS:
        return _GCS_STATUS[status]
    if status in _TRANSIENT_STATUS or status == _UPLOAD_GONE:
        return Transient, f"The store answered {status}."
    return AccessDenied, f"The store refuses the request for {{key!r}}: {status}."


def _is_slow(error: BaseException) -> bool:
    """Return True for a deadline that passed, other than that for a connection."""
    return isinstance(error, TimeoutError) and type(error).__name__ != "ConnectionTimeoutError"


def _other_region(error: BaseException, given: str) -> str | None:
    """Return the region that a store says the bucket is in, if it is not the one that was given."""
    answer = _s3_answer(error)
    if not given or _s3_code(error) not in _S3_REGION_CODES:
        return None
    headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    named = answer.get("Error", {}).get("Region") or headers.get("x-amz-bucket-region") or ""
    return named if _REGION.fullmatch(named) and named != given else None


def is_bare_refusal(error: BaseException) -> bool:
    """Return True if a store refused a HEAD, whose answer has no place for a reason."""
    return _s3_code(error) in {"301", "400", "403", "404"}


def is_upload_gone(error: BaseException) -> bool:
    """Return True if an upload of parts was completed or aborted before."""
    return _s3_code(error) == "NoSuchUpload"


def _s3_code(error: BaseException) -> str | None:
    code: str | None = _s3_answer(error).get("Error", {}).get("Code")
    return code


def _s3_status(error: BaseException) -> int | None:
    status: int | None = _s3_answer(error).get("ResponseMetadata", {}).get("HTTPStatusCode")
    return status


def _s3_answer(error: BaseException) -> dict[str, Any]:
    """Return the answer in a botocore ClientError, which s3fs keeps as the cause of its own errors."""
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
    """Return the whole of an aiobotocore body, from outside its event loop, within its bounds."""
    from fsspec.asyn import sync  # noqa: PLC0415 - loaded with s3fs by now

    async def read() -> bytes:
        async with body:
            data: bytes = await body.raw_stream.read()
            return data

    data: bytes = sync(loop, read)
    return data


def forgive_same(error: OSError, path: str, has_same: Callable[[], bool]) -> None:
    """Ignore a lost race to create an object, if the same bytes stand there.

    Raises:
        ObjectExists: something else stands there.
        OSError: `error` was another one.
    """
    lost = isinstance(error, FileExistsError) or _s3_code(error) in {"PreconditionFailed", "412"}
    if not lost:
        raise error
    if not has_same():
        raise ObjectExists(f"Another object stands in {path}.") from error
