"""The next item is made while the present one is used."""

import threading
from collections.abc import Generator

import pytest

from blocks.lookahead import look_ahead


class Broken(Exception):
    """An item could not be made."""


def test_all_items_come_in_their_order() -> None:
    assert list(look_ahead(n for n in range(100))) == list(range(100))


def test_the_next_item_is_made_meanwhile_and_no_other() -> None:
    made, is_made = [], [threading.Event() for _ in range(4)]

    def make() -> Generator[int, None, None]:
        for n, event in enumerate(is_made):
            made.append(n)
            event.set()
            yield n

    items = look_ahead(make())
    for n in range(3):
        assert next(items) == n
        assert is_made[n + 1].wait(10)
        assert made == list(range(n + 2))
    items.close()


def test_an_exception_comes_in_its_turn() -> None:
    def make() -> Generator[int, None, None]:
        yield 1
        raise Broken

    items = look_ahead(make())
    assert next(items) == 1
    with pytest.raises(Broken):
        next(items)


def test_closing_it_waits_for_the_item_under_way_and_closes_the_items() -> None:
    goes_on, ended = threading.Event(), threading.Event()

    def make() -> Generator[int, None, None]:
        try:
            yield 1
            goes_on.wait(10)
            yield 2
        finally:
            ended.set()

    items = look_ahead(make())
    next(items)
    threading.Timer(0.01, goes_on.set).start()
    items.close()
    assert ended.is_set()
    assert not [each for each in threading.enumerate() if each.name.startswith("look-ahead")]
