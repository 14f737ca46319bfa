"""A worker in this process, and an orchestrator that is played; fixtures for the tests of the worker over HTTP."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests

from service.http.exchange import Request, Response
from service.http.listening import ServerSettings
from service.http.parsing import Problem
from service.http.routes import JSON, Routes, upload
from service.http.server import Server
from service.runtime.logs import Log
from video.containers import VideoWriter
from video.picture import ClipInfo, Picture
from worker import Worker, WorkerSettings

PATIENCE_S = 60.0  # for anything that a working machine does in a second or two
CODECS = "raw=tests.standin:Raw,scripted=tests.standin:Scripted"


class Orchestrator:
    """Records what a worker sends, and answers as told."""

    def __init__(self, port: int = 0) -> None:
        self.heard = threading.Condition()
        self.beats: list[dict[str, Any]] = []
        self.progress: list[dict[str, Any]] = []
        self.results: list[dict[str, Any]] = []
        self.artifacts: dict[str, bytes] = {}
        self.refusals: list[Problem] = []  # for the next results, one each
        self.unknown: list[dict[str, Any]] = []
        self.clips: dict[str, bytes] = {}
        self.authorizations: list[str | None] = []  # shown with results
        routes = Routes()
        routes.add("POST", "/workers", self.on_beat, body=JSON)
        routes.add("POST", "/experiment_progress", self.on_progress, body=JSON)
        routes.add("POST", "/experiment_result", self.on_result, body=JSON)
        routes.add("PUT", "/artifacts/{sha256}", self.on_artifact, body=upload(1 << 30))
        routes.add("GET", "/clips/{name}/data", self.on_clip, produces="*/*")
        self.server = Server(routes, ServerSettings(port=port), log=Log(level="error"))
        self.server.start()

    def note(self, where: list[dict[str, Any]], document: dict[str, Any]) -> None:
        with self.heard:
            where.append(document)
            self.heard.notify_all()

    def on_beat(self, request: Request) -> Response:
        self.note(self.beats, request.document())
        return Response(200, {"lease_s": 10, "heartbeat_s": 0.2, "unknown": self.unknown})

    def on_progress(self, request: Request) -> Response:
        self.note(self.progress, request.document())
        return Response(200, {})

    def on_result(self, request: Request) -> Response:
        self.authorizations.append(request.headers.get("authorization"))
        with self.heard:
            if self.refusals:
                raise self.refusals.pop(0)
        self.note(self.results, request.document())
        return Response(200, {})

    def on_artifact(self, request: Request) -> Response:
        out = io.BytesIO()
        _, digest = request.save(out)
        assert digest == request.params["sha256"]
        self.artifacts[digest] = out.getvalue()
        return Response(201, {})

    def on_clip(self, request: Request) -> Response:
        return Response(200, self.clips[request.params["name"]], {"Content-Type": "application/octet-stream"})

    def wait_for(self, what: Callable[[], Any]) -> Any:
        with self.heard:
            assert self.heard.wait_for(what, PATIENCE_S)
            return what()

    def result_of(self, run: str) -> dict[str, Any]:
        return self.wait_for(lambda: next((result for result in self.results if result["run"] == run), None))


def make_worker(state: Path, orchestrator: Orchestrator | None = None, **more: Any) -> Worker:
    config = WorkerSettings(**{"port": 0, "state": state, "codec": CODECS, "warm": "raw", "threads": 1, "drain_s": 0.0,
                               "orchestrator": orchestrator.server.url if orchestrator else "", **more})
    worker = Worker(config, Log(level="error"))
    worker.start()
    return worker


def wait_until(worker: Worker, what: Callable[[], Any]) -> Any:
    """Wait for something that a change of a slot or the end of a run brings about."""
    deadline = threading.Event()
    timer = threading.Timer(PATIENCE_S, deadline.set)
    timer.start()
    try:
        while not (seen := what()):
            assert not deadline.is_set(), "it did not come about"
            with worker.assigned_runs.idle:
                worker.assigned_runs.idle.wait(0.05)
        return seen
    finally:
        timer.cancel()


def wait_ready(worker: Worker) -> None:
    wait_until(worker, lambda: not worker.why_not_ready() and all(slot.state == "ready" for slot in worker.slots))


def wait_ended(worker: Worker, run: str) -> dict[str, Any]:
    def ended() -> dict[str, Any] | None:
        document = requests.get(f"{worker.server.url}/experiment/{run}", timeout=PATIENCE_S).json()
        return document if document["state"] in ("completed", "failed", "cancelled") else None

    return wait_until(worker, ended)


def post(worker: Worker, document: dict[str, Any] | None = None, path: str = "/experiment") -> requests.Response:
    return requests.post(worker.server.url + path, json=document or {}, timeout=PATIENCE_S)


def dispatch(orchestrator: Orchestrator, run: str, video: bytes, script: str = "plain", attempt: int = 1,
             **more: Any) -> dict[str, Any]:
    orchestrator.clips["three.mkv"] = video
    return {"run": run, "attempt": attempt, "experiment": {"codec": "scripted", "model": script},
            "clip": {"name": "three.mkv", "sha256": hashlib.sha256(video).hexdigest(),
                     "url": orchestrator.server.url + "/clips/three.mkv/data"},
            "callback": orchestrator.server.url, "lease_s": 10, "timeout_s": 60, **more}


# --- fixtures


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A clip of three pictures."""
    path = tmp_path_factory.mktemp("clip") / "three.mkv"
    rng = np.random.default_rng(3)
    with VideoWriter(path, ClipInfo(32, 16, Fraction(25))) as writer:
        for _ in range(3):
            writer.write(Picture(*(rng.integers(0, 256, size, np.uint8) for size in ((16, 32), (8, 16), (8, 16)))))
    return path.read_bytes()


@pytest.fixture
def orchestrator() -> Iterator[Orchestrator]:
    played = Orchestrator()
    yield played
    played.server.stop(1.0)


@pytest.fixture
def hired(orchestrator: Orchestrator, tmp_path: Path) -> Iterator[Worker]:
    """A worker of the played orchestrator, ready."""
    worker = make_worker(tmp_path / "state", orchestrator)
    wait_ready(worker)
    yield worker
    if not worker.assigned_runs.draining:
        worker.stop(threading.Event())
