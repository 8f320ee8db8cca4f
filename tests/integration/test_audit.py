"""The audit log: a line for each act, with whose key it was, and never a secret."""

from collections.abc import Callable
from typing import Any, cast

import psycopg
import pytest

from blocks.store import audit, customers
from blocks.store.audit import Action, Actor, Target, TargetKind
from blocks.store.database import Transaction
from tests.support.api_world import CANARY, CREDENTIALS, JOB_BODY, Api
from tests.support.cli import Cli
from tests.support.plans import Explained
from tests.support.store_shop import Shop, make_chunk

pytestmark = pytest.mark.integration

HOOK = {"callback_url": "https://hooks.example/1", "secret": f"{CANARY}-{CANARY}"}


@pytest.fixture
def admin(api: Api) -> dict[str, str]:
    return api.bearer(api.shop.do(customers.add_admin_key, "Ona"))


def lines(api: Api, headers: dict[str, str], query: str = "") -> list[dict[str, Any]]:
    answer = api.get(f"/v1/audit{query}", headers)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["lines"]
    return found


def new_job(api: Api) -> str:
    body = JOB_BODY | {"credentials": CREDENTIALS}
    job_id: str = api.submit(body).json()["job_id"]
    return job_id


def cancel(api: Api, by: dict[str, str]) -> Callable[[], Any]:
    job_id = new_job(api)
    return lambda: api.post(f"/v1/jobs/{job_id}/cancel", None, by)


def drop(api: Api, by: dict[str, str]) -> Callable[[], Any]:
    job_id = new_job(api)
    api.post(f"/v1/jobs/{job_id}/cancel", None, by)
    return lambda: api.client.delete(f"/v1/jobs/{job_id}", headers=by)


def wipe(api: Api, by: dict[str, str]) -> Callable[[], Any]:
    job_id = new_job(api)
    return lambda: api.client.delete(f"/v1/jobs/{job_id}/credentials", headers=by)


def exclude(api: Api, by: dict[str, str]) -> Callable[[], Any]:
    api.shop.processing(make_chunk(3))
    someone = api.shop.annotator()
    api.shop.label(someone, (api.shop.claim(someone, 1)[0].task_id, "cat"))
    annotator_id = api.shop.value(
        "select annotator_id from annotators where annotator_no = %s", someone
    )
    job_id = api.shop.value(
        "select job_id from jobs join labels using (job_no) where annotator_no = %s", someone
    )
    path = f"/v1/jobs/{job_id}/annotators/{annotator_id}/exclude"
    return lambda: api.post(path, None, by)


def revoke(api: Api, by: dict[str, str]) -> Callable[[], Any]:
    key = api.shop.do(customers.add_customer_key, api.shop.customer_id)
    path = f"/v1/keys/{customers.key_id(key)}"
    return lambda: api.client.delete(path, headers=by)


def remove_webhook(api: Api, by: dict[str, str]) -> Callable[[], Any]:
    webhook_id = api.post("/v1/webhooks", HOOK).json()["webhook_id"]
    return lambda: api.client.delete(f"/v1/webhooks/{webhook_id}", headers=by)


# Acts that change nothing the second time, and so leave one line.
ONCE = [
    ("job_cancelled", cancel, True),
    ("job_deleted", drop, True),
    ("credentials_wiped", wipe, True),
    ("annotator_excluded", exclude, True),
    ("key_revoked", revoke, True),
    ("webhook_deleted", remove_webhook, False),
]


@pytest.mark.parametrize("action, prepare, is_operators_too", ONCE, ids=[each[0] for each in ONCE])
def test_an_act_leaves_one_line_however_often_it_is_asked_for(
    api: Api,
    admin: dict[str, str],
    action: str,
    prepare: Callable[[Api, dict[str, str]], Callable[[], Any]],
    is_operators_too: bool,
) -> None:
    for by, role in ((api.customer, "customer"), (admin, "admin"))[: 1 + is_operators_too]:
        before = len(lines(api, admin, f"?action={action}"))
        act = prepare(api, by)
        assert act().is_success
        assert act().status_code < 500
        found = lines(api, admin, f"?action={action}")
        assert len(found) == before + 1
        key_id = customers.key_id(by["Authorization"].removeprefix("Bearer "))
        name = "Ona" if role == "admin" else "Acme"
        assert found[0]["actor"] == {"role": role, "key_id": key_id, "name": name}
        assert found[0]["customer_id"] == api.shop.customer_id


def test_acts_that_make_something_leave_a_line_each(api: Api, admin: dict[str, str]) -> None:
    hook = api.post("/v1/webhooks", HOOK).json()
    secret = {"secret": f"{CANARY}-{CANARY}-2"}
    api.post(f"/v1/webhooks/{hook['webhook_id']}/rotate", secret)
    api.post("/v1/webhooks/default-secret/rotate", secret)
    made = api.post("/v1/keys", {"role": "annotator", "name": "Dora"}, admin).json()
    api.post(f"/v1/keys/{made['key_id']}/sign-in-link", None, admin)
    found = [(line["action"], line["target"]["id"]) for line in lines(api, admin)]
    assert found[::-1] == [
        ("webhook_made", hook["webhook_id"]),
        ("webhook_secret_changed", hook["webhook_id"]),
        ("webhook_secret_changed", api.shop.customer_id),
        ("key_made", made["key_id"]),
        ("sign_in_link_made", made["key_id"]),
    ]


def test_what_is_refused_leaves_no_line(api: Api, admin: dict[str, str]) -> None:
    assert api.post("/v1/keys", {"customer_id": f"cust_{'0' * 22}"}, admin).status_code == 404
    mine = customers.key_id(api.customer["Authorization"].removeprefix("Bearer "))
    assert api.client.delete(f"/v1/keys/{mine}", headers=api.customer).status_code == 409
    assert api.post(f"/v1/jobs/job_{'0' * 22}/cancel", None, admin).status_code == 404
    assert lines(api, admin) == []


def test_a_customer_sees_what_was_done_to_their_things_and_no_operators_name(
    api: Api, admin: dict[str, str]
) -> None:
    other = api.new_customer()
    for by in (admin, api.customer):
        cancel(api, by)()
    api.post("/v1/keys", {"role": "annotator", "name": "Dora"}, admin)
    (mine, operators) = lines(api, api.customer)
    assert (mine["actor"]["role"], mine["actor"]["name"]) == ("customer", "Acme")
    assert operators["actor"] == {"role": "admin", "key_id": None, "name": None}
    assert lines(api, other) == []
    assert lines(api, other, f"?customer={api.shop.customer_id}") == []
    assert api.get(f"/v1/audit?cursor={mine['audit_id']}", other).status_code == 400
    assert api.get("/v1/audit", api.annotator).status_code == 403
    assert len(lines(api, admin)) == 3


def test_lines_are_chosen_and_read_page_by_page(api: Api, admin: dict[str, str]) -> None:
    shop = api.shop
    for n in range(25):
        target = Target(TargetKind.JOB, f"job_{n % 5}", shop.customer_id if n % 2 else None)
        action = Action.JOB_CANCELLED if n % 3 else Action.DELIVERY_BEGUN
        shop.do(audit.record, Actor(None, "root"), action, target, n=n)

    def read(query: str) -> list[int]:
        found, cursor = [], ""
        while True:
            page = api.get(f"/v1/audit?limit=4{query}{cursor}", admin).json()
            found += [line["details"]["n"] for line in page["lines"]]
            if page["next_cursor"] is None:
                return found
            cursor = f"&cursor={page['next_cursor']}"

    newest_first = list(range(24, -1, -1))
    cancelled = [n for n in newest_first if n % 3]
    assert read("") == read("&actor=command_line") == newest_first
    assert read("&target=job_2") == [n for n in newest_first if n % 5 == 2]
    assert read("&action=job_cancelled") == cancelled
    assert read(f"&customer={shop.customer_id}") == [n for n in newest_first if n % 2]
    assert read(f"&action=job_cancelled&customer={shop.customer_id}") == [
        n for n in cancelled if n % 2
    ]
    at = shop.value("select at from audit_log where details->>'n' = '10'")
    when = at.isoformat().replace("+", "%2B")
    assert read(f"&since={when}") == list(range(24, 9, -1))
    assert read(f"&until={when}&target=job_2") == [7, 2]
    assert read("&target=job_2&action=delivery_begun") == [12]


def test_a_line_is_never_changed_and_deleted_when_it_is_old_alone(shop: Shop) -> None:
    shop.do(audit.record, Actor(None, "root"), Action.SCHEMA_MIGRATED, audit.DATABASE)
    for statement in ("update audit_log set actor_name = ''", "delete from audit_log"):
        with pytest.raises(psycopg.errors.RaiseException):
            shop.run(statement)
    shop.run(
        "insert into audit_log (at, actor_role, actor_id, actor_name, action, target_kind, target_id)"
        " select now() - interval '401 days', actor_role, actor_id, actor_name, action, target_kind,"
        " target_id from audit_log"
    )
    assert shop.do(audit.purge, limit=10) == 1
    assert shop.value("select count(*) from audit_log") == 1


def test_a_page_reads_little_where_there_are_many_lines(shop: Shop) -> None:
    shop.run("alter table audit_log set (autovacuum_enabled = false)")
    shop.run(
        "insert into audit_log (actor_role, actor_id, actor_name, action, target_kind, target_id, customer_id)"
        " select 'command_line', 'key_' || mod(n, 7), 'root', 'job_cancelled', 'job', 'job_' || n,"
        " 'cust_' || mod(n, 100) from generate_series(1, 20000) n"
    )
    chosen: list[dict[str, Any]] = [
        {}, {"target": "job_7"}, {"actor": "key_3"}, {"customer_id": "cust_9"},
        {"action": Action.JOB_CANCELLED}, {"since": shop.value("select max(at) from audit_log")},
    ]  # fmt: skip
    for wanted in chosen:
        with shop.held() as tx:
            explained = Explained(tx)
            found = audit.list_page(cast(Transaction, explained), audit.Filter(**wanted), limit=20)
        assert found is not None
        assert found.lines
        assert not [
            n
            for n in explained.nodes()
            if n["Node Type"] in {"Seq Scan", "Sort"} and n["Actual Rows"] > 21
        ]
        assert explained.pages() < 200, wanted


def test_no_line_holds_a_secret(
    api: Api, admin: dict[str, str], cli: Cli, database_url: str
) -> None:
    cli.say(REFINERY_DATABASE_URL=database_url, ASG_ENCRYPTION_KEY="00" * 32)
    printed = [
        cli.done("customers", "add", "New").out,
        cli.done("keys", "add", "--admin", "Oda").out,
        cli.done("keys", "add", "--reviewer", "Rae").out,
        cli.done("keys", "link", "Rae").out,
        cli.done("keys", "rotate").out,
    ]
    api.post("/v1/webhooks", HOOK)
    made = api.post("/v1/keys", {"name": "nightly"}).json()
    key = made["key"]
    shown = cli("keys", "revoke", key)
    assert shown.code == 0
    wipe(api, api.customer)()
    exclude(api, admin)()
    words = {word for text in printed for word in text.split()}
    secrets = {word for word in words if word[:3] in {"sk_", "ak_", "op_"}}
    secrets |= {word.partition("#")[2] for word in words if "#" in word}
    secrets |= {key, made["sign_in_link"].partition("#")[2], CANARY}
    assert len(secrets) == 10
    rows = api.shop.run("select audit_log::text as line from audit_log")
    assert len(rows) == 11
    assert any(
        customers.key_id(key) in row["line"] for row in rows
    )  # the search finds what is there
    assert [row for row in rows for secret in secrets if secret in row["line"]] == []


def test_acts_on_the_command_line_are_shown_with_the_account(
    cli: Cli, shop: Shop, database_url: str
) -> None:
    cli.say(REFINERY_DATABASE_URL=database_url, ASG_ENCRYPTION_KEY="00" * 32)
    cli.done("keys", "add", "--annotator", "Dora", "--customer", shop.customer_id)
    cli.done("annotators", "grant", "Dora", "--all")
    assert cli("ops", "audit").out.count("\n") == 1  # a customer's key: these are the operator's
    cli.say(REFINERY_API_KEY=shop.do(customers.add_admin_key, "Ona"))
    shown = cli.done("ops", "audit", "--since", "2d", "--actor", "command_line").out
    assert "annotator granted" in shown
    assert "command_line" in shown
    page = cli.done("ops", "audit", "--action", "key_made", "--json").json
    (line,) = page["lines"]
    assert line["actor"]["name"]
    assert line["details"] == {"role": "annotator"}
    assert "There are more" in cli.done("ops", "audit", "--limit", "1").err
    assert cli.done("ops", "audit", "--until", "1d", "--json").json["lines"] == []
    assert cli("ops", "audit", "--since", "soon").code == 2
