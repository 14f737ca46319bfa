"""An orchestrator as a process, and a worker whose every step a test dictates; fixtures that give them to any test."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests

ROOT = Path(__file__).parent.parent
PATIENCE_S = 30.0  # a test that would hang fails instead
LISTENING = re.compile(r"orchestrator listening on (http://\S+)")
RESULT = {
    "encoding_result": {"compressed_data": "x", "bytes": 5, "encode_s": 0.1},
    "decoding_result": {"reconstructed_video": None, "matches_encoder": True, "quality_metrics": {"psnr": 38.1}},
    "metrics": {"bitrate_mbps": 0.078, "psnr_db": 38.1},
    "frames": [{"index": 0, "type": "I", "bytes": 5, "psnr_db": 38.1}],
    "clip": {"name": "carphone", "sha256": "00", "width": 176, "height": 144},
    "provenance": {"version": "0", "seed": 0},
}


class Orchestrator:
    """The program as a process; `restart` keeps its state and its port."""

    def __init__(self, folder: Path, *flags: str) -> None:
        self.state = folder / "orchestrator"
        self._flags = flags
        self._log_path = folder / "orchestrator.log"
        self.port = 0
        self.process: subprocess.Popen[str]
        self.session = requests.Session()
        self.start()

    def start(self) -> None:
        with open(self._log_path, "a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "orchestrator.py", "--port", str(self.port), "--state", str(self.state), *self._flags],
                cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True, env={**os.environ, "NVC_CONFIG": ""})
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = LISTENING.match(line)
        assert found, f"{line!r}: {self._log_path.read_text()}"
        self.url = found[1]
        self.port = int(self.url.rsplit(":", 1)[1])

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(PATIENCE_S)

    def restart(self) -> None:
        self.kill()
        self.start()

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(PATIENCE_S)
        self.session.close()
        return code

    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._log_path.read_text().splitlines() if line.startswith("{")]

    # --- HTTP

    def get(self, path: str, **options: Any) -> requests.Response:
        return self.session.get(self.url + path, timeout=PATIENCE_S, **options)

    def post(self, path: str, document: Any = None, **options: Any) -> requests.Response:
        return self.session.post(self.url + path, json=document, timeout=PATIENCE_S, **options)

    def submit(self, **fields: Any) -> str:
        answer = self.post("/experiment", fields)
        assert answer.status_code == 202, answer.text
        return answer.json()["experiment_id"]

    def status(self, experiment_id: str) -> dict[str, Any]:
        return self.get(f"/experiment/{experiment_id}/status").json()

    def until(self, experiment_id: str, *states: str) -> dict[str, Any]:
        """The status once it is in one of `states`; each wait ends with a change."""
        document, tag = self.status(experiment_id), "-"
        while document["status"] not in states:
            answer = self.get(f"/experiment/{experiment_id}/status",
                              headers={"Prefer": f"wait={PATIENCE_S:g}", "If-None-Match": tag})
            assert answer.status_code == 200, f"still {document['status']}"
            document, tag = answer.json(), answer.headers["ETag"]
        return document

    def events(self, experiment_id: str, last: str | None = None) -> Iterator[dict[str, Any]]:
        """{"id", "event", "data"} of the event stream, until it ends."""
        headers = {} if last is None else {"Last-Event-ID": last}
        with requests.get(f"{self.url}/experiment/{experiment_id}/events", headers=headers, stream=True,
                          timeout=PATIENCE_S) as answer:
            event: dict[str, Any] = {}
            for line in answer.iter_lines(decode_unicode=True):
                name, _, value = line.partition(": ")
                if not line and "event" in event:
                    yield event
                    event = {}
                elif name in ("id", "event"):
                    event[name] = value
                elif name == "data":
                    event["data"] = json.loads(value)

    def conservation(self) -> dict[str, Any]:
        document = self.get("/conservation").json()
        assert document["holds"], document
        return document


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True


class FakeWorker:
    """Does nothing by itself but answer: tests read `offers` and dictate the rest.

    `script` holds what becomes of the next offers: "accept" (also when it is empty), "busy", "refuse", "lose" (taken,
    but the connection closes without an answer), "drop" (not taken, closed likewise) or "hang" (taken, and no answer
    until `stop`)."""

    def __init__(self, orchestrator: Orchestrator, name: str, *, codec: str = "nvc", slots: int = 1,
                 beating: bool = True, **more: Any) -> None:
        self.orchestrator = orchestrator
        self.name, self.codec, self.slots = name, codec, slots
        self.offers: queue.Queue[dict[str, Any]] = queue.Queue()
        self.cancels: queue.Queue[tuple[str, int]] = queue.Queue()
        self.unknown: queue.Queue[tuple[str, int]] = queue.Queue()
        self.held: dict[str, int] = {}
        self.asked: queue.Queue[str] = queue.Queue()
        self.authorizations: list[str | None] = []  # shown with offers
        self.more = more  # fields of its registration
        self.script: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.draining = False
        self._lock = threading.Lock()
        self._stop = threading.Event()
        worker = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                run = self.path.rsplit("/", 1)[1]
                worker.asked.put(run)
                with worker._lock:
                    attempt = worker.held.get(run)
                if attempt is None:
                    self.answer(404, {"type": "/problems/unknown-run", "detail": "not known here"})
                else:
                    self.answer(200, {"run": run, "attempt": attempt, "state": "running"})

            def do_POST(self) -> None:
                document = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
                if self.path.endswith("/cancel"):
                    run = self.path.split("/")[2]
                    worker.cancels.put((run, document["attempt"]))
                    self.answer(202, {})
                else:
                    worker._offered(self, document)

            def answer(self, status: int, document: dict[str, Any], headers: dict[str, str] | None = None) -> None:
                body = json.dumps(document).encode()
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), "Content-Type": "application/json",
                                    **(headers or {})}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: Any) -> None:
                pass

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self.session = requests.Session()
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        self.register()
        if beating:
            threading.Thread(target=self._beat, daemon=True).start()

    def _offered(self, handler: Any, document: dict[str, Any]) -> None:
        self.authorizations.append(handler.headers.get("Authorization"))
        word = "accept" if self.script.empty() else self.script.get()
        if word in ("accept", "lose", "hang"):
            with self._lock:
                self.held[document["run"]] = document["attempt"]
        if word in ("lose", "drop"):
            self.offers.put(document)
            handler.close_connection = True
            handler.connection.shutdown(socket.SHUT_RDWR)
        elif word == "hang":
            self.offers.put(document)
            self._stop.wait(PATIENCE_S)
            handler.close_connection = True
        elif word == "busy":
            handler.answer(503, {"type": "/problems/no-free-slot", "detail": "all are busy"}, {"Retry-After": "0"})
        elif word == "refuse":
            handler.answer(422, {"type": "/problems/invalid-field", "detail": "frames: too many"})
        else:
            handler.answer(202, {})
            self.offers.put(document)

    def _beat(self) -> None:
        while not self._stop.wait(0.1):
            try:
                self.register()
            except requests.RequestException:
                continue    # the orchestrator is away

    def register(self, **fields: Any) -> dict[str, Any]:
        """Say hello or that it lives; the answer."""
        with self._lock:
            running = [{"run": run, "attempt": attempt} for run, attempt in self.held.items()]
        answer = self.session_post("/workers", {
            "name": self.name, "url": self.url, "slots": self.slots, "running": running, "device": "cpu", "threads": 1,
            "codecs": [self.codec], "models": {}, "version": "0", "draining": self.draining, "boot_id": self.name,
            **self.more, **fields})
        assert answer.status_code == 200, answer.text
        for named in answer.json()["unknown"]:
            self.unknown.put((named["run"], named["attempt"]))
            with self._lock:
                if self.held.get(named["run"]) == named["attempt"]:
                    del self.held[named["run"]]
        return answer.json()

    def session_post(self, path: str, document: Any) -> requests.Response:
        return requests.post(self.orchestrator.url + path, json=document, timeout=PATIENCE_S)

    def next_offer(self) -> dict[str, Any]:
        return self.offers.get(timeout=PATIENCE_S)

    def progress(self, offer: dict[str, Any], **fields: Any) -> requests.Response:
        return self.session_post("/experiment_progress", {
            "run": offer["run"], "attempt": offer["attempt"], "phase": "encode", "fraction": 0.5, "frame": 1,
            "frames": 2, "fps": 10.0, **fields})

    def store(self, data: bytes) -> dict[str, Any]:
        """Upload an artifact; its entry in a result."""
        sha256 = hashlib.sha256(data).hexdigest()
        answer = requests.put(f"{self.orchestrator.url}/artifacts/{sha256}", data=data, timeout=PATIENCE_S)
        assert answer.status_code in (200, 201), answer.text
        return {"sha256": sha256, "bytes": len(data)}

    def end(self, offer: dict[str, Any], state: str = "completed", *, result: Any = RESULT, error: Any = None,
            artifacts: Any = None) -> requests.Response:
        """Report the attempt's end, and let go of it."""
        with self._lock:
            self.held.pop(offer["run"], None)
        return self.session_post("/experiment_result", {
            "run": offer["run"], "attempt": offer["attempt"], "state": state,
            "result": result if state == "completed" else None, "error": error, "artifacts": artifacts or {}})

    def stop(self) -> None:
        """Fall silent, as a dead worker does."""
        self._stop.set()
        self._server.shutdown()
        self._server.server_close()


# --- fixtures

MakeWorker = Callable[..., FakeWorker]
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orchestrator]:
    """One orchestrator for all tests of a file; it ends well."""
    process = Orchestrator(tmp_path_factory.mktemp("running"), "--lease-s", "5", "--heartbeat-s", "0.2")
    yield process
    assert process.stop() == 0


@pytest.fixture
def make_worker(running: Orchestrator) -> Iterator[MakeWorker]:
    """Workers with a codec of their own, so that tests do not take each other's runs."""
    made: list[FakeWorker] = []

    def make(**options: Any) -> FakeWorker:
        number = next(_numbers)
        made.append(FakeWorker(running, f"w{number}", **{"codec": f"codec{number}", **options}))
        return made[-1]

    yield make
    for worker in made:
        worker.register(draining=True)
        worker.stop()


@pytest.fixture
def worker(make_worker: MakeWorker) -> FakeWorker:
    return make_worker()


@pytest.fixture
def closed(make_worker: MakeWorker) -> FakeWorker:
    """A worker without a slot: what is submitted for its codec stays queued."""
    return make_worker(slots=0)


def problem(answer: requests.Response) -> tuple[int, str, str | None]:
    """Status, the last part of the type, and the field of a refusal."""
    assert answer.headers["Content-Type"] == "application/problem+json", answer.text
    return answer.status_code, answer.json()["type"].rsplit("/", 1)[1], answer.json().get("field")
