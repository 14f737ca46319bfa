"""Services that are killed, stopped and cut off in the middle: nothing is lost, nothing is done twice over."""

from __future__ import annotations

import signal
from pathlib import Path

from deployment import Deployment, running, wait_until


def test_an_orchestrator_that_is_killed_and_started_again_loses_nothing(folder: Path) -> None:
    with Deployment(folder) as service:
        at_work, waiting = service.submit("gate"), service.submit()
        service.wait_phase(at_work, "gate")
        service.orchestrator.kill()
        service.orchestrator.start()
        service.wait_phase(at_work, "gate")  # the worker came back by itself and said so
        service.gate.touch()
        for experiment in (at_work, waiting):
            document = service.wait_end(experiment)
            assert document["status"] == "completed"
            assert [attempt["outcome"] for attempt in document["attempts"]] == ["completed"]
        found = service.conservation()
        assert (found["accepted"], found["completed"], found["holds"]) == (2, 2, True)


def test_a_result_finished_while_the_orchestrator_is_away_is_delivered_when_it_is_back(folder: Path) -> None:
    with Deployment(folder) as service:
        experiment = service.submit("gate")
        service.wait_phase(experiment, "gate")
        service.orchestrator.kill()
        service.gate.touch()
        wait_until(lambda: service.workers[0].get("/status")["outbox"], "the end of the run")
        service.orchestrator.start()
        document = service.wait_end(experiment)
        assert document["status"] == "completed"
        assert len(document["attempts"]) == 1
        wait_until(lambda: not service.workers[0].get("/status")["outbox"], "an empty outbox")


def test_a_killed_workers_run_is_repeated_on_another_with_one_result(folder: Path) -> None:
    with Deployment(folder, 2) as service:
        experiment = service.submit("gate")
        dead = service.worker_named(service.wait_phase(experiment, "gate")["attempts"][0]["worker"])
        orphans = service.codec_processes(dead)
        dead.kill()
        service.gate.touch()
        document = service.wait_end(experiment)
        assert document["status"] == "completed"
        assert [attempt["outcome"] for attempt in document["attempts"]] == ["lost", "completed"]
        assert document["attempts"][0]["worker"] != document["attempts"][1]["worker"]
        wait_until(lambda: not any(running(pid) for pid in orphans), "the end of the dead worker's codec process")
        found = service.conservation()
        assert (found["accepted"], found["completed"], found["holds"]) == (1, 1, True)


def test_a_worker_that_is_started_again_reports_what_its_death_cut_short(folder: Path) -> None:
    with Deployment(folder) as service:
        experiment = service.submit("gate")
        service.wait_phase(experiment, "gate")
        service.workers[0].kill()
        service.gate.touch()
        service.workers[0].start()
        document = service.wait_end(experiment)
        assert document["status"] == "completed"
        assert document["attempts"][0]["outcome"] in ("worker-restarted", "lost")
        assert document["attempts"][1]["outcome"] == "completed"


def test_a_worker_that_slept_past_its_lease_is_refused(folder: Path) -> None:
    with Deployment(folder, 2) as service:
        experiment = service.submit("gate")
        sleeper = service.worker_named(service.wait_phase(experiment, "gate")["attempts"][0]["worker"])
        sleeper.signal(signal.SIGSTOP)
        service.wait_for(experiment, lambda document: len(document["attempts"]) == 2)
        service.gate.touch()  # both codecs go on; the first one's worker is asleep
        document = service.wait_end(experiment)
        assert [attempt["outcome"] for attempt in document["attempts"]] == ["lost", "completed"]
        sleeper.signal(signal.SIGCONT)
        refused = wait_until(lambda: service.conservation()["refused"], "the late result")
        assert (refused[0]["run"], refused[0]["attempt"]) == (experiment, 1)
        wait_until(lambda: not sleeper.get("/status")["outbox"], "an empty outbox")
        assert sleeper.get("/status")["stale_results"] == 1
        again = service.status(experiment)
        assert again == document
        assert service.conservation()["completed"] == 1


def test_a_codec_that_holds_the_interpreter_for_longer_than_a_lease_keeps_it(folder: Path) -> None:
    with Deployment(folder) as service:
        document = service.wait_end(service.submit("spin-7"))  # more than two leases
        assert document["status"] == "completed"
        assert len(document["attempts"]) == 1


def test_a_crashing_codec_costs_its_tries_and_then_fails_with_all_of_them_told(folder: Path) -> None:
    with Deployment(folder) as service:
        document = service.wait_end(service.submit("segfault"))
        assert document["status"] == "failed"
        assert [attempt["outcome"] for attempt in document["attempts"]] == ["codec-crashed"] * 3
        assert "SIGSEGV" in document["error"]["detail"]
        assert service.wait_end(service.submit())["status"] == "completed"


def test_a_drained_worker_hands_its_run_to_another(folder: Path) -> None:
    with Deployment(folder, 2, "--drain-s", "0") as service:
        experiment = service.submit("gate")
        drained = service.worker_named(service.wait_phase(experiment, "gate")["attempts"][0]["worker"])
        assert drained.terminate() == 0
        service.gate.touch()
        document = service.wait_end(experiment)
        assert document["status"] == "completed"
        assert [attempt["outcome"] for attempt in document["attempts"]] == ["handed-back", "completed"]
