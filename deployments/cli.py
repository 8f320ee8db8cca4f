"""Assemble the whole `refinery` command: that of `api.cli`, and the stack on one machine."""

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import App, CycloptsError, Parameter
from rich.console import Console
from rich.markup import escape

from api.cli import annotate, jobs, streams, tasks, verify, webhooks  # noqa: F401 - they add their commands
from api.cli.admin import app
from api.cli.exits import CommandFailed, Exit
from blocks.domain.errors import RefineryError
from deployments.embedded.operator_environment import (
    export,
    first_keys,
    keep_environment,
    load_environment,
)
from deployments.embedded.stack import Stack, default_data_dir
from deployments.errors import DemoFailed, NothingRuns, RegistrationFailed, StackError
from deployments.names import WORK_POOL

_DataDir = Annotated[Path | None, Parameter(help="The folder in which everything is kept.")]

_console = Console(highlight=False)
_INTERRUPTED = 130  # as shells have it
_FIRST_API_PORT = 8000


def main() -> None:
    """Run the command; exit with 1 and a sentence where it cannot be done."""
    try:
        _find_embedded_stack()
        app(sys.argv[1:], exit_on_error=False)
    except CycloptsError:
        sys.exit(Exit.USAGE)  # cyclopts has printed the error
    except (RefineryError, StackError, DemoFailed, RegistrationFailed) as error:
        _say(str(error))
        sys.exit(error.exit_code if isinstance(error, CommandFailed) else 1)
    except BrokenPipeError:
        # The reader of the output has closed it, as `head` does.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        if error.filename is None:
            raise
        _say(f"{error.filename}: {error.strerror}")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)


def _say(message: str) -> None:
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(f"[red]error:[/] {escape(message)}")


@app.command
def up(*, data_dir: _DataDir = None, store: bool = False) -> None:
    """Run everything on this machine: PostgreSQL, Prefect, a worker and the API. Ctrl-C stops it.

    Parameters
    ----------
    store
        Run an S3 store as well, for those who have no bucket at hand. Its address and port are added to
        REFINERY_EGRESS_ALLOW; customers reach nothing else on this machine.
    """
    stack = Stack(
        data_dir or default_data_dir(), object_store=store, first_api_port=_FIRST_API_PORT
    )
    try:
        stack.start_api(lambda step: _console.print(f"  [dim]{escape(step)}[/]"))
        with keep_environment(stack):
            _console.print(
                f"\n[bold]The API answers[/], with everything in {stack.data_dir}\n"
                f"  API          {stack.api_url}\n"
                f"  OpenAPI      {stack.openapi_url}\n"
                f"  Prefect UI   {stack.prefect_sign_in_url}\n"
                f"{_store_line(stack)}"
                f"\nA first customer:  refinery customers add NAME{_hint(data_dir)}\n"
                "[dim]Ctrl-C stops it.[/]\n",
                soft_wrap=True,  # a link that is broken over two lines cannot be clicked
            )
            stack.wait_complete()
            _console.print("[bold]Refinery is up.[/]")
            stack.wait()
    finally:
        stack.stop()


@app.command
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
    programs = shlex.quote(str(Path(sys.executable).parent))
    print(f'export PATH={programs}:"$PATH"\n{export(found)}', end="")


@app.command
def demo(*, keep: bool = False) -> None:
    """Show the whole life of a job, on real servers that are started for it.

    Parameters
    ----------
    keep
        Leave the servers up until Ctrl-C, to look around.
    """
    from deployments.embedded.demo import run_demo

    run_demo(_console, keep=keep)


@app.command
def worker(*, pool: str = WORK_POOL, name: str | None = None, limit: int | None = None) -> None:
    """Serve a work pool of Prefect: a run starts in half a second instead of three.

    Parameters
    ----------
    pool
        The work pool, of the type `refinery`; it is made if it is missing.
    name
        The name of the worker in the Prefect UI; a random one by default.
    limit
        How many runs it executes at once; the others wait, or go to another worker.
    """
    from deployments.worker import run_worker

    run_worker(pool, name, limit)


@app.command
def deploy(*, pool: str = WORK_POOL) -> None:
    """Register work pool, deployments, block types and automations with Prefect. Repeatable.

    Parameters
    ----------
    pool
        The pool that runs go to: one of `definitions.work_pools` in `prefect.yaml`.
    """
    from deployments.registration import register

    register(pool, _console.print)


blocks = app.command(App(name="blocks", help="Block types of the Prefect UI."))


@blocks.command(name="register")
def register_blocks() -> None:
    """Register our block types with Prefect; `refinery deploy` does it too."""
    from deployments import registration

    for name in registration.register_blocks():
        _console.print(f"registered {name}")


def _find_embedded_stack() -> None:
    """Have operators' commands use a running `refinery up`, unless the shell names another database."""
    if "REFINERY_DATABASE_URL" not in os.environ:
        # The shell says which buckets a command may use: eval "$(refinery env)". If it names another
        # Prefect, that one must not get the password of ours.
        foreign = ("AWS_", "PREFECT_") if "PREFECT_API_URL" in os.environ else ("AWS_",)
        for name, value in load_environment(default_data_dir()).items():
            if not name.startswith(foreign):
                os.environ.setdefault(name, value)


def _store_line(stack: Stack) -> str:
    return f"  S3 store     {stack.object_store.endpoint_url}\n" if stack.object_store else ""


def _hint(data_dir: Path | None) -> str:
    return f"   (after `. {data_dir}/environment`)" if data_dir else ""


app.register_install_completion_command()
