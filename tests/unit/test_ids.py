"""Public ids, and how those of tasks hide which task is which."""

import random
import re
from itertools import pairwise
from statistics import correlation, mean

import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from blocks.domain.ids import (
    id_number,
    new_id,
    new_secret,
    new_task_key,
    parse_task_id,
    task_id,
    task_no_of,
)

JOB = "0123456789abcdefghjkmn"
END = 2**60
numbers = st.integers(0, END - 1)
keys = st.integers(0, END - 1)
SOME_KEYS = [0, 1, END - 1, *random.Random(17).sample(range(END), 5)]


def test_ids_are_opaque_url_safe_and_prefixed() -> None:
    ids = {new_id("job") for _ in range(1000)}
    assert len(ids) == 1000
    assert all(re.fullmatch("job_[0-9a-hjkmnp-tv-z]{22}", text) for text in ids)


def test_secrets_have_256_bits() -> None:
    secrets = {new_secret("sk") for _ in range(100)}
    assert len(secrets) == 100
    assert all(re.fullmatch("sk_[A-Za-z0-9_-]{43}", text) for text in secrets)


def test_keys_have_60_bits() -> None:
    made = [new_task_key() for _ in range(200)]
    assert all(0 <= key < END for key in made)
    assert all(len({key >> bit & 1 for key in made}) == 2 for bit in range(60))


@given(keys, numbers)
@example(0, 0)
@example(0, END - 1)
@example(END - 1, 0)
@example(END - 1, END - 1)
def test_a_task_id_gives_back_the_job_and_with_its_key_the_task(key: int, task_no: int) -> None:
    made = task_id(f"job_{JOB}", key, task_no)
    assert re.fullmatch(rf"tsk_{JOB}(0|[1-9][0-9]{{0,18}})", made)
    parsed = parse_task_id(made)
    assert parsed is not None
    job_id, number = parsed
    assert job_id == f"job_{JOB}"
    assert task_no_of(key, number) == task_no


@given(keys, numbers)
def test_every_number_is_that_of_a_task(key: int, number: int) -> None:
    task_no = task_no_of(key, number)
    assert 0 <= task_no < END
    assert id_number(key, task_no) == number


@given(keys, st.lists(numbers))
@example(END - 1, [0, END - 1])
def test_a_column_has_the_same_numbers(key: int, task_nos: list[int]) -> None:
    found = id_number(key, pl.Series(task_nos, dtype=pl.Int64))
    assert found.dtype == pl.Int64
    assert found.to_list() == [id_number(key, task_no) for task_no in task_nos]


@pytest.mark.parametrize(
    "key, task_no, number",
    [
        (0, 0, 518893141526667634),
        (0, END - 1, 619656217434034718),
        (END - 1, 0, 221132356186660570),
        (123456789012345678, 1, 760986694357449797),
        (123456789012345678, 2**32, 520596418985588864),
    ],
)
def test_ids_stay_the_same_in_every_version(key: int, task_no: int, number: int) -> None:
    assert id_number(key, task_no) == number


@pytest.mark.parametrize("key", SOME_KEYS)
def test_neighbours_are_not_neighbours(key: int) -> None:
    """The order of ids has nothing to do with the manifest's, nor have their distances."""
    found = [id_number(key, task_no) for task_no in range(1000)]
    assert len(set(found)) == 1000
    assert abs(correlation(range(1000), found)) < 0.1
    distances = [abs(one - other) for one, other in pairwise(found)]
    assert len(set(distances)) == 999
    assert mean(distances) == pytest.approx(END / 3, rel=0.1)  # that of two drawn by lot


@pytest.mark.parametrize("key", SOME_KEYS)
def test_each_bit_of_a_number_and_of_the_key_changes_half_of_the_bits(key: int) -> None:
    rng = random.Random(key)
    starts = [rng.randrange(END) for _ in range(40)]
    for bit in range(60):
        for one, other in ((0, 1 << bit), (1 << bit, 0)):
            flipped = [
                (id_number(key, n) ^ id_number(key ^ one, n ^ other)).bit_count() for n in starts
            ]
            assert 26 < mean(flipped) < 34


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tsk_",
        "tsk_" + JOB,
        "tsk_" + JOB + "G",
        "tsk_" + JOB + "A",
        "tsk_" + JOB + "-1",
        f"tsk_{JOB}{END}",
        "tsk_" + JOB + "9" * 19,
        "tsk_" + JOB + "1" * 20,
        "tsk_" + JOB[:-1] + "ü1",
        "tsk_" + JOB[:-1] + "i1",
        "TSK_" + JOB + "1",
        "job_" + JOB + "1",
        " tsk_" + JOB + "1",
        "tsk_" + JOB + "1\n",
        "tsk_" + JOB + "1\x00",
        "tsk_" + JOB + "\u0661",
    ],
)
def test_what_is_not_one_of_our_task_ids_is_none(text: str) -> None:
    assert parse_task_id(text) is None
    assert parse_task_id(f"tsk_{JOB}{END - 1}") == ("job_" + JOB, END - 1)


@pytest.mark.parametrize("number", ["00", "01", "000000000000001"])
def test_a_task_has_one_spelling_of_its_id(number: str) -> None:
    assert parse_task_id("tsk_" + JOB + number) is None
