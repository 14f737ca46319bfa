"""Which run goes to which worker, when leases end, and why something waits: on a clock that the test holds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from service.jobs.states import State
from service.scheduling.placement import Placement
from service.storage.records import Run
from tests.clock import Clock

LEASE_S = 10.0


@pytest.fixture
def placed(clock: Clock) -> Placement:
    return Placement(LEASE_S, clock, uniform=lambda low, high: high)


def make_run(number: int, *, attempt: int = 0, codec: str = "nvc", device: str = "auto", timeout_s: float = 600) -> Run:
    settings = {"codec": codec, "device": device, "timeout_s": timeout_s}
    return Run(number, f"r{number}", number, f"r{number}", State.QUEUED, attempt, 0, 0, None, None, settings, {}, "")


def beat(placed: Placement, name: str, *held: tuple[str, int], slots: int = 1, codecs: tuple[str, ...] = ("nvc",),
         device: str = "cpu", **said: object) -> tuple[list[str], list[tuple[str, int]]]:
    """A heartbeat; the runs whose lease it renewed, and the attempts it named in vain."""
    about = {"codecs": list(codecs), "device": device}
    renewed, unknown = placed.heartbeat(name, f"http://{name}", slots, about, {key: {} for key in held},
                                        **said)  # type: ignore[arg-type]
    return [lease.run.id for lease in renewed], unknown


def grants(placed: Placement) -> list[tuple[str, int, str]]:
    return [(lease.run.id, lease.attempt, lease.worker) for lease in placed.choose()]


# --- choosing


def test_the_oldest_run_goes_first(placed: Placement) -> None:
    for number in (2, 1, 3):
        placed.enqueue(make_run(number))
    beat(placed, "w1", slots=2)
    assert grants(placed) == [("r1", 1, "w1"), ("r2", 1, "w1")]


def sweep(placed: Placement, first: int, runs: int, **more: Any) -> None:
    """An experiment of many runs, numbered from `first` on."""
    for number in range(first, first + runs):
        placed.enqueue(replace(make_run(number, **more), experiment=first))


def served(placed: Placement, count: int, **able: Any) -> list[str]:
    """Which runs the only slot takes, one after the other; `able`: what its worker says that it can."""
    order = []
    for _ in range(count):
        beat(placed, "w1", **able)
        ((run_id, attempt, _),) = grants(placed)
        order.append(run_id)
        placed.withdraw(run_id)
        placed.let_go((run_id, attempt))
    return order


def test_an_experiment_behind_a_large_sweep_waits_for_one_of_its_runs_at_most(placed: Placement) -> None:
    sweep(placed, 1, 100)
    assert served(placed, 2) == ["r1", "r2"]
    placed.enqueue(make_run(201))
    placed.enqueue(make_run(202))
    assert served(placed, 5) == ["r3", "r201", "r202", "r4", "r5"]


def test_two_sweeps_take_turns(placed: Placement) -> None:
    sweep(placed, 1, 10)
    sweep(placed, 101, 10)
    assert served(placed, 6) == ["r1", "r101", "r2", "r102", "r3", "r103"]


def test_a_sweep_of_several_codecs_has_one_turn_in_all(placed: Placement) -> None:
    beat(placed, "w1", codecs=("nvc", "x264"))
    for number in range(1, 9):
        placed.enqueue(replace(make_run(number, codec=("nvc", "x264")[number % 2]), experiment=1))
    placed.enqueue(make_run(100))
    assert served(placed, 4, codecs=("nvc", "x264")) == ["r1", "r100", "r2", "r3"]


def test_experiments_that_keep_coming_do_not_starve_a_sweep(placed: Placement) -> None:
    sweep(placed, 1, 100)
    order = []
    for number in range(201, 221):
        placed.enqueue(make_run(number))
        order += served(placed, 1)
    # Each round is longer, for more come in it than are served; the sweep has its turn in each.
    assert [place for place, run_id in enumerate(order) if int(run_id[1:]) <= 100] == [0, 2, 5, 9, 14]


def test_an_experiment_that_nobody_could_take_has_saved_up_no_turns(placed: Placement) -> None:
    sweep(placed, 1, 10, device="cuda")
    sweep(placed, 101, 20)
    assert served(placed, 5) == ["r101", "r102", "r103", "r104", "r105"]
    beat(placed, "w1", device="cuda")
    assert served(placed, 4, device="cuda") == ["r1", "r2", "r106", "r3"]


def test_load_is_shared_by_the_share_of_free_slots(placed: Placement) -> None:
    beat(placed, "w1", slots=1)
    beat(placed, "w2", slots=3)
    for number in range(1, 6):
        placed.enqueue(make_run(number))
    assert sorted(worker for *_, worker in grants(placed)) == ["w1", "w2", "w2", "w2"]


def test_a_run_waits_for_a_worker_with_its_codec_and_holds_up_nobody(placed: Placement) -> None:
    beat(placed, "w1", slots=2)
    placed.enqueue(make_run(1, codec="x265"))
    placed.enqueue(make_run(2))
    assert grants(placed) == [("r2", 1, "w1")]
    beat(placed, "w2", codecs=("x265",))
    assert grants(placed) == [("r1", 1, "w2")]


@pytest.mark.parametrize(("wanted", "device", "goes"), [("auto", "cpu", True), ("cpu", "cpu", True),
                                                        ("cuda", "cpu", False), ("cuda", "cuda:1", True)])
def test_a_run_goes_where_its_device_is(placed: Placement, wanted: str, device: str, goes: bool) -> None:
    beat(placed, "w1", device=device)
    placed.enqueue(make_run(1, device=wanted))
    assert bool(grants(placed)) == goes


def test_a_worker_to_avoid_is_left_out_while_there_is_another(placed: Placement) -> None:
    beat(placed, "w1")
    beat(placed, "w2", slots=1)
    placed.enqueue(make_run(1))
    placed.choose()
    placed.enqueue(make_run(2, attempt=1), avoid=frozenset({"w1", "w2"} - {placed.leases["r1"].worker}))
    assert grants(placed) == []


def test_a_worker_to_avoid_is_taken_when_there_is_no_other(placed: Placement) -> None:
    beat(placed, "w1")
    placed.enqueue(make_run(1, attempt=1), avoid=frozenset({"w1"}))
    assert grants(placed) == [("r1", 2, "w1")]


def test_a_run_in_its_back_off_waits_until_it_is_due(placed: Placement, clock: Clock) -> None:
    beat(placed, "w1")
    placed.enqueue(make_run(1), delay_s=3.0)
    assert (grants(placed), placed.next_due_s()) == ([], 3.0)
    clock.now += 3.0
    assert grants(placed) == [("r1", 1, "w1")]


@pytest.mark.parametrize("said", [{"draining": True}, {"slots": 0}])
def test_a_worker_that_takes_nothing_gets_nothing(placed: Placement, said: dict) -> None:
    beat(placed, "w1", **said)
    placed.enqueue(make_run(1))
    assert grants(placed) == []


def test_a_withdrawn_run_is_not_granted(placed: Placement) -> None:
    placed.enqueue(make_run(1))
    placed.withdraw("r1")
    beat(placed, "w1")
    assert grants(placed) == []


def test_a_worker_that_could_not_be_reached_is_left_alone_longer_each_time(placed: Placement, clock: Clock) -> None:
    beat(placed, "w1")
    placed.enqueue(make_run(1))
    waits = []
    for _ in range(3):
        placed.trouble("w1", "connection refused")
        waits.append(placed.next_due_s())
        beat(placed, "w1")
        assert grants(placed) == []
    assert waits == [1.0, 2.0, 4.0]
    clock.now += 4.0
    assert grants(placed) == [("r1", 1, "w1")]


def test_a_worker_that_was_started_again_is_trusted_again(placed: Placement) -> None:
    beat(placed, "w1", boot_id="a")
    placed.trouble("w1", "connection refused")
    beat(placed, "w1", boot_id="b")
    placed.enqueue(make_run(1))
    assert grants(placed) == [("r1", 1, "w1")]


# --- slots


def test_a_slot_is_taken_from_the_grant_until_the_end(placed: Placement) -> None:
    beat(placed, "w1")
    placed.enqueue(make_run(1))
    placed.enqueue(make_run(2))
    assert grants(placed) == [("r1", 1, "w1")]
    placed.withdraw("r1")
    assert grants(placed) == []
    placed.let_go(("r1", 1))
    assert grants(placed) == [("r2", 1, "w1")]


def test_a_heartbeat_from_before_the_offer_does_not_free_the_slot(placed: Placement) -> None:
    beat(placed, "w1")
    placed.enqueue(make_run(1))
    placed.enqueue(make_run(2))
    placed.choose()
    beat(placed, "w1")
    assert grants(placed) == []


def test_a_cancelled_run_holds_its_slot_until_the_worker_lets_go(placed: Placement) -> None:
    beat(placed, "w1")
    placed.enqueue(make_run(1))
    placed.enqueue(make_run(2))
    placed.choose()
    placed.withdraw("r1")
    assert beat(placed, "w1", ("r1", 1)) == ([], [("r1", 1)])
    assert grants(placed) == []
    beat(placed, "w1")
    assert grants(placed) == [("r2", 1, "w1")]


def test_a_heartbeat_sent_before_a_result_does_not_take_the_slot_again(placed: Placement) -> None:
    beat(placed, "w1")
    placed.enqueue(make_run(1))
    placed.choose()
    placed.withdraw("r1")
    placed.let_go(("r1", 1))
    placed.enqueue(make_run(2))
    beat(placed, "w1", ("r1", 1))
    assert grants(placed) == [("r2", 1, "w1")]


def test_an_attempt_being_delivered_takes_no_slot_but_keeps_its_lease(placed: Placement) -> None:
    beat(placed, "w1")
    placed.enqueue(make_run(1))
    placed.enqueue(make_run(2))
    placed.choose()
    placed.heartbeat("w1", "http://w1", 1, {"codecs": ["nvc"]}, {("r1", 1): {"phase": "deliver"}})
    assert grants(placed) == [("r2", 1, "w1")]
    assert "r1" in placed.leases


# --- leases


def leased(placed: Placement) -> None:
    beat(placed, "w1")
    placed.enqueue(make_run(1, timeout_s=5))
    placed.choose()


def test_a_lease_runs_out_unless_a_heartbeat_names_it(placed: Placement, clock: Clock) -> None:
    leased(placed)
    clock.now += LEASE_S - 0.1
    assert beat(placed, "w1", ("r1", 1)) == (["r1"], [])
    clock.now += LEASE_S - 0.1
    beat(placed, "w1")
    assert placed.expired() == []
    clock.now += 0.1
    assert [lease.run.id for lease in placed.expired()] == ["r1"]


@pytest.mark.parametrize(("worker", "attempt"), [("w2", 1), ("w1", 2)])
def test_only_the_holder_renews_and_only_its_attempt(placed: Placement, worker: str, attempt: int) -> None:
    leased(placed)
    assert beat(placed, worker, ("r1", attempt)) == ([], [("r1", attempt)])


def test_twenty_leases_of_pure_computation_lose_nothing(placed: Placement, clock: Clock) -> None:
    beat(placed, "w1")
    placed.enqueue(make_run(1))
    placed.choose()
    for _ in range(100):
        clock.now += 2.0
        beat(placed, "w1", ("r1", 1))
        assert (placed.expired(), placed.overdue()) == ([], [])


def test_a_run_past_its_deadline_is_overdue_although_its_worker_lives(placed: Placement, clock: Clock) -> None:
    leased(placed)
    placed.start(placed.leases["r1"])
    for _ in range(4):
        clock.now += 4.9
        beat(placed, "w1", ("r1", 1))
        assert placed.overdue() == []
    clock.now += 0.5    # five seconds to run and fifteen for its worker to end it
    assert [lease.run.id for lease in placed.overdue()] == ["r1"]


def test_an_orchestrator_that_was_stopped_gives_the_time_back(placed: Placement, clock: Clock) -> None:
    leased(placed)
    placed.looking(1.0)
    clock.now += 300.0
    placed.looking(1.0)
    assert (placed.expired(), placed.alive(placed.workers["w1"])) == ([], True)


def test_a_busy_second_gives_nothing_back(placed: Placement, clock: Clock) -> None:
    leased(placed)
    for _ in range(5):
        clock.now += 2.0
        placed.looking(1.0)
    assert [lease.run.id for lease in placed.expired()] == ["r1"]


def test_after_a_restart_every_attempt_has_a_fresh_lease(placed: Placement, clock: Clock) -> None:
    placed.remember("w1", "http://w1", {"boot_id": "a"})
    run = Run(1, "r1", 1, "r1", State.RUNNING, 3, 0, 0, "w1", None, make_run(1).settings, {}, "")
    placed.restore(run, started=True)
    clock.now += LEASE_S - 0.1
    assert placed.expired() == []
    assert beat(placed, "w1", ("r1", 3)) == (["r1"], [])


def test_a_worker_silent_for_an_hour_is_forgotten(placed: Placement, clock: Clock) -> None:
    beat(placed, "w1")
    clock.now += 3601
    assert (placed.forget_lost(), placed.workers) == (["w1"], {})


# --- why


def test_a_run_that_comes_back_goes_before_the_rounds_of_others(placed: Placement) -> None:
    for number in range(1, 6):
        placed.enqueue(make_run(number))
    beat(placed, "w1")
    assert grants(placed) == [("r1", 1, "w1")]
    placed.withdraw("r1")
    placed.let_go(("r1", 1))
    placed.enqueue(make_run(1, attempt=1))
    assert served(placed, 3) == ["r1", "r2", "r3"]


def test_a_heartbeat_that_says_nothing_of_progress_keeps_what_was_said(placed: Placement) -> None:
    placed.enqueue(make_run(1))
    beat(placed, "w1")
    placed.choose()
    placed.heartbeat("w1", "http://w1", 1, {}, {("r1", 1): {"phase": "encode", "frame": 7}})
    placed.heartbeat("w1", "http://w1", 1, {}, {("r1", 1): {"phase": "decode", "frame": None}})
    assert placed.leases["r1"].progress == {"phase": "decode", "frame": 7}


KINDS = ((("nvc",), "cpu"), (("nvc", "x264"), "cpu"), (("x264",), "cuda:0"))


class Twin(RuleBasedStateMachine):
    """Placement chooses the worker that looking at every worker would choose, whatever happens to them."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.placed = Placement(LEASE_S, self.clock, uniform=lambda low, high: high)
        self.number = 0
        self.held: dict[str, list[tuple[str, int]]] = {}
        for worker in range(3):
            self.heartbeat(worker, KINDS[1], 2, False)

    @rule(worker=st.integers(0, 2), kind=st.sampled_from([KINDS[1], *KINDS]), slots=st.sampled_from([2, 1, 3, 0]),
          draining=st.sampled_from([False, False, False, True]))
    def heartbeat(self, worker: int, kind: tuple[tuple[str, ...], str], slots: int, draining: bool) -> None:
        name = f"w{worker}"
        beat(self.placed, name, *self.held.get(name, ()), slots=slots, codecs=kind[0], device=kind[1],
             draining=draining)

    @rule(codec=st.sampled_from(["nvc", "x264"]), avoid=st.sampled_from([(), (), (0,), (1, 2)]))
    def submit(self, codec: str, avoid: tuple[int, ...]) -> None:
        self.number += 1
        self.placed.enqueue(make_run(self.number, codec=codec), frozenset(f"w{worker}" for worker in avoid))

        for lease in self.placed.choose():
            self.held.setdefault(lease.worker, []).append(lease.key)

    @rule(worker=st.integers(0, 2), reported=st.booleans())
    def end(self, worker: int, reported: bool) -> None:
        if held := self.held.get(f"w{worker}"):
            key = held.pop()
            self.placed.withdraw(key[0])
            if reported:
                self.placed.let_go(key)

    @rule(worker=st.integers(0, 2), what=st.sampled_from(["trouble", "well", "drain", "undrain"]))
    def mark(self, worker: int, what: str) -> None:
        if what in ("drain", "undrain"):
            self.placed.drain(f"w{worker}", what == "drain")
        elif what == "trouble":
            self.placed.trouble(f"w{worker}", "it refuses")
        else:
            self.placed.well(f"w{worker}")

    @rule(seconds=st.sampled_from([0.5, 3.0, 11.0]))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds
        for lease in self.placed.expired():
            self.placed.withdraw(lease.run.id)

    @invariant()
    def the_worker_is_the_one_that_looking_at_all_gives(self) -> None:
        placed, now = self.placed, self.clock()
        placed._free.wake(now)
        for codec, avoid in (("nvc", frozenset()), ("x264", frozenset()), ("nvc", frozenset({"w0"}))):
            able = [worker for worker in placed.workers.values() if placed.alive(worker) and worker.takes_runs
                    and worker.can(codec, "auto")]
            able = [worker for worker in able if worker.name not in avoid] or able
            free = [worker for worker in able if worker.free and worker.not_before <= now]
            expected = max(free, key=lambda worker: (worker.free / worker.slots, -worker.last_grant), default=None)
            found = placed._worker_for((codec, "auto", avoid))
            assert (found and found.name) == (expected and expected.name)

    @invariant()
    def leases_run_out_when_looking_at_all_says_so(self) -> None:
        now = self.clock()
        leases = self.placed.leases.values()
        assert {lease.key for lease in self.placed.expired()} == {lease.key for lease in leases if lease.expires <= now}
        due = min((lease.due for lease in leases), default=None)
        assert self.placed._leases.next_due() == due


TestTwin = Twin.TestCase
TestTwin.settings = settings(max_examples=200, stateful_step_count=30, deadline=None)


def test_it_says_why_a_run_waits(placed: Placement, clock: Clock) -> None:
    placed.enqueue(make_run(1))
    assert placed.why("r1") == ("no worker has registered", "a worker registers", None)
    beat(placed, "w1", codecs=("x265",))
    assert placed.why("r1")[0] == "no worker has codec nvc on device auto; there are x265"
    beat(placed, "w1", draining=True)
    assert placed.why("r1")[0] == "every worker that can take it is draining or starting: w1"
    beat(placed, "w1")
    placed.trouble("w1", "connection refused")
    assert placed.why("r1") == ("worker w1 is left alone: connection refused", "it is asked again", 1.0)
    placed.well("w1")
    placed.choose()
    assert placed.why("r1") == ("worker w1 has been asked and has not answered yet", "the lease is taken back", 10.0)
    placed.start(placed.leases["r1"])
    assert placed.why("r1") == ("worker w1 is at work", "a heartbeat renews the lease, or it is taken back", 10.0)
    placed.enqueue(make_run(2))
    assert placed.why("r2") == (
        "the only slot is taken, of the workers that have codec nvc", "a slot becomes free", None)
    placed.enqueue(make_run(3, attempt=1), delay_s=4.0)
    assert placed.why("r3") == ("back-off after attempt 1", "it joins the queue", 4.0)
    clock.now += 3600
    assert placed.why("r2")[0] == "every worker is lost: w1"


def test_a_worker_that_said_goodbye_has_stopped_and_one_that_fell_silent_is_lost(placed: Placement, clock: Clock
                                                                                 ) -> None:
    placed.enqueue(make_run(1))
    beat(placed, "at-work")
    assert grants(placed) == [("r1", 1, "at-work")]
    for name, held, draining in (("at-work", [("r1", 1)], True), ("silent", [], False), ("gone", [], True)):
        beat(placed, name, *held, draining=draining)
    clock.now += 2 * LEASE_S
    assert {name: placed.state_of(worker) for name, worker in placed.workers.items()} == {
        "at-work": "lost", "silent": "lost", "gone": "stopped"}
