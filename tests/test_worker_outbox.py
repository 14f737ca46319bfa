"""The outbox keeps ends until they are acknowledged; the clip cache keeps clips under their digests."""

import hashlib
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from service.runs import outbox
from service.runs.clip_cache import ClipCache
from service.runs.outbox import PAUSE_CAP_S, Entry, Outbox, Refused, Unreachable, pause_s

PATIENCE_S = 20.0


class Orchestrator:
    """Takes deliveries, or answers as told, one answer a delivery."""

    def __init__(self, *answers: Exception) -> None:
        self.answers = list(answers)
        self.got: list[tuple[str, int]] = []
        self.tried = threading.Condition()
        self.tries = 0

    def __call__(self, entry: Entry) -> None:
        with self.tried:
            self.tries += 1
            self.tried.notify_all()
            if self.answers:
                raise self.answers.pop(0)
            self.got.append(entry.key)

    def wait_tries(self, count: int) -> None:
        with self.tried:
            assert self.tried.wait_for(lambda: self.tries >= count, PATIENCE_S)


def message(run: str, **more: Any) -> dict[str, Any]:
    return {"run": run, "attempt": 1, "state": "completed", "result": {}, "error": None, "artifacts": {},
            "callback": "http://127.0.0.1:1", "traceparent": "", **more}


def finished(tmp_path: Path, run: str) -> Path:
    folder = tmp_path / "runs" / f"{run}.1"
    folder.mkdir(parents=True)
    (folder / "stream.nvc").write_bytes(b"coded")
    return folder


def make(tmp_path: Path, deliver: Callable[[Entry], None]) -> Outbox:
    return Outbox(tmp_path / "outbox", deliver, lambda event, **fields: None)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "PAUSE_BASE_S", 0.005)


def test_a_delivered_entry_leaves_nothing_behind(tmp_path: Path) -> None:
    orchestrator = Orchestrator()
    box = make(tmp_path, orchestrator)
    box.start()
    box.put(message("a"), finished(tmp_path, "a"))
    assert box.flush(PATIENCE_S)
    assert orchestrator.got == [("a", 1)]
    assert list((tmp_path / "outbox").iterdir()) == []
    box.close(PATIENCE_S)


def test_an_entry_is_tried_until_it_is_taken(tmp_path: Path) -> None:
    orchestrator = Orchestrator(Unreachable("down"), Unreachable("down"), Refused("503"), Refused("500"))
    box = make(tmp_path, orchestrator)
    box.start()
    box.put(message("a"), finished(tmp_path, "a"))
    assert box.flush(PATIENCE_S)
    assert orchestrator.tries == 5
    box.close(PATIENCE_S)


def test_an_unexpected_error_of_a_delivery_does_not_end_deliveries(tmp_path: Path) -> None:
    orchestrator = Orchestrator(KeyError("a bug"))
    box = make(tmp_path, orchestrator)
    box.start()
    box.put(message("a"), finished(tmp_path, "a"))
    assert box.flush(PATIENCE_S)
    box.close(PATIENCE_S)


def test_a_refused_entry_does_not_hold_up_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "PAUSE_BASE_S", 1000.0)
    orchestrator = Orchestrator(Refused("422"))
    box = make(tmp_path, orchestrator)
    box.start()
    box.put(message("a"), finished(tmp_path, "a"))
    orchestrator.wait_tries(1)
    box.put(message("b"), finished(tmp_path, "b"))
    orchestrator.wait_tries(2)
    assert orchestrator.got == [("b", 1)]
    box.close(PATIENCE_S)


def test_hurry_ends_the_pause_after_an_outage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "PAUSE_BASE_S", 1000.0)
    orchestrator = Orchestrator(Unreachable("down"))
    box = make(tmp_path, orchestrator)
    box.start()
    box.put(message("a"), finished(tmp_path, "a"))
    orchestrator.wait_tries(1)
    while not box.flush(0.01):
        box.retry_now()
    assert orchestrator.got == [("a", 1)]
    box.close(PATIENCE_S)


def test_a_later_life_delivers_what_an_earlier_one_stored(tmp_path: Path) -> None:
    first = make(tmp_path, Orchestrator())
    first.put(message("a", artifacts={"stream.nvc": {"sha256": "0" * 64, "bytes": 5}}), finished(tmp_path, "a"))
    seen: list[tuple[dict[str, Any], bytes]] = []

    def deliver(entry: Entry) -> None:
        assert entry.folder is not None
        seen.append((entry.message["artifacts"], (entry.folder / "stream.nvc").read_bytes()))

    second = make(tmp_path, deliver)
    second.start()
    assert second.flush(PATIENCE_S)
    assert seen == [({"stream.nvc": {"sha256": "0" * 64, "bytes": 5}}, b"coded")]
    second.close(PATIENCE_S)


def test_what_was_being_removed_is_not_delivered_again(tmp_path: Path) -> None:
    box = make(tmp_path, Orchestrator())
    box.put(message("a"), finished(tmp_path, "a"))
    (tmp_path / "outbox" / "a.1").rename(tmp_path / "outbox" / "a.1.done")
    assert make(tmp_path, Orchestrator()).waiting() == []
    assert list((tmp_path / "outbox").iterdir()) == []


def test_an_unreadable_entry_is_left_for_a_person_and_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "outbox" / "broken.1").mkdir(parents=True)
    (tmp_path / "outbox" / "broken.1" / "message.json").write_text('{"run": "brok')
    events: list[str] = []
    box = Outbox(tmp_path / "outbox", Orchestrator(), lambda event, **fields: events.append(event))
    assert box.waiting() == []
    assert events == ["outbox-entry-unreadable"]
    assert (tmp_path / "outbox" / "broken.1").is_dir()


def test_an_end_whose_message_is_torn_is_reported_as_a_failure_to_be_tried_again(tmp_path: Path) -> None:
    folder = finished(tmp_path, "a")
    (folder / "dispatch.json").write_text(json.dumps({"run": "a", "attempt": 1, "callback": "http://127.0.0.1:1",
                                                      "traceparent": "", "secret": "s"}))
    make(tmp_path, Orchestrator()).put(message("a", secret="s"), folder)
    (tmp_path / "outbox" / "a.1" / "message.json").write_text('{"run": "a", "atte')
    [entry] = make(tmp_path, Orchestrator()).waiting()
    assert entry.key == ("a", 1)
    assert (entry.message["state"], entry.message["secret"], entry.message["artifacts"]) == ("failed", "s", {})
    assert (entry.message["error"]["type"], entry.message["error"]["retry"]) == ("result-damaged", True)


def test_a_full_disk_turns_a_result_into_a_failure_to_be_tried_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(outbox, "seal", full)
    orchestrator = Orchestrator()
    box = make(tmp_path, orchestrator)
    local_results = box.put(message("a", result={"metrics": {}}), finished(tmp_path, "a"))
    assert local_results["state"] == "failed"
    assert local_results["result"] is None
    assert local_results["error"]["type"] == "disk-full"
    assert local_results["error"]["retry"] is True
    box.start()
    assert box.flush(PATIENCE_S)
    assert orchestrator.got == [("a", 1)]
    box.close(PATIENCE_S)


def test_a_full_disk_leaves_a_failure_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(outbox, "seal", full)
    error = {"type": "bad-video", "detail": "clip: not a video", "retry": False}
    kept = make(tmp_path, Orchestrator()).put(message("a", state="failed", error=error), finished(tmp_path, "a"))
    assert kept["error"] == error


def test_a_message_is_whole_on_disk_before_it_counts_as_put(tmp_path: Path) -> None:
    box = make(tmp_path, Orchestrator())
    box.put(message("a"), finished(tmp_path, "a"))
    assert json.loads((tmp_path / "outbox" / "a.1" / "message.json").read_text())["run"] == "a"
    assert not (tmp_path / "runs" / "a.1").exists()


@pytest.mark.parametrize(("tries", "bound"), [(1, 0.01), (2, 0.02), (5, 0.16), (100, PAUSE_CAP_S)])
def test_pauses_double_up_to_a_cap_and_are_drawn_from_their_upper_half(tries: int, bound: float) -> None:
    assert pause_s(tries, lambda low, high: high) == pytest.approx(bound)
    assert pause_s(tries, lambda low, high: low) == pytest.approx(bound / 2)


# --- clips ---


def sender(data: bytes) -> Callable[[BinaryIO], tuple[int, str]]:
    def send(out: BinaryIO) -> tuple[int, str]:
        out.write(data)
        return len(data), hashlib.sha256(data).hexdigest()

    return send


def test_a_fetched_clip_is_linked_where_it_is_wanted(tmp_path: Path) -> None:
    cache, digest = ClipCache(tmp_path / "clips", 1 << 20), hashlib.sha256(b"video").hexdigest()
    assert not cache.link(digest, tmp_path / "clip")
    cache.fetch(digest, sender(b"video"))
    assert cache.link(digest, tmp_path / "clip")
    assert (tmp_path / "clip").read_bytes() == b"video"


def test_a_clip_with_another_digest_is_not_kept(tmp_path: Path) -> None:
    cache, digest = ClipCache(tmp_path / "clips", 1 << 20), hashlib.sha256(b"video").hexdigest()
    with pytest.raises(OSError, match=f"expected {digest}"):
        cache.fetch(digest, sender(b"other"))
    assert list((tmp_path / "clips").iterdir()) == []


def test_the_cache_makes_room_but_a_run_keeps_its_link(tmp_path: Path) -> None:
    cache = ClipCache(tmp_path / "clips", 150)
    first, second = (hashlib.sha256(data).hexdigest() for data in (b"a" * 100, b"b" * 100))
    cache.fetch(first, sender(b"a" * 100))
    cache.link(first, tmp_path / "mine")
    cache.fetch(second, sender(b"b" * 100))
    assert not cache.link(first, tmp_path / "again")
    assert cache.link(second, tmp_path / "new")
    assert (tmp_path / "mine").read_bytes() == b"a" * 100


def test_downloads_that_an_earlier_life_left_are_removed(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "x.part").write_bytes(b"half")
    ClipCache(tmp_path / "clips", 100)
    assert list((tmp_path / "clips").iterdir()) == []


def test_only_a_digest_names_a_clip(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is no SHA-256"):
        ClipCache(tmp_path / "clips", 100).link("../../etc/passwd", tmp_path / "clip")
