"""What may be deleted, what goes with it, and what stays countable."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import pytest
import requests

from service.api import maintenance as maintenance_module
from service.api.maintenance import Maintenance
from service.jobs.fields import read_request
from service.runtime.logs import Log
from service.storage.blobs import Blobs
from service.storage.registry import Registry
from service.storage.store import ClipGone, Stale, Store, Unfinished, UnknownExperiment
from tests.clock import Clock
from tests.orchestrator_rig import PATIENCE_S, FakeWorker, Orchestrator, problem

REQUEST = read_request({})
RESULT = {"metrics": {"psnr_db": 38.1}, "frames": []}
DAY = 86_400.0
VIDEO = b"YUV4MPEG2 W16 H16 F25:1 C420\nFRAME\n" + bytes(384)


def completed(store: Store, sha256: str = "aa", **tags: str) -> str:
    name, _ = store.submit(REQUEST | {"tags": tags}, [REQUEST], principal="p", key="k" + sha256, body_sha256="b")
    store.place(name, 0, "w1")
    store.start(name, 1).result(10)
    store.complete(name, 1, RESULT, {"stream.nvc": {"sha256": sha256, "bytes": 3}})
    return name


def rows(store: Store) -> dict[str, int]:
    """How many rows each table of experiments has."""
    with store.reading() as db:
        return {table: db.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0] for table in (
            "experiments", "tags", "runs", "attempts", "results", "figures", "artifacts", "events", "idempotency")}


def maintenance(store: Store, blobs: Blobs, keep_days: float) -> Maintenance:
    return Maintenance(store, Registry(store), blobs, Log(io.StringIO()), keep_days=keep_days, keep_unnamed_s=0.0)


def test_an_experiment_goes_with_all_that_is_stored_of_it(store: Store) -> None:
    assert store.delete(completed(store, team="red")) == 1
    assert set(rows(store).values()) == {0}


def test_others_keep_every_row(store: Store) -> None:
    completed(store, "aa", team="red")
    before = rows(store)
    store.delete(completed(store, "bb", team="red"))
    assert rows(store) == before


def test_the_sum_holds_after_a_deletion(store: Store) -> None:
    store.delete(completed(store))
    completed(store, "bb")
    found = store.conservation()
    assert (found.accepted, found.deleted, sum(found.counts.values())) == (2, 1, 1)


def test_what_has_not_ended_is_not_deleted(store: Store) -> None:
    name, _ = store.submit(REQUEST, [REQUEST])
    with pytest.raises(Unfinished, match="the experiment is queued; cancel it first, or wait for its end"):
        store.delete(name)
    assert store.state(name) == "queued"


def test_a_late_message_about_a_deleted_run_is_final(store: Store) -> None:
    """409, as for every attempt that is over: a worker would send again what is answered with 404."""
    name = completed(store)
    store.delete(name)
    with pytest.raises(Stale, match=f"attempt 1 of {name} is over; the run was deleted"):
        store.complete(name, 1, RESULT, {})


def test_a_deletion_outlives_a_restart_and_does_not_look_like_a_loss(store: Store) -> None:
    name = completed(store)
    store.delete(name)
    store.close()
    again = Store(store.folder)
    assert again.conservation().deleted == 1
    with pytest.raises(UnknownExperiment):
        again.state(name)
    again.close()


def test_old_experiments_go_after_keep_days_and_their_bytes_with_them(store: Store, clock: Clock, tmp_path: Path
                                                                       ) -> None:
    blobs = Blobs(tmp_path / "files")
    digests = []
    for content in (b"old", b"new"):
        with blobs.receiving("artifact") as part:
            part.write_bytes(content)
            digests.append(hashlib.sha256(content).hexdigest())
            blobs.keep(part, digests[-1])
    old = completed(store, digests[0])
    clock.now += 20 * DAY
    new = completed(store, digests[1])
    maintenance(store, blobs, keep_days=10).sweep()
    assert [item.id for item in store.page()[0]] == [new]
    assert old != new
    assert [blobs.path(digest).exists() for digest in digests] == [False, True]


def test_the_tag_keep_keeps_and_so_does_no_end(store: Store, clock: Clock, tmp_path: Path) -> None:
    kept = completed(store, keep="yes")
    waiting, _ = store.submit(REQUEST, [REQUEST])
    clock.now += 1000 * DAY
    maintenance(store, Blobs(tmp_path / "files"), keep_days=1).sweep()
    assert [item.id for item in store.page()[0]] == [waiting, kept]


def test_many_old_experiments_go_some_at_a_time(
    store: Store, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between them the same thread reads which keys were revoked."""
    monkeypatch.setattr(maintenance_module, "AT_A_TIME", 2)
    for number in range(3):
        completed(store, f"{number:02}")
    clock.now += 1000 * DAY
    upkeep = maintenance(store, Blobs(tmp_path / "files"), keep_days=1)
    assert [upkeep.sweep(), len(store.page()[0]), upkeep.sweep(), len(store.page()[0])] == [False, 1, True, 0]


def test_nothing_goes_by_itself_without_keep_days(store: Store, clock: Clock, tmp_path: Path) -> None:
    name = completed(store)
    clock.now += 10_000 * DAY
    maintenance(store, Blobs(tmp_path / "files"), keep_days=0).sweep()
    assert store.state(name) == "completed"


def test_a_clip_that_went_while_an_experiment_was_being_accepted_refuses_it(store: Store) -> None:
    clip = {"name": "mine", "sha256": "ab", "url": "/clips/sha256:ab/data"}
    with pytest.raises(ClipGone, match="clip: mine was deleted meanwhile"):
        store.submit(REQUEST, [REQUEST], clips=[clip])
    assert store.conservation().accepted == 0


# --- over HTTP


def delete(running: Orchestrator, path: str) -> requests.Response:
    return requests.delete(running.url + path, timeout=PATIENCE_S)


def test_a_deleted_experiment_is_unknown_and_counted(running: Orchestrator, worker: FakeWorker) -> None:
    name = running.submit(codec=worker.codec)
    worker.end(worker.next_offer())
    before = running.conservation()
    assert delete(running, f"/experiment/{name}").status_code == 204
    assert problem(running.get(f"/experiment/{name}/status"))[:2] == (404, "unknown-experiment")
    assert problem(delete(running, f"/experiment/{name}"))[:2] == (404, "unknown-experiment")
    after = running.conservation()
    assert (after["deleted"] - before["deleted"], after["completed"] - before["completed"], after["holds"]) == (
        1, -1, True)


def test_an_experiment_in_progress_is_not_deleted(running: Orchestrator, closed: FakeWorker) -> None:
    name = running.submit(codec=closed.codec)
    assert problem(delete(running, f"/experiment/{name}"))[:2] == (409, "unfinished")
    running.post(f"/experiment/{name}/cancel")
    assert delete(running, f"/experiment/{name}").status_code == 204


def test_a_clip_goes_only_after_the_experiments_of_it(running: Orchestrator, closed: FakeWorker) -> None:
    requests.put(f"{running.url}/clips/soon-gone.y4m", data=VIDEO, timeout=PATIENCE_S).raise_for_status()
    name = running.submit(codec=closed.codec, clip="soon-gone.y4m")
    refused = problem(delete(running, "/clips/soon-gone.y4m"))
    assert refused[:2] == (409, "clip-in-use")
    running.post(f"/experiment/{name}/cancel")
    delete(running, f"/experiment/{name}")
    assert delete(running, "/clips/soon-gone.y4m").status_code == 204
    assert running.get("/clips/soon-gone.y4m").status_code == 404
    assert problem(delete(running, "/clips/soon-gone.y4m"))[:2] == (404, "unknown-clip")


def test_clips_of_the_library_stay(running: Orchestrator) -> None:
    assert problem(delete(running, "/clips/carphone"))[:2] == (409, "name-reserved")
