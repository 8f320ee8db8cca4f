"""Write the page about a job that operators find in the Prefect UI, as an artifact."""

import shlex
from collections.abc import Iterator, Mapping

from blocks.delivery_manifest import folder_of
from blocks.domain.object_urls import ObjectUrl, parse_object_url
from blocks.prefect import markdown
from blocks.store.jobs import Job


def key(job_id: str) -> str:
    """Return the key of a job's artifacts, in which Prefect allows no underscore."""
    return job_id.replace("_", "-")


def description(job: Job) -> str:
    """Return a line about the job as it is now."""
    return (
        f"{job.status}: {job.total_tasks:,} lines, {job.tasks_done:,} settled, "
        f"{job.tasks_failed:,} without a result"
    )


def page(
    job: Job, bad_codes: Mapping[str, int], *, public_url: str, link: str | None = None
) -> str:
    """Return Markdown about the job as it is now.

    `bad_codes` counts its bad lines by reason. `public_url` is the API's address for customers, or
    empty; `link` opens the store's console in a browser, where the store has one.
    """
    lines = [*_facts(job, public_url), *_bad_lines(job, bad_codes), *_delivery(job, link)]
    return "\n".join(lines)


def _facts(job: Job, public_url: str) -> Iterator[str]:
    url = parse_object_url(job.manifest_url)
    yield f"# {job.job_id}"
    yield ""
    if job.error_message:
        yield f"**{markdown.text(job.error_message)}** ({job.error_code})"
        yield ""
    yield f"| status | {job.status} |"
    yield "|---|---|"
    yield f"| customer | `{job.customer_id}` |"
    yield f"| manifest | {markdown.code(str(url))} |"
    yield f"| question | {markdown.text(job.question)} |"
    yield f"| lines | {job.total_tasks:,} |"
    yield f"| settled | {job.tasks_done:,} |"
    yield f"| without a result | {job.tasks_failed:,} |"
    if public_url:
        console = f"{public_url.rstrip('/')}/console?job={job.job_id}"
        yield f"| console | {markdown.link('Look at it in the console', console)} |"
    # These are no links: a browser would send no key.
    yield f"| for its customer | {markdown.code(f'refinery jobs show {job.job_id}')} |"
    if public_url:
        yield f"| | {markdown.code(f'GET {public_url}/v1/jobs/{job.job_id}')} |"


def _bad_lines(job: Job, codes: Mapping[str, int]) -> Iterator[str]:
    if codes:
        yield ""
        yield f"## Bad lines: {sum(codes.values()):,}"
        yield ""
        yield "| reason | lines |"
        yield "|---|---:|"
        for code, count in sorted(codes.items(), key=lambda item: -item[1]):
            yield f"| {code} | {count:,} |"
        yield ""
        yield f"`refinery jobs errors {job.job_id}` lists them, each with its number."


def _delivery(job: Job, link: str | None) -> Iterator[str]:
    if job.delivery is None:
        return
    at = str(ObjectUrl(job.delivery.type, job.delivery.bucket, folder_of(job)))
    yield ""
    yield "## Delivery"
    yield ""
    yield f"{markdown.code(f'{at}/')}: {job.delivery_status or 'when every task has ended'}."
    if link:
        yield ""
        yield markdown.link("Look at it in the store's console", link)
    if job.delivery_status == "delivered":
        yield ""
        command = markdown.code(f"refinery verify {shlex.quote(at)}")
        yield f"{command} compares every object with `manifest.json`."
    if job.delivery_error_message:
        yield ""
        yield f"**{markdown.text(job.delivery_error_message)}** ({job.delivery_error_code})"
        yield ""
        yield "When that is mended, retry this run; or `refinery jobs deliver`, with other credentials."
