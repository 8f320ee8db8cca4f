"""Make the next item of an iteration while the present one is used."""

from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any, TypeVar

_T = TypeVar("_T")
_END: Any = object()


def look_ahead(items: Generator[_T, None, None]) -> Generator[_T, None, None]:
    """Yield `items`, of which a thread makes the next one meanwhile; at most one waits.

    However the iteration ends, the thread has ended then, and `items` is closed. Raises what `items`
    raises, in its turn.
    """
    with closing(items), ThreadPoolExecutor(1, thread_name_prefix="look-ahead") as thread:
        upcoming = thread.submit(next, items, _END)
        while (item := upcoming.result()) is not _END:
            upcoming = thread.submit(next, items, _END)
            yield item
