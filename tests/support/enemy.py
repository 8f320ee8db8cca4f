"""A hostile customer, as a process of its own: `python -m tests.support.enemy ATTACK`, its target on standard input.

It says "ready" when the attack is under way, and attacks until its standard input is closed. It talks to
the stack on 127.0.0.1 alone, with bounded numbers of threads and connections.
"""

import http.client
import json
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

BODY_BYTES = 4 * 1024 * 1024 - 1024
PREFLIGHTS = 40
READERS = 40
HALF_SENT = 800
WAITERS = 200
JOBS = 12
PAUSE_S = 0.01
TIMEOUT_S = 120.0

ended = threading.Event()


@dataclass(frozen=True)
class Target:
    """What the enemy knows: the API, keys of their own, their bucket, and a job with many bad lines."""

    port: int
    customer_key: str
    annotator_key: str
    bucket: str
    credentials: dict[str, str]
    job_id: str
    sockets: list[socket.socket] = field(default_factory=list)

    def ask(self, method: str, path: str, body: Any = None, key: str = "") -> int:
        """Send one request and read its answer; 0 where there was none."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT_S)
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {key or self.customer_key}"}
        headers |= {"Content-Type": "application/json"} if body is not None else {}
        try:
            connection.request(method, path, data if body is not None else None, headers)
            answer = connection.getresponse()
            answer.read()
        except OSError:
            return 0
        else:
            return answer.status
        finally:
            connection.close()

    def submit(self, key: str, path: str = "/v1/jobs", **changes: Any) -> int:
        spec = {"question": "What is it?", "options": ["cat", "dog"]}
        url = f"s3://{self.bucket}/{key}"
        body = {"manifest_url": url, "label_spec": spec, "credentials": self.credentials}
        return self.ask("POST", path, body | changes)

    def send_half(self, text: str) -> None:
        """Leave a request that nobody reads the answer of, or that never ends."""
        found = socket.create_connection(("127.0.0.1", self.port), timeout=TIMEOUT_S)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        found.sendall(text.encode())
        self.sockets.append(found)

    def at(self, port: int) -> dict[str, str]:
        """Credentials for a store of the enemy's own."""
        return self.credentials | {"endpoint_url": f"http://127.0.0.1:{port}"}


def listen(behave: Callable[[socket.socket], None]) -> int:
    """The port of a server that treats each connection like that."""
    server = socket.create_server(("127.0.0.1", 0), backlog=1024)

    def serve() -> None:
        while True:
            connection, _ = server.accept()
            threading.Thread(target=_quietly, args=(behave, connection), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    port: int = server.getsockname()[1]
    return port


def _quietly(behave: Callable[[socket.socket], None], connection: socket.socket) -> None:
    try:
        behave(connection)
    except OSError:
        connection.close()


def say_nothing(connection: socket.socket) -> None:
    """Accept, and never answer."""
    del connection
    ended.wait()


def drip(connection: socket.socket) -> None:
    """Answer a byte a second."""
    connection.recv(65536)
    for byte in b'HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\nETag: "e"\r\n\r\n' + b"x" * 10**6:
        connection.sendall(bytes([byte]))
        if ended.wait(1):
            return


def pour(connection: socket.socket) -> None:
    """Say that the object has ten bytes, and send 400 MiB for each of them."""
    while request := connection.recv(65536):
        head = 'HTTP/1.1 206 OK\r\nETag: "e"\r\nContent-Range: bytes 0-9/10\r\nContent-Length: {}\r\n\r\n'
        if request.startswith(b"HEAD"):
            connection.sendall(head.format(10).encode())
            continue
        connection.sendall(head.format(400 * 2**20).encode())
        for _ in range(400):
            connection.sendall(b"x" * 2**20)


def again(threads: int, attack: Callable[[], object], pause_s: float = PAUSE_S) -> None:
    """Attack in so many threads, over and over."""

    def work() -> None:
        while not ended.wait(pause_s):
            attack()

    for _ in range(threads):
        threading.Thread(target=work, daemon=True).start()


def rubbish_bodies(target: Target) -> None:
    """Bodies of 4 MiB in which every item is a fault."""
    items = b"{}," * (BODY_BYTES // 3) + b"{}"
    again(1, lambda: target.ask("POST", "/v1/tasks/batch", b'{"tasks":[%b]}' % items))
    labels = b'{"labels":[%b]}' % items
    again(1, lambda: target.ask("POST", "/v1/annotation/labels", labels, target.annotator_key))


def preflights(target: Target) -> None:
    """Preflights to a store that never answers."""
    mute = target.at(listen(say_nothing))
    again(
        PREFLIGHTS,
        lambda: target.submit("m.jsonl", "/v1/jobs?preflight=true", credentials=mute),
        pause_s=1,  # most are refused at once, and a flood of requests is another attack
    )


def deaf_readers(target: Target) -> None:
    """Streams that are asked for, and not read."""
    for _ in range(READERS):
        _get(target, f"/v1/jobs/{target.job_id}/errors")
    begun = [each.recv(12) for each in target.sockets].count(b"HTTP/1.1 200")
    sys.stdout.write(f"{begun} ")


def half_sent(target: Target) -> None:
    """Requests without a key whose headers, or whose bodies, never end."""
    for n in range(HALF_SENT):
        head = f"POST /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1:{target.port}\r\n"
        more = (
            "Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{" if n % 2 else "X-A: "
        )
        target.send_half(head + more)


def waiters(target: Target) -> None:
    """Long polls."""
    for _ in range(WAITERS):
        _get(target, f"/v1/jobs/{target.job_id}?wait=60")


def wrong_keys(target: Target) -> None:
    """Guesses of keys."""
    again(4, lambda: target.ask("GET", "/v1/jobs", key="sk_" + "0" * 43))


def many_requests(target: Target) -> None:
    """Requests with a good key, without a pause between them."""
    again(4, lambda: target.ask("GET", "/v1/jobs?limit=100"))


def bad_stores(target: Target) -> None:
    """Jobs whose stores never answer, drip, or pour."""
    for behave in (say_nothing, drip, pour):
        credentials = target.at(listen(behave))
        for _ in range(JOBS // 3):
            target.submit("m.jsonl", credentials=credentials)


def bad_bytes(target: Target) -> None:
    """Jobs whose manifests are bombs, or look compressed and are not."""
    for n in range(JOBS):
        target.submit(f"bytes-{n % 6}.jsonl")


def mute_endpoints(target: Target) -> None:
    """Notifications for endpoints that accept and say nothing."""
    port = listen(say_nothing)
    for n in range(JOBS):
        url = f"https://127.0.0.1:{port}/{n}"
        target.submit("m.jsonl", callback_url=url)
        target.ask("POST", "/v1/webhooks", {"callback_url": url})


def _get(target: Target, path: str) -> None:
    target.send_half(
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{target.port}\r\n"
        f"Authorization: Bearer {target.customer_key}\r\n\r\n"
    )


ATTACKS: dict[str, Callable[[Target], None]] = {
    attack.__name__: attack
    for attack in (
        rubbish_bodies,
        preflights,
        deaf_readers,
        half_sent,
        waiters,
        wrong_keys,
        many_requests,
        bad_stores,
        bad_bytes,
        mute_endpoints,
    )
}


if __name__ == "__main__":
    ATTACKS[sys.argv[1]](Target(**json.loads(sys.stdin.readline())))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.read()
    ended.set()
