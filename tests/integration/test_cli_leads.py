"""What leads see in a terminal of 80 columns: quality, disagreements and the pace of a job."""

from collections.abc import Sequence
from typing import Any

import pytest

from api.cli import quality
from api.cli.client import Client
from blocks.domain.model import SkipReason
from blocks.store import exclusions
from blocks.store.jobs import Job
from blocks.store.label_changes import Replacement, Skip
from tests.support.cli import Cli
from tests.support.store_shop import Shop, make_chunk

pytestmark = pytest.mark.integration

COLUMNS = 80


@pytest.fixture(autouse=True)
def _terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have tables be made for a terminal of 80 columns."""
    monkeypatch.setenv("COLUMNS", str(COLUMNS))
    monkeypatch.setattr("api.cli.output._COLUMNS_OF_A_PIPE", COLUMNS)


def make_job(shop: Shop, options: Sequence[str]) -> tuple[Job, list[int]]:
    """A job with labels on which two annotators agree and one does not, a skip and a replacement."""
    job = shop.processing(make_chunk(250), options=[*options])
    people = shop.annotators(3)
    for n, annotator in enumerate(people):
        shop.run("update annotators set name = %s, customer_ids = %s where annotator_no = %s", f"Annotator {n} of the night shift", [shop.customer_id], annotator)  # fmt: skip
        claimed = [task.task_id for task in shop.claim(annotator, 200)]
        said = [
            (task, options[(i + (n == 2) * (1 + i // 7)) % len(options)])
            for i, task in enumerate(claimed)
        ]
        shop.label(annotator, *said[1:] if n == 0 else said)
    shop.claim(people[0], 1)
    shop.enter(people[0], Skip(job.task_id(0), SkipReason.NONE_OF_THESE))
    shop.enter(people[1], Replacement(job.task_id(0), options[1]))
    return job, people


def fits(text: str) -> bool:
    return all(len(line.rstrip()) <= COLUMNS for line in text.splitlines())


@pytest.mark.parametrize("options", [2, 6, 7, 100])
def test_quality_is_readable_with_few_options_and_with_many(
    cli: Cli, shop: Shop, options: int
) -> None:
    job, _ = make_job(shop, [f"option {n}" for n in range(options)])
    report = cli.done("jobs", "quality", job.job_id, "--json").json
    shown = cli.done("jobs", "quality", job.job_id).out
    assert fits(shown), shown
    for words in ("settled on", "s/label", "none_of_these", "night", "agreement"):
        assert words in shown, shown
    assert all(each["annotator_id"] in shown for each in report["annotators"])
    lines = shown[shown.index("settled on") :].split("\n\n")[0].splitlines()
    if options == 2:
        assert [line.split()[-2:] for line in lines[1:]] == [
            [str(number) for number in row] for row in report["confusion"]
        ]
    assert len(lines) <= 22
    assert ("pairs more" in shown) is (options > 6)


@pytest.mark.parametrize("options", [2, 6, 7])
@pytest.mark.parametrize("method", ["dawid_skene", "one_coin"])
def test_inferred_confusion_is_shown_as_the_measured_is(
    cli: Cli, shop: Shop, options: int, method: str
) -> None:
    job, _ = make_job(shop, [f"option {n}" for n in range(options)])
    asked = ("jobs", "quality", job.job_id, "--method", method)
    report = cli.done(*asked, "--json").json["inference"]
    shown = cli.done(*asked).out
    assert fits(shown), shown
    assert f"option 0: {report['priors'][0]['prior']:g}, option 1: " in shown.replace("\n", " ")
    for each in report["annotators"]:
        heading = f"What {each['annotator_id']} says of each true option, in %:\n"
        assert (heading in shown) is (method == "dawid_skene")
        if each["confusion"] is None:
            continue
        table = shown[shown.index(heading) + len(heading) :].split("\n\n")[0].splitlines()
        assert table[0].startswith("truly")
        if options <= 6:
            assert [[float(part) for part in line.split()[2:]] for line in table[1:]] == [
                [pytest.approx(100 * share, abs=0.051) for share in row]
                for row in each["confusion"]
            ]
        else:
            percents = [float(line.split()[-1]) for line in table[1:]]
            assert len(percents) == 20
            assert percents == sorted(percents, reverse=True)


def test_the_confusion_of_one_annotator_is_shown(cli: Cli, shop: Shop) -> None:
    job, people = make_job(shop, ["cat", "dog"])
    known = "select annotator_id from annotators where annotator_no = %s"
    first, last = (shop.value(known, number) for number in (people[0], people[2]))
    shown = [
        cli.done("jobs", "quality", job.job_id, "--annotator", who).out for who in (first, last)
    ]
    assert shown[0] != shown[1]
    assert cli("jobs", "quality", job.job_id, "--annotator", f"ann_{'0' * 22}").code == 6
    assert cli("jobs", "quality", job.job_id, "--annotator", "Ann").code == 4


@pytest.mark.parametrize(
    "options, confusion, words",
    [
        (["a", "b"], [[0, 0], [0, 0]], ""),
        (["a" * 60, "b" * 60], [[3, 0], [0, 1]], "Nothing is confused"),
        (
            [str(n) for n in range(9)],
            [[int(n == m) for n in range(9)] for m in range(9)],
            "Nothing",
        ),
    ],
    ids=["none", "long", "many"],
)
def test_a_matrix_that_says_nothing_is_not_printed(
    capsys: pytest.CaptureFixture[str], options: list[str], confusion: list[list[int]], words: str
) -> None:
    quality._print_confusion(options, confusion)
    said = capsys.readouterr().out
    assert words in said
    assert "settled on" not in said


def test_disagreements_are_listed_with_those_who_disagree(cli: Cli, shop: Shop) -> None:
    job, people = make_job(shop, ["cat", "dog", "fox"])
    known = "select annotator_id from annotators where annotator_no = %s"
    asked = ("jobs", "disagreements", job.job_id)
    shown = cli.done(*asked, "--limit", "3").out
    assert fits(shown), shown
    assert shown.count("task_id") == 3
    for words in ("said cat", "said dog", "Annotator 2 of the night shift", "settled: ", "(67%)"):
        assert words in shown, shown
    every = cli.done(*asked, "--limit", "120", "--json").json
    assert len(every["disagreements"]) == 120  # more than a page
    some = cli.done(*asked, "--option", "fox", "--annotator", shop.value(known, people[2]), "--status", "settled", "--json", "--limit", "2").json  # fmt: skip
    assert len(some["disagreements"]) == 2
    assert all(each["votes"]["fox"] for each in some["disagreements"])
    assert "There are none." in cli.done(*asked, "--status", "failed").err
    assert cli(*asked, "--option", "horse").code == 4


def test_metadata_comes_as_it_was_written(cli: Cli, shop: Shop) -> None:
    job = shop.processing(make_chunk(1, metadata='{"n": 1.10}'))
    for option in ("cat", "dog"):
        shop.answer(shop.annotator(), option)
    asked = ("jobs", "disagreements", job.job_id)
    assert "1.10" in cli.done(*asked, "--json").out
    assert '{"n": 1.10}' in cli.done(*asked).out


def test_quality_shows_gold_and_skill(cli: Cli, shop: Shop) -> None:
    job = shop.processing(make_chunk(30, gold=dict.fromkeys(range(0, 30, 3), 1)))
    good, bad = shop.annotators(2)
    shop.answer(good, "cat", 10)
    shop.answer(bad, "dog", 10)
    assert shop.do(exclusions.exclude, job.job_no, bad)
    report = cli.done("jobs", "quality", job.job_id, "--json").json
    assert report["accuracy"] == {"tasks": 0, "right": 0, "accuracy": None, "low": 0, "high": 1}
    found = report["annotators"]
    out = cli.done("jobs", "quality", job.job_id).out
    assert max(map(len, out.splitlines())) <= COLUMNS
    assert "between 0 and 1 by 0 gold tasks" in out
    table = out[out.index("Gold, here") :].splitlines()
    assert table[2].split() == ["annotator", "gold", "right", "earlier", "skill", "excluded"]
    assert {each["gold_accuracy"] for each in found} == {0, 1}
    for each in found:
        (row,) = [line.split() for line in table if line.startswith(each["annotator_id"])]
        since = [each["excluded_at"][:10]] if each["gold_accuracy"] == 0 else []
        shown = (each["gold_seen"], each["gold_accuracy"], 0, each["skill"])
        assert row[1:] == [*(f"{value:g}" for value in shown), *since]


def test_a_job_shows_its_pace(cli: Cli, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    job = shop.processing(make_chunk(100))
    for _ in range(4):
        shop.answer(shop.annotator(), "cat", 10)
        shop.run("update label_batches set created_at = created_at - interval '1 minute'")
    answers: list[Any] = []

    def decoded(self: Client, response: Any) -> Any:
        answers.append(decode(self, response))
        return answers[-1]

    decode = Client.decoded
    monkeypatch.setattr(Client, "decoded", decoded)
    shown = cli.done("jobs", "show", job.job_id).out
    found = answers[-1]["pace"]  # of the same answer: it changes with each second
    assert found.keys() == cli.done("jobs", "show", job.job_id, "--json").json["pace"].keys()
    pace = f"{found['labels_per_hour']:,.0f} labels/h, {found['labels_left']} left, until "
    assert f"{pace}{found['eta'][:16].replace('T', ' ')}Z" in shown
