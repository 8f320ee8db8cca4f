"""Sealed credentials open with their key, in their row, unaltered, and not otherwise."""

import hashlib
import hmac
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.domain.errors import UndecryptableCredentials
from blocks.secrets.vault import Vault

OLD, NEW, OTHER = (bytes([n]) * 32 for n in (1, 2, 3))
SECRET = b'{"secret_access_key": "wJalrXUtnFEMI"}'
ROW = "jobs.credentials job_1 cust_1"


@given(st.binary(max_size=2000), st.text(st.characters(codec="utf-8")))
def test_what_is_sealed_opens_again(plaintext: bytes, bound_to: str) -> None:
    vault = Vault([os.urandom(32)])
    assert vault.open(vault.seal(plaintext, bound_to=bound_to), bound_to=bound_to) == plaintext


def test_an_envelope_shows_nothing_of_its_content() -> None:
    envelope = Vault([NEW]).seal(SECRET, bound_to=ROW)
    assert SECRET not in envelope
    assert not any(SECRET[n : n + 6] in envelope for n in range(len(SECRET) - 5))
    assert NEW[:8] not in envelope


def test_no_byte_of_an_envelope_can_be_altered() -> None:
    vault = Vault([NEW])
    envelope = vault.seal(SECRET, bound_to=ROW)
    for at in range(len(envelope)):
        for mask in (0x01, 0x80, 0xFF):
            altered = bytearray(envelope)
            altered[at] ^= mask
            with pytest.raises(UndecryptableCredentials):
                vault.open(bytes(altered), bound_to=ROW)


def test_an_envelope_that_was_made_longer_does_not_open() -> None:
    vault = Vault([NEW])
    with pytest.raises(UndecryptableCredentials):
        vault.open(vault.seal(SECRET, bound_to=ROW) + b"\x00", bound_to=ROW)


@pytest.mark.parametrize(
    "kept",
    [0, 1, 8, 9, 16, 17, 20, 21, 22, 36, 37, 58],
)
def test_nor_does_one_that_was_cut_short(kept: int) -> None:
    vault = Vault([NEW])
    with pytest.raises(UndecryptableCredentials):
        vault.open(vault.seal(SECRET, bound_to=ROW)[:kept], bound_to=ROW)


@pytest.mark.parametrize(
    "row", ["", "jobs.credentials job_1 cust_2", "jobs.credentials job_2 cust_1", ROW + " "]
)
def test_an_envelope_that_was_moved_to_another_row_does_not_open(row: str) -> None:
    vault = Vault([NEW])
    with pytest.raises(UndecryptableCredentials, match="altered, or belong to another row"):
        vault.open(vault.seal(SECRET, bound_to=ROW), bound_to=row)


def test_without_its_key_the_operator_is_told_what_to_do() -> None:
    envelope = Vault([OLD]).seal(SECRET, bound_to=ROW)
    with pytest.raises(UndecryptableCredentials, match="ASG_ENCRYPTION_KEY_PREVIOUS"):
        Vault([NEW, OTHER]).open(envelope, bound_to=ROW)


def test_a_wrong_key_under_the_right_id_does_not_open() -> None:
    envelope = bytearray(Vault([OLD]).seal(SECRET, bound_to=ROW))
    envelope[1:9] = Vault([NEW]).seal(SECRET, bound_to=ROW)[1:9]
    with pytest.raises(UndecryptableCredentials):
        Vault([NEW]).open(bytes(envelope), bound_to=ROW)


def test_after_a_rotation_old_rows_open_and_new_ones_have_the_new_key() -> None:
    before = Vault([OLD])
    old = before.seal(SECRET, bound_to=ROW)
    rotated = Vault([NEW, OTHER, OLD])
    assert rotated.open(old, bound_to=ROW) == SECRET
    new = rotated.seal(SECRET, bound_to=ROW)
    assert Vault([NEW]).open(new, bound_to=ROW) == SECRET
    with pytest.raises(UndecryptableCredentials):
        before.open(new, bound_to=ROW)
    assert (rotated.is_current(old), rotated.is_current(new)) == (False, True)


def test_no_nonce_comes_twice() -> None:
    vault = Vault([NEW])
    envelopes = {vault.seal(SECRET, bound_to=ROW) for _ in range(1000)}
    assert len({envelope[9:21] for envelope in envelopes}) == 1000
    assert len({envelope[:9] for envelope in envelopes}) == 1


def test_an_error_has_nothing_of_the_plaintext_or_the_key() -> None:
    vault = Vault([NEW])
    envelope = vault.seal(SECRET, bound_to=ROW)
    with pytest.raises(UndecryptableCredentials) as caught:
        vault.open(envelope, bound_to="elsewhere")
    assert "wJalr" not in str(caught.value)
    assert NEW.hex() not in repr(vault) + str(caught.value)


# Digests


@given(st.binary(), st.binary())
def test_a_digest_is_of_its_content_alone(content: bytes, other: bytes) -> None:
    vault = Vault([NEW])
    digest = vault.digest(content)
    assert vault.is_digest_of(digest, content)
    assert vault.is_digest_of(digest, other) is (other == content)


def test_without_the_key_a_digest_confirms_no_guess() -> None:
    digest = Vault([NEW]).digest(SECRET)
    plain = hashlib.sha256(SECRET).digest()
    by_the_key_itself = hmac.digest(NEW, SECRET, "sha256")
    by_another = Vault([OTHER]).digest(SECRET)
    assert not any(guess[-32:] in digest for guess in (plain, by_the_key_itself, by_another))


@pytest.mark.parametrize("keys", [[NEW, OLD], [NEW]], ids=["kept", "taken away"])
def test_a_rotation_makes_no_conflict_of_a_request_that_is_repeated(keys: list[bytes]) -> None:
    digest = Vault([OLD]).digest(SECRET)
    assert Vault(keys).is_digest_of(digest, SECRET)
    assert Vault(keys).digest(SECRET) != digest


def test_with_the_old_key_another_request_is_still_told_from_it() -> None:
    assert not Vault([NEW, OLD]).is_digest_of(Vault([OLD]).digest(SECRET), b"another")
