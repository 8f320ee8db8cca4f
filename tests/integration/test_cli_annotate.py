"""`refinery annotate`: a person at a terminal, who types numbers."""

import io
import json

import pytest

from api.cli import client
from blocks.store import customers
from tests.support.cli import Cli, Ran
from tests.support.store_shop import Shop, make_chunk

pytestmark = pytest.mark.integration


@pytest.fixture
def person(cli: Cli, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> "Person":
    _, key = shop.do(customers.add_annotator_key, "ann")
    cli.say(REFINERY_ANNOTATOR_KEY=key)
    return Person(cli, monkeypatch)


class Person:
    def __init__(self, cli: Cli, patch: pytest.MonkeyPatch) -> None:
        self._cli, self._patch = cli, patch

    def types(self, *words: str, ends: bool = True, at_once: int = 10) -> Ran:
        """Type these words, and then `q`, or let the terminal hang up; return how the command ended."""
        typed = "".join(f"{word}\n" for word in (*words, *(["q"] if ends else [])))
        self._patch.setattr("sys.stdin", io.StringIO(typed))
        return self._cli("annotate", "--at-once", str(at_once))


def labels(shop: Shop) -> list[int]:
    """The options that were chosen, by their numbers, in the order of the lines."""
    return [row["option"] for row in shop.run("select option from labels order by task_no")]


def held(shop: Shop) -> int:
    return int(shop.value("select count(*) from leases"))


def test_numbers_choose_and_what_was_not_chosen_goes_back(person: Person, shop: Shop) -> None:
    shop.processing(make_chunk(4))
    ran = person.types("1", "2", "s")
    assert (ran.code, labels(shop), held(shop)) == (0, [1, 2], 0)
    assert ran.out.splitlines()[-1].endswith("2 accepted")
    assert "1 of 4" in ran.out
    assert "\na number chooses; ? unclear" in ran.out
    assert "   2  dog" in ran.out


def test_tasks_are_skipped_with_a_reason_and_a_note(person: Person, shop: Shop) -> None:
    shop.processing(make_chunk(5))
    ran = person.types("?", "!  The picture is black. ", "-", "-", "u", "2", "s", "")
    assert ran.code == 0
    assert ran.out.splitlines()[-1].endswith("3 skipped, 1 accepted")
    assert "Enter sends 4 labels and skips" in ran.out
    query = "select reason, note from skips order by task_no"
    assert [tuple(row.values()) for row in shop.run(query)] == [
        (1, None), (2, "The picture is black."), (3, None),
    ]  # fmt: skip
    assert labels(shop) == [2]


def test_a_choice_can_be_undone_until_it_is_sent(person: Person, shop: Shop) -> None:
    shop.processing(make_chunk(2))
    ran = person.types("1", "1", "u", "u", "u", "3", "2", "u", "1", "", "u", at_once=2)
    assert "nothing to undo" in ran.out
    assert labels(shop) == [3, 1]


def test_a_claim_follows_the_other_until_nothing_is_left(person: Person, shop: Shop) -> None:
    shop.processing(make_chunk(5))
    ran = person.types(*["1", "1", ""] * 2, "1", "", ends=False, at_once=2)
    assert "nothing to label" in ran.err
    assert ran.out.splitlines()[-1].endswith("5 accepted")
    assert (labels(shop), held(shop)) == ([1] * 5, 0)


def test_a_job_of_which_nothing_is_left_is_said_to_be_over(
    person: Person, shop: Shop, cli: Cli
) -> None:
    job_id = shop.processing(make_chunk(1)).job_id
    assert "nothing to label just now" in person.types("1", "", ends=False).err
    ran = cli("annotate", "--job", job_id)
    assert (ran.code, ran.out) == (0, "no labels\n")
    assert "There is nothing left to label." in ran.err
    ran = cli("annotate", "--job", "job_unknown")
    assert (ran.code, "no such job" in ran.err) == (6, True)


@pytest.mark.parametrize("word", ["0", "4", "-1", "1.5", "x", "", "²", "1" * 5000])
def test_what_is_none_of_the_choices_is_asked_again(word: str, person: Person, shop: Shop) -> None:
    shop.processing(make_chunk(1))
    ran = person.types(word, "3")
    assert "Type a number from 1 to 3, ?, !, -, s, u or q." in ran.out
    assert labels(shop) == [3]


def test_a_terminal_that_hangs_up_loses_no_choice(person: Person, shop: Shop) -> None:
    shop.processing(make_chunk(3))
    person.types("2", ends=False)
    assert (labels(shop), held(shop)) == ([2], 0)


def test_what_a_killed_terminal_has_left_comes_first(person: Person, shop: Shop, cli: Cli) -> None:
    shop.processing(make_chunk(4))
    with client.COMMON.annotator() as api:
        api.post("/v1/annotation/claim", {"limit": 3})
    assert "1 of 3" in person.types("1").out
    assert (labels(shop), held(shop)) == ([1], 0)


def test_ctrl_c_loses_no_choice(
    person: Person, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.processing(make_chunk(3))
    words = iter(["2"])

    def type_and_interrupt(_: str) -> str:
        for word in words:
            return word
        raise KeyboardInterrupt

    monkeypatch.setattr("builtins.input", type_and_interrupt)
    assert person.types().code == 130
    assert (labels(shop), held(shop)) == ([2], 0)


def test_what_a_customer_wrote_is_no_command_to_the_terminal(person: Person, shop: Shop) -> None:
    nasty = "\x1b]0;owned\x07\u202e\u2028"
    chunk = make_chunk(1, metadata=json.dumps({"a": nasty}))
    shop.processing(chunk, question=f"What{nasty}?", options=["cat" + nasty, "dog"])
    ran = person.types()
    assert r"What\x1b]0;owned\x07\u202e\u2028?" in ran.out
    assert not {"\x1b", "\x07", "\u202e", "\u2028"} & set(ran.out)


def test_a_customers_key_is_refused_with_a_sentence(cli: Cli, shop: Shop) -> None:
    ran = cli("annotate")
    assert ran.code == 5
    assert "annotator" in ran.err
