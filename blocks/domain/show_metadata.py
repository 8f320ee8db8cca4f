"""The field of a job or a task that says which metadata annotators see."""

from typing import Annotated

from msgspec import Meta

from blocks.domain.limits import SHOW_METADATA_KEYS_MAX

ShowMetadata = Annotated[
    bool | Annotated[list[str], Meta(max_length=SHOW_METADATA_KEYS_MAX)],
    Meta(
        description="What annotators see of each line's `metadata`: all of it, none, or the members "
        "that are named here."
    ),
]
