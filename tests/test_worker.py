"""The worker over HTTP, alone; its settings and its ways to fail are in its document."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from service.http.authentication import new_key
from service.http.listening import ServerSettings
from service.runtime.settings import SettingsError, rows
from tests.worker_rig import PATIENCE_S, make_worker, post, wait_ended, wait_ready, wait_until
from worker import Worker, WorkerSettings, join_repeated


@pytest.fixture(scope="module")
def lone(tmp_path_factory: pytest.TempPathFactory, video: bytes) -> Iterator[Worker]:
    worker = make_worker(tmp_path_factory.mktemp("lone"))
    digest = hashlib.sha256(video).hexdigest()

    def give(out: Any) -> tuple[int, str]:
        out.write(video)
        return len(video), digest

    worker.context.clips.fetch(digest, give)
    yield worker
    at_once = threading.Event()
    at_once.set()
    worker.stop(at_once)


@pytest.fixture
def clip(video: bytes) -> str:
    return "sha256:" + hashlib.sha256(video).hexdigest()


@pytest.fixture
def idle(lone: Worker) -> Worker:
    """The lone worker, ready and with a free slot."""
    wait_ready(lone)
    wait_until(lone, lambda: lone.slots[0].free)
    return lone


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
        ({"experiment": {}, "segment": {"index": 2, "of": 2}}, "segment", "index and of, the first below the second"),
        ({"experiment": {}, "segments": [{"../x": {}}]}, "segments", "objects, of file names to sha256 and url"),
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

    idle.context.clips.fetch(digest, give)
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
    token, _ = new_key("admin")
    worker = make_worker(tmp_path, accept_key=token)
    answer = requests.get(worker.server.url + "/status", timeout=PATIENCE_S)
    assert answer.status_code == 401
    shown = {"Authorization": f"Bearer {token}"}
    assert requests.get(worker.server.url + "/status", headers=shown, timeout=PATIENCE_S).status_code == 200
    assert requests.get(worker.server.url + "/livez", timeout=PATIENCE_S).status_code == 200
    worker.stop(threading.Event())


def test_without_a_key_it_listens_on_loopback_only(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="insecure-bind"):
        make_worker(tmp_path, host="0.0.0.0")


def test_the_codec_flag_may_be_repeated() -> None:
    given = ["--port", "0", "--codec", "a=m:f", "--codec=b=m:g"]
    assert join_repeated(given) == ["--port", "0", "--codec", "a=m:f,b=m:g"]


def test_every_setting_is_in_the_docs_with_its_default() -> None:
    text = (Path(__file__).resolve().parent.parent / "docs" / "worker.md").read_text(encoding="utf-8")
    told = {line.split(" | ")[0].strip("| `"): line for line in text.splitlines() if line.startswith("| `")}
    inherited = {row.name for row in rows(ServerSettings)} - {"port"}
    for row in rows(WorkerSettings):
        if row.name not in inherited:
            default = f"`{row.default}`" if row.default is not None and str(row.default) else ""
            assert told[row.name] == f"| `{row.name}` | {default} | {row.unit} | {row.reason} |"


def test_every_way_to_fail_is_in_the_docs() -> None:
    root = Path(__file__).resolve().parent.parent
    text = (root / "docs" / "worker.md").read_text(encoding="utf-8")
    said = set()
    for path in [*root.glob("service/runs/*.py"), *root.glob("service/processes/*.py")]:
        if path.name == "openapi.py":
            continue
        source = path.read_text(encoding="utf-8")
        said |= set(re.findall(r'(?:failed|MeasureError|own)\(\s*"([a-z-]+)"|"type": "([a-z-]+)"', source))
    slugs = {slug for pair in said for slug in pair if slug} - {"died"}  # that one becomes another before it is told
    assert {slug for slug in slugs if f"`{slug}`" not in text} == set()
