"""What is written stays written, moves are fenced, and the numbers add up."""

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from service.jobs.fields import read_request, runs_of
from service.jobs.states import Blame, State, secrets
from service.storage.registry import Registry
from service.storage.store import (
    IDEMPOTENCY_S,
    MAX_REFUSED,
    Finished,
    KeyReused,
    Stale,
    Store,
    StoreError,
    UnknownExperiment,
)
from tests.clock import Clock

REQUEST = read_request({})
RESULT = {"metrics": {"psnr_db": 38.1}, "frames": [{"index": 0, "bytes": 10}]}
ARTIFACTS = {"stream.nvc": {"sha256": "aa", "bytes": 10}}
LOST = {"type": "lost", "detail": "the lease ran out"}


def submit(store: Store, **fields: object) -> str:
    document = read_request(fields)
    return store.submit(document, runs_of(document))[0]


def running(store: Store) -> str:
    name = submit(store)
    store.place(name, 0, "w1")
    store.start(name, 1).result(10)
    return name


def state_of(store: Store, name: str) -> str:
    return store.run(name).state


# --- submitting


def test_a_new_run_is_queued_without_an_attempt(store: Store) -> None:
    run = store.run(submit(store, quality=7))
    assert (run.state, run.attempt, run.worker, run.settings["quality"]) == ("queued", 0, None, 7)


def test_what_was_submitted_is_there_after_reopening(store: Store) -> None:
    name = submit(store, label="kept")
    store.close()
    again = Store(store.folder)
    assert again.experiment(name).label == "kept"
    again.close()


def test_the_same_key_and_body_give_the_same_experiment_across_restarts(store: Store, clock: Clock) -> None:
    name, runs = store.submit(REQUEST, [REQUEST], principal="p", key="k", body_sha256="b")
    store.close()
    again = Store(store.folder, clock=clock)
    assert (len(runs), again.submit(REQUEST, [REQUEST], principal="p", key="k", body_sha256="b")) == (1, (name, []))
    assert again.conservation().accepted == 1
    again.close()


def test_the_same_key_with_another_body_is_refused(store: Store) -> None:
    name, _ = store.submit(REQUEST, [REQUEST], key="k", body_sha256="b")
    with pytest.raises(KeyReused, match=f"this key was used for {name} with another body"):
        store.submit(REQUEST, [REQUEST], key="k", body_sha256="c")


def test_two_principals_do_not_share_keys(store: Store) -> None:
    first, _ = store.submit(REQUEST, [REQUEST], principal="p", key="k", body_sha256="b")
    second, _ = store.submit(REQUEST, [REQUEST], principal="q", key="k", body_sha256="c")
    assert first != second


def test_a_key_is_forgotten_after_24_hours(store: Store, clock: Clock) -> None:
    first, _ = store.submit(REQUEST, [REQUEST], key="k", body_sha256="b")
    clock.now += IDEMPOTENCY_S + 1
    second, _ = store.submit(REQUEST, [REQUEST], key="k", body_sha256="c")
    assert first != second


def test_one_key_sent_by_many_at_once_makes_one_experiment(store: Store) -> None:
    names: list[str] = []
    threads = [threading.Thread(target=lambda: names.append(
        store.submit(REQUEST, [REQUEST], key="k", body_sha256="b")[0])) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(names), len(set(names)), store.conservation().accepted) == (16, 1, 1)


def test_a_drawn_id_that_is_taken_is_drawn_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    digits = iter(["aaaaaa", "aaaaaa", "bbbbbb"])
    monkeypatch.setattr(secrets, "token_hex", lambda size: next(digits))
    assert [submit(store), submit(store)] == ["exp_1760728570_aaaaaa", "exp_1760728570_bbbbbb"]


def test_a_grid_has_numbered_runs_and_one_experiment(store: Store) -> None:
    name, runs = store.submit(REQUEST, [{**REQUEST, "quality": quality} for quality in (10, 20)])
    assert [run.id for run in runs] == [f"{name}.0", f"{name}.1"]
    assert (store.conservation().accepted, len(store.experiment(name).runs)) == (2, 2)


def test_many_waiting_submits_share_commits(store: Store) -> None:
    commits = []
    first_runs, release = threading.Event(), threading.Event()

    def hold(db: object) -> None:
        first_runs.set()
        release.wait(10)

    store._writer.set_trace_callback(lambda statement: commits.append(1) if statement == "COMMIT" else None)
    holder = threading.Thread(target=lambda: store.write(hold))
    holder.start()
    first_runs.wait(10)
    futures = [store._enqueue(lambda db: 1) for _ in range(50)]
    release.set()
    holder.join()
    assert ([future.result(10) for future in futures], len(commits)) == ([1] * 50, 2)


def test_an_operation_that_raises_undoes_itself_and_no_other(store: Store) -> None:
    def spoil(db: sqlite3.Connection) -> None:
        db.execute("UPDATE counters SET value = 99")
        raise KeyError("a mistake")

    with pytest.raises(KeyError):
        store.write(spoil)
    submit(store)
    assert store.conservation().accepted == 1


# --- moves


def test_placing_grants_the_next_attempt(store: Store) -> None:
    run = store.place(submit(store), 0, "w1")
    assert (run.state, run.attempt, run.worker) == ("dispatched", 1, "w1")


def test_of_two_that_place_the_same_run_one_wins(store: Store) -> None:
    name = submit(store)
    store.place(name, 0, "w1")
    with pytest.raises(Stale, match=f"attempt 0 of {name} is over; the last one granted is 1"):
        store.place(name, 0, "w2")


def test_starting_twice_is_starting_once(store: Store) -> None:
    name = running(store)
    assert store.start(name, 1).result(10).state == "running"
    assert [event.data["status"] for event in store.events(name)[0]] == ["queued", "dispatched", "running"]


def test_a_result_completes_the_run_and_is_kept(store: Store) -> None:
    name = running(store)
    store.complete(name, 1, RESULT, ARTIFACTS)
    record = store.experiment(name).runs[0]
    assert (record.run.state, record.result, record.artifacts, record.metrics) == (
        "completed", RESULT, ARTIFACTS, {"psnr_db": 38.1})


def test_a_result_may_overtake_the_answer_to_the_dispatch(store: Store) -> None:
    name = submit(store)
    store.place(name, 0, "w1")
    assert store.complete(name, 1, RESULT, {}).state == "completed"


def test_the_same_result_again_changes_nothing(store: Store) -> None:
    name = running(store)
    store.complete(name, 1, RESULT, ARTIFACTS)
    before = store.events(name)
    store.complete(name, 1, {"metrics": {"psnr_db": 1.0}}, {})
    assert (store.events(name), store.experiment(name).runs[0].result) == (before, RESULT)


def test_a_lost_attempt_is_queued_again_and_its_late_result_is_stale(store: Store) -> None:
    name = running(store)
    assert store.end_attempt(name, 1, "lost", LOST, Blame.WORKER)[0].state == "queued"
    with pytest.raises(Stale):
        store.complete(name, 1, RESULT, {})
    store.place(name, 1, "w2")
    with pytest.raises(Stale, match=f"attempt 1 of {name} is over; the last one granted is 2"):
        store.complete(name, 1, RESULT, {})
    assert store.complete(name, 2, RESULT, {}).state == "completed"


@pytest.mark.parametrize("message", [
    lambda store, name: store.start(name, 1).result(10),
    lambda store, name: store.progress(name, 1, {}).result(10),
    lambda store, name: store.complete(name, 1, RESULT, {}),
    lambda store, name: store.end_attempt(name, 1, "error", {"detail": "x"}, Blame.RUN),
    lambda store, name: store.cancel_run(name, 1, "x"),
])
def test_nothing_of_an_earlier_attempt_is_applied(store: Store, message: Callable[[Store, str], object]) -> None:
    name = running(store)
    store.end_attempt(name, 1, "lost", LOST, Blame.WORKER)
    store.place(name, 1, "w2")
    before = store.experiment(name)
    with pytest.raises(Stale):
        message(store, name)
    assert store.experiment(name) == before


def test_three_lost_attempts_fail_the_run_with_the_history_of_all(store: Store) -> None:
    name = submit(store)
    for attempt, worker in enumerate(("w1", "w2", "w3")):
        store.place(name, attempt, worker)
        store.end_attempt(name, attempt + 1, "lost", LOST, Blame.WORKER)
    record = store.experiment(name).runs[0]
    assert (record.run.state, record.error) == (
        "failed", {"type": "lost", "detail": "the lease ran out; given up after 3 attempts"})
    assert [(item.attempt, item.worker, item.outcome) for item in record.attempts] == [
        (1, "w1", "lost"), (2, "w2", "lost"), (3, "w3", "lost")]


def test_a_runs_own_error_fails_at_once(store: Store) -> None:
    name = running(store)
    assert store.end_attempt(name, 1, "error", {"type": "damaged", "detail": "x"}, Blame.RUN)[0].state == "failed"


def test_being_turned_away_costs_no_try(store: Store) -> None:
    name = submit(store)
    for attempt in range(5):
        store.place(name, attempt, "w1")
        store.end_attempt(name, attempt + 1, "busy", LOST, Blame.NOBODY)
    run = store.run(name)
    assert (run.state, run.tries, run.returns) == ("queued", 0, 5)


def test_workers_that_failed_a_run_are_to_be_avoided_and_busy_ones_are_not(store: Store) -> None:
    name = submit(store)
    store.place(name, 0, "w1")
    store.end_attempt(name, 1, "busy", LOST, Blame.NOBODY)
    store.place(name, 1, "w2")
    store.end_attempt(name, 2, "lost", LOST, Blame.WORKER)
    assert store.avoided(name) == {"w2"}


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_cancelling_ends_a_run_from_every_unfinished_state(store: Store, steps: int) -> None:
    name = submit(store)
    if steps > 0:
        store.place(name, 0, "w1")
    if steps > 1:
        store.start(name, 1).result(10)
    before = store.cancel(name, "asked")
    assert ([run.worker for run in before], state_of(store, name)) == ([None if steps == 0 else "w1"], "cancelled")


def test_cancelling_twice_is_cancelling_once(store: Store) -> None:
    name = submit(store)
    store.cancel(name, "asked")
    assert store.cancel(name, "asked") == []


def test_what_is_completed_cannot_be_cancelled(store: Store) -> None:
    name = running(store)
    store.complete(name, 1, RESULT, {})
    with pytest.raises(Finished, match="the experiment is completed"):
        store.cancel(name, "asked")


def test_an_unknown_experiment_is_said_to_be_unknown(store: Store) -> None:
    with pytest.raises(UnknownExperiment, match="no experiment exp_1_abcdef"):
        store.cancel("exp_1_abcdef", "asked")


def test_the_timeline_of_an_attempt_is_kept(store: Store, clock: Clock) -> None:
    name = submit(store)
    start = clock.now
    for step in (lambda: store.place(name, 0, "w1"), lambda: store.start(name, 1).result(10),
                 lambda: store.complete(name, 1, RESULT, {})):
        clock.now += 1
        step()
    experiment = store.experiment(name)
    attempt = experiment.runs[0].attempts[0]
    assert [time - start for time in (experiment.accepted_s, attempt.dispatched_s, attempt.started_s or 0,
                                      attempt.ended_s or 0, experiment.finished_s or 0)] == [0, 1, 2, 3, 3]


def test_one_failed_run_does_not_sink_a_grid(store: Store) -> None:
    name, runs = store.submit(REQUEST, [REQUEST, REQUEST])
    for run in runs:
        store.place(run.id, 0, "w1")
    store.end_attempt(runs[0].id, 1, "error", {"detail": "x"}, Blame.RUN)
    assert store.state(name) == "running"
    store.complete(runs[1].id, 1, RESULT, {})
    assert store.state(name) == "completed"


# --- events, pages, conservation


def test_events_are_replayed_from_where_one_left_off(store: Store) -> None:
    name = running(store)
    store.progress(name, 1, {"fraction": 0.5}).result(10)
    seen, _ = store.events(name)
    store.progress(name, 1, {"fraction": 0.7}).result(10)
    fresh, state = store.events(name, after=seen[-1].seq)
    assert ([(event.kind, event.data) for event in fresh], state) == ([("progress", {"fraction": 0.7})], "running")


def test_a_finished_history_holds_states_and_one_result(store: Store) -> None:
    name = running(store)
    store.progress(name, 1, {"fraction": 0.5}).result(10)
    store.complete(name, 1, RESULT, {})
    events, _ = store.events(name)
    assert [(event.kind, event.data["status"]) for event in events] == [
        ("state", "queued"), ("state", "dispatched"), ("state", "running"), ("state", "completed"),
        ("result", "completed")]


def test_pages_are_newest_first_and_do_not_shift(store: Store) -> None:
    names = [submit(store) for _ in range(5)]
    first, cursor = store.page(limit=2)
    submit(store)
    second, cursor = store.page(limit=2, before=cursor)
    third, end = store.page(limit=2, before=cursor)
    assert [item.id for item in first + second + third] == names[::-1]
    assert end is None


def test_pages_are_filtered_by_state_and_tag(store: Store) -> None:
    tagged = submit(store, tags={"team": "red"})
    cancelled = submit(store, tags={"team": "blue"})
    store.cancel(cancelled, "asked")
    assert [item.id for item in store.page(state=State.CANCELLED)[0]] == [cancelled]
    assert [item.id for item in store.page(tag="team")[0]] == [cancelled, tagged]
    assert [item.id for item in store.page(tag="team:red")[0]] == [tagged]


def test_pages_are_searched_for_words_that_all_stand_in_one_experiment(store: Store) -> None:
    red = submit(store, label="Night bus", tags={"team": "red"})
    blue = submit(store, label="night train", codec="x264")
    assert [item.id for item in store.page(search="NIGHT")[0]] == [blue, red]
    assert [item.id for item in store.page(search="x264 night")[0]] == [blue]
    assert [item.id for item in store.page(search=red[-6:])[0]] == [red]
    assert store.page(search="bus train")[0] == store.page(search="100 %_")[0] == []


def test_the_states_add_up_to_what_was_accepted(store: Store) -> None:
    submit(store)
    store.place(submit(store), 0, "w1")
    running(store)
    store.complete(running(store), 1, RESULT, {})
    store.cancel(submit(store), "asked")
    found = store.conservation()
    assert (found.accepted, list(found.counts.values())) == (5, [1, 1, 1, 1, 0, 1])
    assert [(run.state, attempt.worker if attempt else None) for run, attempt in found.unfinished] == [
        ("queued", None), ("dispatched", "w1"), ("running", "w1")]


def test_refused_messages_are_listed_and_bounded(store: Store) -> None:
    for number in range(MAX_REFUSED + 5):
        store.refuse("exp_1_abcdef", number, "result", "stale")
    assert store.conservation().refused[0]["attempt"] == MAX_REFUSED + 4
    with store.reading() as db:
        assert db.execute("SELECT COUNT(*) FROM refused").fetchone()[0] == MAX_REFUSED


# --- small tables


def test_a_clip_is_found_by_name_and_by_hash(store: Store) -> None:
    registry = Registry(store)
    registry.put_clip("mine", "ab", 5, {"width": 16})
    clip = {"name": "mine", "sha256": "ab", "bytes": 5, "uploaded": "2025-10-17T19:16:10.000Z", "width": 16}
    assert (registry.clip(name="mine"), registry.clip(sha256="ab"), registry.clip(name="other")) == (clip, clip, None)


def test_a_clip_whose_name_was_given_away_is_still_found_by_hash(store: Store) -> None:
    registry = Registry(store)
    registry.put_clip("mine", "ab", 5, {})
    registry.put_clip("mine", "cd", 6, {})
    assert [clip["sha256"] for clip in registry.clips()] == ["cd"]
    assert (registry.clip(sha256="ab") or {})["bytes"] == 5
    assert registry.referenced("ab")


def test_a_revoked_key_stays_listed_and_cannot_be_revoked_again(store: Store) -> None:
    registry = Registry(store)
    registry.add_key("k1", "ff", "worker", "host b")
    registry.revoke_key("k1")
    assert [(key["id"], key["revoked_s"]) for key in registry.list_keys()] == [("k1", 1_760_728_570.0)]
    with pytest.raises(StoreError, match="no key k1 is in force"):
        registry.revoke_key("k1")


def test_a_worker_is_remembered_until_forgotten(store: Store) -> None:
    registry = Registry(store)
    registry.put_worker("w1", {"url": "http://127.0.0.1:1"})
    assert registry.workers() == {"w1": {"url": "http://127.0.0.1:1"}}
    registry.forget_worker("w1")
    assert registry.workers() == {}


# --- the folder


def test_a_second_process_on_the_same_state_is_refused(store: Store) -> None:
    code = "import sys, pathlib; from service.storage import store; store.Store(pathlib.Path(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", code, str(store.folder)], capture_output=True, text=True,
                          cwd=Path(__file__).parent.parent, check=False)
    assert "StateInUse: the state directory" in done.stderr.replace("records.", "")


def test_a_command_beside_the_service_shares_the_database(store: Store) -> None:
    beside = Store(store.folder, exclusive=False)
    Registry(beside).add_key("k1", "ff", "worker", "")
    beside.close()
    assert [key["id"] for key in Registry(store).list_keys()] == ["k1"]


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "orchestrator.sqlite3").write_bytes(b"something else entirely" * 100)
    with pytest.raises(StoreError, match="cannot open"):
        Store(tmp_path)


def test_a_commit_means_flushed_to_the_disk(store: Store) -> None:
    assert (store._writer.execute("PRAGMA synchronous").fetchone()[0],
            store._writer.execute("PRAGMA journal_mode").fetchone()[0]) == (2, "wal")


def test_a_closed_store_says_so(store: Store) -> None:
    store.close()
    with pytest.raises(StoreError, match="the store is closed"):
        submit(store)


# --- a database that has lost what it had


def test_a_database_that_has_lost_runs_is_refused_with_what_to_do(tmp_path: Path, clock: Clock) -> None:
    opened = Store(tmp_path, clock=clock)
    for _ in range(3):
        submit(opened)
    opened.close()
    for part in tmp_path.glob("orchestrator.sqlite3*"):
        part.unlink()
    with pytest.raises(StoreError, match="3 runs were accepted, and the database has 0 of them") as caught:
        Store(tmp_path, clock=clock)
    assert str(tmp_path / "accepted") in str(caught.value)
    (tmp_path / "accepted").unlink()  # knowingly
    Store(tmp_path, clock=clock).close()


def test_a_database_without_its_write_ahead_log_is_refused(tmp_path: Path, clock: Clock) -> None:
    first = Store(tmp_path / "first", clock=clock)
    submit(first)
    (tmp_path / "copy").mkdir()
    for name in ("orchestrator.sqlite3", "accepted"):  # a copy that leaves the -wal behind
        (tmp_path / "copy" / name).write_bytes((tmp_path / "first" / name).read_bytes())
    first.close()
    with pytest.raises(StoreError, match="runs were accepted"):
        Store(tmp_path / "copy", clock=clock)


def test_a_state_of_a_version_without_the_count_opens(tmp_path: Path, clock: Clock) -> None:
    opened = Store(tmp_path, clock=clock)
    submit(opened)
    opened.close()
    (tmp_path / "accepted").unlink()
    opened = Store(tmp_path, clock=clock)
    opened.close()
    assert int((tmp_path / "accepted").read_text()) == 1


def test_a_run_that_runs_out_of_memory_twice_fails_with_that_reason(store: Store) -> None:
    name = running(store)
    error = {"type": "out-of-memory", "detail": "32 GiB were needed"}
    assert store.end_attempt(name, 1, "out-of-memory", error, Blame.WORKER)[0].state == "queued"
    store.place(name, 1, "w2")
    assert store.end_attempt(name, 2, "out-of-memory", error, Blame.WORKER)[0].state == "failed"
    assert store.experiment(name).runs[0].error == {
        "type": "out-of-memory", "detail": "32 GiB were needed; it ran out of memory twice"}


def test_who_submitted_an_experiment_is_remembered(store: Store) -> None:
    document = read_request({"quality": [8, 16]})
    name, runs = store.submit(document, runs_of(document), principal="abc")
    assert {store.submitted_by(name), store.submitted_by(runs[0].id)} == {"abc"}
    with pytest.raises(UnknownExperiment):
        store.submitted_by("exp_0")
