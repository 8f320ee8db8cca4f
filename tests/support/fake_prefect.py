"""Plays the endpoints of Prefect's server that `blocks.prefect.api` uses."""

import json
import queue
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote
from uuid import uuid4


class FakePrefect:
    """Plays the endpoints of Prefect's server that are used, and can be told to be out."""

    def __init__(self) -> None:
        self.runs: queue.Queue[dict[str, Any]] = queue.Queue()
        self.made: dict[str, dict[str, Any]] = {}
        self.events: queue.Queue[list[dict[str, Any]]] = queue.Queue()
        self.pages: queue.Queue[dict[str, Any]] = queue.Queue()
        self.refusals: queue.Queue[str] = queue.Queue()
        self.out = threading.Event()
        self.out_answer: tuple[int, Any] = (503, {})
        self.looks = 0
        """How often somebody has asked for runs that do not get on."""
        self.under_way: dict[str, str] = {}
        self.pools: dict[str, str] = {}
        self.workers = {"refinery": 1}
        """How many workers are online, by work pool."""
        self.states: queue.Queue[tuple[str, str]] = queue.Queue()
        self.deployments = {
            "process-job/process-job": "id-process",
            "deliver-job/deliver-job": "id-deliver",
            "small-jobs/small-jobs": "id-small",
            "reconcile/reconcile": "id-reconcile",
        }
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.answer(*outer.look(self.path))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self.answer(*outer.start(self.path, body, self.headers["Authorization"]))

            def answer(self, status: int, content: Any) -> None:
                if status >= 400 or outer.out.is_set():
                    outer.refusals.put(self.path)
                data = json.dumps(content).encode() if content is not None else b""
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - its name there
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/api"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def look(self, path: str) -> tuple[int, Any]:
        if self.out.is_set():
            return self.out_answer
        if path == "/api/health":
            return 200, True
        found = self.deployments.get(path.removeprefix("/api/deployments/name/"))
        return (200, {"id": found, "name": "default"}) if found else (404, {})

    def start(self, path: str, body: Any, authorization: str) -> tuple[int, Any]:
        if self.out.is_set():
            return self.out_answer
        if path in {"/api/events", "/api/artifacts/"}:
            (self.events if path == "/api/events" else self.pages).put(body)
            return 201, None
        if path.endswith("/filter"):
            return 200, self.filter(path, body)
        if path.startswith("/api/flow_runs/"):
            _, _, _, run_id, action = path.split("/")
            assert action == "set_state"
            self.states.put((run_id, body["state"]["type"]))
            if run_id in self.made:
                self.move(run_id, body["state"]["type"])
            return 201, {}
        _, _, kind, deployment_id, action = path.split("/")
        if (kind, action) != ("deployments", "create_flow_run"):
            return 404, {}
        if deployment_id not in self.deployments.values():
            return 404, {}
        self.runs.put(body | {"deployment": deployment_id, "authorization": authorization})
        run = {
            "id": str(uuid4()),
            "key": body["idempotency_key"],
            "created": datetime.now(UTC).isoformat(),
            "work_pool_name": "refinery",
            "flow": next(
                name.partition("/")[0]
                for name, each in self.deployments.items()
                if each == deployment_id
            ),
        }
        known = [each for each in self.made.values() if each["key"] == run["key"]]
        if not known:
            self.made[run["id"]] = run
            self.move(run["id"], "SCHEDULED")
        return 201, (known or [run])[0]

    def filter(self, path: str, body: Any) -> list[Any]:
        if path == "/api/work_pools/filter":
            if body == {"work_pools": {"type": {"any_": ["refinery"]}}}:
                return [{"name": "refinery"}]
            return [{"name": name} for name in list(self.workers)[: body["limit"]]]
        if path.endswith("/workers/filter"):
            assert body == {"workers": {"status": {"any_": ["ONLINE"]}}}
            pool = unquote(path.split("/")[3])
            return [{"name": f"worker {n}"} for n in range(self.workers[pool])]
        if "flows" in body:
            types = body["flow_runs"]["state"]["type"]["any_"]
            self.looks += 1
            flows = body["flows"]["name"]["any_"]
            made = [run for run in self.made.values() if run["state"]["type"] in types]
            made = [run for run in made if run["flow"] in flows]
            return [run | {"name": "", "work_pool_name": self.pools.get(run["id"])} for run in made]
        if "id" in body["flow_runs"]:
            ids = body["flow_runs"]["id"]["any_"]
            return [self.made[id_] for id_ in ids if id_ in self.made]
        assert body["flow_runs"]["state"]["type"]["any_"] == [
            "SCHEDULED", "PENDING", "RUNNING", "PAUSED",
        ]  # fmt: skip
        tags = body["flow_runs"]["tags"]["all_"]
        return [{"id": id_, "name": "run"} for id_, tag in self.under_way.items() if tag in tags]

    def move(self, run_id: str, state: str, *, ago: timedelta = timedelta()) -> None:
        """Have a run be in that state since then."""
        since = (datetime.now(UTC) - ago).isoformat()
        self.made[run_id]["state"] = {"type": state, "timestamp": since}

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def run(self) -> dict[str, Any]:
        """The next run that is asked for."""
        return self.runs.get(timeout=15)
