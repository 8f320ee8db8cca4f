"""Pictures on other ports of the API's host name are shown, and the session stays between browser and API."""

from collections.abc import Callable

import pytest
import s3fs

from blocks.store import customers
from deployments.embedded.demo_pictures import ANIMALS, draw
from deployments.embedded.stack import Stack
from tests.support.annotating import Gallery
from tests.support.browser import OpenPage
from tests.support.pictures import PictureServer
from tests.support.review_desk import ReviewDesk, line
from tests.support.store_shop import Chunk

pytestmark = pytest.mark.browser

Place = tuple[str, str]
"""The path of a page with the picture in it, and whose key opens it."""


def to_label(_: Stack, gallery: Gallery, url: str) -> Place:
    job = gallery.shop.processing(Chunk(1, [line(0, url)], []))
    return f"/annotate?job={job.job_id}", gallery.annotator()[1]


def to_review(stack: Stack, gallery: Gallery, url: str) -> Place:
    desk = ReviewDesk(stack, gallery.shop.database)
    job = desk.make_job([line(0, url)])
    desk.say(job, job.options[0])
    return f"/review?job={job.job_id}", desk.hire_reviewer()


def in_console(_: Stack, gallery: Gallery, url: str) -> Place:
    shop = gallery.shop
    job = shop.processing(Chunk(1, [line(0, url)], []), consensus_threshold=3)
    for option in job.options[:2]:
        shop.answer(gallery.annotator()[0], option)
    return f"/console?job={job.job_id}", shop.do(customers.add_customer_key, shop.customer_id)


@pytest.mark.parametrize("put", [to_label, to_review, in_console])
def test_a_server_on_another_port_neither_gets_nor_sets_the_session(
    stack: Stack,
    gallery: Gallery,
    open_page: OpenPage,
    pictures: PictureServer,
    put: Callable[[Stack, Gallery, str], Place],
) -> None:
    url = f"{pictures.url}/1.svg"
    path, key = put(stack, gallery, url)
    page = open_page(path, key=key)
    page.wait_for_function("() => document.querySelector('main img')?.naturalWidth > 0")
    assert pictures.cookies == []
    assert page.request.get("/v1/session").ok


def test_a_signed_url_of_the_embedded_store_is_shown(
    stack: Stack,
    gallery: Gallery,
    open_page: OpenPage,
    s3: s3fs.S3FileSystem,
    s3_bucket: str,
) -> None:
    s3.pipe_file(f"{s3_bucket}/1.svg", draw(ANIMALS[0], 1), ContentType="image/svg+xml")
    path, key = to_label(stack, gallery, s3.sign(f"{s3_bucket}/1.svg"))
    page = open_page(path, key=key)
    page.wait_for_function("() => document.querySelector('#picture img')?.naturalWidth > 0")
