"""The orchestrator when things break: killed in the middle; workers that die, fall silent, or answer late."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

import orchestrator as program
from tests.orchestrator_rig import PATIENCE_S, FakeWorker, Orchestrator

Make = Callable[..., Any]
QUICK = ("--lease-s", "1", "--heartbeat-s", "0.2")


@pytest.fixture
def orchestrator(tmp_path: Path) -> Iterator[Orchestrator]:
    process = Orchestrator(tmp_path, *QUICK)
    yield process
    process.stop()


@pytest.fixture
def make_worker(orchestrator: Orchestrator) -> Iterator[Make]:
    made: list[FakeWorker] = []

    def make(name: str, **options: Any) -> FakeWorker:
        made.append(FakeWorker(orchestrator, name, **options))
        return made[-1]

    yield make
    for worker in made:
        worker.stop()


def outcomes(document: dict[str, Any]) -> list[tuple[int, str, str]]:
    return [(entry["attempt"], entry["worker"], entry["outcome"]) for entry in document["attempts"]]


def test_what_was_accepted_without_any_worker_survives_a_kill(orchestrator: Orchestrator, make_worker: Make) -> None:
    names = [orchestrator.submit() for _ in range(5)]
    orchestrator.restart()
    found = orchestrator.conservation()
    assert (found["accepted"], found["queued"]) == (5, 5)
    worker = make_worker("w1")
    for name in names:
        offer = worker.next_offer()
        assert offer["run"] == name
        worker.end(offer)
    assert orchestrator.conservation()["completed"] == 5


def test_a_queue_longer_than_one_reading_is_taken_up_whole_and_the_oldest_first(orchestrator: Orchestrator,
                                                                                make_worker: Make) -> None:
    grid = {"quality": list(range(50)), "effort": [0, 1, 2, 3], "structure": ["intra", "low_delay", "random_access"]}
    names = [orchestrator.submit(codec="own", **grid) for _ in range(9)]        # 5,400 runs, read 5,000 at a time
    orchestrator.restart()
    worker = make_worker("w", codec="own")
    first = worker.next_offer()
    assert first["run"] == f"{names[0]}.0"
    for name in reversed(names[:-1]):       # last the one that holds the slot
        assert orchestrator.post(f"/experiment/{name}/cancel").ok
    worker.end(first)
    assert worker.next_offer()["run"] == f"{names[-1]}.0"       # of the second reading


def test_an_idempotency_key_is_honoured_across_a_kill(orchestrator: Orchestrator) -> None:
    headers = {"Idempotency-Key": "k"}
    first = orchestrator.post("/experiment", {}, headers=headers).json()
    orchestrator.restart()
    assert orchestrator.post("/experiment", {}, headers=headers).json()["experiment_id"] == first["experiment_id"]


def test_a_run_goes_on_while_the_orchestrator_is_killed_and_started_again(orchestrator: Orchestrator,
                                                                          make_worker: Make) -> None:
    worker = make_worker("w1")
    name = orchestrator.submit()
    offer = worker.next_offer()
    orchestrator.until(name, "running")
    orchestrator.restart()
    assert orchestrator.status(name)["status"] == "running"
    assert worker.end(offer).status_code == 200
    assert outcomes(orchestrator.until(name, "completed")) == [(1, "w1", "completed")]
    assert worker.offers.empty()


def test_an_offer_that_a_kill_cut_short_is_resolved_by_asking(orchestrator: Orchestrator, make_worker: Make) -> None:
    worker = make_worker("w1", beating=False)
    worker.script.put("hang")
    name = orchestrator.submit()
    offer = worker.next_offer()
    orchestrator.restart()
    assert worker.asked.get(timeout=PATIENCE_S) == name
    orchestrator.until(name, "running")
    worker.end(offer)
    assert outcomes(orchestrator.until(name, "completed")) == [(1, "w1", "completed")]
    assert worker.offers.empty()


def test_a_result_may_be_delivered_to_a_restarted_orchestrator_before_any_heartbeat(orchestrator: Orchestrator,
                                                                                     make_worker: Make) -> None:
    worker = make_worker("w1", beating=False)
    name = orchestrator.submit()
    offer = worker.next_offer()
    orchestrator.restart()
    assert worker.end(offer).status_code == 200
    assert orchestrator.status(name)["status"] == "completed"


def test_a_worker_that_died_while_the_orchestrator_was_away_loses_its_run(orchestrator: Orchestrator,
                                                                          make_worker: Make) -> None:
    worker, name = make_worker("w1"), orchestrator.submit()
    worker.next_offer()
    orchestrator.kill()
    worker.stop()
    orchestrator.start()
    other = make_worker("w2")
    offer = other.next_offer()
    assert (offer["run"], offer["attempt"]) == (name, 2)
    other.end(offer)
    assert outcomes(orchestrator.until(name, "completed")) == [(1, "w1", "lost"), (2, "w2", "completed")]


def test_a_dead_worker_is_found_and_its_run_moves_on(orchestrator: Orchestrator, make_worker: Make) -> None:
    worker, name = make_worker("w1"), orchestrator.submit()
    offer = worker.next_offer()
    other = make_worker("w2")
    worker.stop()
    again = other.next_offer()
    other.end(again)
    assert outcomes(orchestrator.until(name, "completed")) == [(1, "w1", "lost"), (2, "w2", "completed")]
    assert orchestrator.conservation()["refused"] == []
    assert offer["attempt"] == 1


def test_a_late_result_is_refused_listed_and_changes_nothing(orchestrator: Orchestrator, make_worker: Make) -> None:
    worker, name = make_worker("w1"), orchestrator.submit()
    offer = worker.next_offer()
    other = make_worker("w2")
    worker.stop()
    again = other.next_offer()
    answer = worker.end(offer, result={"metrics": {"psnr_db": 99.0}})
    assert (answer.status_code, answer.json()["type"]) == (409, "/problems/stale-attempt")
    other.end(again)
    late = worker.end(offer, result={"metrics": {"psnr_db": 99.0}})
    assert late.status_code == 409
    document = orchestrator.until(name, "completed")
    assert document["metrics"]["psnr_db"] == 38.1
    assert [(entry["run"], entry["attempt"]) for entry in orchestrator.conservation()["refused"]] == [(name, 1)] * 2
    assert [event["event"] for event in orchestrator.events(name)].count("result") == 1


def test_a_worker_that_comes_back_after_its_lease_is_told_to_stop(orchestrator: Orchestrator, make_worker: Make
                                                                  ) -> None:
    worker = make_worker("w1", beating=False)
    name = orchestrator.submit()
    worker.next_offer()
    orchestrator.until(name, "queued")
    worker.register()
    assert worker.unknown.get(timeout=PATIENCE_S) == (name, 1)


def test_a_run_that_loses_three_workers_fails_with_the_history_of_all(orchestrator: Orchestrator, make_worker: Make
                                                                      ) -> None:
    name = orchestrator.submit()
    for number in (1, 2, 3):
        worker = make_worker(f"w{number}")
        assert worker.next_offer()["attempt"] == number
        worker.stop()
    document = orchestrator.until(name, "failed")
    assert outcomes(document) == [(1, "w1", "lost"), (2, "w2", "lost"), (3, "w3", "lost")]
    assert document["error"]["detail"].endswith("given up after 3 attempts")


def test_an_offer_whose_answer_was_lost_is_resolved_by_asking(orchestrator: Orchestrator, make_worker: Make) -> None:
    worker = make_worker("w1", beating=False)
    worker.script.put("lose")
    name = orchestrator.submit()
    offer = worker.next_offer()
    orchestrator.until(name, "running")
    assert worker.asked.get(timeout=PATIENCE_S) == name
    assert worker.offers.empty()
    worker.end(offer)
    assert outcomes(orchestrator.until(name, "completed")) == [(1, "w1", "completed")]


def test_an_offer_that_never_arrived_is_made_again_after_asking(orchestrator: Orchestrator, make_worker: Make) -> None:
    worker = make_worker("w1")
    worker.script.put("drop")
    name = orchestrator.submit()
    worker.next_offer()
    assert worker.asked.get(timeout=PATIENCE_S) == name
    again = worker.next_offer()
    assert again["attempt"] == 1
    worker.end(again)
    assert outcomes(orchestrator.until(name, "completed")) == [(1, "w1", "completed")]


def test_a_worker_that_cannot_be_reached_costs_no_try(orchestrator: Orchestrator, make_worker: Make) -> None:
    nobody = {"name": "w0", "url": "http://127.0.0.1:9", "slots": 1, "codecs": ["nvc"]}
    assert orchestrator.post("/workers", nobody).status_code == 200
    name = orchestrator.submit()
    worker = make_worker("w1")
    offer = worker.next_offer()
    worker.end(offer)
    document = orchestrator.until(name, "completed")
    assert outcomes(document)[0] == (1, "w0", "unreachable")
    assert outcomes(document)[-1][1:] == ("w1", "completed")


def test_sigterm_ends_it_cleanly_while_a_run_goes_on(orchestrator: Orchestrator, make_worker: Make) -> None:
    worker, name = make_worker("w1"), orchestrator.submit()
    offer = worker.next_offer()
    orchestrator.until(name, "running")
    assert orchestrator.stop() == 0
    orchestrator.start()
    assert worker.end(offer).status_code == 200
    assert outcomes(orchestrator.until(name, "completed")) == [(1, "w1", "completed")]


def test_an_event_stream_resumes_across_a_restart(orchestrator: Orchestrator, make_worker: Make) -> None:
    worker, name = make_worker("w1"), orchestrator.submit()
    offer = worker.next_offer()
    orchestrator.until(name, "running")
    stream = orchestrator.events(name)
    seen = [next(stream) for _ in range(3)]
    stream.close()
    orchestrator.restart()
    worker.end(offer)
    rest = list(orchestrator.events(name, last=seen[-1]["id"]))
    assert [event["data"]["status"] for event in seen + rest] == [
        "queued", "dispatched", "running", "completed", "completed"]


def test_with_a_key_everybody_needs_one_and_roles_are_kept(tmp_path: Path) -> None:
    state = str(tmp_path / "orchestrator")
    tokens = {}
    for role in ("client", "worker"):
        with pytest.MonkeyPatch.context() as patch:
            said: list[str] = []
            patch.setattr("builtins.print", lambda *words, said=said, **options: said.append(" ".join(map(str, words))))
            assert program.main(["keys", "--state", state, "add", "--role", role]) == 0
        tokens[role] = {"Authorization": f"Bearer {said[0]}"}
    process = Orchestrator(tmp_path, *QUICK)
    try:
        asked = [requests.post(f"{process.url}/experiment", json={}, headers=headers, timeout=PATIENCE_S).status_code
                 for headers in ({}, {"Authorization": "Bearer nck_00000000_" + "x" * 43}, tokens["worker"],
                                 tokens["client"])]
        assert asked == [401, 401, 403, 202]
        assert process.get("/health").status_code == 200
    finally:
        process.stop()
