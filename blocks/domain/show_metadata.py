"""What a job or a task says of the metadata that annotators see."""

from typing import Annotated

from msgspec import Meta

_KEYS_MAX = 100

ShowMetadata = Annotated[
    bool | Annotated[list[str], Meta(max_length=_KEYS_MAX)],
    Meta(
        description="What annotators see of each line's `metadata`: all of it, none, or the members "
        "that are named here."
    ),
]
