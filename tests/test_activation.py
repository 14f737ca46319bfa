"""The orchestrator under systemd: its port outlives it, and it says how it is (sd_listen_fds(3), sd_notify(3))."""

from __future__ import annotations

import io
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

import worker
from service.http.authentication import check_exposure
from service.runtime.logs import Log
from service.runtime.settings import SettingsError

ROOT = Path(__file__).resolve().parent.parent
PATIENCE_S = 30.0
# What systemd does before it starts a service: the socket becomes descriptor 3, and its process is named.
ACTIVATE = 'export LISTEN_PID=$$ LISTEN_FDS=1; passed=$1; shift; exec "$@" 3<&"$passed"'


def start(listener: socket.socket, state: Path, **environment: str) -> subprocess.Popen[str]:
    """The orchestrator, passed a socket that listens; returns once it serves."""
    process = subprocess.Popen(
        ["bash", "-c", ACTIVATE, "bash", str(listener.fileno()), sys.executable, "orchestrator.py", "--port", "1",
         "--state", str(state), "--log-level", "warning"], cwd=ROOT, stdout=subprocess.PIPE, text=True,
        pass_fds=(listener.fileno(),), env={**os.environ, **environment})
    assert process.stdout is not None
    port = listener.getsockname()[1]
    assert process.stdout.readline() == f"orchestrator listening on http://127.0.0.1:{port}\n"
    return process


def stop(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    process.terminate()
    code = process.wait(PATIENCE_S)
    process.stdout.close()
    return code


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as made:
        yield made


def test_a_restart_under_load_refuses_nobody(listener: socket.socket, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    over = threading.Event()
    answers: list[int] = []
    faults: list[str] = []
    restarted = threading.Condition()

    def client() -> None:
        while not over.is_set():  # a connection of its own for each
            try:
                answer = requests.get(f"{url}/experiments", headers={"Connection": "close"}, timeout=PATIENCE_S)
            except requests.RequestException as error:
                faults.append(str(error))
                return
            with restarted:
                answers.append(answer.status_code)
                restarted.notify_all()

    process = start(listener, tmp_path)
    clients = [threading.Thread(target=client) for _ in range(4)]
    for thread in clients:
        thread.start()
    try:
        for _ in range(3):
            before = len(answers)
            with restarted:
                assert restarted.wait_for(lambda before=before: len(answers) > before + 20 or faults, PATIENCE_S)
            assert stop(process) == 0
            process = start(listener, tmp_path)
    finally:
        over.set()
        for thread in clients:
            thread.join()
        stop(process)
    assert (faults, set(answers)) == ([], {200})


def test_who_connects_while_nobody_serves_is_served_by_the_next(listener: socket.socket, tmp_path: Path) -> None:
    assert stop(start(listener, tmp_path)) == 0
    with socket.create_connection(listener.getsockname(), timeout=PATIENCE_S) as early:
        early.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        process = start(listener, tmp_path)
        assert early.recv(100).startswith(b"HTTP/1.1 200 ")
        assert stop(process) == 0


def test_a_socket_that_is_open_to_others_needs_a_key() -> None:
    with socket.create_server(("0.0.0.0", 0)) as wide:
        with pytest.raises(SettingsError, match=r"0\.0\.0\.0 is reachable"):
            check_exposure("127.0.0.1", has_keys=False, insecure_bind=False, sockets=[wide])
        check_exposure("127.0.0.1", has_keys=True, insecure_bind=False, sockets=[wide])


def test_what_systemd_is_told(listener: socket.socket, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(PATIENCE_S)
        process = start(listener, tmp_path / "state", NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="400000")
        said = ""
        while not {"READY=1", "WATCHDOG=1"} <= set(said.split("\n")):
            said += systemd.recv(1000).decode() + "\n"
        assert re.search(r"^STATUS=listening on http://127\.0\.0\.1:\d+$", said, re.MULTILINE)
        process.send_signal(signal.SIGSTOP)  # wedged: from here on no ping comes
        while True:
            systemd.settimeout(1.0)
            try:
                systemd.recv(1000)
            except TimeoutError:
                break
        process.send_signal(signal.SIGCONT)
        systemd.settimeout(PATIENCE_S)
        process.terminate()
        for _ in range(100):  # pings, five a second
            said += systemd.recv(1000).decode() + "\n"
            if "STOPPING=1" in said.split("\n"):
                break
        assert "STOPPING=1" in said.split("\n")
        assert process.wait(PATIENCE_S) == 0
        assert process.stdout is not None
        process.stdout.close()


def test_a_worker_that_waits_for_its_runs_asks_for_more_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log(io.StringIO())
    stopping = worker.Worker(worker.WorkerSettings(port=0, state=tmp_path, warm="", drain_s=PATIENCE_S), log)
    stopping.slots._slots.clear()  # nothing is computed here
    stopping.start()
    left = [[object()], [object()], [object()], []]  # the runs at each look
    monkeypatch.setattr(stopping.assigned_runs, "unfinished", lambda: left.pop(0) if len(left) > 1 else left[0])
    asked: list[float] = []
    stopping.stop(threading.Event(), asked.append)
    assert asked == [10.0] * len(asked)
    assert asked
