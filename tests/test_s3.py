"""Clips and artifacts in S3, against a server on loopback that speaks its protocol."""

from __future__ import annotations

import hashlib
import io
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from orchestrator_rig import ROOT, FakeWorker, Orchestrator
from synthetic import info_of, moving

from service import s3
from service.s3 import BadAddress, Bucket, NoObject, S3Error
from service.storage.blobs import Blobs
from video.containers import VideoWriter

boto3 = pytest.importorskip("boto3", reason="boto3 is not installed (requirements-s3.txt)")
moto = pytest.importorskip("moto.server")
PATIENCE_S = 30.0


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    made = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    made.start()
    host, port = made.get_host_and_port()
    yield f"http://{host}:{port}"
    made.stop()


@pytest.fixture
def aws(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of the server's, with the buckets `lab` and `films`; credentials come from the environment."""
    for name, value in {"AWS_ENDPOINT_URL_S3": server, "AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "hush-hush",
                        "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(s3, "_client", None)
    client = boto3.client("s3")
    for name in ("lab", "films"):
        client.create_bucket(Bucket=name)
    yield client
    requests.post(f"{server}/moto-api/reset", timeout=PATIENCE_S)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def put(bucket: Bucket, folder: Path, data: bytes) -> str:
    (folder / "file").write_bytes(data)
    bucket.put(folder / "file", digest(data))
    return digest(data)


# --- the store


def test_what_was_put_is_there_under_its_digest(aws: Any, tmp_path: Path) -> None:
    bucket = Bucket("s3://lab/nvc")
    name = put(bucket, tmp_path, b"some bytes")
    assert bucket.size(name) == 10
    out = io.BytesIO()
    assert bucket.read(name, out) == (10, name)
    assert out.getvalue() == b"some bytes"
    [found] = aws.list_objects_v2(Bucket="lab")["Contents"]
    assert found["Key"] == f"nvc/{name[:2]}/{name}"


def test_nothing_is_there_before(aws: Any) -> None:
    bucket = Bucket("s3://lab")
    assert bucket.size("ab" * 32) is None
    with pytest.raises(NoObject, match=rf"s3://lab/ab/{'ab' * 32}: there is no such object"):
        bucket.read("ab" * 32, io.BytesIO())


def test_an_object_whose_digest_the_service_has_not_checked_does_not_count(aws: Any) -> None:
    aws.put_object(Bucket="lab", Key=f"{'ab'}/{'ab' * 32}", Body=b"somebody else's")
    assert Bucket("s3://lab").size("ab" * 32) is None


def test_an_object_is_removed_by_its_age(aws: Any, tmp_path: Path) -> None:
    bucket = Bucket("s3://lab/x")
    name = put(bucket, tmp_path, b"1")
    assert [*bucket.older_than(3600)] == []
    assert [*bucket.older_than(-60)] == [name]
    bucket.remove(name)
    assert bucket.size(name) is None


def test_a_presigned_address_gives_the_bytes_without_a_key(aws: Any, tmp_path: Path) -> None:
    bucket = Bucket("s3://lab")
    address = bucket.presigned(put(bucket, tmp_path, b"shown"), "a.nvc", "application/octet-stream")
    assert requests.get(address, timeout=PATIENCE_S).content == b"shown"
    assert "hush-hush" not in address


@pytest.mark.parametrize("address", ["lab", "s3://", "s3://L", "s3://id:secret@lab/x", "s3://lab?x", "https://lab/x"])
def test_an_address_of_another_form_is_refused(address: str) -> None:
    with pytest.raises(BadAddress, match="expected s3://bucket or s3://bucket/prefix"):
        Bucket(address)


# --- what goes wrong


def test_a_bucket_that_is_not_there_is_named(aws: Any) -> None:
    with pytest.raises(S3Error, match=r"^s3://nobody: there is no such bucket$"):
        Bucket("s3://nobody").check()


def test_an_object_that_is_too_large_is_not_read(aws: Any) -> None:
    aws.put_object(Bucket="films", Key="a.mkv", Body=bytes(100))
    with pytest.raises(S3Error, match=r"s3://films/a\.mkv: it has 100 bytes, more than the 99 that are allowed"):
        s3.fetch("s3://films/a.mkv", io.BytesIO(), 99)


def test_a_service_that_does_not_answer_is_asked_three_times_and_no_more(
        aws: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{closed.getsockname()[1]}")
        monkeypatch.setattr(s3, "_client", None)
        with pytest.raises(S3Error, match=r"s3://lab.*: no answer after 3 tries: EndpointConnectionError") as error:
            Bucket("s3://lab").check()
    assert "hush-hush" not in str(error.value)


def test_without_credentials_it_says_where_they_are_looked_for(aws: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setattr(s3, "_client", None)
    with pytest.raises(S3Error, match="no credentials were found"):
        Bucket("s3://lab").check()


def test_without_boto3_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "_client", None)
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(S3Error, match=r"boto3 is not installed: pip install -r requirements-s3\.txt"):
        Bucket("s3://lab")


def test_an_answer_that_breaks_off_leaves_nothing_kept(aws: Any, tmp_path: Path,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = Bucket("s3://lab")
    blobs = Blobs(tmp_path / "state", bucket)
    name = put(bucket, tmp_path, bytes(5000))
    whole = s3.call

    def torn(operation: str, what: str, **parameters: Any) -> Any:
        answer = whole(operation, what, **parameters)
        if operation == "get_object":
            answer["Body"].read(1000)   # so much fewer come
        return answer

    monkeypatch.setattr(s3, "call", torn)
    with pytest.raises(S3Error, match="it broke off after 4000 of 5000 bytes"):
        blobs.local(name)
    assert not blobs.path(name).exists()
    assert [*(tmp_path / "state" / "incoming").iterdir()] == []


def test_an_object_that_was_changed_is_not_taken_for_the_other(aws: Any, tmp_path: Path) -> None:
    bucket = Bucket("s3://lab")
    name = put(bucket, tmp_path, b"as it was")
    aws.put_object(Bucket="lab", Key=f"{name[:2]}/{name}", Body=b"otherwise")
    with pytest.raises(S3Error, match="have another SHA-256"):
        Blobs(tmp_path / "state", bucket).local(name)


# --- with the services


@pytest.fixture
def orchestrator(aws: Any, tmp_path: Path) -> Iterator[Orchestrator]:
    process = Orchestrator(tmp_path, "--lease-s", "5", "--heartbeat-s", "0.2", "--artifacts", "s3://lab/nvc",
                           "--fetch-buckets", "films")
    yield process
    assert process.stop() == 0
    assert "hush-hush" not in str(process.log())


def clip(folder: Path) -> bytes:
    pictures = moving(2)
    with VideoWriter(folder / "a.mkv", info_of(pictures)) as writer:
        for picture in pictures:
            writer.write(picture)
    return (folder / "a.mkv").read_bytes()


def test_a_clip_comes_from_a_bucket_and_its_artifacts_go_there(aws: Any, orchestrator: Orchestrator,
                                                               tmp_path: Path) -> None:
    data = clip(tmp_path)
    aws.put_object(Bucket="films", Key="new/a.mkv", Body=data)
    worker = FakeWorker(orchestrator, "w1")
    name = orchestrator.submit(codec="nvc", clip="s3://films/new/a.mkv")
    offer = worker.next_offer()
    assert (offer["clip"]["name"], offer["clip"]["sha256"]) == ("s3://films/new/a.mkv", digest(data))
    assert Bucket("s3://lab/nvc").size(digest(data)) == len(data)
    stream = put(Bucket("s3://lab/nvc"), tmp_path, b"coded")       # as a worker with --artifacts does
    worker.end(offer, artifacts={"stream.nvc": {"sha256": stream, "bytes": 5}})
    orchestrator.until(name, "completed")
    assert orchestrator.get(f"/experiment/{name}/artifacts/stream.nvc", headers={"Range": "bytes=1-2"}).content == b"od"
    redirected = orchestrator.get(f"/experiment/{name}/artifacts/stream.nvc?redirect=1", allow_redirects=False)
    assert redirected.status_code == 307
    assert requests.get(redirected.headers["Location"], timeout=PATIENCE_S).content == b"coded"
    worker.stop()


def test_a_result_whose_artifact_is_nowhere_is_refused(orchestrator: Orchestrator) -> None:
    worker = FakeWorker(orchestrator, "w1")
    orchestrator.submit(codec="nvc")
    answer = worker.end(worker.next_offer(), artifacts={"stream.nvc": {"sha256": "ab" * 32, "bytes": 5}})
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/missing-artifact")
    worker.stop()


def test_an_artifact_that_the_bucket_has_lost_is_said_to_be(aws: Any, orchestrator: Orchestrator,
                                                            tmp_path: Path) -> None:
    worker = FakeWorker(orchestrator, "w1")
    name = orchestrator.submit(codec="nvc")
    stream = put(Bucket("s3://lab/nvc"), tmp_path, b"coded")
    worker.end(worker.next_offer(), artifacts={"stream.nvc": {"sha256": stream, "bytes": 5}})
    orchestrator.until(name, "completed")
    aws.delete_object(Bucket="lab", Key=f"nvc/{stream[:2]}/{stream}")
    answer = orchestrator.get(f"/experiment/{name}/artifacts/stream.nvc")
    assert (answer.status_code, answer.json()["type"]) == (410, "/problems/object-lost")
    assert answer.json()["detail"] == f"s3://lab/nvc/{stream[:2]}/{stream}: there is no such object"
    worker.stop()


@pytest.mark.parametrize(("name", "status", "words"), [
    ("s3://other/a.mkv", 422, "s3://other: not a bucket that fetch_buckets names; those that are: films"),
    ("s3://films/none.mkv", 422, "s3://films/none.mkv: there is no such object"),
    ("s3://films", 422, "clip: expected a library name, sha256: and 64 hexadecimal digits, an https:// address, or "
                        "s3://bucket/key, got 's3://films'"),
    ("s3://id:secret@films/a.mkv", 422, "clip: expected a library name"),
    ("s3://Films_1/a.mkv", 422, "clip: expected a library name"),
])
def test_a_clip_that_cannot_be_had_is_refused_with_the_reason(orchestrator: Orchestrator, name: str, status: int,
                                                              words: str) -> None:
    answer = orchestrator.post("/experiment", {"clip": name})
    assert answer.status_code == status
    assert words in answer.json()["detail"]
    assert answer.json()["field"] == "clip"


def test_a_bucket_that_does_not_answer_refuses_an_upload_and_keeps_nothing(
        aws: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{closed.getsockname()[1]}")
        process = Orchestrator(tmp_path, "--artifacts", "s3://lab")
        answer = requests.put(f"{process.url}/clips/a.mkv", data=clip(tmp_path), timeout=PATIENCE_S)
        assert (answer.status_code, answer.json()["type"]) == (503, "/problems/bucket-unavailable")
        assert process.get("/clips/a.mkv").status_code == 404
        assert process.stop() == 0
    assert [*(tmp_path / "orchestrator" / "blobs").glob("*/*")] == []


def test_a_bad_setting_ends_the_start_with_one_line(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "orchestrator.py", "--state", str(tmp_path), "--artifacts", "s3://a:b@c"],
                          cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S)
    assert (done.returncode, done.stderr) == (1, "orchestrator.py: s3://a:b@c: expected s3://bucket or s3://bucket/prefix\n")


class Bare:
    """A worker of its own process that reads and writes the bucket itself. A context manager."""

    def __init__(self, orchestrator: Orchestrator, folder: Path, bucket: str) -> None:
        self.log = folder / "worker.log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "worker.py", "--port", "0", "--state", str(folder / "worker"), "--orchestrator",
                 orchestrator.url, "--warm", "raw", "--codec", "raw=tests.standin:Raw", "--artifacts", bucket],
                cwd=ROOT, stdout=log, stderr=log)

    def __enter__(self) -> Bare:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(PATIENCE_S)


def test_a_worker_reads_clips_and_writes_artifacts_in_the_bucket_itself(
        aws: Any, orchestrator: Orchestrator, tmp_path: Path) -> None:
    data = clip(tmp_path)
    orchestrator.session.put(f"{orchestrator.url}/clips/a.mkv", data=data, timeout=PATIENCE_S).raise_for_status()
    with Bare(orchestrator, tmp_path, "s3://lab/nvc") as worker:
        name = orchestrator.submit(codec="raw", clip="a.mkv")
        document = orchestrator.until(name, "completed", "failed")
        log = worker.log.read_text()
    assert document["status"] == "completed", document
    for about in document["artifacts"].values():
        assert Bucket("s3://lab/nvc").size(about["sha256"]) == about["bytes"]
    stream = document["artifacts"]["stream.raw"]["sha256"]
    assert not (orchestrator.state / "blobs" / stream[:2] / stream).exists()
    assert "bucket-not-used" not in log
    assert not [entry for entry in orchestrator.log() if entry.get("route") == "/clips/{name}/data"]


def test_a_worker_whose_bucket_fails_goes_through_the_orchestrator(
        aws: Any, orchestrator: Orchestrator, tmp_path: Path) -> None:
    orchestrator.session.put(f"{orchestrator.url}/clips/a.mkv", data=clip(tmp_path),
                             timeout=PATIENCE_S).raise_for_status()
    with Bare(orchestrator, tmp_path, "s3://nobody/nvc") as worker:
        name = orchestrator.submit(codec="raw", clip="a.mkv")
        document = orchestrator.until(name, "completed", "failed")
        log = worker.log.read_text()
    assert document["status"] == "completed", document
    assert "s3://nobody/nvc" in log
    assert "there is no such bucket" in log
