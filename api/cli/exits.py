"""How commands end: codes that scripts can use."""

from enum import IntEnum

from blocks.domain.errors import RefineryError


class Exit(IntEnum):
    """Exit codes of every command; 0 is success."""

    FAILED = 1
    """The job failed, was cancelled or could not be delivered; a folder is not what its manifest.json
    says; some jobs of a bulk act were refused; or something on this machine failed: a file, the
    database, a server."""
    USAGE = 2
    """The arguments, the environment or a file that was given are not as they should be."""
    UNREACHABLE = 3
    """The API does not answer, or not now."""
    REFUSED = 4
    """The API refused the request."""
    UNAUTHORIZED = 5
    """The key is wrong, or of the wrong kind."""
    NOT_FOUND = 6
    CONFLICT = 7
    """It cannot be done in the state that things are in."""
    INTERRUPTED = 130
    """Ctrl-C, as shells have it."""


class CommandFailed(RefineryError):
    """The command could not be carried out."""

    code = "command_failed"

    def __init__(self, message: str, exit_code: Exit) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class UsageError(CommandFailed):
    """The command's options do not go together."""

    code = "usage"

    def __init__(self, message: str) -> None:
        super().__init__(message, Exit.USAGE)


class Unreachable(CommandFailed):
    """The API does not answer, or not now: trying again may help."""

    code = "unreachable"

    def __init__(self, message: str) -> None:
        super().__init__(message, Exit.UNREACHABLE)
