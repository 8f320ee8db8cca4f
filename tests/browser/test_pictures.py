"""Pictures on other ports of the API's host name are shown, and the session stays between browser and API."""

import base64
import random
import struct
import zlib
from collections.abc import Callable

import pytest
import s3fs
from playwright.sync_api import expect

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


@pytest.mark.parametrize("put", [to_label, to_review])
def test_a_picture_whose_file_breaks_off_says_so(
    stack: Stack,
    gallery: Gallery,
    open_page: OpenPage,
    put: Callable[[Stack, Gallery, str], Place],
) -> None:
    whole = draw_noise()
    path, key = put(stack, gallery, png_url(whole[: len(whole) // 2]))
    page = open_page(path, key=key)
    expect(page.get_by_text("The file of this picture breaks off")).to_be_visible()
    is_cut = """async (url) => {
        const { loadPicture } = await import("/web/picture.js");
        return loadPicture({ data_url: url }).isCut;
    }"""
    sizeless = "data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 9 9'/>"
    assert [page.evaluate(is_cut, url) for url in (png_url(whole), sizeless)] == [False, False]


def png_url(content: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def draw_noise() -> bytes:
    """A PNG of 20 × 20 pixels."""
    size = 20
    rows = b"".join(b"\0" + random.randbytes(3 * size) for _ in range(size))
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


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
