"""The demo's pictures over HTTP: the number in a path says which animal it is."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath
from typing import Self

from deployments.embedded.demo_pictures import ANIMALS, draw


def animal_of(url: str) -> str:
    """Return what is in a picture, such as `…/7.svg`."""
    return ANIMALS[int(PurePosixPath(url).stem) % len(ANIMALS)]


class PictureServer:
    """Serves `/7.svg` at once, `/slow/7.svg` once `release` is set; `/broken/7.svg` is not there.

    It notes the cookies that it is sent, and sets one with the name of the service's own.
    """

    def __init__(self) -> None:
        self.cookies: list[str] = []
        self.release = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.cookies += self.headers.get_all("Cookie", [])
                folder, _, name = self.path.strip("/").rpartition("/")
                if folder == "slow":
                    outer.release.wait()
                content = (
                    b""
                    if folder == "broken"
                    else draw(animal_of(name), int(PurePosixPath(name).stem))
                )
                self.send_response(200 if content else 404)
                self.send_header("Content-Type", "image/svg+xml")
                self.send_header("Access-Control-Allow-Origin", "*")
                self.send_header("Set-Cookie", "refinery_session=ss_of_another; Path=/")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.release.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
