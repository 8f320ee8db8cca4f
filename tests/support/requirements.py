"""What our package needs, as installed packages say it."""

from collections.abc import Callable
from importlib.metadata import Distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

OURS = "refinery-jobs"


def walk_requirements(
    find: Callable[[str], Distribution | None], *extras: str
) -> dict[str, Distribution]:
    """Return the packages that ours needs with these extras on this platform, and those that they need.

    `find` returns a package by its name, or None for one that is left out.
    """
    found: dict[str, Distribution] = {}
    wanted = [(OURS, extra) for extra in ("", *extras)]
    seen = set(wanted)
    for name, extra in wanted:  # the list grows
        package = find(name)
        if package is None:
            continue
        found[name] = package
        for text in package.requires or ():
            requirement = Requirement(text)
            if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
                continue
            more = {(canonicalize_name(requirement.name), e) for e in ("", *requirement.extras)}
            wanted += more - seen
            seen |= more
    del found[OURS]
    return found
