"""The console's keys: made and shown once, used, revoked; and what an operator sees of them."""

import pytest
from playwright.sync_api import expect

from blocks.store import customers
from blocks.store.database import Database
from tests.support.browser import Faults, OpenPage, check_accessibility, stored
from tests.support.client import Customer
from tests.support.console_jobs import fits

pytestmark = pytest.mark.browser


def test_a_key_is_shown_once_signs_in_and_is_revoked(
    open_page: OpenPage, faults: Faults, key: str
) -> None:
    page = open_page("/console", key=key)
    page.get_by_role("link", name="Keys").click()
    page.get_by_label("Name", exact=True).fill("<b>night</b>")
    page.get_by_role("button", name="Make a key").click()
    secret = page.get_by_label("Key", exact=True)
    expect(secret).to_contain_text("sk_")
    link = page.get_by_label("Sign-in link, good for one browser", exact=True).inner_text()
    made = secret.inner_text()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy: Key").click()
    expect(page.get_by_text("Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == made
    check_accessibility(page)
    page.get_by_role("button", name="I have it").click()
    expect(secret).to_have_count(0)
    for kept in (key, made, link.partition("#")[2]):
        assert kept not in stored(page)

    guest = open_page(link.replace(page.url.partition("/console")[0], ""), width=390, theme="dark")
    guest.locator('a[href="/console"]').click()
    guest.get_by_role("link", name="Keys").click()
    expect(guest.get_by_text("You are signed in with this key.")).to_be_visible()
    assert fits(guest)
    check_accessibility(guest)

    page.get_by_role("button", name="New sign-in link for <b>night</b>").click()
    expect(page.get_by_label("Sign-in link, good for one browser", exact=True)).to_contain_text(
        "#in_"
    )
    page.get_by_role("button", name="Revoke <b>night</b>").click()
    page.get_by_role("dialog").get_by_role("button", name="Revoke it").click()
    expect(page.get_by_text("The key is revoked.")).to_be_visible()
    expect(page.get_by_text("revoked", exact=True)).to_be_visible()
    faults.expect("401")
    guest.goto("/console?page=keys")
    expect(guest.get_by_label("Your key")).to_be_visible()

    faults.expect("409")
    page.get_by_role("button", name="Revoke without a name").click()
    page.get_by_role("dialog").get_by_role("button", name="Revoke it").click()
    expect(page.get_by_role("dialog")).to_contain_text("your last good key")
    page.get_by_role("dialog").get_by_role("button", name="Revoke the last key").click()
    expect(page.get_by_label("Your key")).to_be_visible()


def test_an_operator_makes_an_annotators_key_for_a_customer(
    open_page: OpenPage, store: Database, customer: Customer
) -> None:
    with store.transaction() as tx:
        operator = customers.add_admin_key(tx, "Olga")
    page = open_page("/console?page=keys", key=operator)
    page.get_by_label("What it may do").select_option("annotator")
    page.get_by_label("Customer", exact=True).select_option(customer.customer_id)
    page.get_by_label("Name", exact=True).fill("Anna Keys")
    page.get_by_role("button", name="Make a key").click()
    expect(page.get_by_label("Key", exact=True)).to_contain_text("ak_")
    expect(page.get_by_role("heading", name="Anna Keys")).to_be_visible()
    check_accessibility(page)
