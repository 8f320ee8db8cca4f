"""Options that help annotators: instructions."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from api.cli.files import read_text


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Guidance:
    """What annotators are given beside the question."""

    instructions: Annotated[
        Path | None,
        Parameter(
            help="A file of Markdown that annotators read first; `-` is standard input.",
            allow_leading_hyphen=True,
        ),
    ] = None

    def body(self) -> dict[str, Any]:
        """Return the fields of the API that were given."""
        return {} if self.instructions is None else {"instructions": read_text(self.instructions)}


GUIDANCE = Guidance()
