"""Seal customers' cloud credentials by AES-256-GCM, and make keyed digests of requests.

An envelope is `version (1 byte) | key id (8) | nonce (12) | ciphertext and tag`. The associated
data binds it to the row it was made for, so an envelope copied to another row does not open.
"""

import hashlib
import hmac
import os
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from blocks.domain.errors import UndecryptableCredentials

_VERSION = b"\x01"
_KEY_ID_BYTES = 8
_NONCE_BYTES = 12  # 96 bits, random: NIST SP 800-38D §8.2.2
_HEADER_BYTES = len(_VERSION) + _KEY_ID_BYTES + _NONCE_BYTES


class Vault:
    """A set of keys: the first one seals, and any of them opens.

    `keys` are 32 bytes each, the current one first and then those it replaced.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._ciphers = {_key_id(key): AESGCM(key) for key in keys}
        self._digest_keys = {_key_id(key): _digest_key(key) for key in keys}
        self._current = _key_id(keys[0])

    def seal(self, plaintext: bytes, *, bound_to: str) -> bytes:
        """Return the envelope of `plaintext`, which opens only with the same `bound_to`."""
        nonce = os.urandom(_NONCE_BYTES)
        ciphertext = self._ciphers[self._current].encrypt(nonce, plaintext, bound_to.encode())
        return _VERSION + self._current + nonce + ciphertext

    def open(self, envelope: bytes, *, bound_to: str) -> bytes:
        """Return the plaintext of `envelope`.

        Raises:
            UndecryptableCredentials: the key is unknown, or the envelope was altered or moved.
        """
        key_id = envelope[len(_VERSION) : len(_VERSION) + _KEY_ID_BYTES]
        nonce = envelope[_HEADER_BYTES - _NONCE_BYTES : _HEADER_BYTES]
        cipher = self._ciphers.get(key_id)
        if envelope[:1] != _VERSION or len(nonce) < _NONCE_BYTES or cipher is None:
            raise UndecryptableCredentials(
                "The stored credentials were encrypted with a key that this process does not have; "
                "put the old key into ASG_ENCRYPTION_KEY_PREVIOUS."
            )
        try:
            return cipher.decrypt(nonce, envelope[_HEADER_BYTES:], bound_to.encode())
        except InvalidTag as error:
            raise UndecryptableCredentials(
                "The stored credentials were altered, or belong to another row."
            ) from error

    def digest(self, content: bytes) -> bytes:
        """Return the current key's id and an HMAC-SHA256 of `content`, by a key derived from it.

        Nobody who has only the digest can try guesses of the content against it.
        """
        return self._current + _hmac(self._digest_keys[self._current], content)

    def is_digest_of(self, digest: bytes, content: bytes) -> bool:
        """Return True if `digest` may be of `content`, by the key that it was made with.

        That includes a digest whose key was removed: nothing can be told from it any more, and a request
        that is only repeated must not become a conflict.
        """
        key = self._digest_keys.get(digest[:_KEY_ID_BYTES])
        return key is None or hmac.compare_digest(digest[_KEY_ID_BYTES:], _hmac(key, content))

    def is_current(self, envelope: bytes) -> bool:
        """Return True if `envelope` was sealed with the current key, so that a rotation may skip it."""
        return envelope.startswith(_VERSION + self._current)


def _digest_key(key: bytes) -> bytes:
    # Not the key itself: a key that seals is used for nothing else.
    return _hmac(key, b"refinery request digest")


def _hmac(key: bytes, content: bytes) -> bytes:
    return hmac.digest(key, content, "sha256")


def _key_id(key: bytes) -> bytes:
    return hashlib.sha256(b"refinery key id" + key).digest()[:_KEY_ID_BYTES]
