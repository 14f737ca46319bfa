"""The promises about staying alive, each tried by breaking what it rests on: dead workers, slow codecs, bounded tries,
cancelling, draining, wedged processes, slow clients and full disks, clocks that jump."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import socket
import sqlite3
from pathlib import Path

import pytest
import requests
from deployment import PATIENCE_S, ROOT, Program, running, wait_until
from wired import DISPATCH, Wired, document_of, outcomes

from orchestrator import OrchestratorSettings
from service.jobs.fields import read_request
from service.jobs.states import State
from service.processes import supervision
from service.scheduling import placement, scheduler
from service.storage.records import Run


def test_promise_6_a_killed_workers_run_moves_on_and_no_process_of_it_stays(tmp_path: Path) -> None:
    with Wired(tmp_path, 2) as wired:
        name = wired.submit("gate")
        dead = wired.wait_phase(name, "gate")
        codecs = [slot["codec_process"] for slot in dead.get("/status")["slots"]]
        dead.kill()
        wired.gate.touch()
        document = wired.wait_end(name)
        assert outcomes(document) == ["lost", "completed"]
        assert document["attempts"][0]["worker"] != document["attempts"][1]["worker"]
        wait_until(lambda: not any(running(pid) for pid in codecs), "the end of the dead worker's codec process")
        dead.start()
        assert wired.verdict().complaints == []


def test_promise_6_even_what_left_its_process_group_ends_with_a_killed_worker(tmp_path: Path) -> None:
    with Wired(tmp_path) as wired:
        name = wired.submit("deaf")     # has a child in a session of its own
        worker = wired.wait_phase(name, "deaf")
        worker.kill()
        assert wired.left_over(5.0, besides=wired.orchestrator) == []
        worker.start()
        wired.client.cancel(name)
        assert wired.verdict().complaints == []


def test_promise_6_a_dead_worker_is_found_within_15_s_of_its_last_word() -> None:
    now = [0.0]
    placed = placement.Placement(OrchestratorSettings().lease_s, lambda: now[0])
    settings = read_request({})
    placed.heartbeat("w1", "http://w1", 1, {}, {})
    placed.enqueue(Run(1, "e", 1, "e", State.QUEUED, 0, 0, 0, None, None, settings, {}, ""))
    [lease] = placed.choose()
    placed.heartbeat("w1", "http://w1", 1, {}, {lease.key: {}})     # the last one
    while not placed.expired():
        placed.looking(scheduler.LOOK_S)
        now[0] += scheduler.LOOK_S      # the placing thread looks at least this often
    assert now[0] == 10.0
    assert now[0] + scheduler.LOOK_S <= 15.0


def test_promise_6_a_worker_that_is_started_again_says_at_once_what_its_death_cut_short(tmp_path: Path) -> None:
    with Wired(tmp_path, lease_s=60.0) as wired:    # far longer than the test may take
        name = wired.submit("gate")
        worker = wired.wait_phase(name, "gate")
        worker.kill()
        wired.gate.touch()
        worker.start()
        assert outcomes(wired.wait_end(name)) == ["worker-restarted", "completed"]
        assert wired.verdict().complaints == []


def test_promise_7_twenty_leases_without_the_interpreters_lock_cost_nothing(tmp_path: Path) -> None:
    with Wired(tmp_path, lease_s=0.5, heartbeat_s=0.05) as wired:
        name = wired.submit("spin-10")
        document = wired.wait_end(name)
        assert (document["status"], outcomes(document)) == ("completed", ["completed"])
        assert wired.starts() == [(name, 1)]
        assert wired.verdict().complaints == []


def test_promise_10_three_tries_then_failed_with_all_reasons_and_nobody_starves(tmp_path: Path) -> None:
    with Wired(tmp_path) as wired:      # one slot for all
        poisonous = [wired.submit("segfault") for _ in range(2)]
        others = [wired.submit() for _ in range(10)]
        for name in poisonous:
            document = wired.wait_end(name)
            assert (document["status"], outcomes(document)) == ("failed", ["codec-crashed"] * 3)
            assert all("SIGSEGV" in attempt["detail"] for attempt in document["attempts"])
            assert re.search(r"SIGSEGV.*given up after 3 attempts$", document["error"]["detail"])
        assert [wired.wait_end(name)["status"] for name in others] == ["completed"] * 10
        verdict = wired.verdict()
        assert (verdict.complaints, verdict.completed, verdict.failed) == ([], 10, 2)


def test_promise_11_cancelled_from_any_state_and_no_process_is_left(tmp_path: Path) -> None:
    with Wired(tmp_path) as wired:
        at_work = wired.submit("deaf")
        wired.wait_phase(at_work, "deaf")
        waiting = wired.submit("deaf")
        for name in (waiting, at_work):
            assert wired.client.cancel(name) == 202
            assert wired.client.status(name)["status"] == "cancelled"
            assert wired.client.cancel(name) == 202
        wait_until(lambda: wired.workers[0].get("/readyz").get("status") == "ready", "the slot")
        held = wired.outward[0].fault("black-hole", DISPATCH)
        offered = wired.submit("deaf")
        wired.outward[0].wait_hit(held)
        assert wired.client.cancel(offered) == 202
        assert wired.client.status(offered)["status"] == "cancelled"
        verdict = wired.verdict()
        assert (verdict.complaints, verdict.cancelled, verdict.orphans) == ([], 3, 0)


def test_promise_11_the_steps_of_a_cancel_are_over_within_5_s() -> None:
    assert supervision.TERM_GRACE_S + supervision.REAP_S <= 4.0     # then its end is stored and told


def test_promise_11_a_deadline_kills_a_run_that_ignores_it(tmp_path: Path) -> None:
    with Wired(tmp_path) as wired:
        document = wired.wait_end(wired.submit("deaf", timeout_s=1))
        assert (document["status"], document["error"]["type"], outcomes(document)) == ("failed", "timeout", ["timeout"])
        verdict = wired.verdict()
        assert (verdict.complaints, verdict.orphans) == ([], 0)


def test_promise_12_a_drained_worker_takes_nothing_and_finishes_what_it_has(tmp_path: Path) -> None:
    with Wired(tmp_path) as wired:
        name, worker = wired.submit("gate"), wired.workers[0]
        wired.wait_phase(name, "gate")
        worker.signal(signal.SIGTERM)
        wait_until(lambda: requests.get(f"{worker.url}/readyz", timeout=PATIENCE_S).status_code == 503, "draining")
        waiting = wired.submit()
        wired.gate.touch()
        assert outcomes(wired.wait_end(name)) == ["completed"]
        assert worker.process.wait(PATIENCE_S) == 0
        assert wired.orchestrator.get(f"/experiment/{waiting}/status")["status"] == "queued"
        worker.start()
        assert outcomes(wired.wait_end(waiting))[-1] == "completed"
        assert wired.verdict().complaints == []


def test_promise_12_what_does_not_finish_is_handed_back_and_costs_no_try(tmp_path: Path) -> None:
    with Wired(tmp_path, 2, worker_flags=("--drain-s", "0")) as wired:
        name = wired.submit("gate")
        drained = wired.wait_phase(name, "gate")
        assert drained.terminate() == 0
        wired.gate.touch()
        assert outcomes(wired.wait_end(name)) == ["handed-back", "completed"]
        drained.start()
        assert wired.verdict().complaints == []


def test_promise_12_an_orchestrator_that_drains_loses_nothing(tmp_path: Path) -> None:
    with Wired(tmp_path, lease_s=5.0) as wired:
        name = wired.submit("gate")
        waiting = wired.submit()
        wired.wait_phase(name, "gate")
        assert wired.orchestrator.terminate() == 0
        wired.gate.touch()
        wired.orchestrator.start()
        assert [outcomes(wired.wait_end(each)) for each in (name, waiting)] == [["completed"]] * 2
        assert wired.verdict().complaints == []


def test_promise_13_no_ping_while_the_database_cannot_be_written(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(PATIENCE_S)
        program = Program("orchestrator", tmp_path / "orchestrator", environment={
            "NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"})
        try:
            while b"WATCHDOG=1" not in systemd.recv(4096):
                pass
            with contextlib.closing(sqlite3.connect(program.folder / "orchestrator.sqlite3", timeout=30.0)) as other:
                other.execute("BEGIN EXCLUSIVE")    # from here on nothing can be written
                systemd.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    while systemd.recv(4096):
                        pass
                wait_until(lambda: "watchdog-check-failed" in program.log.read_text(), "a check that fails")
                with pytest.raises(BlockingIOError):
                    systemd.recv(4096)
                other.rollback()
            systemd.settimeout(PATIENCE_S)
            while b"WATCHDOG=1" not in systemd.recv(4096):      # well again, by itself
                pass
        finally:
            program.end()
    unit = (ROOT / "systemd" / "nvc-orchestrator.service").read_text()
    assert re.search(r"^WatchdogSec=", unit, re.MULTILINE)
    assert re.search(r"^Restart=always", unit, re.MULTILINE)


def test_promise_14_silent_and_slow_clients_cost_bounded_memory_and_keep_nobody_out(tmp_path: Path) -> None:
    with Wired(tmp_path) as wired, contextlib.ExitStack() as stack:
        address = ("127.0.0.1", int(wired.orchestrator.url.rpartition(":")[2]))
        memory = Path(f"/proc/{wired.orchestrator.process.pid}/statm")
        before = int(memory.read_text().split()[1])
        rude = [stack.enter_context(socket.create_connection(address)) for _ in range(200)]
        for connection in rude[:50]:
            connection.sendall(b"POST /experiment HTTP/1.1\r\nContent-Len")      # and no more
        assert outcomes(wired.wait_end(wired.submit())) == ["completed"]
        assert (int(memory.read_text().split()[1]) - before) * resource.getpagesize() < 64 << 20
        stack.close()
        assert wired.verdict().complaints == []


def test_promise_14_a_full_disk_refuses_whole_and_recovers_by_itself(tmp_path: Path) -> None:
    with Wired(tmp_path) as wired:
        assert outcomes(wired.wait_end(wired.submit())) == ["completed"]
        for program in (wired.orchestrator, wired.workers[0]):
            before = wired.client.conservation()["accepted"]
            pid = program.process.pid
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))    # no file may grow
            if program is wired.orchestrator:
                answer = requests.post(f"{program.url}/experiment", json=document_of("plain"),
                                       timeout=PATIENCE_S)
                assert answer.status_code in (503, 507)
                assert requests.put(f"{program.url}/clips/full", data=b"bytes",
                                    timeout=PATIENCE_S).status_code == 507
                assert requests.get(f"{program.url}/livez", timeout=PATIENCE_S).status_code == 200
                assert wired.client.conservation()["accepted"] == before
                waiting = None
            else:
                waiting = wired.submit()
                wired.wait(waiting, lambda document: document["attempts"])
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            assert wired.wait_end(waiting or wired.submit())["status"] == "completed"
        assert wired.verdict().complaints == []


@pytest.mark.parametrize("step_s", [86_400.0, -86_400.0])
def test_promise_15_a_clock_that_jumps_by_a_day_changes_nothing(tmp_path: Path, step_s: float) -> None:
    clock = tmp_path / "clock"
    clock.write_text("0")
    with Wired(tmp_path, script="stepped_orchestrator.py", environment={"NVC_TEST_CLOCK": str(clock)}) as wired:
        at_work, waiting = wired.submit("gate"), wired.submit()
        wired.wait_phase(at_work, "gate")
        os.replace(stepped(clock, step_s), clock)
        later = wired.submit()
        wired.gate.touch()
        assert [outcomes(wired.wait_end(name)) for name in (at_work, waiting, later)] == [["completed"]] * 3
        assert wired.verdict().complaints == []


def stepped(clock: Path, step_s: float) -> Path:
    """A file that is to take the clock's place, whole."""
    new = clock.with_suffix(".new")
    new.write_text(str(step_s))
    return new
