"""Keys and customers from the operator's command line: made, listed, revoked, without showing a key."""

import contextlib
import io
import json
from collections.abc import Callable
from typing import Any

import pytest

from api.cli.exits import CommandFailed, Exit, UsageError
from blocks.store import customers, sessions
from blocks.store.customers import NotGranted, UnknownAnnotator, UnknownCustomer
from deployments.cli import build
from tests.support.books import check_books
from tests.support.servers import KEY
from tests.support.store_shop import Shop, make_chunk

pytestmark = pytest.mark.integration

Refinery = Callable[..., str]


@pytest.fixture
def refinery(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Refinery:
    """Runs a command in this process; what it printed."""
    monkeypatch.setenv("REFINERY_DATABASE_URL", shop.url)
    monkeypatch.setenv("ASG_ENCRYPTION_KEY", KEY)

    def run(*arguments: str, stdin: str = "") -> str:
        monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        with contextlib.redirect_stdout(io.StringIO()) as out:
            build()(arguments, exit_on_error=False, result_action="return_value")
        return out.getvalue()

    return run


def fields(printed: str) -> dict[str, str]:
    pairs = (line.split("  ", 1) for line in printed.splitlines())
    return {name: value.strip() for name, value in pairs}


def listed(refinery: Refinery, what: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(refinery(what, "list", "--json"))
    return found


def test_a_key_is_listed_and_revoked_by_the_id_that_is_printed_with_it(
    refinery: Refinery, shop: Shop
) -> None:
    made = fields(refinery("customers", "add", "Beta"))
    (entry,) = listed(refinery, "keys")
    assert entry["key_id"] == made["key_id"] == customers.key_id(made["key"])
    assert (entry["kind"], entry["owner_id"], entry["name"]) == (
        "customer", made["customer"], "Beta",
    )  # fmt: skip
    assert (entry["customer_ids"], entry["revoked_at"], entry["last_used_at"]) == (None, None, None)
    assert made["key"] not in refinery("keys", "list") + refinery("keys", "list", "--json")
    assert made["key_id"] in refinery("keys", "revoke", made["key_id"])
    assert shop.do(customers.find_principal, made["key"]) is None
    assert listed(refinery, "keys")[0]["revoked_at"] is not None
    with pytest.raises(CommandFailed, match="revoked before"):
        refinery("keys", "revoke", made["key_id"])


def token_of(printed: str) -> str:
    address, token = fields(printed)["sign_in"].split("/#")
    assert address == "https://labels.example.com"
    return token


def test_a_link_that_is_printed_beside_a_key_signs_in_with_it_once(
    refinery: Refinery, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REFINERY_PUBLIC_URL", "https://labels.example.com/")
    made = [
        refinery("customers", "add", "Beta"),
        refinery("keys", "add", "--customer", shop.customer_id),
        refinery("keys", "add", "--annotator", "ann"),
        refinery("keys", "add", "--reviewer", "rae"),
        refinery("keys", "add", "--admin", "ona"),
    ]
    for printed in made:
        begun = shop.do(sessions.begin_by_link, token_of(printed), session_s=60)
        principal = shop.do(customers.find_principal, fields(printed)["key"])
        assert begun.session.principal == principal
        assert shop.do(sessions.begin_by_link, token_of(printed), session_s=60) is None
    assert [each["kind"] for each in listed(refinery, "keys")] == [
        "customer", "customer", "annotator", "reviewer", "admin",
    ]  # fmt: skip


@pytest.mark.parametrize("by", ["key_id", "annotator", "ann"])
def test_another_link_is_made_for_a_key_or_for_the_newest_key_of_its_owner(
    refinery: Refinery, shop: Shop, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    monkeypatch.setenv("REFINERY_API_URL", "https://labels.example.com")
    monkeypatch.setenv("REFINERY_SIGN_IN_LINK_S", "90")
    refinery("keys", "add", "--annotator", "ann")
    newest = fields(refinery("keys", "add", "--reviewer", "ann"))
    printed = refinery("keys", "link", newest.get(by, by))
    assert fields(printed)["key_id"] == newest["key_id"]
    left = shop.value("select extract(epoch from max(expires_at) - now()) from sign_in_links")
    assert 60 < left <= 90
    assert shop.do(
        sessions.begin_by_link, token_of(printed), session_s=60
    ).session.principal.is_reviewer


@pytest.mark.parametrize("named", ["nobody", "key_0", "", "twice", "gone"])
def test_no_link_is_made_where_it_is_not_clear_for_whom(
    refinery: Refinery, shop: Shop, named: str
) -> None:
    refinery("keys", "add", "--annotator", "twice")
    refinery("keys", "add", "--admin", "twice")
    refinery("keys", "revoke", fields(refinery("keys", "add", "--annotator", "gone"))["key_id"])
    links = shop.value("select count(*) from sign_in_links")
    with pytest.raises(CommandFailed, match="owners of good keys are called") as failure:
        refinery("keys", "link", named)
    assert failure.value.exit_code == Exit.NOT_FOUND
    assert shop.value("select count(*) from sign_in_links") == links


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
@pytest.mark.parametrize("arguments", [(), ("-",)])
def test_the_key_itself_is_read_from_standard_input(
    refinery: Refinery, shop: Shop, arguments: tuple[str, ...], end: str
) -> None:
    key = shop.do(customers.add_customer_key, shop.customer_id)
    assert customers.key_id(key) in refinery("keys", "revoke", *arguments, stdin=key + end)
    assert shop.do(customers.find_principal, key) is None


@pytest.mark.parametrize("named", ["", "key_", "key_0", "sk_unknown", "%", "key_%"])
def test_what_names_no_key_revokes_none(refinery: Refinery, shop: Shop, named: str) -> None:
    key = shop.do(customers.add_customer_key, shop.customer_id)
    with pytest.raises(CommandFailed, match="no such key") as failure:
        refinery("keys", "revoke", stdin=named)
    assert failure.value.exit_code is Exit.NOT_FOUND
    assert shop.do(customers.find_principal, key) is not None


def test_customers_are_listed_with_their_good_keys(refinery: Refinery, shop: Shop) -> None:
    keys = [shop.do(customers.add_customer_key, shop.customer_id) for _ in range(3)]
    shop.do(customers.revoke_key, keys[0])
    (entry,) = listed(refinery, "customers")
    assert (entry["customer_id"], entry["name"], entry["keys"]) == (shop.customer_id, "Acme", 2)
    assert shop.customer_id in refinery("customers", "list")


def test_an_annotators_keys_say_whose_tasks_they_are_handed(refinery: Refinery, shop: Shop) -> None:
    other = shop.do(customers.add_customer, "Other")
    assert fields(refinery("keys", "add", "--annotator", "ann"))["customers"] == "all"
    one = fields(refinery("keys", "add", "--annotator", "ben", "--customer", shop.customer_id))
    assert one["customers"] == shop.customer_id
    both = fields(refinery("keys", "add", "--annotator", "ben", "--customer", other))
    assert both["annotator"] == one["annotator"]
    assert set(both["customers"].split()) == {shop.customer_id, other}
    # A further key widens nothing.
    assert fields(refinery("keys", "add", "--annotator", "ben"))["customers"] == both["customers"]
    grants = {entry["name"]: entry["customer_ids"] for entry in listed(refinery, "keys")}
    assert grants == {"ann": None, "ben": sorted([shop.customer_id, other])}


@pytest.mark.parametrize(
    "arguments, error",
    [
        ((), UsageError),
        (("--customer", "a", "--customer", "b"), UsageError),
        (("--customer", "cust_x"), UnknownCustomer),
        (("--annotator", "ann", "--customer", "cust_x"), UnknownCustomer),
    ],
)
def test_a_key_for_nobody_is_not_made(
    refinery: Refinery, shop: Shop, arguments: tuple[str, ...], error: type[Exception]
) -> None:
    with pytest.raises(error):
        refinery("keys", "add", *arguments)
    assert shop.value("select count(*) from api_keys") == 0
    assert shop.value("select count(*) from annotators") == 0


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "\x1b[2J", "x" * 201])
@pytest.mark.parametrize("command", [("customers", "add"), ("keys", "add", "--annotator")])
def test_a_name_that_no_list_can_show_is_refused(
    command: tuple[str, ...], name: str, refinery: Refinery, shop: Shop
) -> None:
    with pytest.raises(UsageError, match="1 to 200 characters"):
        refinery(*command, name)
    assert shop.value("select count(*) from customers") == 1


def granted(refinery: Refinery, name: str) -> list[str] | None:
    found: dict[str, list[str] | None] = {
        entry["name"]: entry["customer_ids"] for entry in listed(refinery, "annotators")
    }
    return found[name]


def test_grants_are_given_and_taken_away(refinery: Refinery, shop: Shop) -> None:
    """With what was taken away, the tasks in hand go to others at once."""
    other = shop.do(customers.add_customer, "Other")
    ann = fields(refinery("keys", "add", "--annotator", "ann"))["annotator"]
    assert granted(refinery, "ann") is None
    both = ("--customer", shop.customer_id, "--customer", other)
    assert set(fields(refinery("annotators", "grant", "ann", *both))["customers"].split()) == {
        shop.customer_id, other,
    }  # fmt: skip
    job = shop.processing(make_chunk(4))
    assert len(shop.claim(number_of(shop, "ann"))) == 4
    said = refinery("annotators", "withdraw", ann, "--customer", shop.customer_id)
    assert "4 tasks went back" in said
    assert (granted(refinery, "ann"), shop.claim(number_of(shop, "ann"))) == ([other], [])
    assert len(shop.claim(shop.annotator())) == 4
    check_books(shop, job)
    refinery("annotators", "withdraw", "ann", "--customer", other)
    assert granted(refinery, "ann") == []
    refinery("annotators", "grant", "ann", "--all")
    assert granted(refinery, "ann") is None
    assert len(shop.claim(number_of(shop, "ann"))) == 4


@pytest.mark.parametrize(
    "arguments, error",
    [
        (("grant", "ann"), UsageError),
        (("grant", "ann", "--all", "--customer", "cust_x"), UsageError),
        (("grant", "ann", "--customer", "cust_x"), UnknownCustomer),
        (("grant", "nobody", "--all"), UnknownAnnotator),
        (("withdraw", "ann"), UsageError),
        (("withdraw", "nobody", "--customer", "cust_x"), UnknownAnnotator),
        (("withdraw", "ann", "--customer", "cust_x"), NotGranted),
    ],
)
def test_a_grant_that_means_nothing_is_refused(
    refinery: Refinery, arguments: tuple[str, ...], error: type[Exception]
) -> None:
    refinery("keys", "add", "--annotator", "ann")
    with pytest.raises(error):
        refinery("annotators", *arguments)
    assert granted(refinery, "ann") is None


# Revoked annotators


def number_of(shop: Shop, name: str) -> int:
    found: int = shop.value("select annotator_no from annotators where name = %s", name)
    return found


def test_with_the_last_key_of_an_annotator_their_tasks_go_to_others_at_once(shop: Shop) -> None:
    shop.processing(make_chunk(5), consensus_threshold=2)
    _, first = shop.do(customers.add_annotator_key, "troll")
    _, second = shop.do(customers.add_annotator_key, "troll")
    troll, (one, two) = number_of(shop, "troll"), shop.annotators(2)
    held = shop.claim(troll)
    assert len(shop.claim(one)) == 5
    assert shop.do(customers.revoke_key, first).tasks_returned == 0
    assert shop.claim(two) == []
    assert shop.do(customers.revoke_key, second).tasks_returned == 5
    assert shop.value("select count(*) from leases where annotator_no = %s", troll) == 0
    assert {t.task_id for t in shop.claim(two)} == {t.task_id for t in held}


def test_a_claim_that_comes_in_while_the_key_is_revoked_takes_nothing(shop: Shop) -> None:
    shop.processing(make_chunk(5), consensus_threshold=2)
    _, key = shop.do(customers.add_annotator_key, "troll")
    shop.do(customers.revoke_key, key)
    # The API trusts a key for a second after it has looked.
    assert shop.claim(number_of(shop, "troll")) == []
    shop.do(customers.add_annotator_key, "troll")
    assert len(shop.claim(number_of(shop, "troll"))) == 5


def test_tasks_that_have_ended_are_not_vacant_again(shop: Shop) -> None:
    job = shop.processing(make_chunk(2), consensus_threshold=2, stop_early=True)
    _, key = shop.do(customers.add_annotator_key, "troll")
    troll, one = number_of(shop, "troll"), shop.annotator()
    tasks = [task.task_id for task in shop.claim(troll)]
    shop.label(troll, (tasks[0], "cat"))
    shop.claim(one)
    shop.label(one, (tasks[0], "cat"))
    assert shop.do(customers.revoke_key, key).tasks_returned == 1
    query = "select count(*) from vacancies where job_no = %s"
    assert shop.value(query, job.job_no) == 1
