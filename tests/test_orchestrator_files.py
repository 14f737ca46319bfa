"""Artifacts and clips of an orchestrator, over real sockets."""

from __future__ import annotations

import base64
import hashlib

import pytest
import requests

from tests.orchestrator_rig import PATIENCE_S, FakeWorker, MakeWorker, Orchestrator, problem


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
