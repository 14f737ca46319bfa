"""Grids over HTTP: many runs from one request, what is told of them, and experiments made from others."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from tests.orchestrator_rig import PATIENCE_S, RESULT, FakeWorker, MakeWorker, Orchestrator


def result(offer: dict[str, Any], **hashes: str) -> dict[str, Any]:
    """What a codec measured that takes 0.1 Mbit/s for each step of quality, and gives 1 dB for it."""
    quality = offer["experiment"]["quality"]
    return {**RESULT,
            "encoding_result": {"bytes": 100 * quality, "sha256": hashes.get("stream", "a1"), "encode_s": 1.0},
            "decoding_result": {"decoded_sha256": "b2", "quality_metrics": {"psnr_y": 30.0 + quality}},
            "metrics": {"bitrate_mbps": 0.1 * quality, "bpp": 0.01 * quality, "psnr_db": 31.0 + quality, "ssim": 0.9,
                        "ms_ssim": None}}


def finish(running: Orchestrator, worker: FakeWorker, name: str, runs: int, **hashes: str) -> dict[str, Any]:
    for _ in range(runs):
        offer = worker.next_offer()
        worker.end(offer, result=result(offer, **hashes))
    return running.until(name, "completed")


def test_lists_make_runs_that_all_workers_share(running: Orchestrator, make_worker: MakeWorker) -> None:
    first = make_worker()
    workers = [first, make_worker(codec=first.codec)]
    name = running.submit(codec=[workers[0].codec], quality=[1, 2, 3, 4])
    offers = [worker.next_offer() for worker in workers]
    assert {offer["run"] for offer in offers} == {f"{name}.0", f"{name}.1"}
    assert [offer["experiment"]["quality"] for offer in sorted(offers, key=lambda offer: offer["run"])] == [1, 2]
    assert running.status(name)["counts"]["total"] == 4
    running.post(f"/experiment/{name}/cancel")


def test_what_is_done_shows_while_the_rest_runs(running: Orchestrator, worker: FakeWorker) -> None:
    name = running.submit(codec=worker.codec, quality=[1, 2, 3])
    first = worker.next_offer()
    worker.end(first, result=result(first))
    worker.next_offer()
    document = running.status(name)
    assert (document["status"], document["counts"]["completed"], document["counts"]["queued"]) == ("running", 1, 1)
    assert document["runs"][0]["metrics"]["psnr_y"] == 31.0
    assert [run["metrics"] for run in document["runs"][1:]] == [None, None]
    assert [point["run"] for point in document["curves"][0]["points"]] == [f"{name}.0"]
    running.post(f"/experiment/{name}/cancel")


def test_one_failed_run_leaves_the_others(running: Orchestrator, worker: FakeWorker) -> None:
    name = running.submit(codec=worker.codec, quality=[1, 2])
    worker.end(worker.next_offer(), "failed", error={"type": "wrong-output", "detail": "no pictures", "retry": False})
    document = finish(running, worker, name, 1)
    assert [(run["status"], run.get("error")) for run in document["runs"]] == [
        ("failed", {"type": "wrong-output", "detail": "no pictures"}), ("completed", None)]


def test_a_cancelled_sweep_ends_every_run(running: Orchestrator, worker: FakeWorker) -> None:
    name = running.submit(codec=worker.codec, quality=[1, 2, 3])
    offer = worker.next_offer()
    assert running.post(f"/experiment/{name}/cancel").status_code == 202
    assert running.status(name)["counts"]["cancelled"] == 3
    assert worker.cancels.get(timeout=30) == (offer["run"], 1)


def test_a_run_of_a_sweep_has_its_whole_document(running: Orchestrator, worker: FakeWorker) -> None:
    name = running.submit(codec=worker.codec, quality=[5, 6])
    finish(running, worker, name, 2)
    document = running.status(f"{name}.1")
    assert (document["experiment_id"], document["run"], document["status"]) == (name, f"{name}.1", "completed")
    assert (document["settings"]["quality"], document["frames"]) == (6, RESULT["frames"])


def test_a_run_of_a_sweep_has_events_of_its_own(running: Orchestrator, worker: FakeWorker) -> None:
    name = running.submit(codec=worker.codec, quality=[1, 2])
    heard: list[dict[str, Any]] = []
    listening = threading.Thread(target=lambda: heard.extend(running.events(f"{name}.1")))
    listening.start()
    for _ in range(2):
        offer = worker.next_offer()
        running.until(offer["run"], "running")      # which a quicker result would overtake
        worker.end(offer)
    listening.join(PATIENCE_S)
    assert not listening.is_alive()     # the stream ends with the run
    assert [(each["event"], each["data"]["status"]) for each in heard] == [
        ("state", "queued"), ("state", "dispatched"), ("state", "running"), ("state", "completed"),
        ("result", "completed")]
    assert {(each["data"]["experiment_id"], each["data"]["run"]) for each in heard} == {(name, f"{name}.1")}
    assert running.get(f"/experiment/{name}.1/events", headers={"Last-Event-ID": heard[-1]["id"]}).status_code == 204
    assert running.get(f"/experiment/{name}.7/events").status_code == 404


def test_bd_rates_are_there_once_curves_have_four_points(running: Orchestrator, worker: FakeWorker) -> None:
    name = running.submit(codec=worker.codec, effort=[0, 1], quality=[1, 2, 3, 4])
    found = finish(running, worker, name, 8)["bd_rate"]
    assert found["curves"] == [f"{worker.codec} effort 0", f"{worker.codec} effort 1"]
    assert (found["metrics"]["psnr_y"]["mean"][0][1]["percent"], found["metrics"]["ms_ssim_db"]["mean"][0][1]) == (
        0.0, {"percent": None, "overlap": 0.0, "clips": 0, "interval_95": None,
              "reason": f"{worker.codec} effort 0 has no ms_ssim_db"})


def test_a_sweep_in_a_list_says_how_far_its_runs_are(running: Orchestrator, worker: FakeWorker) -> None:
    name = running.submit(codec=worker.codec, quality=[1, 2], tags={"test": "list"})
    finish(running, worker, name, 2)
    [row] = running.get("/experiments?tag=test:list").json()["experiments"]
    assert (row["quality"], row["runs"]["total"], row["runs"]["completed"], row["metrics"]) == ([1, 2], 2, 2, None)


@pytest.mark.parametrize(("fields", "status", "field"), [
    ({"quality": [1, 1]}, 422, "quality"), ({"clip": ["carphone", "no-such-clip"]}, 422, "clip"),
    ({"codec": ["no-such-codec"]}, 422, "codec"), ({"intra_period": [1, 2]}, 422, "intra_period"),
])
def test_a_wrong_grid_is_refused_whole(running: Orchestrator, worker: FakeWorker, fields: dict[str, Any], status: int,
                                       field: str) -> None:
    before = running.conservation()["accepted"]
    answer = running.post("/experiment", {"codec": worker.codec, **fields})
    assert (answer.status_code, answer.json()["field"], running.conservation()["accepted"]) == (status, field, before)


@pytest.mark.parametrize("fields", [{"quality": 7}, {"quality": [7, 8]}])
def test_a_rerun_says_that_every_hash_matches(running: Orchestrator, worker: FakeWorker, fields: dict[str, Any]
                                              ) -> None:
    name = running.submit(codec=worker.codec, **fields)
    runs = len(fields["quality"]) if isinstance(fields["quality"], list) else 1
    finish(running, worker, name, runs)
    again = running.post(f"/experiment/{name}/rerun").json()["experiment_id"]
    assert running.status(again)["rerun"] == {
        "of": name, "matches": None, "compared": 0, "waiting": runs, "differences": []}
    assert finish(running, worker, again, runs)["rerun"] == {
        "of": name, "matches": True, "compared": runs, "waiting": 0, "differences": []}


def test_a_rerun_names_the_runs_that_differ(running: Orchestrator, worker: FakeWorker) -> None:
    name = running.submit(codec=worker.codec, quality=[7, 8])
    finish(running, worker, name, 2)
    again = running.post(f"/experiment/{name}.1/rerun").json()["experiment_id"]
    assert finish(running, worker, again, 1, stream="ff")["rerun"] == {
        "of": f"{name}.1", "matches": False, "compared": 1, "waiting": 0,
        "differences": [{"run": again, "of": f"{name}.1", "what": ["stream"]}]}


def test_a_clone_takes_changes_and_says_of_what_it_is_one(running: Orchestrator, worker: FakeWorker) -> None:
    name = running.submit(codec=worker.codec, quality=[7, 8], label="first")
    clone = running.post(f"/experiment/{name}/clone", {"quality": 9}).json()["experiment_id"]
    document = running.status(clone)
    assert (document["clone_of"], document["settings"]["quality"], document["settings"]["label"]) == (name, 9, "first")
    for made in (name, clone):
        running.post(f"/experiment/{made}/cancel")


def test_wrong_clones_and_reruns_are_refused(running: Orchestrator, worker: FakeWorker) -> None:
    name = running.submit(codec=worker.codec)
    told = [running.post(f"/experiment/{of}/{what}", body) for of, what, body in (
        (name, "clone", {"qualty": 1}), (name, "rerun", {"quality": 1}), ("exp_1_abcdef", "rerun", None))]
    assert [(answer.status_code, answer.json().get("field")) for answer in told] == [
        (422, "qualty"), (422, "quality"), (404, None)]
    running.post(f"/experiment/{name}/cancel")


def test_a_rerun_under_one_key_is_made_once(running: Orchestrator, worker: FakeWorker) -> None:
    name = running.submit(codec=worker.codec)
    made = {running.post(f"/experiment/{name}/rerun", headers={"Idempotency-Key": "again"}).json()["experiment_id"]
            for _ in range(2)}
    assert len(made) == 1
    for each in (name, *made):
        running.post(f"/experiment/{each}/cancel")


def test_a_sweep_survives_a_restart(running: Orchestrator, worker: FakeWorker) -> None:
    name = running.submit(codec=worker.codec, quality=[1, 2])
    offer = worker.next_offer()
    running.until(f"{name}.0", "running")
    running.restart()
    worker.end(offer, result=result(offer))
    assert [run["status"] for run in finish(running, worker, name, 1)["runs"]] == ["completed", "completed"]
