"""Assemble the whole `refinery` command: that of `api.cli`, and the stack on one machine."""

import errno
import io
import os
import shlex
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Annotated

from cyclopts import App, CycloptsError, Parameter
from rich.console import Console
from rich.markup import escape
from rich.text import Text

from api.cli.exits import CommandFailed, Exit
from api.cli.fields import ranged
from api.cli.output import printable
from blocks.domain.errors import RefineryError
from deployments.embedded.first_links import make_first_links
from deployments.embedded.operator_environment import (
    export,
    first_keys,
    keep_environment,
    load_environment,
)
from deployments.embedded.postgres_programs import programs_folder
from deployments.embedded.stack import Stack, default_data_dir
from deployments.errors import DemoFailed, NothingRuns, RegistrationFailed, StackError
from deployments.names import WORK_POOL

_DataDir = Annotated[
    Path | None,
    Parameter(
        help="Where everything is kept. Default: REFINERY_DATA_DIR, or a folder of the user."
    ),
]

_FIRST_API_PORT = 8000


def main() -> None:
    """Run the command that the process was started with, and exit with its code."""
    _open_streams()
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run a command; return an `Exit`, or 0. A sentence on standard error says what went wrong."""
    try:
        try:
            _find_home()
            _find_embedded_stack()
            build()(arguments, exit_on_error=False)
        finally:
            sys.stdout.flush()
        return 0
    except CycloptsError:
        return Exit.USAGE  # cyclopts has printed why
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    except (RefineryError, StackError, DemoFailed, RegistrationFailed) as error:
        _say(str(error))
        return error.exit_code if isinstance(error, CommandFailed) else Exit.FAILED
    except UnicodeEncodeError as error:
        _say(f"{error.object!r} is not text in {error.encoding.upper()}.")
        return Exit.USAGE
    except BrokenPipeError:
        _drop_output()  # the reader has left, as `head` does
        return Exit.FAILED
    except OSError as error:
        where = "standard output" if _drop_output() else error.filename
        _say(f"{where}: {error.strerror}" if where else str(error))
        return Exit.FAILED
    except KeyboardInterrupt:
        return Exit.INTERRUPTED


def build() -> App:
    """Return the whole command, with everything that it can do."""
    from api.cli import (
        admin,
        annotate,
        jobs,
        me,
        operations,
        ops,
        review,
        streams,
        tasks,
        verify,
        webhooks,
    )

    app = App(
        name="refinery",
        help="Refinery Jobs: a self-hosted batch-labelling service.",
        version=lambda: metadata.version("refinery-jobs"),
        default_parameter=Parameter(negative_iterable=()),  # no --empty-option
    )
    for module in (
        admin, annotate, jobs, me, operations, ops, review, streams, tasks, verify, webhooks,
    ):  # fmt: skip
        module.add_commands(app)
    for command in (up, env, demo, worker, deploy):
        app.command(command)
    blocks = app.command(App(name="blocks", help="Block types of the Prefect UI."))
    blocks.command(register_blocks, name="register")
    app.register_install_completion_command()
    return app


class _ClosedOutput(io.RawIOBase):
    """Standard output that the shell has closed: to write to it fails, so that no result is lost."""

    def writable(self) -> bool:
        return True

    def write(self, _: object) -> int:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))


def _open_streams() -> None:
    """Replace standard streams that are closed, and let all escape characters that they cannot take."""
    if sys.stdin is None:
        sys.stdin = io.TextIOWrapper(io.BytesIO())
    if sys.stdout is None:
        sys.stdout = io.TextIOWrapper(io.BufferedWriter(_ClosedOutput()), encoding="utf-8")
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 - for good
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _drop_output() -> bool:
    """Drop the text that standard output does not take; return whether there was any."""
    try:
        sys.stdout.flush()
    except OSError:
        sys.stdout = io.StringIO()  # Python flushes it at exit, and would complain
        return True
    return False


def _say(message: str) -> None:
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(Text("error:", "red") + Text(f" {printable(message, keep=chr(10))}"))


def _console() -> Console:
    return Console(highlight=False, emoji=False)


def up(*, data_dir: _DataDir = None, store: bool = False) -> None:
    """Run everything on this machine: PostgreSQL, Prefect, a worker and the API. Ctrl-C stops it.

    Parameters
    ----------
    store
        Run an S3 store as well, for those who have no bucket at hand. Its address and port are added to
        REFINERY_EGRESS_ALLOW; customers reach nothing else on this machine.
    """
    console = _console()
    stack = Stack(
        data_dir or default_data_dir(), object_store=store, first_api_port=_FIRST_API_PORT
    )
    try:
        # All of it, or a signal that comes while this prints would end it without cleaning up.
        with stack.stops_on_error():
            stack.start_api(lambda step: console.print(f"  [dim]{escape(step)}[/]"))
            links = make_first_links(stack)
            with keep_environment(stack):
                console.print(
                    f"\n[bold]The API answers[/], with everything in {escape(str(stack.data_dir))}\n"
                    f"  API          {stack.api_url}\n"
                    f"  OpenAPI      {stack.openapi_url}\n"
                    f"  Prefect UI   {stack.prefect_sign_in_url}\n"
                    f"{_store_line(stack)}"
                    f"\n{links}"
                    f"\nAnother customer:  refinery customers add NAME{_hint(data_dir)}\n"
                    "[dim]Ctrl-C stops it.[/]\n",
                    soft_wrap=True,  # a link that is broken over two lines cannot be clicked
                )
                stack.wait_complete()
                console.print("[bold]Refinery is up.[/]")
                stack.wait()
    finally:
        stack.stop()


def env(*, data_dir: _DataDir = None, quickstart: bool = False) -> None:
    """Print the variables that a shell needs to use a running `refinery up`: eval "$(refinery env)".

    Parameters
    ----------
    quickstart
        Print keys of a first customer and a first annotator as well, made the first time:
        REFINERY_API_KEY and REFINERY_ANNOTATOR_KEY.
    """
    folder = data_dir or default_data_dir()
    found = load_environment(folder)
    if not found:
        raise NothingRuns(folder)
    if quickstart:
        found |= first_keys(folder, found["REFINERY_DATABASE_URL"])
    # PostgreSQL's own programs are the server's, since pg_dump refuses a server newer than itself.
    programs = shlex.quote(f"{Path(sys.executable).parent}:{programs_folder()}")
    print(f'export PATH={programs}:"$PATH"\n{export(found)}', end="")


def demo(*, keep: bool = False) -> None:
    """Show the whole life of a job, on real servers that are started for it.

    Parameters
    ----------
    keep
        Leave the servers up until Ctrl-C, to look around.
    """
    from deployments.embedded.demo import run_demo

    run_demo(_console(), keep=keep)


def worker(
    *,
    pool: str = WORK_POOL,
    name: str | None = None,
    limit: Annotated[
        int | None,
        ranged("Runs that it does at once, from 1 on; others wait, or go to another worker.", 1),
    ] = None,
) -> None:
    """Serve a work pool of Prefect. Runs start within half a second; Prefect's own worker takes three.

    Parameters
    ----------
    pool
        The work pool, of the type `refinery`; it is made if it is missing.
    name
        The name of the worker in the Prefect UI; made up where none is given.
    """
    from deployments.worker import run_worker

    run_worker(pool, name, limit)


def deploy(*, pool: str = WORK_POOL) -> None:
    """Register work pool, deployments, block types and automations with Prefect. Repeatable.

    Parameters
    ----------
    pool
        The pool that runs go to: one of `definitions.work_pools` in `prefect.yaml`.
    """
    from deployments.registration import register

    register(pool, _console().print)


def register_blocks() -> None:
    """Register our block types with Prefect; `refinery deploy` does it too."""
    from deployments import registration

    for name in registration.register_blocks():
        _console().print(f"registered {name}")


def _find_home() -> None:
    """Give a user without a home folder, such as a number in a container, the one that Docker gives."""
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = "/"


def _find_embedded_stack() -> None:
    """Set the variables of a running `refinery up`, unless the shell names another database."""
    if "REFINERY_DATABASE_URL" not in os.environ:
        # Only the shell says whose buckets are meant: eval "$(refinery env)". If it names another
        # Prefect, that one is not sent our password.
        foreign = ("AWS_", "PREFECT_") if "PREFECT_API_URL" in os.environ else ("AWS_",)
        for name, value in load_environment(default_data_dir()).items():
            if not name.startswith(foreign):
                os.environ.setdefault(name, value)


def _store_line(stack: Stack) -> str:
    return f"  S3 store     {stack.object_store.endpoint_url}\n" if stack.object_store else ""


def _hint(data_dir: Path | None) -> str:
    return escape(f"   (after `. {data_dir}/environment`)") if data_dir else ""
