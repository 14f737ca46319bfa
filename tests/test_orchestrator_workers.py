"""The orchestrator as a process over real sockets: what workers may say, and what they are told."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from tests.orchestrator_rig import FakeWorker, MakeWorker, Orchestrator, problem

# --- workers


def test_two_workers_share_the_load(running: Orchestrator, worker: FakeWorker, make_worker: MakeWorker) -> None:
    other = make_worker(codec=worker.codec)
    for _ in range(2):
        running.submit(codec=worker.codec)
    for each in (worker, other):
        each.end(each.next_offer())


def test_the_next_run_goes_to_a_worker_as_its_slot_is_freed(running: Orchestrator, worker: FakeWorker) -> None:
    names = [running.submit(codec=worker.codec) for _ in range(3)]
    for name in names:
        offer = worker.next_offer()
        assert (offer["run"], worker.offers.empty()) == (name, True)
        worker.end(offer)


def test_a_busy_worker_costs_the_run_no_try(running: Orchestrator, worker: FakeWorker) -> None:
    for _ in range(4):
        worker.script.put("busy")
    name = running.submit(codec=worker.codec)
    offer = worker.next_offer()
    assert offer["attempt"] == 5
    worker.end(offer)
    assert [entry["outcome"] for entry in running.status(name)["attempts"]] == ["busy"] * 4 + ["completed"]


def test_a_draining_worker_gets_nothing_new(running: Orchestrator, worker: FakeWorker) -> None:
    assert running.post(f"/workers/{worker.name}/drain").status_code == 202
    name = running.submit(codec=worker.codec)
    row = next(row for row in running.conservation()["unfinished"] if row["run"] == name)
    assert (row["status"], row["why"]) == (
        "queued", f"every worker that can take it is draining or starting: {worker.name}")
    running.post(f"/workers/{worker.name}/drain", {"drain": False})
    worker.end(worker.next_offer())


def test_workers_are_shown_with_what_runs_there(running: Orchestrator, worker: FakeWorker) -> None:
    name = running.submit(codec=worker.codec)
    offer = worker.next_offer()
    shown = next(row for row in running.get("/workers").json()["workers"] if row["name"] == worker.name)
    worker.end(offer)
    assert [(shown[field]) for field in ("url", "slots", "codecs", "state")] == [worker.url, 1, [worker.codec], "busy"]
    assert [(row["run"], row["attempt"]) for row in shown["running"]] == [(name, 1)]


def test_another_worker_of_a_living_workers_name_is_refused(running: Orchestrator, worker: FakeWorker) -> None:
    answer = worker.session_post("/workers", {"name": worker.name, "url": "http://127.0.0.1:1", "slots": 1})
    assert problem(answer)[:2] == (409, "name-taken")


@pytest.mark.parametrize(("fields", "field"), [({"name": "a b"}, "name"), ({"url": "ftp://x"}, "url"),
                                               ({"slots": -1}, "slots"), ({"running": [1]}, "running")])
def test_a_malformed_heartbeat_is_refused_by_name(running: Orchestrator, fields: dict[str, Any], field: str) -> None:
    document = {"name": "new", "url": "http://127.0.0.1:1", "slots": 1, **fields}
    assert problem(running.post("/workers", document)) == (422, "invalid-field", field)


# --- ends


def test_a_runs_own_error_fails_it_at_once_and_says_why(running: Orchestrator, worker: FakeWorker) -> None:
    name = running.submit(codec=worker.codec)
    error = {"type": "damaged-video", "detail": "frame 3 is damaged", "retry": False}
    worker.end(worker.next_offer(), "failed", error=error)
    document = running.status(name)
    assert (document["status"], document["error"]) == (
        "failed", {"type": "damaged-video", "detail": "frame 3 is damaged"})


def test_a_worker_that_ran_out_of_memory_is_not_asked_again_while_there_is_another(
        running: Orchestrator, worker: FakeWorker, make_worker: MakeWorker) -> None:
    name = running.submit(codec=worker.codec)
    offer = worker.next_offer()
    other = make_worker(codec=worker.codec)
    worker.end(offer, "failed", error={"type": "out-of-memory", "detail": "killed", "retry": True})
    again = other.next_offer()
    assert (again["run"], again["attempt"]) == (name, 2)
    other.end(again)
    assert [entry["outcome"] for entry in running.status(name)["attempts"]] == ["out-of-memory", "completed"]


def test_a_worker_that_refuses_the_run_itself_fails_it(running: Orchestrator, worker: FakeWorker) -> None:
    worker.script.put("refuse")
    name = running.submit(codec=worker.codec)
    assert running.until(name, "failed")["error"]["detail"] == f"worker {worker.name}: frames: too many"


def test_the_same_end_reported_twice_is_taken_once(running: Orchestrator, worker: FakeWorker) -> None:
    name = running.submit(codec=worker.codec)
    offer = worker.next_offer()
    assert [worker.end(offer).status_code for _ in range(2)] == [200, 200]
    assert [item["event"] for item in running.events(name)].count("result") == 1


def test_a_result_whose_artifact_is_not_stored_is_refused_and_may_come_again(running: Orchestrator,
                                                                             worker: FakeWorker) -> None:
    name = running.submit(codec=worker.codec)
    offer = worker.next_offer()
    missing = {"stream.nvc": {"sha256": hashlib.sha256(b"later").hexdigest(), "bytes": 5}}
    assert problem(worker.end(offer, artifacts=missing)) == (422, "missing-artifact", "artifacts")
    worker.store(b"later")
    assert worker.end(offer, artifacts=missing).status_code == 200
    assert running.get(f"/experiment/{name}/artifacts/stream.nvc").content == b"later"


@pytest.mark.parametrize(("document", "field"), [
    ({"attempt": 1, "state": "completed"}, "run"),
    ({"run": "exp_1_abcdef", "attempt": "1", "state": "completed"}, "attempt"),
    ({"run": "exp_1_abcdef", "attempt": 1, "state": "done"}, "state"),
    ({"run": "exp_1_abcdef", "attempt": 1, "state": "completed"}, "result"),
    ({"run": "exp_1_abcdef", "attempt": 1, "state": "failed", "error": "x"}, "error"),
    ({"run": "exp_1_abcdef", "attempt": 1, "state": "completed", "result": {}, "artifacts": {"../x": {}}}, "artifacts"),
])
def test_a_malformed_end_is_refused_by_name(running: Orchestrator, document: dict[str, Any], field: str) -> None:
    assert problem(running.post("/experiment_result", document)) == (422, "invalid-field", field)


def test_progress_of_an_attempt_that_is_over_is_stale(running: Orchestrator, worker: FakeWorker) -> None:
    running.submit(codec=worker.codec)
    offer = worker.next_offer()
    worker.end(offer)
    assert problem(worker.progress(offer))[:2] == (409, "stale-attempt")
