"""Whose turn it is for a place, and who is told that there is none."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future

import pytest

from api.http.hangups import ClientGone
from api.http.places import Overloaded, Places
from api.http.requesters import Requester
from blocks.domain.errors import Transient
from blocks.store import interrupts

PLACES = 4


class Room:
    """Places in which every call stays until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.places = Places("test", PLACES, call_s_max=1000)
        self._monkeypatch = monkeypatch
        self._going: list[threading.Event] = []

    def ask(self, who: Requester, name: str = "") -> "Future[str]":
        going = threading.Event()
        self._going.append(going)
        self._monkeypatch.setattr("api.http.requesters.current", lambda: who)

        def stay() -> str:
            going.wait(20)
            return name

        return self.places.submit(stay)

    def let_go(self, nth: int) -> None:
        self._going[nth].set()

    def close(self) -> None:
        for going in self._going:
            going.set()
        self.places.shutdown()


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Iterator[Room]:
    found = Room(monkeypatch)
    yield found
    found.close()


def running(futures: list["Future[str]"]) -> int:
    return sum(future.running() for future in futures)


def wait_running(futures: list["Future[str]"], count: int) -> None:
    pause = threading.Event()
    for _ in range(1000):
        if running(futures) == count:
            return
        pause.wait(0.01)
    raise AssertionError(f"{running(futures)} are running, not {count}")


def test_a_name_has_its_share_and_others_the_rest(room: Room) -> None:
    one, two = Requester({"one": 0.5}), Requester({"two": 0.5})
    firsts = [room.ask(one) for _ in range(10)]
    wait_running(firsts, 2)
    seconds = [room.ask(two) for _ in range(2)]
    wait_running(seconds, 2)
    assert running(firsts) == 2


def test_a_share_of_next_to_nothing_is_a_place(room: Room) -> None:
    tiny = [room.ask(Requester({"tiny": 0.01})) for _ in range(3)]
    wait_running(tiny, 1)


def test_every_share_of_a_requester_counts(room: Room) -> None:
    calls = [room.ask(Requester({"all": 0.75, f"each {n % 2}": 0.25})) for n in range(6)]
    wait_running(calls, 2)
    more = [room.ask(Requester({"all": 0.75, f"each {n}": 0.25})) for n in (2, 3)]
    wait_running(more, 1)


def test_who_waits_for_a_place_is_next_in_the_order_of_coming(room: Room) -> None:
    nobody = Requester({})
    calls = [room.ask(nobody, str(n)) for n in range(PLACES + 2)]
    wait_running(calls, PLACES)
    room.let_go(0)
    assert calls[0].result(20) == "0"
    wait_running(calls[PLACES:], 1)
    assert calls[PLACES].running()
    assert not calls[PLACES + 1].running()


def test_too_many_of_all_and_of_one_name_are_refused(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.http.places._WAITING_MAX", 4)
    half = Requester({"half": 0.5})
    for _ in range(2 + 2):
        room.ask(half)
    with pytest.raises(Overloaded):
        room.ask(half)
    for _ in range(2 + 2):
        room.ask(Requester({}))
    with pytest.raises(Overloaded):
        room.ask(Requester({}))


def test_who_waits_for_too_long_is_told_so(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = [room.ask(Requester({})) for _ in range(PLACES + 1)]
    room.places.give_up()
    assert not calls[-1].done()
    monkeypatch.setattr("api.http.places._WAIT_S_MAX", -1.0)
    room.places.give_up()
    with pytest.raises(Overloaded):
        calls[-1].result(20)


def test_who_has_gone_waits_no_more(room: Room) -> None:
    for _ in range(PLACES):
        room.ask(Requester({}))
    leaving = Requester({"one": 1})
    waiting = room.ask(leaving)
    leaving.leave()
    room.places.give_up()
    with pytest.raises(ClientGone):
        waiting.result(20)


def test_a_call_that_was_given_up_before_its_turn_is_not_made(room: Room) -> None:
    calls = [room.ask(Requester({})) for _ in range(PLACES + 1)]
    assert calls[-1].cancel()
    for n in range(PLACES):
        room.let_go(n)
    for call in calls[:PLACES]:
        call.result(20)
    assert calls[-1].cancelled()


def test_a_call_that_takes_too_long_is_interrupted() -> None:
    places = Places("test", 1, call_s_max=0)
    begun, over = threading.Event(), threading.Event()

    def look() -> bool:
        begun.set()
        over.wait(20)
        return interrupts.of_this_thread().has_fired

    found = places.submit(look)
    begun.wait(20)
    places.give_up()
    over.set()
    assert found.result(20)
    # The next one in the same thread is not.
    assert not places.submit(lambda: interrupts.of_this_thread().has_fired).result(20)
    places.shutdown()


def test_what_a_call_raises_is_raised_and_leaves_its_place() -> None:
    places = Places("test", 1, call_s_max=1000)

    def fail() -> None:
        raise Transient("No.")

    for _ in range(3):
        with pytest.raises(Transient):
            places.submit(fail).result(20)
    places.shutdown()
