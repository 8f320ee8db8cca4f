"""Failures of the outside world, by type: retry decides on the type, never on a text."""

from typing import ClassVar


class RefineryError(Exception):
    """The base of all errors of Refinery; `message` is a sentence for people."""

    code: ClassVar[str] = "error"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class IdempotencyConflict(RefineryError):
    """An idempotency key was used again with another request."""

    code = "idempotency_conflict"


class Transient(RefineryError):
    """Time may mend this: the same call is tried again after a wait."""

    code = "unavailable"


class RunEnded(Transient):
    """A run took as long as a run may take. Another one goes on with the rest."""


class Terminal(RefineryError):
    """No retry can mend this: somebody has to change something first."""

    code = "refused"


class StoreUnavailable(Terminal):
    """A transient failure has lasted for longer than the settings allow."""

    code = "store_unavailable"


class InternalError(Terminal):
    """Refinery itself is at fault, in every run; the operators are told."""

    code = "internal_error"


class ObjectNotFound(Terminal):
    """The bucket exists, the object does not."""

    code = "object_not_found"


class BucketNotFound(Terminal):
    """The bucket does not exist."""

    code = "bucket_not_found"


class AccessDenied(Terminal):
    """The credentials are good, but do not allow this."""

    code = "access_denied"


class InvalidCredentials(Terminal):
    """The store does not know the access key, or its secret is wrong, or it has run out."""

    code = "invalid_credentials"


class CredentialsWiped(Terminal):
    """The customer, or the grace period, has wiped the credentials that this needs."""

    code = "credentials_wiped"


class ObjectChanged(Terminal):
    """The object is no longer the version that was pinned."""

    code = "manifest_changed"


class ObjectExists(Terminal):
    """Another object stands under a name that was to be created."""

    code = "object_exists"


class AddressRefused(Terminal):
    """An outbound address is private, loopback or otherwise not allowed by the settings."""

    code = "address_refused"


class RedirectRefused(Terminal):
    """A store answered with a redirect to another address."""

    code = "redirect_refused"


class UndecryptableCredentials(RefineryError):
    """No key of this process opens the stored credentials: the operator has to add the old key."""

    code = "credentials_undecryptable"


class ContentEncodingRefused(Terminal):
    """An object is stored, or was sent, with a Content-Encoding."""

    code = "content_encoding_not_supported"


class ListingEndless(Terminal):
    """A store's listing repeats itself, or has too many pages."""

    code = "listing_endless"


class NotSupported(Terminal):
    """The store does not support the request (501)."""

    code = "not_supported_by_store"


class StoreAnswerInvalid(Terminal):
    """The store's answer lacks what an answer of a store has."""

    code = "store_answer_invalid"


class WrongRegion(Terminal):
    """The bucket is in another region than the credentials name."""

    code = "wrong_region"


class ManifestRefused(Terminal):
    """The manifest as a whole is unusable: none of its lines is JSON."""

    code = "manifest_not_jsonl"


class ManifestCorrupt(Terminal):
    """A compressed manifest cannot be decompressed to its end."""

    code = "manifest_corrupt"


class ManifestTooLarge(Terminal):
    """A manifest is larger than the settings allow, as it is or decompressed."""

    code = "manifest_too_large"


class NoValidLines(Terminal):
    """The manifest has lines, and none of them is usable."""

    code = "no_valid_lines"


class LedgerMismatch(Terminal):
    """The lines that were recorded are not those that were read: an error of the service."""

    code = "ledger_mismatch"


class TooManyBadLines(Terminal):
    """More lines are bad than the job's `failure_threshold_percent` allows."""

    code = "failure_threshold_exceeded"
