"""What customers wrote is shown in Prefect's UI as they wrote it, and is nothing but text there."""

import re
from collections.abc import Callable
from html.parser import HTMLParser

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from blocks.prefect import markdown

RENDERER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
HOSTILE = [
    "[click](javascript:alert(1))",
    "![x](https://evil.example/pixel.png)",
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "&lt;b&gt; &amp; &#106;avascript:",
    "`code` and ``more``",
    "a | b | c",
    "one\ntwo\r\n\n# three",
    "**bold** __bold__ *i* _i_ ~~gone~~",
    "https://evil.example www.evil.example <https://evil.example> a@b.example",
    "[ref]: https://evil.example",
    "\\[x](y) \\\\ \\|",
    "- a list\n1. another",
    "> quoted",
    "--- | ---",
    "\u2028# heading\u0000\x1b[31m",
    "``` \n fence \n```",
    "$$x$$ $`y`$ :smile: {{ x }} [[wiki]]",
    "    indented",
    "",
]


class Shown(HTMLParser):
    """The text and the tags of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text = ""
        self.tags: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def line(written: str) -> str:
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\s]+", " ", written).strip()


any_text = st.one_of(
    st.text(), st.text(st.sampled_from("[](){}<>!&;:#*_~`|\\-+.@/ \n\r\tax1\u2028\x00"))
)


def hostile(test: Callable[..., None]) -> Callable[..., None]:
    """Decorator: the test for each of HOSTILE, and for any text."""
    for each in HOSTILE:
        test = example(each)(test)
    return given(any_text)(test)


@hostile
def test_text_is_shown_character_for_character(written: str) -> None:
    page = Shown(RENDERER.render(f"x{markdown.text(written)}x"))
    assert (page.text.strip(), page.tags) == (f"x{line(written)}x", ["p"])


@pytest.mark.parametrize("shape", [markdown.text, markdown.code])
@hostile
def test_it_stays_in_its_cell_of_a_table(shape: Callable[[str], str], written: str) -> None:
    page = RENDERER.render(f"| a | b |\n|---|---|\n| {shape(written)} | last |\n\nafter")
    shown = Shown(page)
    assert [tag for tag in shown.tags if tag != "code"] == [
        "table", "thead", "tr", "th", "th", "tbody", "tr", "td", "td", "p",
    ]  # fmt: skip
    cells = re.findall(r"<td>(.*)</td>", page)
    assert [Shown(cell).text for cell in cells] == [line(written), "last"]


@hostile
def test_nothing_in_it_is_left_for_an_extension_to_find(written: str) -> None:
    unescaped = re.sub(r"&(amp|lt|gt);|\\[!-/:-@\[-`{-~]", "", markdown.text(written))
    assert re.search(r"[!-/:-@\[-`{-~\x00-\x1f\x7f]", unescaped) is None


@pytest.mark.parametrize(
    "written, shown",
    [
        ("s3://b/in/m.jsonl", "`s3://b/in/m.jsonl`"),
        ("refinery verify s3://b/p", "`refinery verify s3://b/p`"),
        ("s3://b/a`b", r"s3\:\/\/b\/a\`b"),
        ("s3://b/a|b", r"s3\:\/\/b\/a\|b"),
        ("s3://b/a<b", r"s3\:\/\/b\/a&lt;b"),
        (" a", "a"),
    ],
)
def test_a_place_is_code_where_nothing_in_it_can_end_that(written: str, shown: str) -> None:
    assert markdown.code(written) == shown


@pytest.mark.parametrize(
    "url", ["javascript:alert(1)", "JAVASCRIPT:alert(1)", "data:text/html,x", "//evil", "x", ""]
)
def test_only_the_web_is_linked(url: str) -> None:
    assert markdown.link("here", url) == "here"


def test_nothing_in_a_url_ends_its_link() -> None:
    url = "https://console.example/a b>)](x)<script>?prefix=%2F\n[y](z)"
    page = Shown(RENDERER.render(markdown.link("a [b](c)", url)))
    assert (page.text.strip(), page.tags) == ("a [b](c)", ["p", "a"])
