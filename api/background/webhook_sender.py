"""Send a webhook once: to a checked address, within a bounded time, reading a bounded answer."""

import ssl
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from socket import SOCK_STREAM, getaddrinfo
from typing import Any

import can_ada
import httpcore
import msgspec

from blocks.domain.errors import AddressRefused
from blocks.secrets.egress import Egress
from blocks.secrets.tls import trusted

_TOTAL_S = 15.0
_CONNECT_S = 5.0
_RESPONSE_BYTES_MAX = 64 * 1024
_RESPONSE_CHARACTERS_KEPT = 1000


class Answer(msgspec.Struct, frozen=True):
    """The answer to an attempt; `error` says why it was not delivered, and is None if it was."""

    status_code: int | None
    error: str | None
    response: str | None = None
    retry_after_s: float | None = None


class WebhookSender:
    """Sends POST requests. Redirects are not followed, and every connection is a new one."""

    def __init__(self, egress: Egress) -> None:
        self._egress = egress
        self._tls = trusted()

    def send(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Return the answer to one POST to `url`, which must be normalized.

        Every failure is an answer with an `error`; nothing is raised.
        """
        network = _Network(self._egress, time.monotonic() + _TOTAL_S)
        try:
            with httpcore.ConnectionPool(
                ssl_context=self._tls, network_backend=network, max_keepalive_connections=0
            ) as pool:
                place, host = _place(url)
                request = httpcore.Request(
                    "POST",
                    place,
                    headers=[*headers.items(), ("Host", host), ("Content-Length", str(len(body)))],
                    content=body,
                )
                return _read(pool.handle_request(request))
        except AddressRefused as error:
            return Answer(None, error.message)
        except httpcore.TimeoutException:
            return Answer(None, f"There was no answer within {_TOTAL_S:g} s.")
        except (httpcore.NetworkError, httpcore.ProtocolError) as error:
            return _failed("The connection failed", error)
        except Exception as error:  # noqa: BLE001 - every attempt is logged for its customer
            return _failed("The request could not be sent", error)


def _place(url: str) -> tuple[httpcore.URL, str]:
    """Return the address to connect to with the path to ask for, and the Host header.

    httpcore's own reading of a URL drops `;` and what follows it in a path, and the brackets of an
    IPv6 address.
    """
    parsed = can_ada.parse(url)
    place = httpcore.URL(
        scheme=parsed.protocol.removesuffix(":"),
        host=parsed.hostname.strip("[]"),
        port=int(parsed.port) if parsed.port else None,
        target=parsed.pathname + parsed.search,
    )
    return place, parsed.host


def _failed(what: str, error: Exception) -> Answer:
    reason = str(error).replace("\x00", "\ufffd") or type(error).__name__
    return Answer(None, f"{what}: {reason}"[:500])


def _read(answer: httpcore.Response) -> Answer:
    """Return the answer. Its status counts, even if the body breaks off."""
    headers = {name.lower(): value.decode("latin-1") for name, value in answer.headers}
    success = 200 <= answer.status < 300  # noqa: PLR2004 - of all 2xx
    return Answer(
        answer.status,
        None if success else f"The endpoint answered {answer.status}.",
        _beginning(answer),
        _seconds(headers.get(b"retry-after")),
    )


def _beginning(answer: httpcore.Response) -> str:
    """Return the first characters of a body, even if it breaks off."""
    content = bytearray()
    with suppress(
        httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, OSError
    ):
        for part in answer.iter_stream():
            content += part
            if len(content) > _RESPONSE_BYTES_MAX:
                break
    with suppress(Exception):  # the answer is complete for us
        answer.close()
    text = content[: 4 * _RESPONSE_CHARACTERS_KEPT].decode(errors="replace")
    # U+0000 cannot be stored.
    return text.replace("\x00", "\ufffd")[:_RESPONSE_CHARACTERS_KEPT]


def _seconds(retry_after: str | None) -> float | None:
    """Return the seconds of a `Retry-After` header, which has seconds or a date (RFC 9110, 10.2.3)."""
    if not retry_after:
        return None
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        until = parsedate_to_datetime(retry_after)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    if until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    return max(0.0, (until - datetime.now(UTC)).total_seconds())


class _Network(httpcore.NetworkBackend):
    """Connects to addresses that were checked, and ends every operation at a given moment."""

    def __init__(self, egress: Egress, until_s: float) -> None:
        self._egress = egress
        self._until_s = until_s
        self._inner = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        del timeout, local_address
        try:
            found = getaddrinfo(host, port, type=SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"{host} cannot be resolved") from error
        addresses = list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))
        for address in addresses:
            self._egress.check_address(host, address, port)
        failure: httpcore.ConnectError | httpcore.ConnectTimeout | None = None
        for address in addresses:
            try:
                stream = self._inner.connect_tcp(
                    address, port, _left(self._until_s, _CONNECT_S), None, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
            else:
                return _Stream(stream, self._until_s)
        raise failure or httpcore.ConnectError(f"{host} has no address")


class _Stream(httpcore.NetworkStream):
    """A stream that ends at a given moment, however slowly the other side sends."""

    def __init__(self, inner: httpcore.NetworkStream, until_s: float) -> None:
        self._inner = inner
        self._until_s = until_s

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        del timeout
        return self._inner.read(max_bytes, _left(self._until_s))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        del timeout
        self._inner.write(buffer, _left(self._until_s))

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        del timeout
        inner = self._inner.start_tls(ssl_context, server_hostname, _left(self._until_s))
        return _Stream(inner, self._until_s)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


def _left(until_s: float, most_s: float = _TOTAL_S) -> float:
    left_s = until_s - time.monotonic()
    if left_s <= 0:
        raise httpcore.ReadTimeout
    return min(left_s, most_s)
