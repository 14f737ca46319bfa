"""The worker over HTTP: alone, and for an orchestrator that is played here."""

from __future__ import annotations

import hashlib
import io
import re
import socket
import threading
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

import service
from picture import ClipInfo, Picture
from service import Problem, Request, Response
from video import VideoWriter
from worker import Worker, WorkerSettings, join_repeated

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
        routes = service.Routes()
        routes.add("POST", "/workers", self.on_beat, body=service.JSON)
        routes.add("POST", "/experiment_progress", self.on_progress, body=service.JSON)
        routes.add("POST", "/experiment_result", self.on_result, body=service.JSON)
        routes.add("PUT", "/artifacts/{sha256}", self.on_artifact, body=service.upload(1 << 30))
        routes.add("GET", "/clips/{name}/data", self.on_clip, produces="*/*")
        self.server = service.Server(routes, service.ServerSettings(port=port), log=service.Log(level="error"))
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


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A clip of three pictures."""
    path = tmp_path_factory.mktemp("clip") / "three.mkv"
    rng = np.random.default_rng(3)
    with VideoWriter(path, ClipInfo(32, 16, Fraction(25))) as writer:
        for _ in range(3):
            writer.write(Picture(*(rng.integers(0, 256, size, np.uint8) for size in ((16, 32), (8, 16), (8, 16)))))
    return path.read_bytes()


def make_worker(state: Path, orchestrator: Orchestrator | None = None, **more: Any) -> Worker:
    config = WorkerSettings(**{"port": 0, "state": state, "codec": CODECS, "warm": "raw", "threads": 1, "drain_s": 0.0,
                               "orchestrator": orchestrator.server.url if orchestrator else "", **more})
    worker = Worker(config, service.Log(level="error"))
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
            with worker.roster.idle:
                worker.roster.idle.wait(0.05)
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


@pytest.fixture(scope="module")
def lone(tmp_path_factory: pytest.TempPathFactory, video: bytes) -> Iterator[Worker]:
    worker = make_worker(tmp_path_factory.mktemp("lone"))
    digest = hashlib.sha256(video).hexdigest()

    def give(out: Any) -> tuple[int, str]:
        out.write(video)
        return len(video), digest

    worker.place.clips.fetch(digest, give)
    yield worker
    hurry = threading.Event()
    hurry.set()
    worker.stop(hurry)


@pytest.fixture
def clip(video: bytes) -> str:
    return "sha256:" + hashlib.sha256(video).hexdigest()


@pytest.fixture
def idle(lone: Worker) -> Worker:
    """The lone worker, ready and with a free slot."""
    wait_ready(lone)
    wait_until(lone, lambda: lone.slots[0].free)
    return lone


@pytest.fixture
def orchestrator() -> Iterator[Orchestrator]:
    played = Orchestrator()
    yield played
    played.server.stop(1.0)


# --- alone ---


def test_an_experiment_by_hand_ends_with_its_result_and_its_stream(idle: Worker, clip: str) -> None:
    answer = post(idle, {"clip": clip, "codec": "raw"})
    run = answer.json()["run"]
    assert answer.status_code == 202
    assert answer.headers["Location"] == f"/experiment/{run}"
    document = wait_ended(idle, run)
    assert document["status"] == "completed"
    assert document["metrics"]["psnr_db"] == 100.0
    assert document["clip"]["frames"] == 3
    stream = requests.get(idle.server.url + document["encoding_result"]["compressed_data"], timeout=PATIENCE_S)
    assert hashlib.sha256(stream.content).hexdigest() == document["encoding_result"]["sha256"]
    assert document["decoding_result"]["matches_encoder"] is True


def test_an_unknown_artifact_is_404(idle: Worker, clip: str) -> None:
    run = post(idle, {"clip": clip, "codec": "raw"}).json()["run"]
    wait_ended(idle, run)
    answer = requests.get(f"{idle.server.url}/experiment/{run}/artifacts/message.json", timeout=PATIENCE_S)
    assert answer.status_code == 404
    assert answer.json()["type"].endswith("unknown-artifact")


@pytest.mark.parametrize(
    ("document", "field", "words"),
    [
        ({"cilp": "carphone"}, "cilp", "no such field"),
        ({"quality": "high"}, "quality", "an integer from 0 to 63"),
        ({"codec": "h266"}, "codec", "h266 is not known here"),
        ({"clip": "https://example.org/a.mp4"}, "clip", "a library name"),
        ({"experiment": {}, "run": "../etc"}, "run", "letters, digits"),
        ({"experiment": {}, "run": 7}, "run", "expected a string"),
        ({"experiment": {}, "attempt": 0}, "attempt", "expected 1"),
        ({"experiment": {}, "attempt": 2}, "attempt", "expected 1"),
        ({"experiment": {}, "attempt": True}, "attempt", "an integer"),
        ({"experiment": {}, "clip": {"name": "a", "url": "/clips/a/data"}}, "clip", "a sha256 where there is a url"),
        ({"experiment": {}, "clip": {"sha256": "abc"}}, "clip", "64 hexadecimal digits"),
        ({"experiment": {}, "callback": "ftp://x"}, "callback", "http://"),
        ({"experiment": {}, "timeout_s": -1}, "timeout_s", "seconds up to 86400"),
        ({"experiment": {}, "priority": 1}, "priority", "no such field of a dispatch"),
    ],
)
def test_a_wrong_field_is_refused_by_name(idle: Worker, document: dict[str, Any], field: str, words: str) -> None:
    answer = post(idle, document)
    assert answer.status_code == 422
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["field"] == field
    assert words in answer.json()["detail"]


def test_a_full_worker_says_so_and_when_to_come_back(idle: Worker, clip: str) -> None:
    run = post(idle, {"clip": clip, "codec": "scripted", "model": "deaf"}).json()["run"]
    answer = post(idle, {"clip": clip, "codec": "raw"})
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "1"
    assert answer.json()["type"].endswith("no-free-slot")
    post(idle, path=f"/experiment/{run}/cancel")
    assert wait_ended(idle, run)["status"] == "cancelled"


def test_status_shows_what_a_slot_runs_and_how_far_it_is(idle: Worker, clip: str) -> None:
    run = post(idle, {"clip": clip, "codec": "scripted", "model": "deaf"}).json()["run"]

    def slot() -> dict[str, Any]:
        return requests.get(idle.server.url + "/status", timeout=PATIENCE_S).json()["slots"][0]

    wait_until(idle, lambda: slot()["run"] and slot()["run"]["phase"] == "deaf")
    assert slot()["state"] == "busy"
    assert slot()["run"]["run"] == run
    assert slot()["run"]["attempt"] == 1
    post(idle, path=f"/experiment/{run}/cancel")
    wait_ended(idle, run)


def test_a_run_past_its_time_fails(idle: Worker, clip: str) -> None:
    run = post(idle, {"clip": clip, "codec": "scripted", "model": "deaf", "timeout_s": 1}).json()["run"]
    document = wait_ended(idle, run)
    assert document["status"] == "failed"
    assert document["error"]["type"] == "timeout"


def test_a_damaged_clip_fails_with_its_reason(idle: Worker) -> None:
    digest = hashlib.sha256(b"no video").hexdigest()

    def give(out: Any) -> tuple[int, str]:
        out.write(b"no video")
        return 8, digest

    idle.place.clips.fetch(digest, give)
    run = post(idle, {"clip": f"sha256:{digest}", "codec": "raw"}).json()["run"]
    error = wait_ended(idle, run)["error"]
    assert error["type"] == "bad-video"
    assert error["retry"] is False


def test_a_clip_that_is_not_here_fails_with_its_reason(idle: Worker) -> None:
    run = post(idle, {"clip": "sha256:" + "0" * 64, "codec": "raw"}).json()["run"]
    assert wait_ended(idle, run)["error"]["type"] == "unknown-clip"


def test_cancelling_what_is_unknown_or_has_ended_is_refused(idle: Worker, clip: str) -> None:
    run = post(idle, {"clip": clip, "codec": "raw"}).json()["run"]
    wait_ended(idle, run)
    assert post(idle, path=f"/experiment/{run}/cancel").status_code == 409
    assert post(idle, path="/experiment/exp_0_none/cancel").status_code == 404


def test_cancelling_twice_is_accepted_twice(idle: Worker, clip: str) -> None:
    run = post(idle, {"clip": clip, "codec": "scripted", "model": "deaf"}).json()["run"]
    assert post(idle, path=f"/experiment/{run}/cancel").status_code == 202
    assert post(idle, path=f"/experiment/{run}/cancel").status_code == 202
    assert wait_ended(idle, run)["status"] == "cancelled"


def test_a_run_that_is_kept_here_is_not_started_again_under_its_name(idle: Worker, clip: str) -> None:
    run = post(idle, {"clip": clip, "codec": "raw"}).json()["run"]
    wait_ended(idle, run)
    again = post(idle, {"run": run, "experiment": {"clip": clip, "codec": "raw"}})
    assert again.status_code == 202  # the same run and attempt
    assert again.json()["state"] == "completed"


def test_metrics_are_prometheus_text(idle: Worker) -> None:
    text = requests.get(idle.server.url + "/metrics", timeout=PATIENCE_S).text
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert families["nvc_worker_ready"].samples[0].value == 1
    assert families["nvc_worker_outbox"].samples[0].value == 0


def test_health_is_ready_and_alive(idle: Worker) -> None:
    for path in ("/livez", "/readyz", "/health"):
        assert requests.get(idle.server.url + path, timeout=PATIENCE_S).status_code == 200


def test_two_workers_do_not_share_a_state_folder(idle: Worker) -> None:
    with pytest.raises(OSError, match="held by another worker"):
        make_worker(idle.config.state)


def test_a_key_is_asked_for_where_one_is_set(tmp_path: Path) -> None:
    token, _ = service.new_key("admin")
    worker = make_worker(tmp_path, accept_key=token)
    answer = requests.get(worker.server.url + "/status", timeout=PATIENCE_S)
    assert answer.status_code == 401
    shown = {"Authorization": f"Bearer {token}"}
    assert requests.get(worker.server.url + "/status", headers=shown, timeout=PATIENCE_S).status_code == 200
    assert requests.get(worker.server.url + "/livez", timeout=PATIENCE_S).status_code == 200
    worker.stop(threading.Event())


def test_without_a_key_it_listens_on_loopback_only(tmp_path: Path) -> None:
    with pytest.raises(service.SettingsError, match="insecure-bind"):
        make_worker(tmp_path, host="0.0.0.0")


def test_the_codec_flag_may_be_repeated() -> None:
    given = ["--port", "0", "--codec", "a=m:f", "--codec=b=m:g"]
    assert join_repeated(given) == ["--port", "0", "--codec", "a=m:f,b=m:g"]


# --- for an orchestrator ---


def dispatch(orchestrator: Orchestrator, run: str, video: bytes, script: str = "plain", attempt: int = 1,
             **more: Any) -> dict[str, Any]:
    orchestrator.clips["three.mkv"] = video
    return {"run": run, "attempt": attempt, "experiment": {"codec": "scripted", "model": script},
            "clip": {"name": "three.mkv", "sha256": hashlib.sha256(video).hexdigest(),
                     "url": orchestrator.server.url + "/clips/three.mkv/data"},
            "callback": orchestrator.server.url, "lease_s": 10, "timeout_s": 60, **more}


@pytest.fixture
def hired(orchestrator: Orchestrator, tmp_path: Path) -> Iterator[Worker]:
    """A worker of the played orchestrator, ready."""
    worker = make_worker(tmp_path / "state", orchestrator)
    wait_ready(worker)
    yield worker
    if not worker.roster.draining:
        worker.stop(threading.Event())


def test_a_run_is_registered_fetched_carried_out_and_delivered(
    orchestrator: Orchestrator, hired: Worker, video: bytes
) -> None:
    beat = orchestrator.wait_for(lambda: next((beat for beat in orchestrator.beats if beat["slots"]), None))
    assert beat["url"] == hired.server.url
    assert beat["slots"] == 1
    assert {"raw", "scripted"} <= set(beat["codecs"])
    assert len(beat["boot_id"]) == 32
    assert post(hired, dispatch(orchestrator, "exp_1", video)).status_code == 202
    result = orchestrator.result_of("exp_1")
    assert (result["attempt"], result["state"], result["error"]) == (1, "completed", None)
    assert set(result["artifacts"]) == {"stream.scripted", "reconstruction.mkv"}
    for about in result["artifacts"].values():  # they came before the result that names them
        assert len(orchestrator.artifacts[about["sha256"]]) == about["bytes"]
    assert "callback" not in result
    assert orchestrator.progress[0]["run"] == "exp_1"
    orchestrator.wait_for(lambda: orchestrator.beats[-1]["running"] == [])
    assert list((hired.config.state / "outbox").iterdir()) == []
    assert list((hired.config.state / "runs").iterdir()) == []


def test_heartbeats_go_on_while_the_codec_holds_the_interpreter(
    orchestrator: Orchestrator, hired: Worker, video: bytes
) -> None:
    post(hired, dispatch(orchestrator, "exp_1", video, "spin-600"))
    orchestrator.wait_for(lambda: sum(bool(beat["running"]) for beat in orchestrator.beats) >= 5)
    assert orchestrator.beats[-1]["running"][0]["run"] == "exp_1"
    assert orchestrator.beats[-1]["running"][0]["attempt"] == 1


def test_the_same_attempt_is_not_started_twice(orchestrator: Orchestrator, hired: Worker, video: bytes) -> None:
    wanted = dispatch(orchestrator, "exp_1", video)
    assert post(hired, wanted).status_code == 202
    assert post(hired, wanted).status_code == 202
    orchestrator.result_of("exp_1")
    assert post(hired, wanted).json()["state"] == "completed"
    assert hired.metrics.render().count('nvc_worker_runs_total{state="completed"} 1') == 1


def test_an_earlier_attempt_is_stale_and_a_later_one_takes_over(
    orchestrator: Orchestrator, hired: Worker, video: bytes
) -> None:
    post(hired, dispatch(orchestrator, "exp_1", video, "deaf", attempt=2))
    answer = post(hired, dispatch(orchestrator, "exp_1", video, attempt=1))
    assert answer.status_code == 409
    assert answer.json()["type"].endswith("stale-attempt")
    orchestrator.wait_for(lambda: any(progress["phase"] == "deaf" for progress in orchestrator.progress))
    later = dispatch(orchestrator, "exp_1", video, attempt=3)
    assert post(hired, later).status_code == 503  # the slot is busy with ending the second
    wait_until(hired, lambda: post(hired, later).status_code == 202)
    third = orchestrator.wait_for(lambda: [result for result in orchestrator.results if result["attempt"] == 3])
    assert [result["state"] for result in third] == ["completed"]


def test_an_attempt_that_the_orchestrator_gave_up_is_killed(
    orchestrator: Orchestrator, hired: Worker, video: bytes
) -> None:
    post(hired, dispatch(orchestrator, "exp_1", video, "deaf"))
    orchestrator.unknown = [{"run": "exp_1", "attempt": 1}]
    assert orchestrator.result_of("exp_1")["state"] == "cancelled"


def test_a_result_is_sent_until_it_is_taken(orchestrator: Orchestrator, hired: Worker, video: bytes) -> None:
    orchestrator.refusals = [Problem(503, "busy", "later"), Problem(500, "broken", "oh")]
    post(hired, dispatch(orchestrator, "exp_1", video))
    assert orchestrator.result_of("exp_1")["state"] == "completed"
    assert orchestrator.refusals == []


def test_a_stale_result_is_dropped_and_counted(orchestrator: Orchestrator, hired: Worker, video: bytes) -> None:
    orchestrator.refusals = [Problem(409, "stale-attempt", "attempt 2 was granted")]
    post(hired, dispatch(orchestrator, "exp_1", video))
    wait_until(hired, lambda: hired.link.stale == 1 and len(hired.outbox) == 0)
    assert orchestrator.results == []


def test_a_clip_with_other_bytes_is_not_coded(orchestrator: Orchestrator, hired: Worker, video: bytes) -> None:
    wanted = dispatch(orchestrator, "exp_1", video)
    orchestrator.clips["three.mkv"] = video + b"tampered"
    post(hired, wanted)
    error = orchestrator.result_of("exp_1")["error"]
    assert error["type"] == "clip-unavailable"
    assert error["retry"] is True


def test_a_worker_registers_again_when_its_orchestrator_comes_back(hired: Worker, orchestrator: Orchestrator) -> None:
    orchestrator.wait_for(lambda: orchestrator.beats)
    port = orchestrator.server.address[1]
    orchestrator.server.stop(1.0)
    wait_until(hired, lambda: not hired.link.registered.is_set())
    second = Orchestrator(port)
    second.wait_for(lambda: second.beats)
    second.server.stop(1.0)


def test_a_result_survives_the_worker_while_the_orchestrator_is_away(tmp_path: Path, video: bytes) -> None:
    first = Orchestrator()
    worker = make_worker(tmp_path / "state", first)
    wait_ready(worker)
    wanted = dispatch(first, "exp_1", video)
    post(worker, {**wanted, "experiment": {"codec": "scripted", "model": "sleep-1"}})
    first.wait_for(lambda: any(progress["phase"] not in ("waiting", "fetch") for progress in first.progress))
    port = first.server.address[1]
    first.server.stop(1.0)
    wait_until(worker, lambda: len(worker.outbox) == 1)
    worker.stop(threading.Event())
    second = Orchestrator(port)
    heir = make_worker(tmp_path / "state", second)
    result = second.result_of("exp_1")
    assert result["state"] == "completed"
    assert set(second.artifacts) == {about["sha256"] for about in result["artifacts"].values()}
    heir.stop(threading.Event())
    second.server.stop(1.0)


def test_an_attempt_cut_short_by_the_workers_death_is_reported_at_once(
    tmp_path: Path, orchestrator: Orchestrator
) -> None:
    folder = tmp_path / "state" / "runs" / "exp_1.4"
    folder.mkdir(parents=True)
    (folder / "dispatch.json").write_text(
        f'{{"run": "exp_1", "attempt": 4, "callback": "{orchestrator.server.url}", "traceparent": ""}}')
    (folder / "stream.nvc").write_bytes(b"half a str")
    worker = make_worker(tmp_path / "state", orchestrator)
    result = orchestrator.result_of("exp_1")
    assert (result["attempt"], result["state"]) == (4, "failed")
    assert result["error"]["type"] == "worker-restarted"
    assert result["error"]["retry"] is True
    known = requests.get(worker.server.url + "/experiment/exp_1", timeout=PATIENCE_S).json()
    assert (known["attempt"], known["state"]) == (4, "failed")
    worker.stop(threading.Event())


def test_draining_takes_no_work_and_hands_back_what_does_not_finish(
    orchestrator: Orchestrator, hired: Worker, video: bytes
) -> None:
    post(hired, dispatch(orchestrator, "exp_1", video, "deaf"))
    orchestrator.wait_for(lambda: any(p["phase"] == "deaf" for p in orchestrator.progress))
    hired.roster.draining = True
    assert requests.get(hired.server.url + "/readyz", timeout=PATIENCE_S).status_code == 503
    answer = post(hired, dispatch(orchestrator, "exp_2", video))
    assert answer.status_code == 503
    assert answer.json()["type"].endswith("draining")
    hired.stop(threading.Event())
    result = orchestrator.result_of("exp_1")
    assert result["error"]["type"] == "handed-back"
    assert result["error"]["retry"] is True
    assert any(beat["draining"] for beat in orchestrator.beats)


def test_draining_lets_a_run_finish_that_can(orchestrator: Orchestrator, tmp_path: Path, video: bytes) -> None:
    worker = make_worker(tmp_path / "state", orchestrator, drain_s=PATIENCE_S)
    wait_ready(worker)
    post(worker, dispatch(orchestrator, "exp_1", video, "sleep-0.5"))
    orchestrator.wait_for(lambda: orchestrator.progress)
    worker.stop(threading.Event())
    assert orchestrator.result_of("exp_1")["state"] == "completed"


def test_a_worker_without_a_working_codec_offers_no_slots(orchestrator: Orchestrator, tmp_path: Path) -> None:
    worker = make_worker(tmp_path / "state", orchestrator, warm="broken", codec="broken=no_such_module:Codec")
    wait_until(worker, lambda: worker.slots[0].state == "failed")
    orchestrator.wait_for(lambda: orchestrator.beats)
    assert orchestrator.beats[-1]["slots"] == 0
    answer = requests.get(worker.server.url + "/readyz", timeout=PATIENCE_S)
    assert answer.status_code == 503
    assert "no_such_module" in answer.json()["detail"]
    worker.stop(threading.Event())


def test_nobody_is_called_that_a_dispatch_names(orchestrator: Orchestrator, hired: Worker, video: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        stranger.settimeout(0.0)
        elsewhere = f"http://127.0.0.1:{stranger.getsockname()[1]}"
        wanted = dispatch(orchestrator, "exp_1", video, callback=elsewhere)
        wanted["clip"]["url"] = elsewhere + "/clips/three.mkv/data"
        post(hired, wanted)
        assert orchestrator.result_of("exp_1")["state"] == "completed"
        with pytest.raises(BlockingIOError):
            stranger.accept()


def test_every_setting_is_in_the_docs_with_its_default() -> None:
    text = (Path(__file__).resolve().parent.parent / "docs" / "worker.md").read_text(encoding="utf-8")
    told = {line.split(" | ")[0].strip("| `"): line for line in text.splitlines() if line.startswith("| `")}
    inherited = {row.name for row in service.rows(service.ServerSettings)} - {"port"}
    for row in service.rows(WorkerSettings):
        if row.name not in inherited:
            default = f"`{row.default}`" if row.default is not None and str(row.default) else ""
            assert told[row.name] == f"| `{row.name}` | {default} | {row.unit} | {row.reason} |"


def test_every_way_to_fail_is_in_the_docs() -> None:
    root = Path(__file__).resolve().parent.parent
    text = (root / "docs" / "worker.md").read_text(encoding="utf-8")
    said = set()
    for name in ("work/slots", "work/outcome", "work/attempts", "work/outbox", "work/codec_process", "work/apart",
                 "measure"):
        source = (root / f"{name}.py").read_text(encoding="utf-8")
        said |= set(re.findall(r'(?:failed|MeasureError|own)\(\s*"([a-z-]+)"|"type": "([a-z-]+)"', source))
    slugs = {slug for pair in said for slug in pair if slug} - {"died"}  # that one becomes another before it is told
    assert {slug for slug in slugs if f"`{slug}`" not in text} == set()
