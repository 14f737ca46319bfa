"""The worker over HTTP, for an orchestrator that is played here."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest
import requests

from service.http.parsing import Problem
from tests.worker_rig import PATIENCE_S, Orchestrator, dispatch, make_worker, post, wait_ready, wait_until
from worker import Worker


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
    hired.assigned_runs.draining = True
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


@pytest.mark.parametrize("configured", [True, False], ids=["of-this-orchestrator", "of-whoever-calls"])
def test_a_key_is_shown_to_the_configured_orchestrator_only(
    tmp_path: Path, orchestrator: Orchestrator, video: bytes, configured: bool
) -> None:
    key = "nck_0123456789_" + "x" * 43
    worker = make_worker(tmp_path, orchestrator if configured else None, key=key)
    try:
        wait_ready(worker)
        assert post(worker, dispatch(orchestrator, "exp_1", video)).status_code == 202
        orchestrator.result_of("exp_1")
        assert orchestrator.authorizations == [f"Bearer {key}" if configured else None]
    finally:
        at_once = threading.Event()
        at_once.set()
        worker.stop(at_once)
