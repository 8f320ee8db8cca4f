"""Tell streams how the jobs of their customers stand, by one look at the database a second for all."""

import asyncio
import re
import secrets
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import NamedTuple

import anyio
import msgspec

from api.http.errors import ApiError, too_many_requests
from api.http.places import Places
from api.routes.job_progress import Alive, Begun, JobProgress, progress_of
from api.routes.job_views import steady, views
from blocks import logs
from blocks.domain.errors import Transient
from blocks.store.database import Database
from blocks.store.job_lists import list_deleted, list_followed, list_followed_of_all

logger = logs.get_logger("refinery.api")

LOOK_S = 1.0
BEAT_S = 15.0
"""How often a stream says that it is alive."""
CHECK_S = 10.0
"""How often it looks at its key or session: within 15 s it ends with that, and a look takes time."""
# A look rests nine times as long as it took, so that it never takes more of a core than a tenth.
_RESTS = 9
_RESTS_LOST = 1  # it has waited, and streams are to go on soon after the database is back
_STREAM_S_MAX = 3600.0
_STREAMS_PER_CUSTOMER_MAX = 16
_STREAMS_MAX = 500
_JOBS_MAX = 100
_ENDED_MAX = 100
# So long a browser that has lost its connection is told what has changed, and nothing else.
_KEEP_S = 60.0
_RECONNECT_MS = 2000
_RETRY_AFTER_S = 10
# The place of a stream that nothing was sent to yet, as no look was possible.
_NOT_BEGUN = -1
_ID = re.compile(r"([0-9a-f]{8})\.([0-9]{1,15})")


class _Told(NamedTuple):
    """The latest event of a job, with its place among all events of the process."""

    number: int
    progress: JobProgress


class _Topic:
    """The jobs of one customer, as long as streams follow them and a minute more."""

    def __init__(self, number: int) -> None:
        self.streams = 0
        self.left_s = time.monotonic()
        self.since = number  # what happened up to this event is not known here
        self.told: dict[int, _Told] = {}  # by the number of the job, in the order of the events
        self.looked_at: datetime | None = None
        self._news = asyncio.Event()

    def wake(self) -> None:
        """Have all streams look at what is new."""
        self._news.set()
        self._news = asyncio.Event()

    async def wait(self, until_s: float) -> None:
        """Wait for the next `wake`, until this time at the most."""
        with anyio.move_on_after(max(0.0, until_s - time.monotonic())):
            await self._news.wait()

    def list_after(self, number: int) -> list[_Told]:
        """Return the latest event of each job of which there was one after that number."""
        return [told for told in self.told.values() if told.number > number]

    def has_news(self, number: int) -> bool:
        """Return whether a stream that was last sent the event of that number is to be sent more."""
        is_behind = self.looked_at is not None and number < self.since
        return is_behind or bool(self.list_after(number))

    def forget(self, job_nos: Iterable[int]) -> None:
        """Forget jobs that were deleted: new streams are told nothing of them."""
        for job_no in job_nos:
            self.told.pop(job_no, None)

    def list_under_way(self) -> Iterator[int]:
        """Yield the numbers of the jobs that may change."""
        return (job_no for job_no, told in self.told.items() if told.progress.is_under_way)

    def forget_ended(self) -> None:
        """Forget the jobs that ended first, where there are many."""
        ended = [no for no, told in self.told.items() if not told.progress.is_under_way]
        for job_no in ended[:-_ENDED_MAX]:
            self.since = max(self.since, self.told.pop(job_no).number)


class JobFeed:
    """What the streams of one process have in common; all of it but the look runs in the event loop.

    A stream is sent the latest state of a job, however often that has changed since it could last be
    sent something. So nothing is kept for each stream, and a slow one misses nothing that counts.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._epoch = secrets.token_hex(4)  # another process counts its own events
        self._number = 0
        self._topics: dict[str | None, _Topic] = {}
        self._wanted = asyncio.Event()
        self._is_stopping = False

    def stop(self) -> None:
        """End all streams, so that none holds up the end of the process."""
        self._is_stopping = True
        for topic in self._topics.values():
            topic.wake()

    @asynccontextmanager
    async def kept_up(self, places: Places) -> AsyncIterator[None]:
        """Look at the jobs of those whose streams are open, in these places, until the block ends."""
        looking = asyncio.create_task(self._look_on(places))
        try:
            yield
        finally:
            looking.cancel()

    async def _look_on(self, places: Places) -> None:
        while True:
            await self._wanted.wait()
            began_s = time.monotonic()
            rests = _RESTS
            try:
                await self._look(places)
            except Transient as error:
                logger.warning("job_feed.database_lost", reason=error.message)
                rests = _RESTS_LOST
            except Exception:
                logger.exception("job_feed.failed")
            self._forget_left()
            await anyio.sleep(max(LOOK_S, rests * (time.monotonic() - began_s)))

    async def follow(
        self, customer_id: str | None, last_id: str | None, is_good: Callable[[], Awaitable[bool]]
    ) -> AsyncGenerator[bytes, None]:
        """Yield the events of a customer's jobs from `last_id` on; end as soon as `is_good` says no.

        None stands for all customers.

        Raises:
            ApiError: 429, too many streams are open.
        """
        topic = self._join(customer_id)
        try:
            yield b"retry: %d\n\n" % _RECONNECT_MS
            until_s = time.monotonic() + _STREAM_S_MAX
            beat_s = time.monotonic() + BEAT_S
            check_s = time.monotonic() + CHECK_S
            number = _NOT_BEGUN
            while not self._is_stopping and time.monotonic() < until_s:
                since = topic.since
                if topic.looked_at and number < since:  # not begun, or more has ended than is kept
                    number, resumed = self._resume(topic, last_id)
                    yield self._event("begin", number, Begun(resumed))
                for told in topic.list_after(number):
                    number = told.number
                    yield self._event("job", number, told.progress)
                if number != _NOT_BEGUN:
                    number = max(number, since)
                if time.monotonic() >= check_s:
                    check_s = time.monotonic() + CHECK_S
                    if not await is_good():
                        return
                if time.monotonic() >= beat_s:
                    beat_s = time.monotonic() + BEAT_S
                    yield self._event("alive", number, Alive(topic.looked_at))
                if not self._has_more(topic, number):
                    await topic.wait(min(beat_s, check_s, until_s))
        finally:
            topic.streams -= 1
            topic.left_s = time.monotonic()

    def _has_more(self, topic: _Topic, number: int) -> bool:
        return self._is_stopping or topic.has_news(number)

    def _join(self, customer_id: str | None) -> _Topic:
        topic = self._topics.get(customer_id)
        if topic and topic.streams >= _STREAMS_PER_CUSTOMER_MAX:
            raise too_many_streams()
        if sum(each.streams for each in self._topics.values()) >= _STREAMS_MAX:
            raise _too_many_streams(
                f"{_STREAMS_MAX} streams of all customers are open here; try again later."
            )
        if topic is None:
            self._number += 1  # nobody has looked since the last event that was told before
            topic = self._topics[customer_id] = _Topic(self._number)
            self._wanted.set()
        topic.streams += 1
        return topic

    def _resume(self, topic: _Topic, last_id: str | None) -> tuple[int, bool]:
        """Return after which event to begin, and whether nothing before that was missed."""
        known = _ID.fullmatch(last_id or "")
        if known and known[1] == self._epoch and topic.since <= int(known[2]) <= self._number:
            return int(known[2]), True
        return 0, False

    def _event(self, name: str, number: int, content: msgspec.Struct) -> bytes:
        data = msgspec.json.encode(content)  # without line feeds, which would end the event
        event = b"event: %b\ndata: %b\n\n" % (name.encode(), data)
        if number == _NOT_BEGUN:  # the browser keeps the id that it came with
            return event
        return b"id: %b.%d\n%b" % (self._epoch.encode(), number, event)

    async def _look(self, places: Places) -> None:
        topics = dict(self._topics)
        job_nos = {whose: list(topic.list_under_way()) for whose, topic in topics.items()}
        now = datetime.now(UTC)
        told = [job_no for topic in topics.values() for job_no in topic.told]
        found = await places.run(lambda: _read(self._database, job_nos, told))
        for customer_id, job_no, progress in found.jobs:
            self._tell(topics[customer_id], job_no, progress)
        for topic in topics.values():
            topic.looked_at = now
            topic.forget(found.deleted)
            topic.forget_ended()
            topic.wake()

    def _tell(self, topic: _Topic, job_no: int, progress: JobProgress) -> None:
        told = topic.told.get(job_no)
        if told and told.progress == progress:
            return
        self._number += 1
        topic.told.pop(job_no, None)  # the dictionary is in the order of the events
        topic.told[job_no] = _Told(self._number, progress)

    def _forget_left(self) -> None:
        gone_s = time.monotonic() - _KEEP_S
        for customer_id, topic in list(self._topics.items()):
            if not topic.streams and topic.left_s < gone_s:
                del self._topics[customer_id]
        if not self._topics:
            self._wanted.clear()


def too_many_streams() -> ApiError:
    """Return the error for one stream of a customer too many."""
    return _too_many_streams(
        f"{_STREAMS_PER_CUSTOMER_MAX} streams of yours are open; close one first."
    )


def _too_many_streams(message: str) -> ApiError:
    return too_many_requests("too_many_streams", message, _RETRY_AFTER_S)


class _Found(NamedTuple):
    """What a look has found: jobs that may have changed, and numbers of jobs that were deleted.

    Of each of `jobs` it has whose topic it is, the number and the progress.
    """

    jobs: Iterator[tuple[str | None, int, JobProgress]]
    deleted: list[int]


def _read(
    database: Database, job_nos: Mapping[str | None, Sequence[int]], told: Sequence[int]
) -> _Found:
    """Look at what may have changed.

    `job_nos` are those of each topic that were under way before, `told` all jobs that are remembered.
    """
    whose = [customer_id for customer_id in job_nos if customer_id]
    named = [no for customer_id in whose for no in job_nos[customer_id]]
    with database.transaction() as tx:
        found = list_followed(tx, whose, named, limit=_JOBS_MAX) if whose else []
        topics: list[str | None] = [job.customer_id for job in found]
        if None in job_nos:
            of_all = list_followed_of_all(tx, job_nos[None], limit=_JOBS_MAX)
            found, topics = found + of_all, topics + [None] * len(of_all)
        shown = views(tx, found)
        deleted = list_deleted(tx, told) if told else []
    progress = [progress_of(steady(view)) for view in shown]
    return _Found(zip(topics, (job.job_no for job in found), progress, strict=True), deleted)
