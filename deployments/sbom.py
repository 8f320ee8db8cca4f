"""Print the packages of this environment as a bill of materials: `python -m deployments.sbom`.

It is JSON by CycloneDX 1.6, the same bytes for the same packages. The image has it as
`/opt/refinery/sbom.cdx.json`.
"""

import json
import re
import uuid
from collections.abc import Iterable, Mapping
from importlib.metadata import Distribution, distribution, distributions
from typing import Any

_OURS = "refinery-jobs"
_LICENCE_CLASSIFIER = "License :: "
# A longer one is the licence itself, and not its name.
_LICENCE_NAME_LENGTH_MAX = 100


def describe(ours: Distribution, installed: Iterable[Distribution]) -> dict[str, Any]:
    """Return the document for `ours` and all others of `installed`, sorted by name."""
    packages = {_normalize(each.metadata["Name"]): each for each in [*installed, ours]}
    references = {name: _purl(name, each.version) for name, each in packages.items()}
    components = [_component(name, packages[name], references) for name in sorted(packages)]
    (subject,) = (each for each in components if each["name"] == _OURS)
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": subject | {"type": "application"}},
        "components": [each for each in components if each is not subject],
        "dependencies": [
            {"ref": references[name], "dependsOn": _needs(packages[name], references)}
            for name in sorted(packages)
        ],
    }
    # Made of the content, so that two builds of the same packages are the same.
    identity = uuid.uuid5(uuid.NAMESPACE_OID, json.dumps(document, sort_keys=True))
    return document | {"serialNumber": identity.urn}


def _component(name: str, package: Distribution, references: Mapping[str, str]) -> dict[str, Any]:
    return {
        "type": "library",
        "bom-ref": references[name],
        "name": name,
        "version": package.version,
        "purl": references[name],
        "licenses": _licences(package),
    }


def _licences(package: Distribution) -> list[dict[str, Any]]:
    """Return what the package says of its licence: an SPDX expression, or names; empty if nothing."""
    said = package.metadata
    if "License-Expression" in said:
        return [{"expression": said["License-Expression"]}]
    names = [
        each.rpartition(" :: ")[2]
        for each in said.get_all("Classifier") or ()
        if each.startswith(_LICENCE_CLASSIFIER) and each != "License :: OSI Approved"
    ]
    (text, *_) = said.get_all("License") or [""]
    if not names and text and len(text) <= _LICENCE_NAME_LENGTH_MAX and "\n" not in text:
        names = [text]
    return [{"license": {"name": each}} for each in sorted(set(names))]


def _needs(package: Distribution, references: Mapping[str, str]) -> list[str]:
    """Return the references of installed packages that `package` asks for, those of extras too."""
    asked = {
        _normalize(found[0])
        for each in package.requires or ()
        if (found := re.match(r"[A-Za-z0-9._-]+", each))
    }
    return sorted(references[name] for name in asked & references.keys())


def _normalize(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _purl(name: str, version: str) -> str:
    return f"pkg:pypi/{name}@{version.replace('+', '%2B')}"


if __name__ == "__main__":
    print(json.dumps(describe(distribution(_OURS), distributions()), indent=1, sort_keys=True))
