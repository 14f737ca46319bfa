"""An experiment through both services: done, refused, cancelled, late, alone."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import requests
from deployment import CODECS, PATIENCE_S, ROOT, Deployment, Program, running, wait_until


def test_an_experiment_is_submitted_carried_out_and_told(service: Deployment) -> None:
    experiment = service.submit()
    document = service.wait_end(experiment)
    assert document["status"] == "completed"
    assert document["experiment_id"] == experiment
    assert document["clip"]["frames"] == 3
    assert document["decoding_result"]["matches_encoder"] is True
    assert document["metrics"]["psnr_db"] == 100.0
    assert [attempt["outcome"] for attempt in document["attempts"]] == ["completed"]
    assert all(document["timeline"][name] for name in ("accepted", "dispatched", "started", "finished"))
    stream = requests.get(service.orchestrator.url + document["encoding_result"]["compressed_data"], timeout=PATIENCE_S)
    assert hashlib.sha256(stream.content).hexdigest() == document["encoding_result"]["sha256"]


def test_the_library_clip_is_coded_where_the_worker_is(service: Deployment) -> None:
    document = service.wait_end(service.submit(clip="carphone", frames=2, codec="raw"))
    assert document["status"] == "completed"
    assert (document["clip"]["width"], document["clip"]["height"], document["clip"]["frames"]) == (176, 144, 2)


def test_the_same_key_is_the_same_experiment(service: Deployment) -> None:
    def post(document: dict[str, Any]) -> requests.Response:
        return requests.post(f"{service.orchestrator.url}/experiment", json=document, timeout=PATIENCE_S,
                             headers={"Idempotency-Key": "once"})

    wanted = {"clip": "tiny.mkv", "codec": "raw"}
    first, again, other = post(wanted), post(wanted), post({**wanted, "quality": 1})
    assert first.status_code == again.status_code == 202
    assert first.json()["experiment_id"] == again.json()["experiment_id"]
    assert other.status_code == 422
    assert service.wait_end(first.json()["experiment_id"])["status"] == "completed"


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b'{"clip": "no-such-clip"}', 422, "no-such-clip"),
        (b'{"cilp": "carphone"}', 422, "cilp"),
        (b'{"quality": "high"}', 422, "quality"),
        (b'{"clip": ', 400, "JSON"),
        (b'{"codec": "h266"}', 422, "h266"),
    ],
)
def test_what_cannot_be_is_refused_at_once(service: Deployment, body: bytes, status: int, words: str) -> None:
    accepted = service.conservation()["accepted"]
    answer = requests.post(f"{service.orchestrator.url}/experiment", data=body, timeout=PATIENCE_S,
                           headers={"Content-Type": "application/json"})
    assert answer.status_code == status
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert words in answer.json()["detail"]
    assert service.conservation()["accepted"] == accepted


def test_a_run_that_the_codec_refuses_fails_at_once_with_its_words(service: Deployment) -> None:
    document = service.wait_end(service.submit("refuse"))
    assert document["status"] == "failed"
    assert document["error"]["detail"] == "quality: 32 is not to my taste"
    assert len(document["attempts"]) == 1


def test_a_run_past_its_time_fails(service: Deployment) -> None:
    document = service.wait_end(service.submit("deaf", timeout_s=1))
    assert document["status"] == "failed"
    assert document["error"]["type"] == "timeout"
    assert len(document["attempts"]) == 1


def test_two_workers_share_the_load(service: Deployment) -> None:
    first, second = service.submit("gate"), service.submit("gate")
    owners = {service.wait_phase(experiment, "gate")["attempts"][0]["worker"] for experiment in (first, second)}
    assert owners == {"w1", "w2"}
    service.gate.touch()
    assert service.wait_end(first)["status"] == service.wait_end(second)["status"] == "completed"


def test_a_queued_experiment_is_cancelled_without_ever_starting(service: Deployment) -> None:
    busy = [service.submit("gate"), service.submit("gate")]
    for experiment in busy:
        service.wait_phase(experiment, "gate")
    waiting = service.submit()
    assert service.status(waiting)["status"] == "queued"
    assert service.cancel(waiting) == 202
    document = service.wait_end(waiting)
    assert (document["status"], document["attempts"]) == ("cancelled", [])
    assert service.cancel(waiting) == 202  # asking again changes nothing
    service.gate.touch()
    for experiment in busy:
        assert service.wait_end(experiment)["status"] == "completed"


@pytest.mark.parametrize("script", ["deaf", "children"])
def test_a_running_experiment_is_cancelled_and_leaves_no_process(service: Deployment, script: str) -> None:
    experiment = service.submit(script)
    owner = service.worker_named(service.wait_phase(experiment, script)["attempts"][0]["worker"])
    processes = service.codec_processes(owner)
    assert service.cancel(experiment) == 202
    assert service.wait_end(experiment)["status"] == "cancelled"
    wait_until(lambda: not any(running(pid) for pid in processes), "the end of the codec process")
    assert service.cancel(experiment) == 202


def test_nothing_is_lost_in_the_end(service: Deployment) -> None:
    for experiment in [service.submit() for _ in range(5)]:
        assert service.wait_end(experiment)["status"] == "completed"
    found = service.conservation()
    assert found["holds"] is True
    assert found["unfinished"] == []
    assert found["accepted"] == found["completed"] + found["failed"] + found["cancelled"]


def test_the_smoke_test_passes(service: Deployment) -> None:
    environment = {**os.environ, "SMOKE_EXPERIMENT": '{"clip": "tiny.mkv", "codec": "raw"}'}
    seen = subprocess.run([str(ROOT / "systemd" / "smoke_test.sh"), service.orchestrator.url, service.workers[0].url],
                          capture_output=True, text=True, timeout=PATIENCE_S, check=False, env=environment)
    assert seen.returncode == 0, seen.stdout + seen.stderr
    assert seen.stdout.splitlines()[-1].startswith("PASSED: exp_")


def test_the_smoke_test_fails_when_the_experiment_does(service: Deployment) -> None:
    environment = {**os.environ, "SMOKE_EXPERIMENT": '{"clip": "tiny.mkv", "codec": "scripted", "model": "bug"}'}
    seen = subprocess.run([str(ROOT / "systemd" / "smoke_test.sh"), service.orchestrator.url, service.workers[0].url],
                          capture_output=True, text=True, timeout=PATIENCE_S, check=False, env=environment)
    assert seen.returncode == 1
    assert "FAILED: exp_" in seen.stdout
    assert "ZeroDivisionError" in seen.stdout


def test_a_worker_works_alone(folder: Path) -> None:
    codecs = [part for spec in CODECS for part in ("--codec", spec)]
    worker = Program("worker", folder / "alone", "--warm", "raw", *codecs)
    try:
        answer = requests.post(f"{worker.url}/experiment", json={"codec": "raw", "frames": 2}, timeout=PATIENCE_S)
        assert answer.status_code == 202
        address = answer.headers["Location"]
        wait_until(lambda: worker.get(address)["status"] == "completed", "the end of the run")
        document = worker.get(address)
        assert document["clip"]["frames"] == 2
        stream = requests.get(worker.url + document["encoding_result"]["compressed_data"], timeout=PATIENCE_S)
        assert hashlib.sha256(stream.content).hexdigest() == document["encoding_result"]["sha256"]
        assert worker.terminate() == 0
    finally:
        worker.end()


def test_with_keys_both_services_ask_and_show(folder: Path) -> None:
    def new_key(role: str) -> str:
        state = str(folder / "orchestrator")
        command = [sys.executable, str(ROOT / "orchestrator.py"), "keys", "--state", state, "add", "--role", role]
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=True).stdout.strip()

    client, shown, accepted = (new_key(role) for role in ("client", "worker", "admin"))
    orchestrator = Program("orchestrator", folder / "orchestrator", environment={"NVC_WORKER_KEY": accepted})
    worker = Program("worker", folder / "worker", "--orchestrator", orchestrator.url, "--codec", CODECS[0], "--warm",
                     "raw", environment={"NVC_KEY": shown, "NVC_ACCEPT_KEY": accepted})
    try:
        wanted: dict[str, Any] = {"json": {"codec": "raw", "frames": 2}, "timeout": PATIENCE_S}
        for url in (orchestrator.url, worker.url):
            assert requests.post(f"{url}/experiment", **wanted).status_code == 401
        headers = {"Authorization": f"Bearer {client}"}
        wait_until(lambda: any(known["free"] for known in orchestrator.get("/workers", headers=headers)["workers"]))
        answer = requests.post(f"{orchestrator.url}/experiment", **wanted, headers={**headers, "Prefer": "wait=60"})
        assert (answer.status_code, answer.json()["status"]) == (200, "completed")
    finally:
        worker.end()
        orchestrator.end()


@pytest.mark.parametrize("name", ["orchestrator", "worker"])
def test_a_service_tells_systemd_that_it_is_ready_alive_and_stopping(folder: Path, name: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(folder / "notify"))
        systemd.settimeout(PATIENCE_S)
        heard: set[str] = set()

        def hear(wanted: str) -> None:
            while wanted not in heard:
                heard.update(systemd.recv(4096).decode().splitlines())

        program = Program(name, folder / name, *(("--warm", "raw", "--codec", CODECS[0]) if name == "worker" else ()),
                          environment={"NOTIFY_SOCKET": str(folder / "notify"), "WATCHDOG_USEC": "400000"})
        try:
            hear("READY=1")
            heard.discard("WATCHDOG=1")
            hear("WATCHDOG=1")
            program.process.terminate()
            hear("STOPPING=1")
            assert program.process.wait(PATIENCE_S) == 0
        finally:
            program.end()
