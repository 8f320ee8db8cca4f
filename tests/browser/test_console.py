"""The console: a job from its form to a verified delivery, live, and what a customer can do about one."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
import s3fs
from msgspec.structs import fields
from playwright.sync_api import Page, expect

from api.cli.verify import check_folder
from blocks.bodies.jobs import JobBody
from tests.support.browser import Faults, OpenPage, check_accessibility, stored
from tests.support.client import Annotator, Customer
from tests.support.console_jobs import HOSTILE, LINES, LONG, RIGHT_TO_LEFT, body, fits
from tests.support.endpoint import Endpoint

pytestmark = pytest.mark.browser

INSTRUCTIONS = "# Listen\n\n- glad is **loud**\n- <img src=x>\n"
REPORT_MS = 25_000
"""More than lies between two reports of a job's page."""
MakeAnnotator = Callable[[Callable[[dict[str, Any]], str]], Annotator]


def fill_form(page: Page, manifest: str, bucket: str, credentials: dict[str, str]) -> None:
    page.get_by_label("Manifest", exact=True).fill(manifest)
    page.get_by_label("Question", exact=True).fill(f"How does it sound? {HOSTILE}")
    page.get_by_label("Options, one a line", exact=True).fill("glad\nsad\n")
    page.get_by_label("Lines are", exact=True).select_option("sentiment")
    page.get_by_label("Labels a task", exact=True).fill("1")
    page.get_by_label("Access key id", exact=True).fill(credentials["access_key_id"])
    page.get_by_label("Secret access key", exact=True).fill(credentials["secret_access_key"])
    page.get_by_label("Region", exact=True).fill(credentials["region"])
    page.get_by_label("Endpoint (not Amazon's)", exact=True).fill(credentials["endpoint_url"])
    page.get_by_label("Bucket", exact=True).fill(bucket)
    page.get_by_label("Prefix", exact=True).fill("labels")


def label_some(annotator: Annotator, job_id: str, count: int, label: str = "glad") -> None:
    claimed = annotator.http.post("/v1/annotation/claim", json={"limit": count, "job_id": job_id})
    labels = [{"task_id": task["task_id"], "label": label} for task in claimed.json()["tasks"]]
    assert len(labels) == count
    annotator.http.post("/v1/annotation/labels", json={"labels": labels}).raise_for_status()


def test_a_job_goes_from_the_form_to_a_verified_delivery(
    open_page: OpenPage,
    faults: Faults,
    key: str,
    manifest: str,
    s3_bucket: str,
    s3_credentials: dict[str, str],
    make_annotator: MakeAnnotator,
    s3: s3fs.S3FileSystem,
) -> None:
    page = open_page("/console", key=key)
    page.get_by_role("link", name="New job").first.click()
    page.get_by_label("Manifest", exact=True).fill("gs://bucket/manifest.jsonl")
    secret = page.get_by_label("Key file of the service account, as JSON")
    for name, value in {
        "spellcheck": False,
        "autocapitalize": "none",
        "autocomplete": "off",
    }.items():
        expect(secret).to_have_js_property(name, value)
    fill_form(page, manifest + ".missing", s3_bucket, s3_credentials)
    page.get_by_label("Instructions for annotators").fill(INSTRUCTIONS)
    page.get_by_text("More", exact=True).click()
    page.get_by_label("Metadata that annotators see").fill("all")

    faults.expect("422")
    page.get_by_role("button", name="Try it").click()
    wrong = page.get_by_label("Manifest", exact=True)
    expect(wrong).to_be_focused()
    expect(wrong).to_have_accessible_description(re.compile("There is no object"))

    wrong.fill(manifest)
    page.get_by_role("button", name="Try it").click()
    check_preview(page)
    check_accessibility(page)

    page.get_by_role("button", name="Submit the job").click()
    page.wait_for_url(re.compile(r"/console\?job=job_"))
    expect(page.get_by_text(f"{LINES} open")).to_be_visible()  # as soon as its lines are read
    for kept in (key, s3_credentials["secret_access_key"]):
        assert kept not in stored(page)

    job_id = page.url.rpartition("=")[2]
    annotator = make_annotator(lambda _: "glad")
    label_some(annotator, job_id, LINES // 2)
    expect(page.get_by_text(f"{LINES // 2} done")).to_be_visible()  # the page follows by itself
    annotator.work(job_id)
    expect(page.locator(".head .status")).to_have_text("completed")
    objects = page.get_by_role("group", name="Objects")
    expect(objects.get_by_role("row")).to_have_count(3)
    check_accessibility(page)

    assert check_folder(s3, f"{s3_bucket}/labels/{job_id}").whole
    compare_files(page, s3, f"{s3_bucket}/labels/{job_id}")
    assert page.evaluate("window.wasRun") is None


def check_preview(page: Page) -> None:
    """Look at the first lines, and the instructions, as annotators will see them."""
    preview = page.get_by_role("region", name="Preview")
    expect(preview.locator(".task .text")).to_have_text(HOSTILE)
    expect(preview.get_by_text('Metadata: {"n":0}')).to_be_visible()
    shown = preview.get_by_role("region", name="Instructions")
    expect(shown.get_by_role("heading", name="Listen", level=4)).to_be_visible()
    expect(shown.get_by_role("listitem")).to_have_text(["glad is loud", "<img src=x>"])
    expect(shown.locator("strong")).to_have_text("loud")
    expect(preview.get_by_text("malformed_json")).to_have_count(0)  # it is behind the first ten
    preview.get_by_role("button", name="Next").click()
    expect(preview.locator(".task .text")).to_have_text(RIGHT_TO_LEFT)


def compare_files(page: Page, s3: s3fs.S3FileSystem, folder: str) -> None:
    """Have the page compare what is in a folder, and what was changed since."""
    key_of_part = next(k for k in s3.find(folder) if "part-" in k)
    page.get_by_text("Compare files that you have downloaded").click()
    file: Any = {
        "name": key_of_part.rpartition("/")[2],
        "mimeType": "",
        "buffer": s3.cat(key_of_part),
    }
    page.get_by_label("Files from the bucket").set_input_files(file)
    expect(page.get_by_text("is what was written.")).to_be_visible()
    file["buffer"] = file["buffer"].replace(b"glad", b"flad", 1)
    page.get_by_label("Files from the bucket").set_input_files(file)
    expect(page.get_by_text("differs. Its SHA-256 is")).to_be_visible()
    listed = s3.cat(f"{folder}/manifest.json")
    for content, found in [
        (listed, "lists 2 objects as they were written."),
        (listed.replace(b"part-", b"p-"), "differs. It lists 2 objects, and 1 of them"),
    ]:
        page.get_by_label("Files from the bucket").set_input_files(
            {"name": "manifest.json", "mimeType": "", "buffer": content}
        )
        expect(page.get_by_text(found)).to_be_visible()


def test_a_job_is_cancelled_and_shown_as_text_on_a_phone(
    open_page: OpenPage, customer: Customer, key: str, manifest: str, s3_credentials: dict[str, str]
) -> None:
    job_id = customer.submit(**body(manifest, s3_credentials))
    page = open_page("/console", key=key, theme="dark", width=390)
    page.get_by_role("link", name=f"How does it sound? {HOSTILE}").click()
    expect(page.get_by_text(f"{LINES} open")).to_be_visible()
    errors = page.get_by_role("region", name="Lines without a result")
    raw = errors.locator("code.raw")
    expect(raw.first).to_have_text(HOSTILE)
    expect(raw.nth(1)).to_have_text(r'{"text": "\u{202e}ab"')
    assert fits(page)
    check_accessibility(page)

    page.get_by_role("button", name="Cancel the job").click()
    page.get_by_role("dialog").get_by_role("button", name="Go back").click()
    assert customer.job(job_id)["status"] == "processing"
    page.get_by_role("button", name="Cancel the job").click()
    check_accessibility(page)
    page.get_by_role("dialog").get_by_role("button", name="Cancel the job").click()
    expect(page.locator(".head .status")).to_have_text("cancelled")
    expect(page.get_by_role("button", name="Cancel the job")).to_have_count(0)
    assert customer.job(job_id)["status"] == "cancelled"
    assert page.evaluate("window.wasRun") is None


def test_an_annotator_is_excluded_and_the_results_are_delivered(
    open_page: OpenPage,
    customer: Customer,
    key: str,
    s3: s3fs.S3FileSystem,
    s3_bucket: str,
    s3_credentials: dict[str, str],
    make_annotator: MakeAnnotator,
) -> None:
    picture = f"{customer.http.base_url}/web/icon.svg"
    lines = [json.dumps({"data_url": f"{picture}?{n}"}) for n in range(4)]
    s3.pipe_file(f"{s3_bucket}/m.jsonl", "\n".join(lines).encode())
    spec = body(f"s3://{s3_bucket}/m.jsonl", s3_credentials, consensus_threshold=2)
    label_spec = {"question": "Which?", "options": ["glad", "sad", LONG[:200]]}
    job_id = customer.submit(
        **spec | {"task_type": "image_classification", "label_spec": label_spec}
    )
    customer.wait_ingested(job_id, 4)
    for option in ("glad", "sad"):
        label_some(make_annotator(lambda _: ""), job_id, 4, option)
    page = open_page("/console", key=key)
    page.clock.install()
    page.goto(f"/console?job={job_id}")
    disagreements = page.get_by_role("region", name="Disagreements")
    shown = disagreements.get_by_role("img", name="Line 1")
    expect(shown).to_have_attribute("src", f"{picture}?0")
    expect(disagreements.get_by_text("glad 1, sad 1").first).to_be_visible()

    # What a reader has opened, and where they are, outlives the next report.
    numbers = page.locator("figure details").last
    said = disagreements.locator("details").first
    for opened in (numbers, said):
        opened.locator("summary").click()
    exclude = page.get_by_role("button", name="Exclude annotator").first
    exclude.focus()
    with page.expect_response("**/quality"), page.expect_response("**/disagreements?*"):
        page.clock.fast_forward(REPORT_MS)
    for opened in (numbers, said):
        expect(opened).to_have_attribute("open", "")
    expect(exclude).to_be_focused()

    page.set_viewport_size({"width": 390, "height": 800})
    assert fits(page)

    exclude.click()
    page.get_by_role("dialog").get_by_role("button", name="Exclude them").click()
    expect(page.get_by_text("is excluded from this job.")).to_be_visible()
    for _ in range(2):
        make_annotator(lambda _: "glad").work(job_id)
    expect(page.locator(".head .status")).to_have_text("completed")

    form = page.get_by_role("region", name="Delivery")
    form.get_by_label("Bucket").fill(s3_bucket)
    for name, value in s3_credentials.items():
        form.locator(f"#deliver-{name}").fill(value)
    form.get_by_role("button", name="Deliver").click()
    expect(page.get_by_role("group", name="Objects").get_by_role("row")).to_have_count(3)
    assert check_folder(s3, f"{s3_bucket}/{job_id}").whole


def test_a_job_like_another_has_all_of_its_fields(
    open_page: OpenPage,
    customer: Customer,
    endpoint: Endpoint,
    key: str,
    manifest: str,
    s3_bucket: str,
    s3_credentials: dict[str, str],
) -> None:
    options = ["glad", "sad"]
    asked = body(
        manifest,
        s3_credentials,
        label_spec={
            "question": "Like this?",
            "options": options,
            "option_details": [{"option": "sad", "description": "Not glad.", "hotkey": "s"}],
        },
        consensus={
            "method": "weighted", "target_confidence": 0.95, "labels_min": 3, "labels_max": 6,
        },
        gold_share=0.2,
        min_accuracy=0.7,
        min_gold_seen=7,
        include_labels=True,
        review_no_consensus=True,
        review_confidence_below=0.9,
        review_share=0.5,
        review_flagged=True,
        review_deadline=12,
        callback_url=f"{endpoint.url}/like",
        delivery={
            "type": "s3", "bucket": s3_bucket, "prefix": "p", "format": "parquet",
            "compression": "none",
        },
        metadata={"team": "x"},
        priority=7,
        skips_max=2,
        failure_threshold_percent=12.5,
        show_metadata=["caption", "a, b"],
        instructions="# Look\n\ntwice\n",
        sign_urls=True,
    )  # fmt: skip
    for name in ("consensus_threshold", "stop_early"):  # the other method's
        asked.pop(name, None)
    assert {field.name for field in fields(JobBody)} - set(asked) == {
        "consensus_threshold", "stop_early",
    }  # fmt: skip
    job_id = customer.submit(**asked)
    page = open_page(f"/console?page=new&like={job_id}", key=key)
    expect(page.get_by_label("Further fields")).to_be_visible()
    expect(page.get_by_text("kms_key_id and acl")).to_be_visible()
    for name, value in s3_credentials.items():
        page.locator(f"#job-{name}").fill(value)
    page.get_by_role("button", name="Submit the job").click()
    page.wait_for_url(re.compile(r"/console\?job=job_"))
    made = customer.job(page.url.rpartition("=")[2])
    like = customer.job(job_id)
    shown = [field.name for field in fields(JobBody) if field.name in like]
    for job in (like, made):
        job["delivery"] = {name: job["delivery"][name] for name in asked["delivery"]}
    shown.append("instructions_version")
    assert {name: made.get(name) for name in shown} == {name: like[name] for name in shown}
    assert made["manifest"]["url"] == like["manifest"]["url"]


def test_webhooks_are_added_and_messages_sent_again(
    open_page: OpenPage,
    customer: Customer,
    endpoint: Endpoint,
    key: str,
    manifest: str,
    s3_credentials: dict[str, str],
) -> None:
    page = open_page("/console?page=webhooks", key=key)
    page.get_by_label("Address, https").fill(endpoint.url + "/console")
    page.get_by_label("task.settled").uncheck()
    page.get_by_role("button", name="Add it").click()
    secret = page.locator("output")
    expect(secret).to_have_text(re.compile("^whsec_"))
    check_accessibility(page)
    page.get_by_role("button", name="I have it").click()
    assert "whsec_" not in stored(page)

    job_id = customer.submit(**body(manifest, s3_credentials))
    customer.http.post(f"/v1/jobs/{job_id}/cancel").raise_for_status()
    received = endpoint.received.get(timeout=20)
    while b"job.cancelled" not in received.body:
        received = endpoint.received.get(timeout=20)
    page.get_by_text("What was sent").click()
    message = page.locator(".log li").filter(has_text="job.cancelled").first
    expect(message.get_by_text("delivered")).to_be_visible()
    message.get_by_role("button", name="Send job.cancelled again").click()
    again = endpoint.received.get(timeout=20)
    assert again.headers["webhook-id"] == received.headers["webhook-id"]
    expect(page.get_by_text("It was sent again: delivered.")).to_be_visible()
    check_accessibility(page)

    registered = page.get_by_role("region", name=endpoint.url + "/console")
    registered.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete it").click()
    expect(page.get_by_text("The webhook is deleted.")).to_be_visible()
    deleted = page.get_by_role("region", name="Not registered")
    expect(deleted.get_by_role("heading", name=endpoint.url + "/console")).to_be_visible()
    expect(registered.get_by_role("button", name="Delete")).to_have_count(0)

    page.get_by_label("Address, https").fill(endpoint.url + "/another")
    page.get_by_role("button", name="Add it").click()
    another = page.get_by_role("region", name=endpoint.url + "/another")
    expect(
        another.get_by_text(re.compile("Told of job.processing, .*task.settled"))
    ).to_be_visible()
