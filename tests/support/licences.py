"""The licences of the packages that Refinery runs on, as their metadata has them; `make licences` lists them."""

import re
from email.message import Message
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import cast

from deployments.registered import REPOSITORY

PAGE = Path(REPOSITORY, "docs", "licences.md")
_LOCK = Path(REPOSITORY, "constraints.txt")
ALLOWED = {
    "0BSD", "Apache-2.0", "BSD", "BSD-2-Clause", "BSD-3-Clause", "CNRI-Python", "ISC", "MIT", "MIT-0",
    "PSF-2.0",
    # Weak copyleft: used as it is, as packages of their own, which anybody may replace.
    "LGPL-3.0-only", "MPL-2.0",
    # One of two that one may choose from; the other is the GPL.
    "Artistic-1.0-Perl",
}  # fmt: skip
_IN_WORDS = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache Software License": "Apache-2.0",
    "BSD 3-Clause OR Apache-2.0": "BSD-3-Clause OR Apache-2.0",
    "BSD License": "BSD",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}
# Their metadata lists two that one may choose from; and packages of other platforms, which are not installed here.
_BY_NAME = {
    "async-timeout": "Apache-2.0",
    "pywin32": "PSF-2.0",
    "text-unidecode": "Artistic-1.0-Perl OR GPL-2.0-or-later",
}
_HEAD = """\
# Licences

Refinery Jobs is under the Apache License 2.0 (`LICENSE`, which a wheel has too). It contains no code of these packages; `pip` installs each by
itself. This is what their own metadata says, as SPDX expressions; `BSD` is one that does not say which. `make licences` makes the list from the
lock, and `tests/unit/test_licences.py` says when one is missing, or is of a licence that nobody has looked at yet.

"""


def read_licences() -> dict[str, str]:
    """The licence of each package of the lock, by its name; empty where nothing says it."""
    names = re.findall(r"^([a-z0-9][\w.-]*)(?:\[.*?\])?==", _LOCK.read_text(), re.MULTILINE)
    return {name: _BY_NAME.get(name) or _licence(name) for name in names}


def _licence(name: str) -> str:
    try:
        found = cast(Message, metadata(name))
    except PackageNotFoundError:
        return ""
    return found.get("License-Expression") or _by_classifiers(found) or _in_words(found)


def _by_classifiers(found: Message) -> str:
    said = [each for each in found.get_all("Classifier") or [] if each.startswith("License ::")]
    names = [each.rpartition(" :: ")[2] for each in said]
    return " OR ".join(_IN_WORDS.get(each, each) for each in names if each != "OSI Approved")


def _in_words(found: Message) -> str:
    first, *_ = (found.get("License") or "").splitlines() or [""]
    return _IN_WORDS.get(first, first)


def is_allowed(licence: str) -> bool:
    """Return True if an SPDX expression can be fulfilled with licences of the list alone."""
    plain = licence.replace("(", "").replace(")", "")
    if " AND " in plain:  # an OR inside of it is one that may be chosen
        return all(is_allowed(each) for each in plain.split(" AND "))
    return any(each in ALLOWED for each in plain.split(" OR "))


def render() -> str:
    """The page, as it has to be."""
    rows = [f"| {name} | {licence} |" for name, licence in sorted(read_licences().items())]
    return _HEAD + "\n".join(["| package | licence |", "|---|---|", *rows]) + "\n"


if __name__ == "__main__":
    PAGE.write_text(render())
