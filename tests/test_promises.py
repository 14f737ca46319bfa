"""Random interleavings of everything that may happen, on a clock that the test holds; the promises after each step.

The machine drives the store and the placement as the orchestrator does, with two workers of its own: what they hold,
what they have ended and not been believed, and which of their messages come late, twice or never.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from service.jobs import fields
from service.jobs.fields import read_request
from service.jobs.states import MAX_RETURNS, MAX_TRIES, TABLE, TERMINAL, Blame, State, backoff_s, experiment_state
from service.scheduling.placement import Lease, Placement
from service.storage.store import Finished, KeyReused, Stale, Store

LEASE_S = 10.0
SLOTS = {"w1": 1, "w2": 2}
REQUEST = read_request({"timeout_s": 86_400})
GRID = read_request({"timeout_s": 86_400, "quality": [1, 2]})
LOOK_S = 1.0
BLAME = {"own error": Blame.RUN, "out of memory": Blame.WORKER, "handed-back": Blame.NOBODY}
MANY = 10_000       # more runs than a history has
FATES = ["held", "held", "unheard", "lost", "busy", "refused"]     # of an attempt that is granted
MEMORY = Path("/dev/shm")   # thousands of commits, none of which is to survive the test


class Promises(RuleBasedStateMachine):
    """See above. `accepted`: each experiment's idempotency key, or ""; `runs`: each run's experiment; `held`: what each
    worker is at work on, whatever the orchestrator thinks of it; `told`: every end ever reported, as (run, attempt,
    state); `final`: each run's one terminal record."""

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else None))
        self.wall, self.now = 1_760_728_570.0, 0.0
        self.store = Store(self.folder, clock=lambda: self.wall)
        self.placed = self.make_placement()
        self.accepted: dict[str, str] = {}
        self.runs: dict[str, str] = {}
        self.held: dict[str, set[tuple[str, int]]] = {name: set() for name in SLOTS}
        self.told: list[tuple[str, int, str]] = []
        self.final: dict[str, tuple[str, Any, Any]] = {}
        self.granted: set[tuple[str, int]] = set()
        for name in SLOTS:
            self.beat(name)
        for _ in range(3):
            self.submit(key="", body="1", request=REQUEST)

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            shutil.rmtree(self.folder)

    def make_placement(self) -> Placement:
        return Placement(LEASE_S, lambda: self.now, uniform=lambda low, high: high)

    # --- clients

    @rule(key=st.sampled_from(["", "a", "b"]), body=st.sampled_from(["1", "2"]),
          request=st.sampled_from([REQUEST, REQUEST, GRID]))
    def submit(self, key: str, body: str, request: dict[str, Any]) -> None:
        known = {found: name for name, found in self.accepted.items() if found}
        try:
            name, runs = self.store.submit(request, fields.runs_of(request), key=key or None, body_sha256=body)
        except KeyReused:
            assert f"{key}{'2' if body == '1' else '1'}" in known
            return
        if key and f"{key}{body}" in known:
            assert (name, runs) == (known[f"{key}{body}"], [])
            return
        self.accepted[name] = f"{key}{body}" if key else ""
        for run in runs:
            self.runs[run.id] = name
            self.placed.enqueue(run)

    @precondition(lambda self: self.accepted)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(list(self.accepted)))
        state = self.store.state(name)
        try:
            self.store.cancel(name, "asked")
        except Finished:
            assert state in (State.COMPLETED, State.FAILED)
            return
        assert self.store.state(name) in TERMINAL      # of a grid, a run may have completed before
        for run_id in self.runs_of(name):
            self.placed.withdraw(run_id)

    def runs_of(self, name: str) -> list[str]:
        return [run_id for run_id, of in self.runs.items() if of == name]

    # --- the orchestrator

    @rule(seconds=st.sampled_from([0.0, 1.0, 5.0, 11.0]), alive=st.sampled_from([("w1", "w2"), ("w1",), ("w2",), ()]),
          fates=st.lists(st.sampled_from(FATES), min_size=3, max_size=3))
    def look(self, seconds: float, alive: tuple[str, ...], fates: list[str]) -> None:
        """Time passes, some workers are heard of, leases that are over are taken back, runs are placed."""
        self.now += seconds
        for name in alive:
            self.beat(name)
        for lease in self.placed.expired():
            self.placed.withdraw(lease.run.id)
            self.end(lease.key, "lost", Blame.WORKER)
        for lease, fate in zip(self.placed.choose(), fates, strict=False):
            lease.run = self.store.place(lease.run.id, lease.run.attempt, lease.worker)
            assert lease.key not in self.granted, "an attempt was granted twice"
            self.granted.add(lease.key)
            if fate in ("held", "unheard"):     # the worker has it; of the second, a heartbeat tells, or nobody
                self.held[lease.worker].add(lease.key)
            if fate == "held":
                self.start(lease)
            elif fate == "busy":
                self.end(lease.key, "busy", Blame.NOBODY)
            elif fate == "refused":
                self.end(lease.key, "refused", Blame.WORKER)

    def start(self, lease: Lease) -> None:
        self.placed.start(lease)
        self.store.start(lease.run.id, lease.attempt).result()

    def end(self, key: tuple[str, int], outcome: str, blame: Blame) -> None:
        """What Conductor._end does. Raises Stale."""
        run = self.store.end_attempt(*key, outcome, {"type": outcome, "detail": "x"}, blame).run
        if self.placed.current(*key) is not None:
            self.placed.withdraw(run.id)
        if run.state is State.QUEUED and run.attempt == key[1]:
            self.placed.enqueue(run, frozenset(self.store.avoided(run.id)), backoff_s(run.tries, uniform=max))
        self.placed.let_go(key)

    @rule(event=st.sampled_from(["restart", "restart", "stopped", "wall clock", "w1 dies", "w2 dies"]))
    def something_breaks(self, event: str) -> None:
        if event == "restart":
            self.restart()
        elif event == "stopped":        # no worker could say that it lives; nobody loses anything by it
            self.placed.looking(LOOK_S)
            before = [lease.key for lease in self.placed.expired()]
            self.now += 60.0
            self.placed.looking(LOOK_S)
            assert [lease.key for lease in self.placed.expired() if lease.key not in before] == []
        elif event == "wall clock":     # only keys may be forgotten by it; the machine forgets its own as well
            self.wall += 86_400.0 * 365
            self.accepted = dict.fromkeys(self.accepted, "")
        else:
            self.let_go(event[:2], self.ordered(self.held[event[:2]]))

    def restart(self) -> None:
        self.store.close()
        self.store = Store(self.folder, clock=lambda: self.wall)
        self.placed = self.make_placement()
        for name in SLOTS:
            self.placed.remember(name, f"http://{name}", {})
        for run in self.store.at_workers():
            self.placed.restore(run, started=run.state is State.RUNNING)
        for run in self.store.queued(0, MANY):
            self.placed.enqueue(run, frozenset(self.store.avoided(run.id)))

    # --- workers

    def beat(self, name: str) -> None:
        running: dict[tuple[str, int], dict[str, Any]] = {key: {} for key in self.held[name]}
        renewed, unknown = self.placed.heartbeat(name, f"http://{name}", SLOTS[name], {"codecs": ["nvc"]}, running)
        for lease in renewed:
            if not lease.started:
                self.start(lease)
        self.let_go(name, unknown)
        assert {lease.key for lease in renewed} <= self.held[name]

    def let_go(self, name: str, keys: Sequence[tuple[str, int]]) -> None:
        """The worker ends them unasked, but their results may be on their way already."""
        self.told += [(*key, "completed") for key in keys]
        self.held[name] -= set(keys)

    def ordered(self, keys: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
        """Ids are drawn at random; the order of acceptance is not."""
        order = list(self.runs)
        return sorted(keys, key=lambda key: (order.index(key[0]), key[1]))

    @precondition(lambda self: any(self.held.values()))
    @rule(data=st.data(), heard=st.booleans(), state=st.sampled_from(
        ["completed", "completed", "own error", "out of memory", "handed-back", "cancelled"]))
    def a_worker_ends_an_attempt(self, data: st.DataObject, heard: bool, state: str) -> None:
        """`heard`: whether the worker sees the answer; if not, it keeps the attempt and will say it again."""
        name = data.draw(st.sampled_from(sorted(name for name in SLOTS if self.held[name])))
        key = data.draw(st.sampled_from(self.ordered(self.held[name])))
        if heard:
            self.held[name].discard(key)
        self.told.append((*key, state))
        self.report(*self.told[-1])

    @precondition(lambda self: self.told)
    @rule(data=st.data())
    def an_end_comes_again(self, data: st.DataObject) -> None:
        self.report(*data.draw(st.sampled_from(self.told)))

    @precondition(lambda self: self.told)
    @rule(data=st.data())
    def progress_comes_late(self, data: st.DataObject) -> None:
        run_id, attempt, _ = data.draw(st.sampled_from(self.told))
        run = self.store.run(run_id)
        try:
            self.store.progress(run_id, attempt, {"run": run_id, "attempt": attempt}).result()
        except Stale:
            assert run.attempt != attempt or run.state not in (State.DISPATCHED, State.RUNNING)
        else:
            assert run.attempt == attempt
            assert run.state in (State.DISPATCHED, State.RUNNING)

    def report(self, run_id: str, attempt: int, state: str) -> None:
        """What Conductor.finished does; what is fenced off must change nothing."""
        before = self.store.experiment(run_id)
        run = before.runs[0].run
        open_now = run.attempt == attempt and run.state in (State.DISPATCHED, State.RUNNING)
        try:
            if state == "completed":
                self.store.complete(run_id, attempt, {"metrics": {"by": attempt}}, {})
            elif state == "cancelled":
                self.store.cancel_run(run_id, attempt, "at the worker")
            else:
                self.end((run_id, attempt), state, BLAME[state])
        except Stale:
            assert not open_now, "an attempt in force was turned away"
            self.placed.let_go((run_id, attempt))
        if not open_now:
            assert self.store.experiment(run_id) == before, "a message of an attempt that is over changed something"
        elif self.placed.current(run_id, attempt) is not None:
            self.placed.withdraw(run_id)
            self.placed.let_go((run_id, attempt))

    # --- the promises

    @invariant()
    def everything_accepted_is_somewhere(self) -> None:
        found = self.store.conservation()
        assert found.accepted == sum(found.counts.values()) == len(self.runs)
        assert {run.id for run, _ in found.unfinished} | set(self.terminal()) == set(self.runs)

    @invariant()
    def memory_knows_exactly_what_is_unfinished(self) -> None:
        stored = self.store.unfinished_attempts()
        leases = {run_id: lease.attempt for run_id, lease in self.placed.leases.items()}
        assert leases == {run_id: attempt for run_id, (state, attempt) in stored.items() if state is not State.QUEUED}
        assert [run_id for run_id in self.runs if self.placed.knows(run_id)] == [
            run_id for run_id in self.runs if run_id in stored]

    @invariant()
    def each_run_has_one_end_that_never_changes(self) -> None:
        ends = self.terminal()
        assert {run_id: ends[run_id] for run_id in self.final} == self.final
        self.final = ends
        with self.store.reading() as db:
            counted = dict(db.execute("SELECT runs.id, COUNT(*) FROM events JOIN runs ON runs.number = events.run "
                                      "WHERE kind = 'result' GROUP BY runs.id").fetchall())
        assert counted == dict.fromkeys(ends, 1)

    def terminal(self) -> dict[str, tuple[str, Any, Any]]:
        found = {}
        for run_id in self.runs:
            record = self.store.experiment(run_id).runs[0]
            if record.run.state in TERMINAL:
                found[run_id] = (record.run.state, record.result, record.error)
        return found

    @invariant()
    def each_history_goes_along_the_table(self) -> None:
        moves = {(before, after) for (before, _), after in TABLE.items()}
        for name in self.accepted:
            seen: dict[str, list[str]] = {}
            for event in self.store.events(name)[0]:
                if event.kind == "state":
                    seen.setdefault(event.data["run"], []).append(event.data["status"])
            for run_id, states in seen.items():
                assert states[0] == State.QUEUED
                assert set(itertools.pairwise(states)) <= moves
                assert states[-1] == self.store.run(run_id).state
            assert self.store.state(name) is experiment_state([self.store.run(run_id).state for run_id in seen])

    @invariant()
    def attempts_are_numbered_and_at_most_the_last_is_open(self) -> None:
        for run_id in self.runs:
            record = self.store.experiment(run_id).runs[0]
            assert [attempt.attempt for attempt in record.attempts] == list(range(1, record.run.attempt + 1))
            still_open = [attempt.attempt for attempt in record.attempts if attempt.ended_s is None]
            holds = record.run.state in (State.DISPATCHED, State.RUNNING)
            assert still_open == ([record.run.attempt] if holds else [])

    @invariant()
    def tries_are_bounded(self) -> None:
        for run in [*self.store.at_workers(), *self.store.queued(0, MANY)]:
            assert run.tries < MAX_TRIES
            assert run.returns < MAX_RETURNS

    @invariant()
    def no_worker_is_given_more_than_its_slots(self) -> None:
        for name, worker in self.placed.workers.items():
            leased = [lease for lease in self.placed.leases.values() if lease.worker == name]
            assert len(leased) <= SLOTS[name]
            assert not worker.present or worker.slots == SLOTS[name]

    @invariant()
    def whatever_waits_can_say_why(self) -> None:
        for run_id in self.store.unfinished_attempts():
            assert self.placed.why(run_id)[0] != "it has just changed"


Promises.TestCase.settings = settings(stateful_step_count=30)
TestPromises: Callable[..., Any] = Promises.TestCase
