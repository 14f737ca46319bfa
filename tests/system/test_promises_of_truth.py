"""The promises about what is recorded, each tried by breaking what it rests on: accepted, idempotent, visible, started
once, fenced, delivered, ended once. Every test ends before the judge, who has read all that its clients saw."""

from __future__ import annotations

import re
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import requests
from deployment import PATIENCE_S, wait_until
from wired import DISPATCH, RESULT, UPLOAD, Wired, document_of, outcomes


def test_promise_1_what_was_accepted_survives_kills_in_the_midst_of_accepting(tmp_path: Path) -> None:
    with Wired(tmp_path) as wired, ThreadPoolExecutor(4) as clients:
        submissions = []
        for _ in range(2):
            known = len(wired.names)
            submissions += [clients.submit(wired.submit) for _ in range(20)]    # before each kill: some are yet to come
            wait_until(lambda known=known: len(wired.names) > known, "another acceptance")
            wired.orchestrator.kill()
            wired.orchestrator.start()
        for submission in submissions:
            submission.result()
        verdict = wired.verdict()
        assert verdict.complaints == []
        assert (verdict.submitted, verdict.acknowledged, verdict.completed, verdict.count("lost")) == (40, 40, 40, 0)


def test_promise_2_a_key_is_one_experiment_across_a_lost_answer_and_a_restart(tmp_path: Path) -> None:
    with Wired(tmp_path) as wired:
        lost = wired.front.fault("drop-answer", DISPATCH, times=1)
        key = wired.client.new_key()
        first = wired.client.submit(document_of("plain"), key)      # its first answer was lost
        assert lost.hits == 1
        wired.orchestrator.kill()
        wired.orchestrator.start()
        again = wired.client.submit(document_of("plain"), key)
        assert again == first
        answer = requests.post(f"{wired.orchestrator.url}/experiment", json=document_of("refuse"), timeout=PATIENCE_S,
                               headers={"Idempotency-Key": key})
        assert answer.status_code == 422
        wired.names.append(str(first))
        assert wired.verdict().complaints == []
        assert len(wired.starts()) == 1


def test_promise_3_the_sum_holds_at_each_of_a_hundred_reads_under_load(tmp_path: Path) -> None:
    with Wired(tmp_path, 2) as wired, ThreadPoolExecutor(3) as clients:
        scripts = ["plain", "segfault", "refuse", "plain", "deaf"] * 6
        submissions = [clients.submit(wired.submit, script) for script in scripts]
        for _ in range(100):
            found = wired.client.conservation()
            assert found["accepted"] == found["sum"]
        for submission, script in zip(submissions, scripts, strict=True):
            if script == "deaf":
                wired.client.cancel(submission.result())
        wired.client.list_all()
        verdict = wired.verdict()
        assert verdict.complaints == []
        assert (verdict.completed, verdict.failed, verdict.cancelled) == (12, 12, 6)


def test_promise_4_an_offer_whose_answer_is_lost_is_asked_about_and_started_once(tmp_path: Path) -> None:
    with Wired(tmp_path) as wired:
        lost = wired.outward[0].fault("drop-answer", DISPATCH, times=1)
        name = wired.submit()
        assert outcomes(wired.wait_end(name)) == ["completed"]
        assert (lost.hits, wired.starts()) == (1, [(name, 1)])
        dropped = wired.outward[0].fault("drop-request", DISPATCH, times=1)
        other = wired.submit()
        assert outcomes(wired.wait_end(other)) == ["completed"]
        assert (dropped.hits, wired.starts()) == (1, [(name, 1), (other, 1)])
        assert wired.verdict().complaints == []


def test_promise_4_an_offer_that_arrives_late_is_not_carried_out_for_anyone(tmp_path: Path) -> None:
    with Wired(tmp_path) as wired:
        held = wired.outward[0].fault("black-hole", DISPATCH, times=1)
        name = wired.submit("deaf")
        wired.outward[0].wait_hit(held)
        assert wired.wait(name, lambda document: document["status"] == "dispatched")
        wired.client.cancel(name)
        wired.outward[0].heal()     # only now does the worker get it
        wait_until(lambda: wired.workers[0].get(f"/experiment/{name}").get("ended"), "its end at the worker")
        verdict = wired.verdict()
        assert (verdict.complaints, verdict.cancelled, verdict.orphans) == ([], 1, 0)


def test_promise_5_a_worker_that_slept_past_its_lease_changes_nothing(tmp_path: Path) -> None:
    with Wired(tmp_path, 2) as wired:
        name = wired.submit("gate")
        sleeper = wired.wait_phase(name, "gate")
        sleeper.signal(signal.SIGSTOP)
        wired.wait(name, lambda document: len(document["attempts"]) == 2)
        wired.gate.touch()      # both codecs go on; the first one's worker is asleep
        document = wired.client.status(name) if wired.wait_end(name) else {}
        assert outcomes(document) == ["lost", "completed"]
        sleeper.signal(signal.SIGCONT)
        refused = wait_until(lambda: wired.client.conservation()["refused"], "the late result")
        assert [(entry["run"], entry["attempt"]) for entry in refused] == [(name, 1)]
        wait_until(lambda: not sleeper.get("/status")["outbox"], "an empty outbox")
        assert sleeper.get("/status")["stale_results"] == 1
        verdict = wired.verdict()
        assert (verdict.complaints, verdict.stale, verdict.completed) == ([], 1, 1)


def test_promise_8_a_result_outlives_the_death_of_both_sides(tmp_path: Path) -> None:
    with Wired(tmp_path, lease_s=5.0) as wired:
        name, worker = wired.submit("gate"), wired.workers[0]
        wired.wait_phase(name, "gate")
        wired.orchestrator.kill()
        wired.gate.touch()
        wait_until(lambda: worker.get("/status")["outbox"], "the end of the run")
        worker.kill()
        worker.start()
        assert [entry["run"] for entry in worker.get("/status")["outbox"]] == [name]
        wired.orchestrator.start()
        assert outcomes(wired.wait_end(name)) == ["completed"]
        wait_until(lambda: not worker.get("/status")["outbox"], "an empty outbox")
        assert wired.starts() == [(name, 1)]
        assert wired.verdict().complaints == []


def test_promise_8_a_result_whose_answer_is_lost_again_and_again_is_recorded_once(tmp_path: Path) -> None:
    with Wired(tmp_path, lease_s=5.0) as wired:
        lost = wired.inward[0].fault("drop-answer", RESULT, times=3)
        name = wired.submit()
        wait_until(lambda: lost.hits == 3 and not wired.workers[0].get("/status")["outbox"], "the fourth answer")
        assert outcomes(wired.wait_end(name)) == ["completed"]
        verdict = wired.verdict()
        assert (verdict.complaints, verdict.completed, verdict.stale) == ([], 1, 0)


def test_promise_8_a_connection_that_is_half_open_does_not_hold_a_result(tmp_path: Path) -> None:
    with Wired(tmp_path, worker_flags=("--answer-s", "1")) as wired:
        for request in (UPLOAD, RESULT):
            dead = wired.inward[0].fault("half-open", request, times=1)
            assert outcomes(wired.wait_end(wired.submit())) == ["completed"]
            assert dead.hits == 1
        assert wired.verdict().complaints == []


def test_promise_7_a_connection_that_is_half_open_costs_no_lease(tmp_path: Path) -> None:
    with Wired(tmp_path) as wired:
        name = wired.submit("gate")
        worker = wired.wait_phase(name, "gate")
        wired.inward[0].fault("half-open", b"POST /workers HTTP", times=1)
        wait_until(lambda: worker.get("/status")["orchestrator_trouble"], "the end of its patience")
        wait_until(lambda: worker.get("/status")["registered"], "the next heartbeat")
        wired.gate.touch()
        assert outcomes(wired.wait_end(name)) == ["completed"]
        assert wired.verdict().complaints == []


def test_promise_9_messages_that_come_again_and_late_make_no_second_end(tmp_path: Path) -> None:
    with Wired(tmp_path) as wired:
        repeated = wired.inward[0].fault("repeat")
        names = [wired.submit(script) for script in ("plain", "refuse", "segfault")]
        ends = [wired.client.status(name) for name in names if wired.wait_end(name)]
        assert repeated.hits > 3
        assert wired.inward[0].send_again() > 3     # heartbeats, progress, artifacts and results, all of them old
        for name in names:      # and a worker that says the opposite of what it said
            answer = requests.post(f"{wired.orchestrator.url}/experiment_result", timeout=PATIENCE_S, json={
                "run": name, "attempt": 1, "state": "cancelled"})
            assert (answer.status_code, answer.json()["type"]) == (409, "/problems/stale-attempt")
        assert [wired.client.status(name) for name in names] == ends
        verdict = wired.verdict()
        assert (verdict.complaints, verdict.completed, verdict.failed) == ([], 1, 2)


def test_each_of_the_fifteen_promises_is_tried() -> None:
    sources = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_promises_*.py"))
    assert {int(number) for number in re.findall(r"^def test_promise_(\d+)_", sources, re.MULTILINE)} == {*range(1, 16)}
