"""The console's list of jobs: filtered, live, long, without a connection, and an operator's."""

import pytest
from playwright.sync_api import expect

from blocks.store import customers, jobs
from blocks.store.database import Database
from deployments.embedded.stack import Stack
from deployments.names import RECONCILE
from tests.support.browser import Faults, OpenPage, Theme, check_accessibility, sign_in
from tests.support.client import Customer, prefect_client
from tests.support.console_jobs import LINES, body, fits
from tests.support.stack_shop import StackShop

pytestmark = pytest.mark.browser

REOPEN = "document.dispatchEvent(new Event('visibilitychange'))"
HOOK = "https://hooks.example/of-acme"


@pytest.mark.parametrize("theme, width", [("light", 1400), ("dark", 768)])
def test_jobs_are_filtered_and_followed(
    open_page: OpenPage,
    customer: Customer,
    key: str,
    manifest: str,
    s3_credentials: dict[str, str],
    theme: Theme,
    width: int,
) -> None:
    page = open_page("/console", key=key, theme=theme, width=width)
    expect(page.get_by_text("There are no jobs yet.")).to_be_visible()
    expect(page.locator("#connection")).to_have_text("Live")
    customer.submit(**body(manifest, s3_credentials))
    expect(page.get_by_text(f"{LINES} open")).to_be_visible()  # by the stream alone
    assert fits(page)
    check_accessibility(page)
    page.get_by_label("Search").fill("nowhere")
    page.get_by_label("Search").press("Enter")
    expect(page.get_by_text("No job is like that.")).to_be_visible()
    page.get_by_label("Search").fill("M.JSONL")
    page.get_by_label("Status").select_option("processing")
    page.get_by_role("button", name="Show", exact=True).click()
    expect(page.get_by_role("heading", name="How does it sound?")).to_be_visible()


def test_a_new_job_takes_nothing_from_a_long_list(
    open_page: OpenPage,
    stack: Stack,
    store: Database,
    customer: Customer,
    key: str,
    manifest: str,
    s3_credentials: dict[str, str],
) -> None:
    shop = StackShop(stack, store)
    with store.transaction() as tx:  # nobody sees them before they have ended
        for _ in range(101):
            new = shop.new_job(customer_id=customer.customer_id)
            job = jobs.get(tx, jobs.submit(tx, new, shop.vault)[0])
            assert job is not None
            jobs.cancel(tx, job.job_no)
            tx.execute("delete from runs where job_no = %s", [job.job_no])
    page = open_page("/console", key=key)
    cards = page.locator(".jobs > li")
    for count in (20, 40, 60, 80, 100):
        expect(cards).to_have_count(count)
        page.get_by_role("button", name="Show more").click()
    expect(cards).to_have_count(101)
    last = cards.last.get_by_role("link")
    last.focus()
    customer.submit(**body(manifest, s3_credentials))
    expect(cards).to_have_count(102)
    expect(last).to_be_focused()


def test_the_page_says_when_it_has_lost_the_connection_or_the_session(
    open_page: OpenPage, faults: Faults, key: str
) -> None:
    page = open_page("/console?page=constructor", key=key)
    faults.expect("ERR_FAILED")
    faults.expect("401")
    expect(page.locator("#connection")).to_have_text("Live")
    page.route("**/v1/jobs/events", lambda route: route.abort())
    page.evaluate(REOPEN)
    expect(page.locator("#connection")).to_contain_text("Connection lost")
    page.unroute("**/v1/jobs/events")
    expect(page.locator("#connection")).to_have_text("Live")  # it has tried again by itself
    page.context.clear_cookies()
    page.evaluate(REOPEN)
    expect(page.locator("#connection")).to_have_text("You are signed out. Sign in")
    page.get_by_role("link", name="Sign in").click()
    page.get_by_label("Your key").fill(key)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/console?page=constructor")
    expect(page.get_by_text("There are no jobs yet.")).to_be_visible()


def test_who_signs_in_after_a_customer_is_told_nothing_of_their_jobs(
    open_page: OpenPage,
    stack: Stack,
    store: Database,
    faults: Faults,
    key: str,
    manifest: str,
    s3_credentials: dict[str, str],
) -> None:
    page = open_page("/console", key=key)
    expect(page.locator("#connection")).to_have_text("Live")
    with store.transaction() as tx:
        other_key = customers.add_customer_key(tx, customers.add_customer(tx, "Another one"))
    faults.expect("403 .*/v1/")
    sign_in(page, stack.api_url, other_key)
    job_id = Customer(stack.api_url, other_key).submit(**body(manifest, s3_credentials))
    page.evaluate(REOPEN)
    expect(page.locator("#connection")).to_contain_text("Somebody else has signed in.")
    expect(page.get_by_text("There are no jobs yet.")).to_be_visible()
    page.get_by_role("link", name="Load the page again").click()
    expect(page.get_by_text(job_id)).to_be_visible()


def test_an_operator_sees_all_customers(
    open_page: OpenPage,
    stack: Stack,
    store: Database,
    customer: Customer,
    manifest: str,
    s3_credentials: dict[str, str],
) -> None:
    with store.transaction() as tx:
        operator = customers.add_admin_key(tx, "Olga")
        names = {each.customer_id: each.name for each in customers.list_customers(tx)}
    name = names[customer.customer_id]
    job_id = customer.submit(**body(manifest, s3_credentials))
    customer.http.post("/v1/webhooks", json={"callback_url": HOOK}).raise_for_status()
    page = open_page(f"/console?customer={customer.customer_id}", key=operator)
    expect(page.get_by_text(job_id)).to_be_visible()
    expect(page.get_by_role("link", name="New job")).to_have_count(0)
    page.get_by_role("link", name="Webhooks").click()
    hook = page.get_by_role("region", name=HOOK)
    expect(hook.get_by_role("link", name=name)).to_have_attribute(
        "href", f"/console?customer={customer.customer_id}"
    )
    page.get_by_role("link", name="Operations").click()
    expect(page.get_by_role("group", name="Queues")).to_be_visible()
    with prefect_client(stack) as prefect:
        deployment = prefect.get(f"/deployments/name/{RECONCILE}").raise_for_status().json()
        run = prefect.post(f"/deployments/{deployment['id']}/create_flow_run", json={}).json()
    shown = page.get_by_role("group", name="What reconcile has done lately")
    expect(shown.locator(f'a[href$="/runs/flow-run/{run["id"]}"]')).to_be_visible(timeout=60_000)
    check_accessibility(page)
