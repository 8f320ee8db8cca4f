"""How commands of the client end: codes that scripts can use."""

from enum import IntEnum

from blocks.domain.errors import RefineryError


class Exit(IntEnum):
    """0 is success."""

    JOB_FAILED = 1  # the job failed or was cancelled, or its delivery failed
    USAGE = 2
    UNREACHABLE = 3  # the API does not answer, or not now
    REFUSED = 4  # the API refused the request
    UNAUTHORIZED = 5
    NOT_FOUND = 6
    CONFLICT = 7


class CommandFailed(RefineryError):
    """The command could not be carried out."""

    code = "command_failed"

    def __init__(self, message: str, exit_code: Exit) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Unreachable(CommandFailed):
    """The API does not answer, or not now: trying again may help."""

    code = "unreachable"

    def __init__(self, message: str) -> None:
        super().__init__(message, Exit.UNREACHABLE)
