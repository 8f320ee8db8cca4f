"""`refinery review`: a reviewer at a terminal, who decides by numbers and letters."""

import io
import json
from collections.abc import Sequence

import pytest

from blocks.domain.model import ReviewReason
from blocks.store import customers
from tests.support.cli import Cli, Ran
from tests.support.store_shop import Shop, make_chunk

pytestmark = pytest.mark.integration


class Reviewer:
    def __init__(self, cli: Cli, patch: pytest.MonkeyPatch) -> None:
        self._cli, self._patch = cli, patch

    def types(self, *words: str, at_once: int = 10, only: Sequence[str] = ()) -> Ran:
        """Type these words, and then `q`; return how the command ended."""
        typed = "".join(f"{word}\n" for word in (*words, "q"))
        self._patch.setattr("sys.stdin", io.StringIO(typed))
        return self.asks("review", "--at-once", str(at_once), *only)

    def asks(self, *words: str) -> Ran:
        """Run a command that asks for nothing."""
        return self._cli(*words)


@pytest.fixture
def reviewer(cli: Cli, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Reviewer:
    _, key = shop.do(customers.add_annotator_key, "rae", is_reviewer=True)
    cli.say(REFINERY_ANNOTATOR_KEY=key)
    return Reviewer(cli, monkeypatch)


def queue(shop: Shop, count: int) -> None:
    """So many tasks under review, which were labelled `cat`."""
    shop.processing(make_chunk(count), consensus_threshold=1, review_share=10_000)
    shop.answer(shop.annotator(), "cat")


def decided(shop: Shop) -> list[tuple[str, int | None]]:
    rows = shop.run("select state, decision from reviews order by task_no, review_no")
    return [(row["state"], row["decision"]) for row in rows]


def test_a_task_is_shown_with_its_votes_and_decided_by_a_number_or_a_letter(
    reviewer: Reviewer, shop: Shop
) -> None:
    queue(shop, 5)
    ran = reviewer.types("2", "b", "!", "x", "s", "")
    assert ran.code == 0, ran.err
    assert "sample; proposed: cat, confidence 1.00" in ran.out
    assert "votes: cat 1" in ran.out
    assert "Enter sends 4 decisions" in ran.out
    assert ran.out.splitlines()[-1].endswith("1 settled, 1 sent_back, 2 failed")
    assert decided(shop) == [
        ("decided", 2), ("sent_back", None), ("decided", -2), ("decided", 0), ("open", None),
    ]  # fmt: skip
    assert (
        shop.value("select count(*) from reviews where reviewer_no is not null and state = 'open'")
        == 0
    )


def test_what_is_skipped_for_now_does_not_hide_the_rest(reviewer: Reviewer, shop: Shop) -> None:
    queue(shop, 3)
    ran = reviewer.types("s", "", "s", "", "3", "", at_once=1)
    assert ran.code == 0, ran.err
    assert decided(shop) == [("open", None), ("open", None), ("decided", 3)]
    again = reviewer.types("1", "u", "2", "1", "")
    assert again.out.splitlines()[-1].endswith("2 settled")


def test_another_word_is_answered_with_what_can_be_typed(reviewer: Reviewer, shop: Shop) -> None:
    queue(shop, 1)
    ran = reviewer.types("9", "1", "")
    assert "Type the number of an option" in ran.out
    assert decided(shop) == [("decided", 1)]


def test_who_is_no_reviewer_is_told_so(cli: Cli, shop: Shop) -> None:
    _, key = shop.do(customers.add_annotator_key, "ann")
    cli.say(REFINERY_ANNOTATOR_KEY=key)
    ran = cli("review")
    assert ran.code == 5
    assert "reviewer's key" in ran.err


def test_a_reason_and_an_annotator_choose_what_is_shown(reviewer: Reviewer, shop: Shop) -> None:
    queue(shop, 2)
    someone = shop.value("select min(annotator_id) from annotators where name like 'annotator%%'")
    assert reviewer.types("1", "", only=("--reason", "flagged")).out == "no decisions\n"
    nobody = ("--annotator", f"ann_{'0' * 22}")
    assert reviewer.types("1", "", only=nobody).out == "no decisions\n"
    only = ("--reason", "sample", "--annotator", someone)
    ran = reviewer.types("1", "2", "", only=only)
    assert ran.out.splitlines()[-1].endswith("2 settled")


def test_how_many_wait_is_told_by_job_and_reason(reviewer: Reviewer, shop: Shop) -> None:
    queue(shop, 3)
    ran = reviewer.asks("me", "reviews")
    heading, row = (line.split() for line in ran.out.splitlines())
    assert heading == ["job", *ReviewReason, "question"]
    assert row[1:5] == ["0", "0", "3", "0"]
    (job,) = json.loads(reviewer.asks("me", "reviews", "--json").out)["jobs"]
    assert job["waiting"]["sample"] == 3
