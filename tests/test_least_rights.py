"""Who may do what with one key, one secret, one attempt: no more than that."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import requests

import orchestrator as program
from service.api.worker_messages import MessageError, read_end
from tests import worker_rig
from tests.orchestrator_rig import PATIENCE_S, RESULT, FakeWorker, MakeWorker, Orchestrator, problem
from tests.worker_rig import dispatch

KEY = "nck_0123456789_" + "k" * 43


@pytest.fixture
def careful(running: Orchestrator, make_worker: MakeWorker) -> FakeWorker:
    """A worker that gives a key of its own and shows the secrets of its attempts."""
    return make_worker(dispatch_key=KEY, attempt_secrets=True)


def test_a_worker_is_shown_its_own_key_and_nobody_else_sees_it(running: Orchestrator, careful: FakeWorker) -> None:
    running.submit(codec=careful.codec)
    offer = careful.next_offer()
    assert careful.authorizations == [f"Bearer {KEY}"]
    assert KEY not in running.get("/workers").text
    careful.session_post("/experiment_result", {
        "run": offer["run"], "attempt": 1, "secret": offer["secret"], "state": "completed", "result": RESULT})


@pytest.mark.parametrize("path", ["/experiment_result", "/experiment_progress"])
def test_only_the_attempts_own_secret_reports_on_it(running: Orchestrator, careful: FakeWorker, path: str) -> None:
    names = [running.submit(codec=careful.codec)]
    offer = careful.next_offer()
    message = {"run": offer["run"], "attempt": 1, "state": "completed", "result": RESULT}
    for wrong in ({}, {"secret": "0" * 64}, {"secret": None}, {"secret": "é" * 64}):
        assert problem(careful.session_post(path, {**message, **wrong}))[:2] == (403, "wrong-secret")
    assert running.status(names[0])["status"] in ("dispatched", "running")
    assert careful.session_post(path, {**message, "secret": offer["secret"]}).status_code == 200
    careful.session_post("/experiment_result", {**message, "secret": offer["secret"]})
    careful.held.clear()


def test_the_secret_of_an_attempt_is_of_no_use_for_another(running: Orchestrator, make_worker: MakeWorker) -> None:
    both = make_worker(dispatch_key=KEY, attempt_secrets=True, slots=2)
    for _ in range(2):
        running.submit(codec=both.codec)
    first, second = both.next_offer(), both.next_offer()
    answer = both.session_post("/experiment_result", {
        "run": first["run"], "attempt": 1, "secret": second["secret"], "state": "completed", "result": RESULT})
    assert problem(answer)[:2] == (403, "wrong-secret")
    for offer in (first, second):
        both.session_post("/experiment_result", {
            "run": offer["run"], "attempt": 1, "secret": offer["secret"], "state": "cancelled"})
    both.held.clear()


def test_secrets_outlive_a_restart(tmp_path: Path) -> None:
    orchestrator = Orchestrator(tmp_path, "--lease-s", "5", "--heartbeat-s", "0.2")
    try:
        worker = FakeWorker(orchestrator, "w1", dispatch_key=KEY, attempt_secrets=True)
        name = orchestrator.submit(codec="nvc")
        offer = worker.next_offer()
        orchestrator.restart()
        answer = worker.session_post("/experiment_result", {
            "run": offer["run"], "attempt": 1, "secret": offer["secret"], "state": "completed", "result": RESULT})
        assert answer.status_code == 200
        assert orchestrator.status(name)["status"] == "completed"
        worker.stop()
    finally:
        orchestrator.stop()


def test_a_worker_outside_of_its_networks_is_refused(tmp_path: Path) -> None:
    orchestrator = Orchestrator(tmp_path, "--worker-networks", "10.0.0.0/8")
    try:
        answer = orchestrator.post("/workers", {"name": "w1", "url": "http://127.0.0.1:9", "slots": 1})
        assert problem(answer) == (403, "worker-not-allowed", "url")
        assert orchestrator.post("/workers", {"name": "w1", "url": "http://10.1.2.3:9", "slots": 1}).status_code == 200
    finally:
        orchestrator.stop()


@pytest.mark.parametrize(("result", "field"), [
    ({"metrics": {"psnr_db": 1e308}}, "result.metrics.psnr_db"),
    ({"metrics": {"psnr_db": "99.9"}}, "result.metrics.psnr_db"),
    ({"metrics": {"ssim": [0.9]}}, "result.metrics.ssim"),
    ({"metrics": {"bitrate_mbps": -1}}, "result.metrics.bitrate_mbps"),
    ({"metrics": {"bitrate_mbps": True}}, "result.metrics.bitrate_mbps"),
    ({"metrics": []}, "result.metrics"),
    ({"decoding_result": {"quality_metrics": {"ms_ssim": 1.5}}}, "result.decoding_result.quality_metrics.ms_ssim"),
    ({"frames": [{"psnr_db": "x"}]}, "result.frames.0.psnr_db"),
    ({"frames": "none"}, "result.frames"),
])
def test_figures_that_no_measurement_gives_are_refused_by_name(result: dict[str, Any], field: str) -> None:
    with pytest.raises(MessageError) as caught:
        read_end({"run": "exp_1", "attempt": 1, "state": "completed", "result": result})
    assert caught.value.field == field


def test_a_worker_that_others_can_reach_asks_for_the_key_that_it_gave_its_orchestrator(
    tmp_path: Path, orchestrator: worker_rig.Orchestrator, video: bytes
) -> None:
    worker = worker_rig.make_worker(tmp_path, orchestrator, host="0.0.0.0", url="http://127.0.0.1:1")
    try:
        beat = orchestrator.wait_for(lambda: next((beat for beat in orchestrator.beats if beat["slots"]), None))
        wanted = dispatch(orchestrator, "exp_1", video) | {"secret": "s" * 64}
        for headers, status in (({}, 401), ({"Authorization": f"Bearer {KEY}"}, 401),
                                ({"Authorization": f"Bearer {beat['dispatch_key']}"}, 202)):
            answer = requests.post(f"{worker.server.url}/experiment", json=wanted, headers=headers, timeout=PATIENCE_S)
            assert answer.status_code == status
        assert orchestrator.result_of("exp_1")["secret"] == "s" * 64
        assert beat["attempt_secrets"] is True
    finally:
        at_once = threading.Event()
        at_once.set()
        worker.stop(at_once)


def test_a_client_cancels_what_it_has_submitted_and_an_admin_cancels_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def new_key(role: str) -> dict[str, str]:
        capsys.readouterr()
        assert program.main(["keys", "--state", str(tmp_path / "orchestrator"), "add", "--role", role]) == 0
        return {"Authorization": f"Bearer {capsys.readouterr().out.strip()}"}

    mine, other, admin = new_key("client"), new_key("client"), new_key("admin")
    orchestrator = Orchestrator(tmp_path)
    try:
        names = [orchestrator.post("/experiment", {}, headers=mine).json()["experiment_id"] for _ in range(2)]
        refused = orchestrator.post(f"/experiment/{names[0]}/cancel", headers=other)
        assert problem(refused)[:2] == (403, "not-yours")
        for name, key in zip(names, (mine, admin), strict=True):
            assert orchestrator.post(f"/experiment/{name}/cancel", headers=key).status_code == 202
    finally:
        orchestrator.stop()
