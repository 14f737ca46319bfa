"""The orchestrator as a process over real sockets: what clients and workers may say, and what they are told."""

from __future__ import annotations

import base64
import hashlib
import itertools
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

import orchestrator as program
import service
from control import openapi
from control.problems import ERRORS
from tests.orchestrator_rig import PATIENCE_S, RESULT, ROOT, FakeWorker, Orchestrator

MakeWorker = Callable[..., FakeWorker]
_names = itertools.count(1)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orchestrator]:
    process = Orchestrator(tmp_path_factory.mktemp("running"), "--lease-s", "5", "--heartbeat-s", "0.2")
    yield process
    assert process.stop() == 0


@pytest.fixture
def make_worker(running: Orchestrator) -> Iterator[MakeWorker]:
    """Workers with a codec of their own, so that tests do not take each other's runs."""
    made: list[FakeWorker] = []

    def make(**options: Any) -> FakeWorker:
        number = next(_names)
        made.append(FakeWorker(running, f"w{number}", **{"codec": f"codec{number}", **options}))
        return made[-1]

    yield make
    for worker in made:
        worker.register(draining=True)
        worker.stop()


@pytest.fixture
def worker(make_worker: MakeWorker) -> FakeWorker:
    return make_worker()


@pytest.fixture
def closed(make_worker: MakeWorker) -> FakeWorker:
    """A worker without a slot: what is submitted for its codec stays queued."""
    return make_worker(slots=0)


def problem(answer: requests.Response) -> tuple[int, str, str | None]:
    assert answer.headers["Content-Type"] == "application/problem+json", answer.text
    return answer.status_code, answer.json()["type"].rsplit("/", 1)[1], answer.json().get("field")


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
    assert experiment == running.status(name)["settings"]


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


# --- artifacts and clips


@pytest.fixture
def artifact(running: Orchestrator, worker: FakeWorker) -> tuple[str, bytes]:
    """The path of an artifact, and its bytes."""
    data = bytes(range(256)) * 40
    name = running.submit(codec=worker.codec)
    worker.end(worker.next_offer(), artifacts={"stream.nvc": worker.store(data)})
    return f"/experiment/{name}/artifacts/stream.nvc", data


def test_an_artifact_carries_its_digest(running: Orchestrator, artifact: tuple[str, bytes]) -> None:
    path, data = artifact
    answer = running.get(path)
    digest = hashlib.sha256(data)
    assert (answer.content, answer.headers["ETag"], answer.headers["Repr-Digest"]) == (
        data, f'"{digest.hexdigest()}"', f"sha-256=:{base64.b64encode(digest.digest()).decode()}:")


@pytest.mark.parametrize(("wanted", "first", "last"), [("bytes=0-9", 0, 9), ("bytes=10000-", 10000, 10239),
                                                       ("bytes=-5", 10235, 10239)])
def test_a_part_of_an_artifact(running: Orchestrator, artifact: tuple[str, bytes], wanted: str, first: int, last: int
                               ) -> None:
    path, data = artifact
    answer = running.get(path, headers={"Range": wanted})
    assert (answer.status_code, answer.content, answer.headers["Content-Range"]) == (
        206, data[first:last + 1], f"bytes {first}-{last}/{len(data)}")


def test_an_artifact_that_is_known_already_is_not_sent(running: Orchestrator, artifact: tuple[str, bytes]) -> None:
    path, data = artifact
    tag = f'"{hashlib.sha256(data).hexdigest()}"'
    assert running.get(path, headers={"If-None-Match": tag}).status_code == 304


def test_an_artifact_that_is_not_there_is_404(running: Orchestrator, artifact: tuple[str, bytes]) -> None:
    assert problem(running.get(artifact[0] + "x"))[:2] == (404, "unknown-artifact")


def test_an_artifact_under_another_name_than_its_digest_is_refused(running: Orchestrator) -> None:
    answer = requests.put(f"{running.url}/artifacts/{'0' * 64}", data=b"x", timeout=PATIENCE_S)
    assert problem(answer) == (422, "digest-mismatch", "sha256")


def y4m(width: int = 16, height: int = 16, frames: int = 2) -> bytes:
    picture = b"FRAME\n" + bytes([128]) * (width * height * 3 // 2)
    return f"YUV4MPEG2 W{width} H{height} F25:1 C420\n".encode() + picture * frames


def test_an_uploaded_clip_is_checked_listed_and_given_to_workers(running: Orchestrator, worker: FakeWorker) -> None:
    data = y4m()
    digest = hashlib.sha256(data).hexdigest()
    answer = requests.put(f"{running.url}/clips/grey.y4m", data=data, timeout=PATIENCE_S)
    assert (answer.status_code, answer.headers["Location"]) == (201, "/clips/grey.y4m")
    clip = running.get("/clips/grey.y4m").json()
    assert [clip[field] for field in ("sha256", "bytes", "width", "height", "fps", "frames", "source")] == [
        digest, len(data), 16, 16, "25/1", 2, "uploaded"]
    for name in ("grey.y4m", f"sha256:{digest}"):
        running.submit(codec=worker.codec, clip=name)
        offer = worker.next_offer()
        worker.end(offer)
        assert offer["clip"] == {"name": "grey.y4m", "sha256": digest,
                                 "url": f"{running.url}/clips/sha256:{digest}/data"}
    assert requests.get(offer["clip"]["url"], timeout=PATIENCE_S).content == data


def test_a_run_keeps_the_bytes_that_its_clips_name_meant(running: Orchestrator, make_worker: MakeWorker) -> None:
    worker = make_worker(slots=0)
    before, after = y4m(), y4m(frames=3)
    assert requests.put(f"{running.url}/clips/moving.y4m", data=before, timeout=PATIENCE_S).status_code == 201
    running.submit(codec=worker.codec, clip="moving.y4m")
    assert requests.put(f"{running.url}/clips/moving.y4m", data=after, timeout=PATIENCE_S).status_code == 200
    worker.slots = 1
    offer = worker.next_offer()
    worker.end(offer)
    assert offer["clip"]["sha256"] == hashlib.sha256(before).hexdigest()
    assert requests.get(offer["clip"]["url"], timeout=PATIENCE_S).content == before


@pytest.mark.parametrize(("name", "data", "expected"), [
    ("text.txt", b"no video at all", (422, "not-a-video")),
    ("empty", b"", (422, "not-a-video")),
    ("cut.y4m", y4m()[:-100], (422, "not-a-video")),
    ("carphone", y4m(), (409, "name-reserved")),
    (".hidden", y4m(), (409, "name-reserved")),
])
def test_what_is_no_clip_is_not_kept(running: Orchestrator, name: str, data: bytes, expected: tuple[int, str]) -> None:
    answer = requests.put(f"{running.url}/clips/{name}", data=data, timeout=PATIENCE_S)
    assert problem(answer)[:2] == expected
    assert name in ("carphone", ".hidden") or running.get(f"/clips/{name}").status_code == 404


def test_the_library_is_listed_with_size_rate_and_length(running: Orchestrator) -> None:
    listed = {clip["name"]: clip for clip in running.get("/clips").json()["clips"]}
    assert [listed["carphone"][field] for field in ("width", "height", "fps", "frames", "source")] == [
        176, 144, "30000/1001", 120, "library"]


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


# --- what is told of the whole


def test_conservation_says_why_each_unfinished_run_waits(running: Orchestrator, make_worker: MakeWorker) -> None:
    worker = make_worker(beating=False)
    held, queued = running.submit(codec=worker.codec), running.submit(codec=worker.codec)
    offer = worker.next_offer()
    running.until(held, "running")
    rows = {row["run"]: row for row in running.conservation()["unfinished"]}
    assert (rows[held]["owner"], rows[held]["attempt"], rows[held]["next_action"]) == (
        f"worker {worker.name}", 1, "a heartbeat renews the lease, or it is taken back")
    assert 0 < rows[held]["lease_s_left"] <= 5
    assert (rows[queued]["owner"], rows[queued]["why"]) == (
        "orchestrator", "all 1 slots of the workers that can take it are taken")
    running.post(f"/experiment/{queued}/cancel")
    worker.end(offer)


def test_health_names_what_old_scripts_read(running: Orchestrator) -> None:
    document = running.get("/health").json()
    assert sorted(document) == ["queued", "running", "status", "uptime_s", "version", "workers"]
    assert document["status"] == "ok"


def test_readiness_is_told_in_detail_when_asked(running: Orchestrator) -> None:
    assert running.get("/readyz?verbose").json() == {
        "status": "ready", "checks": {"draining": "no", "database": "writable", "placing": "alive"}}


def test_metrics_count_runs_by_state(running: Orchestrator) -> None:
    answer = running.get("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    counts = running.conservation()
    assert f'nvc_runs{{state="completed"}} {counts["completed"]}' in answer.text.splitlines()
    assert "nvc_conservation_difference 0" in answer.text.splitlines()


def test_the_openapi_document_has_every_route_and_no_other(running: Orchestrator) -> None:
    served = running.get("/openapi.json").json()
    assert served["openapi"] == "3.1.0"
    assert {(method.upper(), path) for path, methods in served["paths"].items() for method in methods} == set(
        openapi.OPERATIONS)


def test_a_route_without_a_description_is_an_error() -> None:
    routes = service.Routes()
    routes.add("GET", "/new", lambda request: service.Response())
    with pytest.raises(ValueError, match="/new"):
        openapi.describe(routes)


# --- the program


def test_a_second_orchestrator_on_the_same_state_refuses_to_start(running: Orchestrator) -> None:
    done = subprocess.run([sys.executable, "orchestrator.py", "--port", "0", "--state", str(running.state)], cwd=ROOT,
                          capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f"orchestrator.py: the state directory {running.state} is in use by process {running.process.pid}")


def test_show_config_prints_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        program.main(["--show-config", "--lease-s", "7"])
    shown = capsys.readouterr().out
    assert (caught.value.code, "lease_s = 7.0" in shown, "port = 8081" in shown) == (0, True, True)


def test_keys_are_made_listed_and_revoked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def keys(*words: str) -> str:
        assert program.main(["keys", "--state", str(tmp_path), *words]) == 0
        return capsys.readouterr().out

    token = keys("add", "--role", "worker", "--label", "host b").strip()
    name = token.split("_")[1]
    assert keys("list").split()[:2] == [name, "worker"]
    assert token not in keys("list")
    assert keys("revoke", name) == f"{name} is revoked\n"
    assert "revoked" in keys("list")
    assert program.main(["keys", "--state", str(tmp_path), "revoke", name]) == 1


DOCUMENT = (ROOT / "docs" / "orchestrator.md").read_text(encoding="utf-8")


def test_every_setting_is_in_the_docs_with_its_default() -> None:
    told = {line.split(" | ")[0].strip("| `"): line for line in DOCUMENT.splitlines() if line.startswith("| `")}
    inherited = {row.name for row in service.rows(service.ServerSettings)} - {"port"}
    for row in service.rows(program.OrchestratorSettings):
        if row.name not in inherited:
            default = f"`{row.default}`" if row.default is not None and str(row.default) else ""
            assert told[row.name] == f"| `{row.name}` | {default} | {row.unit} | {row.reason} |"


def test_every_problem_is_in_the_docs_with_its_status() -> None:
    sources = [ROOT / "orchestrator.py", *ROOT.glob("control/*.py")]
    source = "".join(path.read_text(encoding="utf-8") for path in sources)
    raised = {(slug, status) for status, slug in re.findall(r'Problem\((\d{3}), "([a-z-]+)"', source)}
    raised |= {(slug, str(status)) for _, status, slug in ERRORS}
    told = {(slug, status) for slug, statuses in re.findall(r"^\| `([a-z-]+)` \| ([\d, ]+) \|", DOCUMENT, re.MULTILINE)
            for status in statuses.split(", ")}
    assert raised - told == set()
