"""The machine's own identity, for blocks of operators that hold no key.

A customer's credentials are decoded from JSON, and no JSON becomes this type. What a client of
Amazon's or Google's asks for the identity is asked by a client of its own, which knows the one address
of that service. The clients that talk to stores go on refusing it.
"""

from typing import NamedTuple

from blocks.domain.errors import Transient


class NoIdentity(Transient):
    """The machine has no identity, or its metadata service gives none now."""

    code = "no_machine_identity"


class MachineIdentity(NamedTuple):
    """Stand for the role of the instance, task or pod, or for a profile of the machine's files."""

    region: str = ""
    endpoint_url: str | None = None
    profile: str | None = None
    """A profile of `~/.aws`; None is what botocore finds."""
