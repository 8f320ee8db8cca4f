"""Send webhooks. Any number of dispatchers may run: one passes over what another is sending.

Delivery is at least once: if a dispatcher is killed after a POST and before the commit, the notification
is sent again, with the same `webhook-id`.
"""

import random
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from http import HTTPStatus

from api.background.listener import Listener
from api.background.webhook_sender import Answer, WebhookSender
from api.metrics import Metrics
from api.signatures import new_secret, signed_headers
from blocks import logs, tracing
from blocks.domain.backoff import backoff_s, jitter
from blocks.domain.errors import RefineryError, Transient
from blocks.secrets.egress import Egress
from blocks.settings import Settings
from blocks.store import webhook_messages, webhook_secrets, webhooks
from blocks.store.database import Database
from blocks.store.webhook_messages import Attempt, DueEndpoint, Notification

logger = logs.get_logger("refinery.webhooks")

_IN_FLIGHT_MAX = 32
# The bound for one endpoint, so that a slow one does not take all threads.
_IN_FLIGHT_EACH_MAX = 4
_LOOKS_MAX = 1000
# Longer than an attempt takes, with resolving and connecting.
_HOLD_S = 60.0
_BUSY_POLL_S = 0.1
_STOP_S = 20.0

_MINUTE_S, _HOUR_S = 60.0, 3600.0
# Delays before the second attempt, the third and so on; the last one repeats until three days are over.
_DELAYS_S = (
    5.0,
    30.0,
    2 * _MINUTE_S,
    10 * _MINUTE_S,
    30 * _MINUTE_S,
    _HOUR_S,
    2 * _HOUR_S,
    4 * _HOUR_S,
)
_JITTER = 0.2
# The longest pause of an endpoint that fails again and again, for all of its notifications.
_PAUSE_S_MAX = _MINUTE_S
_PAUSE_S = 1.0
_RETRY_AFTER_S_MAX = 24 * _HOUR_S


class Dispatcher:
    """A thread that looks for due notifications, and a pool of threads that send them."""

    def __init__(self, settings: Settings, database: Database, metrics: Metrics) -> None:
        self._database = database
        self._metrics = metrics
        self._vault = settings.vault()
        self._sender = WebhookSender(Egress(settings.egress_allow))
        self._listener = Listener(
            "dispatcher", webhook_messages.CHANNEL, database, work=self._send_some
        )
        self._pool = ThreadPoolExecutor(_IN_FLIGHT_MAX, thread_name_prefix="webhook")
        self._in_flight: Counter[int] = Counter()
        self._changed = threading.Condition()
        self._looked_at = 0

    def start(self) -> None:
        self._listener.start()

    def stop(self) -> None:
        """Wait for the attempts that are under way, and begin no others."""
        self._listener.stop_soon()
        with self._changed:
            self._changed.notify_all()
        self._listener.stop(_STOP_S)
        self._pool.shutdown(cancel_futures=True)

    def _send_some(self) -> bool:
        """Send the due notifications that there is room for; return whether to look again at once."""
        room, in_flight = self._await_room()
        with self._database.transaction() as tx:
            seen = webhook_messages.find_due_endpoints(
                tx, after=self._looked_at, looks_max=_LOOKS_MAX
            )
            limits = choose(seen, in_flight, room)
            claimed = webhook_messages.claim(tx, limits, hold_s=_HOLD_S) if limits else []
        are_all_seen = len(seen) < _LOOKS_MAX
        self._looked_at = 0 if are_all_seen else seen[-1].webhook_no
        for notification in claimed:
            with self._changed:
                self._in_flight[notification.webhook_no] += 1
            self._pool.submit(self._send, notification)
        return bool(claimed) or not are_all_seen or self._await_answer()

    def _await_room(self) -> tuple[int, Counter[int]]:
        """Wait for a free thread; return how many are free, and the attempts under way by endpoint."""
        with self._changed:
            while self._in_flight.total() >= _IN_FLIGHT_MAX and not self._listener.is_stopping:
                self._changed.wait()
            return _IN_FLIGHT_MAX - self._in_flight.total(), Counter(self._in_flight)

    def _await_answer(self) -> bool:
        """Wait a moment for an attempt to end, which makes room at its endpoint; False without any."""
        with self._changed:
            if not self._in_flight.total():
                return False
            self._changed.wait(_BUSY_POLL_S)
            return True

    def _send(self, notification: Notification) -> None:
        try:
            self._attempt(notification)
        except RefineryError as error:
            # The notification is due again when its hold expires.
            logger.warning(
                "webhooks.not_sent", message_id=notification.message_id, reason=error.message
            )
        except Exception:
            logger.exception("webhooks.not_sent", message_id=notification.message_id)
        finally:
            with self._changed:
                self._in_flight[notification.webhook_no] -= 1
                self._changed.notify_all()

    def _attempt(self, notification: Notification) -> None:
        now = datetime.now(UTC)
        if notification.attempts == 1 and not notification.failures:
            lag = now - notification.created_at
            self._metrics.webhook_lag_seconds.observe(lag.total_seconds())
        began_s = time.monotonic()
        with tracing.span("send webhook", parent=notification.traceparent) as note:
            note(message_id=notification.message_id, attempt=notification.attempts)
            answer = self._ask(notification, now)
            if answer.status_code:
                note(**{"http.response.status_code": answer.status_code})
            if answer.error:
                tracing.fail()
        self._metrics.webhook_attempts.labels(_outcome(answer)).inc()
        attempt = Attempt(
            attempt=notification.attempts,
            attempted_at=now,
            duration_ms=round((time.monotonic() - began_s) * 1000),
            status_code=answer.status_code,
            error=answer.error,
            response=answer.response,
        )
        self._record(notification, attempt, answer)

    def _ask(self, notification: Notification, now: datetime) -> Answer:
        """Return what became of one attempt, also where it could not be made.

        Raises:
            Transient: the database is away; it could not note an attempt either.
        """
        try:
            with self._database.transaction() as tx:
                keys = webhook_secrets.open_secrets(
                    tx, notification.webhook_no, new_secret(), self._vault
                )
            body = notification.body.encode()
            signed = signed_headers(notification.message_id, int(now.timestamp()), body, keys)
            plain = {"Content-Type": "application/json", "User-Agent": "refinery-jobs"}
            if traceparent := tracing.traceparent():
                plain["traceparent"] = traceparent
            return self._sender.send(notification.callback_url, plain | signed, body)
        except Transient:
            raise
        except Exception:
            # One cause is a secret that no encryption key of ours opens.
            logger.exception("webhooks.not_sent", message_id=notification.message_id)
            return Answer(None, "The request could not be made; our operators can see the reason.")

    def _record(self, notification: Notification, attempt: Attempt, answer: Answer) -> None:
        with self._database.transaction() as tx:
            webhook_messages.log_attempt(tx, notification, attempt)
            if answer.error is None:
                webhook_messages.mark_delivered(tx, notification)
            elif answer.status_code == HTTPStatus.GONE:
                webhooks.switch_off(tx, notification.webhook_no)
            else:
                delay_s, pause_s = _backoff(notification, answer)
                webhook_messages.postpone(tx, notification, delay_s=delay_s, pause_s=pause_s)
        logger.info(
            "webhooks.attempted",
            message_id=notification.message_id,
            event_type=notification.event,
            attempt=notification.attempts,
            status=answer.status_code,
            error=answer.error,
        )


def choose(seen: Iterable[DueEndpoint], in_flight: Mapping[int, int], room: int) -> dict[int, int]:
    """Return how many notifications to send now to each endpoint, by its number: `room` in all.

    An endpoint has four under way at most, and one while it fails; `in_flight` says how many it has.
    """
    limits: dict[int, int] = {}
    for endpoint in seen:
        most = 1 if endpoint.failing else _IN_FLIGHT_EACH_MAX
        free = min(most - in_flight.get(endpoint.webhook_no, 0), room)
        if endpoint.is_due and free > 0:
            limits[endpoint.webhook_no] = free
            room -= free
    return limits


def _outcome(answer: Answer) -> str:
    if answer.error is None:
        return "delivered"
    return "unreachable" if answer.status_code is None else "refused"


def _backoff(notification: Notification, answer: Answer) -> tuple[float, float]:
    """Return the delay before the next attempt, and the pause of its endpoint, in seconds."""
    nth = min(notification.attempts, len(_DELAYS_S)) - 1
    delay_s = _DELAYS_S[nth] * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 - no secret
    failures = notification.failures + 1
    pause_s = backoff_s(failures, first_s=_PAUSE_S, max_s=_PAUSE_S_MAX)
    asked_s = min(answer.retry_after_s or 0.0, _RETRY_AFTER_S_MAX)
    return max(delay_s, asked_s), max(jitter(pause_s, share=_JITTER), asked_s)
