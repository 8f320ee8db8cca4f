"""Sign webhooks: by Standard Webhooks, and by `X-ASG-Signature` beside it.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Sequence

_PREFIX = "whsec_"
_KEY_BYTES = 32
_KEY_BYTES_MIN, _KEY_BYTES_MAX = 24, 64  # of the specification


def new_secret() -> str:
    """Return a new secret as the specification has them: `whsec_` and 32 random bytes in base 64."""
    return _PREFIX + base64.b64encode(secrets.token_bytes(_KEY_BYTES)).decode()


def check_secret(secret: str) -> None:
    """Check a field that must be a secret of Standard Webhooks, or another text that is long enough.

    Raises:
        ValueError: it is neither.
    """
    if secret.startswith(_PREFIX):
        try:
            valid = _KEY_BYTES_MIN <= len(_key(secret)) <= _KEY_BYTES_MAX
        except ValueError:
            valid = False
        if not valid:
            raise ValueError("After whsec_ there must be 24 to 64 bytes in base 64.")
    elif not all("!" <= character <= "~" for character in secret):
        raise ValueError("This must be of visible ASCII characters, without spaces.")


def signed_headers(
    message_id: str, timestamp_s: int, body: bytes, keys: Sequence[str]
) -> dict[str, str]:
    """Return the headers of one attempt; `keys` are secrets, the current one first.

    `X-ASG-Signature` signs the body alone, with the secret as it was shown. Simple receivers compare the
    whole header, so the previous secret signs in a header of its own.
    """
    content = f"{message_id}.{timestamp_s}.".encode() + body
    signatures = [
        "v1," + base64.b64encode(hmac.digest(_key(key), content, "sha256")).decode() for key in keys
    ]
    headers = {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": " ".join(signatures),
    }
    for name, key in zip(("X-ASG-Signature", "X-ASG-Signature-Previous"), keys, strict=False):
        headers[name] = "sha256=" + hmac.new(key.encode(), body, hashlib.sha256).hexdigest()
    return headers


def _key(secret: str) -> bytes:
    """Return the bytes to sign with. Verifiers are given `whsec_` and their base 64."""
    if not secret.startswith(_PREFIX):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except binascii.Error as error:
        raise ValueError("not base 64") from error
