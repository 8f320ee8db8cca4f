"""The demo's pictures: each is drawn the same way each time, and like no other."""

import json
from xml.etree import ElementTree as ET

from deployments.embedded import demo
from deployments.embedded.demo_pictures import ANIMALS, draw


def test_each_picture_is_an_svg_of_its_own_that_is_the_same_each_time() -> None:
    pictures = demo.make_pictures()
    assert len(set(pictures.values())) == len(pictures) == 25 * len(ANIMALS)
    assert pictures == demo.make_pictures()
    for picture in pictures.values():
        tags = {each.tag.rpartition("}")[2] for each in ET.fromstring(picture).iter()}
        assert tags <= {
            "svg",
            "rect",
            "g",
            "path",
            "circle",
            "ellipse",
        }  # nothing runs or is loaded
        assert len(picture) < 4096


def test_every_line_of_a_manifest_is_about_a_picture_that_is_there() -> None:
    pictures = demo.make_pictures()
    gallery = [json.loads(line)["data_url"] for line in demo.make_gallery().splitlines()]
    assert sorted(gallery) == sorted(f"s3://{path}" for path in pictures)
    lines = demo.make_manifest().splitlines()
    good = [line for line in lines if b"s3://" in line]
    assert {json.loads(line)["data_url"] for line in good} == set(gallery)
    assert (len(lines), len(good)) == (2000, 1980)


def test_an_animal_looks_like_itself_and_not_like_another() -> None:
    assert len({draw(animal, 0) for animal in ANIMALS}) == len(ANIMALS)
