"""A clip that is cut: its segments placed, tried and fenced each by itself, then joined; workers that a test dictates.

Carphone, the library's clip, has 120 pictures.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

import pytest
from orchestrator_rig import RESULT, FakeWorker, MakeWorker, Orchestrator

from service.jobs.fields import read_request, runs_of
from service.jobs.states import Blame, State
from service.storage.records import Stale
from service.storage.store import Store

MADE = {"segment": {"index": 0, "of": 2, "first": 0, "pictures": 45, "bytes": 9, "encode_s": 1.0}}


def cutting(make_worker: MakeWorker, **more: Any) -> FakeWorker:
    """A worker that cuts clips for a codec that only it has."""
    worker = make_worker(**more)
    worker.more["segmented"] = [worker.codec]
    worker.register()
    return worker


def complete(worker: FakeWorker, offer: dict[str, Any], number: int = 0) -> None:
    """A segment's end, with files as the codec process would leave them."""
    files = {name: worker.store(f"{name} {offer['run']} {number}".encode())
             for name in ("segment.json", "pictures.mkv", "stream.x")}
    assert worker.end(offer, result=MADE, artifacts=files).status_code == 200


def test_segments_go_to_free_slots_at_once_and_their_files_to_the_one_who_joins(
        running: Orchestrator, make_worker: MakeWorker) -> None:
    worker = cutting(make_worker, slots=2)
    name = running.submit(codec=worker.codec, segments=2, intra_period=32)
    first, second = worker.next_offer(), worker.next_offer()
    assert [offer["run"] for offer in (first, second)] == [f"{name}.s0", f"{name}.s1"]
    assert [offer["segment"] for offer in (first, second)] == [{"index": 0, "of": 2}, {"index": 1, "of": 2}]
    assert "segments" not in first["experiment"]
    complete(worker, second)
    complete(worker, first)
    join = worker.next_offer()
    assert (join["run"], join["attempt"], "segment" in join) == (name, 1, False)
    assert [sorted(files) for files in join["segments"]] == [["pictures.mkv", "segment.json", "stream.x"]] * 2
    about = join["segments"][1]["stream.x"]
    assert about["url"] == f"{running.url}/experiment/{name}.s1/artifacts/stream.x"
    assert running.get(about["url"].removeprefix(running.url)).content == f"stream.x {name}.s1 0".encode()
    worker.end(join)
    document = running.until(name, "completed")
    assert document["metrics"] == RESULT["metrics"]
    assert [(row["index"], row["status"], row["attempts"]) for row in document["segments"]] == [
        (0, "completed", 1), (1, "completed", 1)]
    assert running.get(f"/experiment/{name}.s1/artifacts/stream.x").status_code == 404   # they were for the join
    running.conservation()


def test_while_segments_are_at_work_the_run_is_running_and_says_how_far_they_are(
        running: Orchestrator, make_worker: MakeWorker) -> None:
    worker = cutting(make_worker)
    name = running.submit(codec=worker.codec, segments=2, intra_period=32)
    offer = worker.next_offer()
    worker.progress(offer, fraction=0.5)
    document = running.until(name, "running")
    assert document["progress"] == {"phase": "segments, 0 of 2 done", "fraction": 0.2375}
    [row] = [row for row in running.get("/experiments").json()["experiments"] if row["experiment_id"] == name]
    assert (row["status"], row["runs"]["total"]) == ("running", 1)
    waiting = {each["run"]: each for each in running.conservation()["unfinished"]}
    assert waiting[name]["why"] == "2 of its 2 segments have not completed"
    assert waiting[f"{name}.s0"]["owner"] == f"worker {worker.name}"
    running.post(f"/experiment/{name}/cancel")


def test_a_segment_whose_worker_dies_is_the_only_one_that_is_coded_again(
        running: Orchestrator, make_worker: MakeWorker) -> None:
    dies = cutting(make_worker)
    lives = cutting(make_worker, codec=dies.codec)
    name = running.submit(codec=dies.codec, segments=2, intra_period=32)
    dies.next_offer()
    offer = lives.next_offer()
    dies.stop()
    complete(lives, offer)
    again = lives.next_offer()
    assert (again["segment"]["index"], again["attempt"]) == (1 - offer["segment"]["index"], 2)
    complete(lives, again)
    lives.end(lives.next_offer())
    document = running.until(name, "completed")
    assert sorted(row["attempts"] for row in document["segments"]) == [1, 2]


def test_a_segment_that_fails_fails_the_run_and_calls_off_the_others(
        running: Orchestrator, make_worker: MakeWorker) -> None:
    worker = cutting(make_worker, slots=2)
    name = running.submit(codec=worker.codec, segments=3, intra_period=30)
    first, second = worker.next_offer(), worker.next_offer()
    worker.end(second, "failed", error={"type": "bad-video", "detail": "picture 31 is torn", "retry": False})
    document = running.until(name, "failed")
    assert document["error"] == {"type": "bad-video", "detail": "segment 1: picture 31 is torn"}
    assert [row["status"] for row in document["segments"]] == ["cancelled", "failed", "cancelled"]
    assert worker.cancels.get(timeout=10) == (first["run"], 1)
    running.conservation()


def test_cancelling_the_experiment_cancels_run_and_segments(running: Orchestrator, make_worker: MakeWorker) -> None:
    worker = cutting(make_worker)
    name = running.submit(codec=worker.codec, segments=2, intra_period=32)
    offer = worker.next_offer()
    running.post(f"/experiment/{name}/cancel")
    document = running.until(name, "cancelled")
    assert [row["status"] for row in document["segments"]] == ["cancelled", "cancelled"]
    assert worker.cancels.get(timeout=10) == (offer["run"], 1)


def test_a_restart_goes_on_where_it_was(running: Orchestrator, make_worker: MakeWorker) -> None:
    worker = cutting(make_worker)
    name = running.submit(codec=worker.codec, segments=2, intra_period=32)
    complete(worker, worker.next_offer())
    second = worker.next_offer()
    running.restart()
    complete(worker, second)
    join = worker.next_offer()
    running.restart()
    worker.end(join)
    assert running.until(name, "completed")["metrics"] == RESULT["metrics"]


def test_a_join_that_is_lost_is_done_again_from_the_same_files(running: Orchestrator, make_worker: MakeWorker) -> None:
    worker = cutting(make_worker, slots=2)
    name = running.submit(codec=worker.codec, segments=2, intra_period=32)
    for _ in range(2):
        complete(worker, worker.next_offer())
    join = worker.next_offer()
    worker.end(join, "failed", error={"type": "disk-full", "detail": "no room", "retry": True})
    again = worker.next_offer()
    assert (again["run"], again["attempt"]) == (name, 2)
    assert again["segments"] == join["segments"]
    worker.end(again)
    running.until(name, "completed")


def test_auto_takes_as_many_as_there_are_slots_and_gops(running: Orchestrator, make_worker: MakeWorker) -> None:
    worker = cutting(make_worker, slots=3)
    for period, of in ((64, 2), (8, 3), (120, None)):
        name = running.submit(codec=worker.codec, segments="auto", intra_period=period)
        assert running.status(name)["settings"]["segments"] == of
        running.post(f"/experiment/{name}/cancel")


def test_a_codec_that_no_worker_cuts_for_is_coded_in_one_piece_by_auto(
        running: Orchestrator, make_worker: MakeWorker) -> None:
    worker = make_worker()
    name = running.submit(codec=worker.codec, segments="auto", intra_period=8)
    offer = worker.next_offer()
    assert (offer["run"], "segment" in offer, "segments" in offer) == (name, False, False)
    worker.end(offer)


def test_each_run_of_a_sweep_is_cut(running: Orchestrator, make_worker: MakeWorker) -> None:
    worker = cutting(make_worker, slots=4)
    name = running.submit(codec=worker.codec, segments=2, intra_period=32, quality=[10, 20])
    offers = [worker.next_offer() for _ in range(4)]
    assert sorted(offer["run"] for offer in offers) == [f"{name}.{run}.s{k}" for run in (0, 1) for k in (0, 1)]
    for offer in offers:
        complete(worker, offer)
    for _ in range(2):
        worker.end(worker.next_offer())
    document = running.until(name, "completed")
    assert [run["run"] for run in document["runs"]] == [f"{name}.0", f"{name}.1"]
    assert document["counts"]["total"] == 2


@pytest.mark.parametrize(("fields", "words"), [
    ({"segments": 3, "intra_period": 64},
     "segments: expected at most 2, the number of GOPs in 120 pictures of clip carphone at intra_period 64, got 3"),
    ({"segments": 2, "intra_period": 64, "frames": 20},
     "segments: expected at most 1, the number of GOPs in 20 pictures of clip carphone at intra_period 64, got 2"),
    ({"segments": 2, "intra_period": 64, "first_frame": 80},
     "segments: expected at most 1, the number of GOPs in 40 pictures of clip carphone at intra_period 64, got 2"),
    ({"segments": 1}, 'segments: expected an integer from 2 to 64, "auto" or null, got 1'),
    ({"segments": 65}, 'segments: expected an integer from 2 to 64, "auto" or null, got 65'),
    ({"segments": "many"}, "segments: expected an integer from 2 to 64, \"auto\" or null, got 'many'"),
    ({"segments": 64, "intra_period": 1, "quality": list(range(16))},
     "segments: all runs have 1024 segments; at most 1000 were expected"),
])
def test_what_cannot_be_cut_so_is_refused_with_the_reason(
        running: Orchestrator, make_worker: MakeWorker, fields: dict[str, Any], words: str) -> None:
    worker = cutting(make_worker)
    answer = running.post("/experiment", {"codec": worker.codec, **fields})
    assert (answer.status_code, answer.json()["detail"], answer.json()["field"]) == (422, words, "segments")


def test_a_number_of_segments_for_a_codec_that_no_worker_cuts_for_is_refused(
        running: Orchestrator, make_worker: MakeWorker) -> None:
    worker = make_worker()
    answer = running.post("/experiment", {"codec": worker.codec, "segments": 2, "intra_period": 8})
    assert answer.status_code == 422
    assert answer.json()["detail"] == (
        f'segments: no worker can cut a clip for codec {worker.codec}; expected null or "auto"')


def test_a_worker_that_does_not_cut_gets_no_segment(running: Orchestrator, make_worker: MakeWorker) -> None:
    cuts = cutting(make_worker)
    older = make_worker(codec=cuts.codec)
    name = running.submit(codec=cuts.codec, segments=2, intra_period=32)
    complete(cuts, cuts.next_offer())
    complete(cuts, cuts.next_offer())
    cuts.end(cuts.next_offer())
    running.until(name, "completed")
    assert older.offers.empty()


# --- in the store: both end in one transaction


@pytest.fixture
def store(tmp_path: Any) -> Any:
    with closing(Store(tmp_path)) as made:
        yield made


def cut(store: Store) -> str:
    settings = read_request({"segments": 2})
    return store.submit(settings, runs_of(settings))[0]


def test_no_result_of_a_segment_is_taken_after_its_whole_has_ended(store: Store) -> None:
    name = cut(store)
    for index in range(2):
        store.place(f"{name}.s{index}", 0, "w")
    ended = store.end_attempt(f"{name}.s0", 1, "error", {"type": "error", "detail": "x"}, Blame.RUN)
    assert [(run.id, run.state) for run in ended.others] == [(name, State.QUEUED), (f"{name}.s1", State.DISPATCHED)]
    with pytest.raises(Stale):
        store.complete(f"{name}.s1", 1, {}, {})
    assert store.state(name) == "failed"


def test_a_segment_that_completes_twice_counts_once(store: Store) -> None:
    name = cut(store)
    store.place(f"{name}.s0", 0, "w")
    for _ in range(2):
        store.complete(f"{name}.s0", 1, {}, {})
    assert store.run(name).waits == 1


def test_a_cut_experiment_is_deleted_whole(store: Store) -> None:
    name = cut(store)
    store.cancel(name, "x")
    assert store.delete(name) == 3
    assert store.conservation().accepted == store.conservation().deleted == 3


def test_states_of_the_schema_before_segments_open(tmp_path: Any) -> None:
    from service.storage.schema import MIGRATIONS

    with closing(Store(tmp_path, migrations=MIGRATIONS[:4])) as old, closing(
            sqlite3.connect(tmp_path / "orchestrator.sqlite3")) as raw:
        assert old.count_accepted() == 0
        raw.execute("INSERT INTO experiments VALUES (1, 'exp_1', 'queued', '', '{}', 0, NULL, '', '', NULL)")
        raw.execute("INSERT INTO runs VALUES (1, 'exp_1', 1, 'queued', 0, 0, 0, NULL, NULL, ?, '{}')",
                    ['{"codec": "x"}'])
        raw.commit()
    with closing(Store(tmp_path)) as new:
        [run] = new.queued(0, 10)
        assert (run.id, run.whole, run.waits, run.needs) == ("exp_1", None, 0, "x")


def test_of_queued_runs_memory_holds_only_what_placing_needs(store: Store) -> None:
    name = cut(store)
    store.place(f"{name}.s0", 0, "w")
    queued = {run.id: run.settings for run in store.queued(0, 10)}
    assert queued == {run: {"codec": "nvc", "device": "auto", "timeout_s": 600, "segments": 2}
                      for run in (name, f"{name}.s1")}
    [placed] = store.at_workers()
    assert placed.settings["quality"] == 32     # what is at a worker may have to be sent again, whole
