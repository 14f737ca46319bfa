"""The orchestrator as a process over real sockets: what clients may say, and what they are told."""

from __future__ import annotations

import re
import threading

import pytest
import requests

from service.api.submissions import Submissions
from service.http.exchange import Request
from tests.orchestrator_rig import PATIENCE_S, RESULT, FakeWorker, Orchestrator, problem

# --- submitting


def test_a_submission_is_accepted_with_the_place_to_look(running: Orchestrator, closed: FakeWorker) -> None:
    answer = running.post("/experiment", {"codec": closed.codec})
    name = answer.json()["experiment_id"]
    assert (answer.status_code, answer.headers["Location"], answer.headers["Retry-After"], answer.json()["status"]) == (
        202, f"/experiment/{name}/status", "1", "queued")


def test_a_submission_by_bare_curl_is_accepted(running: Orchestrator, closed: FakeWorker) -> None:
    answer = requests.post(f"{running.url}/experiment", data=f'{{"codec": "{closed.codec}"}}', timeout=PATIENCE_S,
                           headers={"Content-Type": "application/x-www-form-urlencoded"})
    assert answer.status_code == 202


def test_a_run_goes_from_submission_to_its_whole_document(running: Orchestrator, worker: FakeWorker) -> None:
    name = running.submit(codec=worker.codec, quality=20)
    offer = worker.next_offer()
    stream = worker.store(b"coded")
    assert worker.end(offer, artifacts={"stream.nvc": stream}).json() == {
        "run": name, "attempt": 1, "status": "completed"}
    document = running.status(name)
    assert document["status"] == "completed"
    assert document["encoding_result"] == {
        "compressed_data": f"/experiment/{name}/artifacts/stream.nvc", "bytes": 5, "encode_s": 0.1}
    assert document["decoding_result"]["reconstructed_video"] is None
    assert {field: document[field] for field in ("metrics", "frames", "clip", "provenance")} == {
        field: RESULT[field] for field in ("metrics", "frames", "clip", "provenance")}
    assert (document["settings"]["quality"], document["settings"]["effort"]) == (20, 0)
    assert [(entry["attempt"], entry["worker"], entry["outcome"]) for entry in document["attempts"]] == [
        (1, worker.name, "completed")]
    times = [document["timeline"][event] for event in ("accepted", "dispatched", "started", "finished")]
    assert times == sorted(times)


def test_the_offer_tells_the_worker_everything(running: Orchestrator, worker: FakeWorker) -> None:
    name = running.submit(codec=worker.codec, timeout_s=7)
    offer = worker.next_offer()
    worker.end(offer)
    experiment = offer.pop("experiment")
    assert offer == {"run": name, "attempt": 1, "clip": {"name": "carphone", "sha256": None, "url": None},
                     "callback": running.url, "lease_s": 5.0, "timeout_s": 7}
    assert experiment == {field: value for field, value in running.status(name)["settings"].items()
                          if field not in ("preset", "measures", "segments")}


def test_fields_that_workers_of_earlier_versions_do_not_know_are_sent_where_they_are_used(
        running: Orchestrator, worker: FakeWorker) -> None:
    running.submit(codec=worker.codec, preset="fast", measures=["psnr"])
    offer = worker.next_offer()
    worker.end(offer)
    assert (offer["experiment"]["preset"], offer["experiment"]["measures"]) == ("fast", ["psnr"])


@pytest.mark.parametrize(("body", "expected"), [
    (b'{"qualty": 3}', (422, "unknown-field", "qualty")),
    (b'{"quality": "high"}', (422, "invalid-field", "quality")),
    (b'{"quality": 64}', (422, "invalid-field", "quality")),
    (b'{"quality": 3, "psnr_db": 40}', (422, "invalid-field", "psnr_db")),
    (b'{"clip": "no-such-clip"}', (422, "unknown-clip", "clip")),
    (b'{"clip": "https://example.org/a.mkv"}', (422, "clip-not-fetched", "clip")),
    (b'{"codec": "no-such-codec"}', (422, "unknown-codec", "codec")),
    (b'{"quality": 3', (400, "invalid-json", None)),
    (b'{"quality": 3, "quality": 4}', (400, "invalid-json", "quality")),
    (b'{"quality": NaN}', (400, "invalid-json", None)),
    (b"[]", (400, "invalid-json", None)),
    (b"\xff", (400, "invalid-json", None)),
])
def test_a_wrong_submission_is_refused_by_name_and_not_kept(running: Orchestrator, closed: FakeWorker, body: bytes,
                                                            expected: tuple[int, str, str | None]) -> None:
    before = running.conservation()["accepted"]
    answer = requests.post(f"{running.url}/experiment", data=body, timeout=PATIENCE_S,
                           headers={"Content-Type": "application/json"})
    assert (problem(answer), running.conservation()["accepted"]) == (expected, before)


def test_the_same_idempotency_key_gives_the_same_experiment(running: Orchestrator, closed: FakeWorker) -> None:
    before = running.conservation()["accepted"]
    answers = [running.post("/experiment", {"codec": closed.codec}, headers={"Idempotency-Key": "once"})
               for _ in range(3)]
    assert [answer.status_code for answer in answers] == [202, 202, 202]
    assert len({answer.json()["experiment_id"] for answer in answers}) == 1
    assert [answer.headers.get("Idempotency-Replayed") for answer in answers] == [None, "true", "true"]
    assert running.conservation()["accepted"] == before + 1


def test_the_order_of_fields_does_not_make_another_body(running: Orchestrator, closed: FakeWorker) -> None:
    bodies = (f'{{"codec": "{closed.codec}", "effort": 1}}', f'{{"effort":1,"codec":"{closed.codec}"}}')
    first, second = (requests.post(
        f"{running.url}/experiment", data=body, timeout=PATIENCE_S,
        headers={"Idempotency-Key": "order", "Content-Type": "application/json"}) for body in bodies)
    assert first.json()["experiment_id"] == second.json()["experiment_id"]


def test_an_idempotency_key_with_another_body_is_refused(running: Orchestrator, closed: FakeWorker) -> None:
    for effort, status in ((1, 202), (2, 422)):
        answer = running.post("/experiment", {"codec": closed.codec, "effort": effort},
                              headers={"Idempotency-Key": "conflict"})
        assert answer.status_code == status
    assert problem(answer)[1] == "idempotency-key-reused"


def test_an_empty_idempotency_key_is_refused(running: Orchestrator) -> None:
    assert problem(running.post("/experiment", {}, headers={"Idempotency-Key": ""})) == (
        400, "invalid-idempotency-key", "Idempotency-Key")


def test_prefer_wait_answers_with_the_result(running: Orchestrator, worker: FakeWorker) -> None:
    threading.Thread(target=lambda: worker.end(worker.next_offer()), daemon=True).start()
    answer = running.post("/experiment", {"codec": worker.codec}, headers={"Prefer": "wait=30"})
    assert (answer.status_code, answer.json()["status"], answer.headers["Preference-Applied"]) == (
        200, "completed", "wait=30")


def test_prefer_wait_that_is_over_first_answers_202(running: Orchestrator, closed: FakeWorker) -> None:
    answer = running.post("/experiment", {"codec": closed.codec}, headers={"Prefer": "wait=0"})
    assert (answer.status_code, answer.json()["status"]) == (202, "queued")


# --- status


def test_an_unknown_experiment_is_404_everywhere(running: Orchestrator) -> None:
    for path in ("status", "events", "artifacts/stream.nvc"):
        assert problem(running.get(f"/experiment/exp_1_abcdef/{path}"))[:2] == (404, "unknown-experiment")
    assert problem(running.post("/experiment/exp_1_abcdef/cancel"))[:2] == (404, "unknown-experiment")


def test_a_status_that_has_not_changed_is_304(running: Orchestrator, closed: FakeWorker) -> None:
    path = f"/experiment/{running.submit(codec=closed.codec)}/status"
    tag = running.get(path).headers["ETag"]
    assert running.get(path, headers={"If-None-Match": tag}).status_code == 304


def test_prefer_wait_on_a_status_answers_when_it_changes(running: Orchestrator, worker: FakeWorker) -> None:
    name = running.submit(codec=worker.codec)
    offer = worker.next_offer()
    running.until(name, "running")
    assert worker.progress(offer, frame=7).status_code == 200
    document = running.status(name)
    for _ in range(4):      # changes that came before are told first; the one awaited is among the next few
        if document.get("progress", {}).get("frame") == 7:
            break
        document = running.get(f"/experiment/{name}/status", headers={"Prefer": "wait=10"}).json()
    worker.end(offer)
    assert (document["status"], document["progress"]["frame"]) == ("running", 7)


def test_experiments_are_listed_newest_first_in_pages(running: Orchestrator, closed: FakeWorker) -> None:
    names = [running.submit(codec=closed.codec, tags={"test": "pages"}) for _ in range(3)]
    first = running.get("/experiments?tag=test:pages&limit=2").json()
    second = running.get(f"/experiments?tag=test:pages&limit=2&cursor={first['next_cursor']}").json()
    assert [item["experiment_id"] for item in first["experiments"] + second["experiments"]] == names[::-1]
    assert second["next_cursor"] is None


@pytest.mark.parametrize(("query", "field"), [("state=done", "state"), ("limit=0", "limit"), ("limit=x", "limit"),
                                              ("cursor=-1", "cursor"), ("colour=red", "colour")])
def test_a_wrong_query_is_refused_by_name(running: Orchestrator, query: str, field: str) -> None:
    status, _, named = problem(running.get(f"/experiments?{query}"))
    assert (status, named) == (400, field)


# --- events


def test_events_tell_the_whole_story_in_order(running: Orchestrator, worker: FakeWorker) -> None:
    name = running.submit(codec=worker.codec)
    stream = running.events(name)
    told = [next(stream)]
    offer = worker.next_offer()
    told += [next(stream), next(stream)]
    worker.progress(offer, frame=3)
    progress = next(stream)
    worker.end(offer)
    told += list(stream)
    assert [(item["event"], item["data"]["status"]) for item in told] == [
        ("state", "queued"), ("state", "dispatched"), ("state", "running"), ("state", "completed"),
        ("result", "completed")]
    assert (progress["event"], progress["data"]["frame"], progress["data"]["fraction"]) == ("progress", 3, 0.5)
    assert told[-1]["data"]["metrics"] == RESULT["metrics"]
    numbers = [int(item["id"]) for item in told]
    assert numbers == sorted(set(numbers))


def test_events_are_replayed_after_the_last_one_seen(running: Orchestrator, worker: FakeWorker) -> None:
    name = running.submit(codec=worker.codec)
    worker.end(worker.next_offer())
    whole = list(running.events(name))
    assert list(running.events(name, last=whole[1]["id"])) == whole[2:]


def test_a_stream_that_has_been_read_to_its_end_is_not_opened_again(running: Orchestrator, worker: FakeWorker) -> None:
    name = running.submit(codec=worker.codec)
    worker.end(worker.next_offer())
    last = list(running.events(name))[-1]["id"]
    assert running.get(f"/experiment/{name}/events", headers={"Last-Event-ID": last}).status_code == 204


# --- cancelling


def test_a_queued_run_is_cancelled_at_once_and_twice_is_once(running: Orchestrator, closed: FakeWorker) -> None:
    name = running.submit(codec=closed.codec)
    for _ in range(2):
        answer = running.post(f"/experiment/{name}/cancel")
        assert (answer.status_code, answer.json()["status"]) == (202, "cancelled")
    assert running.status(name)["attempts"] == []


def test_cancelling_a_running_run_reaches_its_worker(running: Orchestrator, worker: FakeWorker) -> None:
    name = running.submit(codec=worker.codec)
    offer = worker.next_offer()
    assert running.post(f"/experiment/{name}/cancel").status_code == 202
    assert worker.cancels.get(timeout=PATIENCE_S) == (name, 1)
    assert running.status(name)["status"] == "cancelled"
    assert problem(worker.end(offer))[:2] == (409, "stale-attempt")
    assert running.status(name)["error"] == {"type": "cancelled", "detail": "asked by the client"}


def test_the_worker_hears_of_a_cancel_by_its_heartbeat_too(running: Orchestrator, worker: FakeWorker) -> None:
    name = running.submit(codec=worker.codec)
    worker.next_offer()
    running.post(f"/experiment/{name}/cancel")
    assert worker.unknown.get(timeout=PATIENCE_S) == (name, 1)


def test_what_has_ended_cannot_be_cancelled(running: Orchestrator, worker: FakeWorker) -> None:
    name = running.submit(codec=worker.codec)
    worker.end(worker.next_offer())
    assert problem(running.post(f"/experiment/{name}/cancel"))[:2] == (409, "already-finished")


def test_a_run_cancelled_at_its_worker_is_cancelled(running: Orchestrator, worker: FakeWorker) -> None:
    name = running.submit(codec=worker.codec)
    assert worker.end(worker.next_offer(), "cancelled").status_code == 200
    assert running.status(name)["status"] == "cancelled"


def test_a_failure_that_is_reported_twice_is_counted_once(running: Orchestrator, worker: FakeWorker) -> None:
    def failed() -> float:
        return float(re.search(r'^nvc_runs_ended_total\{state="failed"\} (.*)$', running.get("/metrics").text,
                               re.MULTILINE)[1])

    running.submit(codec=worker.codec)
    offer, error = worker.next_offer(), {"type": "codec-error", "detail": "x", "retry": False}
    worker.end(offer, "failed", error=error)
    once = failed()
    assert worker.end(offer, "failed", error=error).status_code == 200
    assert failed() == once


@pytest.mark.parametrize(("body", "fetches"), [
    (b'{"clip": "https://a.example/x.mp4"}', True), (b'{"clip": "\\u0068ttps://a.example/x"}', True),
    (b'{"clip": ["carphone", "https://a.example/x"]}', True), (b'{"label": "a \\"b\\" \\u00e9"}', False),
    (b'{"label": "see https://a.example"}', False), (b'{"clip": ', False)])
def test_only_a_clip_from_an_address_makes_a_submission_a_transfer(body: bytes, fetches: bool) -> None:
    assert Submissions.fetches(Request(body=body)) is fetches
