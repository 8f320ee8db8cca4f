"""The matrix of tenancy: every operation of `/schema`, by every kind of key, about the things of one customer."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from httpx import Response
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from litestar.testing import TestClient

from api.session_cookies import NAME
from blocks.settings import Settings
from blocks.store import customers
from deployments.embedded.ports import free_port
from tests.support.access import A, C, O, Operation, Slot, Things, read_operations
from tests.support.api_world import Api, make_app
from tests.support.servers import DatabaseServer
from tests.support.store_shop import Shop, open_shop
from tests.support.tenants import Key, Tenant, no_things

pytestmark = pytest.mark.integration

# What whom is answered: it is the answer to them; not their kind of key; as if there were no such thing.
REACHED, FORBIDDEN, HIDDEN = "reached", "forbidden", "hidden"
# Of each kind of key that an operation may take: who has one, and what they see of the first customer's things.
SEES: dict[str, dict[str, str]] = {
    C: {"customer A": REACHED, "customer B": HIDDEN},
    A: {
        "annotator of all": REACHED,
        "annotator of A": REACHED,
        "reviewer of A": REACHED,
        "reviewer of B": HIDDEN,
    },
    O: {"operator": REACHED},
}
REVIEWERS_ONLY = {"list_review_queues", "submit_reviews", "claim_tasks"}  # the claim is of a review
OWNED = {"notifications": "webhooks using (webhook_no)"} | dict.fromkeys(
    ("labels", "leases", "vacancies", "reviews", "exclusions", "label_changes"),
    "jobs using (job_no)",
)
# Ids that are filters of what the one who asks may see: with or without a match the answer is a list.
FILTERS = {
    ("claim_tasks", "annotator_id"),
    ("get_job_quality", "annotator"),
    ("list_disagreements", "annotator"),
    ("list_review_queues", "job_id"),
    ("list_leases", "cursor"),
    ("list_audit_log", "customer"),
    ("list_stream_loads", "customer"),
    ("list_runs", "customer"),
    ("list_jobs", "customer"),
    ("list_keys", "customer"),
}


class Town:
    """Two customers of one service, and keys of every kind."""

    def __init__(self, client: TestClient[Any], shop: Shop) -> None:
        self.client = client
        self.shop = shop
        self.first, self.second = Tenant(shop, "first"), Tenant(shop, "second")
        self.theirs, self.own = self.first.things(client), self.second.things(client)
        revoked = shop.do(customers.add_customer_key, self.first.customer_id)
        shop.do(customers.revoke_key, revoked)
        _, of_all = shop.do(customers.add_annotator_key, "of all")
        self.keys: dict[str, Key] = {
            "nobody": {},
            "revoked": Api.bearer(revoked),
            "customer A": self.first.key,
            "customer B": self.second.key,
            "annotator of all": Api.bearer(of_all),
            "annotator of A": self.first.worker,
            "reviewer of A": self.first.reviewer,
            "reviewer of B": self.second.reviewer,
            "operator": Api.bearer(shop.do(customers.add_admin_key, "Ona")),
        }
        document = client.get("/schema/openapi.json").json()
        self.operations = read_operations(document)
        self._document = document

    def ask(
        self, operation: Operation, who: str, things: Things, slot: Slot | None = None
    ) -> Response:
        request = operation.request(things, slot)
        answer: Response = self.client.request(headers=self.keys[who], **request)
        self.client.cookies.clear()
        self._check(operation, answer)
        return answer

    def _check(self, operation: Operation, answer: Response) -> None:
        """Fail if an answer is none of those that the document has for the operation."""
        described = self._document["paths"][operation.path][operation.method.lower()]["responses"]
        where = (operation.name, answer.status_code, answer.text)
        assert str(answer.status_code) in described, where
        contents = described[str(answer.status_code)].get("content", {})
        media_type = answer.headers.get("content-type", "").partition(";")[0]
        assert media_type in contents or not answer.content, where
        if media_type == "application/json":
            schema = contents[media_type]["schema"] | {"components": self._document["components"]}
            faults = [
                each.message for each in Draft202012Validator(schema).iter_errors(answer.json())
            ]
            assert faults == [], where

    def rows(self, customer_id: str) -> list[str]:
        """All that is stored of a customer but when their keys were used."""
        queries = (
            "select to_jsonb(t)::text from jobs t where customer_id = %(whose)s",
            "select to_jsonb(t)::text from webhooks t where customer_id = %(whose)s",
            "select to_jsonb(t)::text from webhook_defaults t where customer_id = %(whose)s",
            "select (to_jsonb(t) - 'last_used_at')::text from api_keys t where customer_id = %(whose)s",
            *(
                f"select to_jsonb(t)::text from {table} t join {owner} where customer_id = %(whose)s"
                for table, owner in OWNED.items()
            ),
        )
        with self.shop.database.transaction() as tx:
            rows = [row for query in queries for row in tx.execute(query, {"whose": customer_id})]
        return sorted(str(row) for row in rows)


@pytest.fixture(scope="module")
def town(database_server: DatabaseServer) -> Iterator[Town]:
    with open_shop(database_server) as shop:
        settings = Settings(
            database_url=shop.url,
            encryption_key="00" * 32,
            egress_allow="127.0.0.1",
            prefect_api_url=f"http://127.0.0.1:{free_port()}/api",
        )
        with TestClient(make_app(settings)) as client:
            yield Town(client, shop)


def plain(answer: Response, things: Things) -> tuple[int, str]:
    """Status and body, with ids that were asked for replaced by what they are of."""
    text = answer.text
    for name in Things.__struct_fields__:
        text = text.replace(getattr(things, name), f"<{name}>")
    return answer.status_code, text


def refusal(answer: Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def test_without_a_good_key_nothing_is_answered(town: Town) -> None:
    for operation in town.operations:
        for who in ("nobody", "revoked"):
            answer = town.ask(operation, who, town.theirs)
            assert refusal(answer) == (401, "invalid_api_key"), (operation.name, who)


def test_a_session_without_its_csrf_token_changes_nothing(town: Town) -> None:
    before = town.rows(town.theirs.customer_id)
    for who in ("customer A", "reviewer of A", "operator"):
        key = town.keys[who]["Authorization"].removeprefix("Bearer ")
        signed_in = town.client.post("/v1/session", json={"key": key})
        town.client.cookies.clear()
        cookie = {"Cookie": f"{NAME}={signed_in.cookies[NAME]}"}
        for operation in town.operations:
            if not operation.is_safe:
                answer = town.client.request(headers=cookie, **operation.request(town.theirs))
                assert refusal(answer) == (403, "csrf_token"), (operation.name, who)
        assert town.client.get("/v1/session", headers=cookie).status_code == 200
    assert town.rows(town.theirs.customer_id) == before


def test_what_only_reads_changes_nothing(town: Town) -> None:
    before = town.rows(town.theirs.customer_id)
    for operation in town.operations:
        if operation.is_safe:
            for who in seen_by(operation):
                town.ask(operation, who, town.theirs)
    assert town.rows(town.theirs.customer_id) == before


def test_a_key_of_another_kind_is_told_so_whatever_it_names(town: Town) -> None:
    refused = 0
    for operation in town.operations:
        others = [who for kind, row in SEES.items() if kind not in operation.takes for who in row]
        for who in others:
            answers = [town.ask(operation, who, things) for things in (town.theirs, no_things())]
            assert {refusal(answer) for answer in answers} == {(403, "forbidden")}, operation.name
            assert answers[0].content == answers[1].content, operation.name
            refused += 1
    assert refused > len(town.operations)


def test_things_of_another_customer_are_as_if_there_were_none(town: Town) -> None:
    """In paths, queries and bodies alike. Nothing of theirs is shown, and nothing of it changes."""
    before = town.rows(town.theirs.customer_id)
    probed = 0
    for operation in town.operations:
        for kind in operation.takes & {C, A}:
            (who,) = (who for who, sees in SEES[kind].items() if sees == HIDDEN)
            for slot in operation.slots:
                asked = [slot.thing]
                nothing = no_things()
                theirs, unknown = (
                    with_ids(town.own, things, asked) for things in (town.theirs, nothing)
                )
                for_theirs = town.ask(operation, who, theirs, slot)
                for_unknown = town.ask(operation, who, unknown, slot)
                where = (operation.name, slot, for_theirs.text)
                assert plain(for_theirs, theirs) == plain(for_unknown, unknown), where
                assert for_theirs.status_code != 401, where
                probed += 1
            if not any(slot.place == "path" for slot in operation.slots):
                shown = town.ask(operation, who, town.own)
                assert not [id_ for id_ in ids(town.theirs) if id_ in shown.text], operation.name
    assert probed > 30
    assert town.rows(town.theirs.customer_id) == before


def test_what_one_may_see_is_answered_otherwise_than_what_there_is_not(town: Town) -> None:
    """The ids of the matrix are real ones: without this the other tests would pass for any rubbish."""
    told = 0
    for operation in town.operations:
        for who in seen_by(operation):
            for slot in operation.slots:
                if not is_theirs(slot, who) or (operation.name, slot.name) in FILTERS:
                    continue
                unknown = with_ids(town.theirs, no_things(), [slot.thing])
                missing = plain(town.ask(operation, who, unknown, slot), unknown)
                found = plain(town.ask(operation, who, town.theirs, slot), town.theirs)
                assert found[0] not in {401, 403}, (operation.name, who, slot, found)
                assert found != missing, (operation.name, who, slot, found)
                told += 1
            if not operation.slots:
                answer = town.ask(operation, who, town.theirs)
                assert answer.status_code not in {401, 403, 404}, (operation.name, who)
    assert told > 60


def test_only_reviewers_review(town: Town) -> None:
    for operation in town.operations:
        for who in ("annotator of all", "annotator of A"):
            if operation.name in REVIEWERS_ONLY:
                answer = town.ask(operation, who, town.theirs)
                assert refusal(answer) == (403, "not_a_reviewer"), operation.name


def seen_by(operation: Operation) -> list[str]:
    """Who is answered about the things of the first customer."""
    found = [who for kind in operation.takes for who, sees in SEES[kind].items() if sees == REACHED]
    if operation.name in REVIEWERS_ONLY:
        return [who for who in found if who.startswith("reviewer")]
    return sorted(found)


def is_theirs(slot: Slot, who: str) -> bool:
    """Return False for tasks that an annotator does not hold, which are unknown to them too."""
    is_held = slot.thing in {"task_id", "review_id", "labelled_id"}
    return not is_held or "annotator" not in who


def ids(things: Things) -> list[str]:
    """All ids of somebody's things."""
    return [getattr(things, name) for name in Things.__struct_fields__]


def with_ids(things: Things, others: Things, names: list[str]) -> Things:
    """Somebody's things, some of which are others'."""
    return msgspec.structs.replace(things, **{name: getattr(others, name) for name in names})
