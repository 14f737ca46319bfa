"""Backups of a running orchestrator, and what the doctor finds."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import pytest

import orchestrator as program
from service.storage.backup import backup, doctor, restore
from service.storage.records import StoreError
from tests.orchestrator_rig import FakeWorker, Orchestrator

DATA = b"stream" * 1000


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state with a result and its artifact."""
    orchestrator = Orchestrator(tmp_path)
    worker = FakeWorker(orchestrator, "w1")
    orchestrator.submit(codec="nvc")
    worker.end(worker.next_offer(), artifacts={"stream.nvc": worker.store(DATA)})
    worker.stop()
    assert orchestrator.stop() == 0
    return orchestrator.state


def blob(state: Path) -> Path:
    sha256 = hashlib.sha256(DATA).hexdigest()
    return state / "blobs" / sha256[:2] / sha256


def test_what_was_acknowledged_before_a_backup_is_in_it(tmp_path: Path) -> None:
    orchestrator = Orchestrator(tmp_path)
    acknowledged: list[str] = []
    stop = threading.Event()

    def submit() -> None:
        while not stop.is_set():
            acknowledged.append(orchestrator.submit())

    submitting = threading.Thread(target=submit)
    submitting.start()
    try:
        while len(acknowledged) < 20:
            stop.wait(0.01)
        before = list(acknowledged)
        backup(orchestrator.state, tmp_path / "copy")
    finally:
        stop.set()
        submitting.join()
        orchestrator.stop()
    restore(tmp_path / "copy", tmp_path / "again" / "orchestrator")
    again = Orchestrator(tmp_path / "again")
    try:
        assert [again.status(name)["status"] for name in before] == ["queued"] * len(before)
        assert again.conservation()["accepted"] >= len(before)
    finally:
        again.stop()


def test_a_backup_has_the_bytes_that_results_name(state: Path, tmp_path: Path) -> None:
    assert backup(state, tmp_path / "copy") == {"files": 1, "bytes": len(DATA)}
    assert blob(tmp_path / "copy").read_bytes() == DATA
    assert list(doctor(tmp_path / "copy")) == []


def test_a_backup_replaces_nothing(state: Path, tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "other").touch()
    with pytest.raises(StoreError, match="is not empty"):
        backup(state, tmp_path / "copy")
    with pytest.raises(StoreError, match="is not empty; move it away first"):
        restore(state, state)


def test_the_doctor_finds_a_flipped_bit_and_a_missing_file(state: Path) -> None:
    assert list(doctor(state)) == []
    data = bytearray(DATA)
    data[100] ^= 1
    blob(state).write_bytes(data)
    assert ["is damaged" in line for line in doctor(state)] == [True]
    blob(state).unlink()
    assert ["not there: upload the clip again, or rerun" in line for line in doctor(state)] == [True]


def test_the_doctor_says_that_runs_are_missing(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (state / "accepted").write_text("7")
    assert program.main(["doctor", "--state", str(state)]) == 1
    assert "7 runs were accepted, and the database has 1" in capsys.readouterr().out


def test_the_commands(state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["backup", str(tmp_path / "copy"), "--state", str(state)]) == 0
    assert program.main(["restore", str(tmp_path / "copy"), "--state", str(tmp_path / "new")]) == 0
    assert program.main(["doctor", "--state", str(tmp_path / "new")]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"{tmp_path / 'new'}: healthy"
    assert program.main(["doctor", "--state", str(tmp_path / "nowhere")]) == 1
    assert "there is no database" in capsys.readouterr().err
