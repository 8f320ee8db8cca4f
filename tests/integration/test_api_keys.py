"""Keys over the API: who may make which, what is shown once, and how a key ends."""

import logging
from typing import Any

import pytest
from httpx import Response

from blocks import housekeeping
from blocks.store import customers, keys, sessions
from tests.support.api_world import JOB_BODY, Api
from tests.support.canaries import in_database, places_of
from tests.support.side import at_once
from tests.support.store_shop import make_chunk

pytestmark = pytest.mark.integration

KEYS = "/v1/keys"


@pytest.fixture
def admin(api: Api) -> dict[str, str]:
    return api.bearer(api.shop.do(customers.add_admin_key, "Ona"))


def key_of(headers: dict[str, str]) -> str:
    return headers["Authorization"].removeprefix("Bearer ")


def id_of(headers: dict[str, str]) -> str:
    return customers.key_id(key_of(headers))


def make(api: Api, headers: dict[str, str] | None = None, **body: Any) -> dict[str, Any]:
    answer = api.post(KEYS, body, headers)
    assert answer.status_code == 201, answer.text
    assert answer.headers.get_list("cache-control") == ["no-store"]
    made: dict[str, Any] = answer.json()
    return made


def listed(api: Api, headers: dict[str, str] | None = None, query: str = "") -> list[Any]:
    answer = api.get(f"{KEYS}?limit=100{query}", headers)
    assert answer.status_code == 200, answer.text
    found: list[Any] = answer.json()["keys"]
    return found


def revoke(
    api: Api, key_id: str, headers: dict[str, str] | None = None, query: str = ""
) -> Response:
    path = f"{KEYS}/{key_id}{query}"
    return api.client.delete(path, headers=headers or api.customer)


def test_a_customer_makes_a_key_that_works_at_once_and_is_never_shown_again(api: Api) -> None:
    made = make(api, name="nightly export")
    assert api.get("/v1/jobs", api.bearer(made["key"])).status_code == 200
    (newest, first) = listed(api)
    secrets = {"key", "sign_in_link"}
    assert newest == {n: v for n, v in made.items() if n not in secrets} | {
        "last_used_at": newest["last_used_at"]
    }
    assert newest["last_used_at"] is not None
    assert made["last_used_at"] is None
    assert (made["name"], made["role"], made["customer_id"]) == (
        "nightly export", "customer", api.shop.customer_id,
    )  # fmt: skip
    assert made["key"].startswith(made["prefix"])
    assert made["key_id"] == customers.key_id(made["key"])
    assert (first["key_id"], first["current"], newest["current"]) == (
        id_of(api.customer),
        True,
        False,
    )
    link = made["sign_in_link"]
    assert link.startswith("http://testserver.local/#in_")
    signed_in = api.client.post("/v1/session", json={"link": link.partition("#")[2]})
    assert signed_in.json()["owner_id"] == api.shop.customer_id
    assert api.get(KEYS).text.count(made["key"][8:]) == 0


def test_customers_manage_their_own_keys_and_no_others(api: Api) -> None:
    other = api.new_customer()
    theirs = make(api, other)
    assert theirs["key_id"] not in [each["key_id"] for each in listed(api)]
    assert listed(api, query=f"&customer={theirs['customer_id']}") == []
    assert api.get(f"{KEYS}?cursor={theirs['key_id']}").status_code == 400
    for answer in (
        revoke(api, theirs["key_id"]),
        revoke(api, id_of(api.annotator)),
        revoke(api, key_of(api.customer)),  # a key is no id
        api.post(f"{KEYS}/{theirs['key_id']}/sign-in-link", None),
        api.post(f"{KEYS}/{id_of(api.annotator)}/sign-in-link", None),
    ):
        assert (answer.status_code, answer.json()["code"]) == (404, "key_not_found")
    foreign = api.post(KEYS, {"customer_id": theirs["customer_id"]})
    assert (foreign.status_code, foreign.json()["code"]) == (404, "customer_not_found")
    assert api.get("/v1/jobs", api.bearer(theirs["key"])).status_code == 200


@pytest.mark.parametrize("role", ["annotator", "reviewer"])
def test_annotators_are_the_operators(api: Api, admin: dict[str, str], role: str) -> None:
    refused = api.post(KEYS, {"role": role, "name": "Ann"})
    assert (refused.status_code, refused.json()["code"]) == (403, "annotators_are_the_operators")
    made = make(api, admin, role=role, name="Ann", customer_id=api.shop.customer_id)
    assert (made["role"], made["name"], made["customer_id"]) == (role, "Ann", None)
    assert made["customer_ids"] == [api.shop.customer_id]
    shown = api.get("/v1/session", api.bearer(made["key"])).json()
    assert (shown["role"], shown["owner_id"]) == (role, made["owner_id"])
    again = make(api, admin, role="annotator", name="Ann")
    assert (again["owner_id"], again["customer_ids"]) == (made["owner_id"], made["customer_ids"])
    for asker in (api.bearer(made["key"]), api.annotator):
        for answer in (
            api.get(KEYS, asker), api.post(KEYS, {}, asker), revoke(api, made["key_id"], asker),
            api.post(f"{KEYS}/{made['key_id']}/sign-in-link", None, asker),
        ):  # fmt: skip
            assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


def test_an_operator_makes_and_revokes_the_keys_of_all(api: Api, admin: dict[str, str]) -> None:
    whose = api.shop.customer_id
    made = make(api, admin, customer_id=whose, name="by Ona")
    assert listed(api)[0]["key_id"] == made["key_id"]
    assert [each["key_id"] for each in listed(api, admin, f"&customer={whose}")] == [
        each["key_id"] for each in listed(api)
    ]
    assert {each["role"] for each in listed(api, admin)} == {"customer", "annotator", "admin"}
    revoked = [revoke(api, each["key_id"], admin) for each in listed(api)]  # the last one too
    assert [each.status_code for each in revoked] == [200, 200]
    assert api.get("/v1/jobs").status_code == 401
    unknown = "cust_" + "0" * 22
    assert api.post(KEYS, {"customer_id": unknown}, admin).json()["code"] == "customer_not_found"
    for body, field in (
        ({}, "customer_id"),
        ({"role": "annotator"}, "name"),
        ({"role": "admin"}, "role"),
    ):
        answer = api.post(KEYS, body, admin)
        assert (answer.status_code, answer.json()["details"][0]["field"]) == (400, field)
    for answer in (
        revoke(api, id_of(admin), admin),
        api.post(f"{KEYS}/{id_of(admin)}/sign-in-link", None, admin),
    ):
        assert (answer.status_code, answer.json()["code"]) == (403, "operators_key")


def test_with_a_key_its_sessions_and_links_end_at_once(api: Api) -> None:
    made = make(api)
    link = made["sign_in_link"].partition("#")[2]
    begun = api.client.post("/v1/session", json={"key": made["key"]})
    cookie = {"Cookie": f"refinery_session={begun.cookies['refinery_session']}"}
    api.client.cookies.clear()
    assert api.client.get("/v1/jobs", headers=cookie).status_code == 200
    assert api.get("/v1/jobs", api.bearer(made["key"])).status_code == 200
    revoked = revoke(api, made["key_id"])
    assert (revoked.status_code, revoked.json()["tasks_returned"]) == (200, 0)
    assert api.client.get("/v1/jobs", headers=cookie).status_code == 401
    assert api.get("/v1/jobs", api.bearer(made["key"])).status_code == 401
    assert api.client.post("/v1/session", json={"link": link}).json()["code"] == "link_used"
    assert revoke(api, made["key_id"]).json() == revoked.json()
    more = api.post(f"{KEYS}/{made['key_id']}/sign-in-link", None)
    assert (more.status_code, more.json()["code"]) == (409, "key_revoked")


def test_the_last_key_is_not_revoked_without_being_told(api: Api) -> None:
    mine = id_of(api.customer)
    refused = revoke(api, mine)
    assert (refused.status_code, refused.json()["code"]) == (409, "last_key")
    assert api.get(KEYS).status_code == 200
    made = make(api)
    assert revoke(api, mine).status_code == 200
    assert api.get(KEYS).status_code == 401
    second = api.bearer(made["key"])
    assert revoke(api, made["key_id"], second).json()["code"] == "last_key"
    assert revoke(api, made["key_id"], second, "?last=true").status_code == 200
    assert api.get(KEYS, second).status_code == 401


def test_two_keys_that_revoke_each_other_at_once_leave_one(api: Api) -> None:
    shop = api.shop
    pair = [key_of(api.customer), make(api)["key"]]

    def end(asking: str, other: str) -> str | None:
        asker = keys.Asker(shop.customer_id, shop.customer_id, customers.hash_key(asking))
        with shop.database.transaction() as tx:
            key = keys.find(tx, shop.customer_id, customers.key_id(other))
            assert key is not None
            try:
                keys.revoke(tx, asker, key, even_last=False)
            except keys.AskerRevoked as error:
                return error.code
        return None

    outcomes = at_once(lambda: end(*pair), lambda: end(*pair[::-1]))
    assert [each for each in outcomes if each] == ["asker_revoked"]
    assert sum(each["revoked_at"] is None for each in listed(api, api.bearer(good(api, pair)))) == 1


def good(api: Api, pair: list[str]) -> str:
    (found,) = [key for key in pair if api.shop.do(customers.find_principal, key)]
    return found


def test_a_key_that_was_just_revoked_elsewhere_makes_no_other(api: Api) -> None:
    """Other processes trust a key for a second after it was found."""
    other = make(api)
    assert api.get(KEYS).status_code == 200
    api.shop.do(customers.revoke_key, key_of(api.customer))
    link = f"{KEYS}/{other['key_id']}/sign-in-link"
    for answer in (api.post(KEYS, {}), api.post(link, None), revoke(api, other["key_id"])):
        assert (answer.status_code, answer.json()["code"]) == (401, "invalid_api_key")


def test_a_request_that_is_sent_again_is_answered_with_the_same_key(
    api: Api, admin: dict[str, str]
) -> None:
    def send(key: str, headers: dict[str, str] = api.customer, **body: Any) -> Response:
        answer: Response = api.client.post(
            KEYS, json=body, headers={**headers, "Idempotency-Key": key}
        )
        return answer

    first, again = send("one", name="a"), send("one", name="a")
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json() == again.json()
    replays = [each.headers.get("idempotent-replayed") for each in (first, again)]
    assert replays == [None, "true"]
    other = send("one", name="b")
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_conflict")
    # Keys for requests are each asker's own.
    assert send("one", admin, customer_id=api.shop.customer_id, name="a").json() != first.json()
    stored = str(api.shop.run("select * from new_key_answers"))
    assert first.json()["key"] not in stored
    assert first.json()["sign_in_link"].partition("#")[2] not in stored
    assert len(listed(api)) == 3
    api.shop.run("update new_key_answers set created_at = now() - interval '25 hours'")
    late = send("one", name="a").json()
    assert late["key"] != first.json()["key"]
    housekeeping.keep_house(api.shop.database, api.client.app.state.settings)
    assert api.shop.value("select count(*) from new_key_answers") == 1


def test_no_more_links_of_a_key_are_good_than_that(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "LINKS_PER_KEY_MAX", 2)
    path = f"{KEYS}/{id_of(api.customer)}/sign-in-link"
    links = [api.post(path, None).json()["sign_in_link"].partition("#")[2] for _ in range(3)]
    seen = [api.client.post("/v1/session", json={"link": each}).status_code for each in links]
    assert seen == [401, 200, 200]


def test_the_tasks_of_an_annotator_without_a_key_go_to_others(
    api: Api, admin: dict[str, str]
) -> None:
    api.shop.processing(make_chunk(3))
    made = make(api, admin, role="annotator", name="Ann")
    claimed = api.post("/v1/annotation/claim", {"limit": 3}, api.bearer(made["key"]))
    assert len(claimed.json()["tasks"]) == 3
    assert revoke(api, made["key_id"], admin).json()["tasks_returned"] == 3


def test_keys_are_listed_page_by_page(api: Api) -> None:
    made = [id_of(api.customer), *(make(api)["key_id"] for _ in range(4))]
    seen: list[str] = []
    cursor = ""
    while cursor is not None:
        page = api.get(f"{KEYS}?limit=2{cursor and f'&cursor={cursor}'}").json()
        seen += [each["key_id"] for each in page["keys"]]
        cursor = page["next_cursor"]
    assert seen == made[::-1]
    assert api.get(f"{KEYS}?cursor=").status_code == 400


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "\x1b[2J", "x" * 201])
def test_a_name_that_no_list_can_show_is_refused(api: Api, name: str) -> None:
    answer = api.post(KEYS, {"name": name})
    assert (answer.status_code, answer.json()["details"][0]["field"]) == (400, "name")
    assert len(listed(api)) == 1


def test_what_is_done_to_keys_is_logged_and_no_secret_is(
    api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    made = make(api)
    link = api.post(f"{KEYS}/{made['key_id']}/sign-in-link", None).json()["sign_in_link"]
    revoke(api, made["key_id"])
    said = [line for line in caplog.messages if made["key_id"] in line]
    for event in ("key.made", "key.link_made", "key.revoked"):
        assert [line for line in said if event in line and id_of(api.customer) in line], event
    links = {
        f"link {n}": each.partition("#")[2] for n, each in enumerate((link, made["sign_in_link"]))
    }
    searched = [("the log", caplog.text.encode()), *in_database(api.shop.url)]
    assert places_of({"key": made["key"], **links}, searched) == []
    assert places_of({"id": made["key_id"]}, searched)


def test_a_key_that_was_used_says_when_and_one_that_nobody_used_does_not(api: Api) -> None:
    made = make(api)
    begun = api.client.post("/v1/session", json={"link": made["sign_in_link"].partition("#")[2]})
    assert begun.status_code == 200
    assert listed(api)[0]["last_used_at"] is None
    cookie = {"Cookie": f"refinery_session={begun.cookies['refinery_session']}"}
    api.client.cookies.clear()
    assert api.client.get("/v1/jobs", headers=cookie).status_code == 200
    assert listed(api)[0]["last_used_at"] is not None
    assert api.submit(JOB_BODY).status_code == 202
