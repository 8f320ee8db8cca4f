"""Jobs for the console to show, some of whose lines and questions are hostile."""

import json
from typing import Any

from playwright.sync_api import Page

LINES = 40
HOSTILE = '<img src=x onerror="window.wasRun = 1"><b>bold</b>'
RIGHT_TO_LEFT = "\u202e\u05d0\u05d1 <script>window.wasRun = 1</script>"
LONG = "long" * 60


def make_lines() -> bytes:
    """A manifest about texts, and three lines that are bad."""
    texts = [HOSTILE, RIGHT_TO_LEFT, LONG, *(f"It rains, {n}." for n in range(LINES - 3))]
    lines = [json.dumps({"text": text, "metadata": {"n": n}}) for n, text in enumerate(texts)]
    bad = [HOSTILE, '{"text": "\u202eab"', "{}"]
    return "\n".join([*lines, *bad]).encode()


def body(manifest: str, credentials: dict[str, str], **more: Any) -> dict[str, Any]:
    return {
        "manifest_url": manifest,
        "label_spec": {"question": f"How does it sound? {HOSTILE}", "options": ["glad", "sad"]},
        "task_type": "sentiment",
        "consensus_threshold": 1,
        "credentials": credentials,
        **more,
    }


def fits(page: Page) -> bool:
    return bool(page.evaluate("document.documentElement.scrollWidth <= innerWidth"))
