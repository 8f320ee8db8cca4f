"""Give each measurement servers: new ones for figures, one for all of them where only code is tried."""

import contextlib
from collections.abc import Iterator, Mapping
from types import MappingProxyType, TracebackType
from typing import Protocol, Self

from rich.console import Console

from benchmarks import bare_stack
from benchmarks.servers import Databases, Servers, data_folder, running

# Every table of ours that a measurement fills; other tables hang on these.
_EMPTIED = (
    "customers",
    "annotators",
    "chunks",
    "lanes",
    "leases",
    "vacancies",
    "tallies",
    "labels",
    "archived_labels",
)
_NO_SETTINGS: Mapping[str, str] = MappingProxyType({})


class Stacks(Protocol):
    """Run stacks without rows of earlier measurements."""

    def bare(self) -> contextlib.AbstractContextManager[Databases]:
        """Run PostgreSQL and the API."""
        ...

    def whole(
        self, settings: Mapping[str, str] = _NO_SETTINGS
    ) -> contextlib.AbstractContextManager[Servers]:
        """Run everything, with an object store."""
        ...


class NewStacks:
    """Start a stack for each measurement, in a folder that is removed afterwards."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def bare(self) -> contextlib.AbstractContextManager[Databases]:
        return bare_stack.running(self._console)

    @contextlib.contextmanager
    def whole(self, settings: Mapping[str, str] = _NO_SETTINGS) -> Iterator[Servers]:
        with data_folder() as folder, running(folder, self._console, settings) as servers:
            yield servers


class SharedStack:
    """Run one stack for all measurements, whatever settings they ask for."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(data_folder())
            self._servers = stack.enter_context(running(folder, self._console, durable=False))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def bare(self) -> contextlib.AbstractContextManager[Databases]:
        return self.whole()

    @contextlib.contextmanager
    def whole(self, settings: Mapping[str, str] = _NO_SETTINGS) -> Iterator[Servers]:  # noqa: ARG002
        self._servers.clear()
        with self._servers.connect() as connection:
            connection.execute(f"truncate {', '.join(_EMPTIED)} cascade")
        yield self._servers
