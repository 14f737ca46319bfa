"""Which run goes to which worker, and which leases have expired: the scheduler's state in memory.

Nothing here does I/O or starts a thread. Nothing is remembered across a restart: what must survive is in the store, and
the workers' heartbeats say the rest again. The caller holds one lock around every call. Time is the monotonic clock
that is passed in, so a step of the wall clock changes nothing.

Queue
=====
fair_queue.py says which run goes next. Every change that may let a run go (submission, registration, freed slot,
result) calls `choose` at once; the clock is only for back-offs and leases.

Slots
=====
A worker's slot is taken from the grant of an attempt until the worker reports that the attempt has ended: by its
result, by refusing it, or by a heartbeat that does not list it. A cancelled run therefore holds its slot until the
worker has stopped it.

Leases
======
A lease lasts `lease_s` from the grant, and each heartbeat of its worker that lists the attempt renews it. An
orchestrator that was restarted, or that finds that its own process was stopped for a while, renews every lease: the
silence of the workers means nothing then.
"""

import random
from collections.abc import Callable, Mapping
from typing import Any

from service.jobs.states import backoff_s
from service.scheduling.fair_queue import FairQueue, LaneKey, Waiting
from service.scheduling.free_workers import FreeWorkers, Worker
from service.scheduling.leases import Key, Lease, Leases
from service.storage.records import Run

DEADLINE_GRACE_S = 15.0     # the worker kills a run at its deadline; the orchestrator only if the worker does not
FORGET_WORKER_S = 3600.0    # a worker silent for so long is no longer shown


class Placement:
    """See above. Not safe for threads by itself."""

    def __init__(self, lease_s: float, clock: Callable[[], float],
                 uniform: Callable[[float, float], float] = random.uniform) -> None:
        self.workers: dict[str, Worker] = {}
        self._lease_s = lease_s
        self._clock = clock
        self._uniform = uniform
        self._queue = FairQueue()
        self._leases = Leases()
        self._free = FreeWorkers(self.workers, self.alive)
        self._slot_at: dict[Key, str] = {}      # the worker whose slot an attempt takes
        self._arrivals = 0
        self._looked = clock()

    @property
    def leases(self) -> Mapping[str, Lease]:
        """By run."""
        return self._leases.by_run

    def leases_of(self, name: str) -> list[Lease]:
        """Of a worker."""
        return self._leases.of_worker(name)

    # --- workers ---------------------------------------------------------------------------------------------------

    def heartbeat(self, name: str, url: str, slots: int, about: Mapping[str, Any],
                  running: Mapping[Key, dict[str, Any]], *, boot_id: str = "", draining: bool = False
                  ) -> tuple[list[Lease], list[Key]]:
        """A worker lives. Returns the leases of its that were renewed, and the attempts it names in vain."""
        now = self._clock()
        worker = self.workers.get(name)
        if worker is None:
            worker = self._add(Worker(name, url, slots, {}))
        if worker.boot_id != boot_id:   # a new process: nothing that was held against the old one holds
            worker.boot_id, worker.not_before, worker.trouble, worker.failures = boot_id, float("-inf"), "", 0
            worker.drained = False
        worker.url, worker.slots, worker.about = url, slots, dict(about)
        worker.draining, worker.heard, worker.present = draining, now, True
        renewed, unknown = [], []
        for key, progress in running.items():
            lease = self._leases.by_run.get(key[0])
            if lease is not None and lease.key == key and lease.worker == name:
                lease.expires = now + self._lease_s
                lease.progress |= {name: value for name, value in progress.items() if value is not None}
                renewed.append(lease)
            else:
                unknown.append(key)
        worker.ended &= set(running)
        at_work = {key for key, progress in running.items() if progress.get("phase") != "deliver"}
        busy = {lease.key for lease in self._leases.of_worker(name) if (
            lease.key not in running or lease.key in at_work)} | (at_work - worker.ended)
        for key in worker.busy - busy:
            self._slot_at.pop(key, None)
        self._slot_at.update(dict.fromkeys(busy, name))
        worker.busy = busy
        self._free.update(worker, now)
        return renewed, unknown

    def remember(self, name: str, url: str, about: Mapping[str, Any]) -> None:
        """A worker known from before a restart: attempts it holds may be asked about, nothing new is sent to it."""
        known = dict(about)
        dispatch_key, attempt_secrets = known.pop("dispatch_key", ""), bool(known.pop("attempt_secrets", False))
        if name not in self.workers:
            self._add(Worker(name, url, 0, known, str(about.get("boot_id", "")), heard=self._clock(),
                             drained=bool(about.get("drained")), dispatch_key=dispatch_key,
                             attempt_secrets=attempt_secrets))

    def _add(self, worker: Worker) -> Worker:
        self._arrivals += 1
        worker.order = self._arrivals
        self.workers[worker.name] = worker
        return worker

    def drain(self, name: str, drained: bool) -> Worker | None:
        """Give the worker nothing new, or something again. None if it is not known."""
        worker = self.workers.get(name)
        if worker is not None:
            worker.drained = drained
            self._free.update(worker, self._clock())
        return worker

    def alive(self, worker: Worker) -> bool:
        return self._clock() - worker.heard < self._lease_s

    def state_of(self, worker: Worker) -> str:
        """One word for people: "expected", "lost", "stopped", "draining", "starting", "avoided", "busy" or "free"."""
        if not self.alive(worker):
            return "stopped" if worker.draining and not worker.busy else "lost"
        if not worker.present:
            return "expected"
        if worker.draining or worker.drained:
            return "draining"
        if worker.slots == 0:
            return "starting"
        if worker.not_before > self._clock():
            return "avoided"
        return "free" if worker.free else "busy"

    def trouble(self, name: str, why: str, at_least_s: float = 0.0) -> None:
        """A dispatch to the worker came to nothing: leave it alone for a while, longer each time."""
        worker = self.workers.get(name)
        if worker is not None:
            worker.failures += 1
            worker.trouble = why
            worker.not_before = self._clock() + backoff_s(worker.failures, at_least_s, self._uniform)
            self._free.update(worker, self._clock())

    def busy(self, name: str, why: str, retry_after_s: float) -> None:
        """The worker had no room after all; it said when to ask again."""
        worker = self.workers.get(name)
        if worker is not None:
            worker.trouble = why
            worker.not_before = self._clock() + retry_after_s
            self._free.update(worker, self._clock())

    def well(self, name: str) -> None:
        """A dispatch to the worker succeeded."""
        worker = self.workers.get(name)
        if worker is not None:
            worker.failures, worker.trouble, worker.not_before = 0, "", float("-inf")
            self._free.update(worker, self._clock())

    def forget_lost(self) -> list[str]:
        """Drop workers that have been silent for very long; their names."""
        gone = [name for name, worker in self.workers.items() if self._clock() - worker.heard > FORGET_WORKER_S]
        for name in gone:
            for key in self.workers.pop(name).busy:
                self._slot_at.pop(key, None)
        return gone

    # --- runs ------------------------------------------------------------------------------------------------------

    def enqueue(self, run: Run, avoid: frozenset[str] = frozenset(), delay_s: float = 0.0) -> None:
        """The run waits for a worker, from `delay_s` on. Enqueuing it again moves it."""
        lane = (run.needs, run.settings["device"], avoid)
        now = self._clock()
        self._queue.add(Waiting(run, lane, now, now + delay_s), now)

    def withdraw(self, run_id: str) -> Lease | None:
        """The run is over or goes back: neither queued nor leased any more. Its lease, if it had one; the slot stays
        taken until `let_go` or a heartbeat."""
        self._queue.remove(run_id)
        return self._leases.remove(run_id)

    def let_go(self, key: Key) -> None:
        """The attempt has ended at the worker that had it."""
        worker = self.workers.get(self._slot_at.pop(key, ""))
        if worker is not None and key in worker.busy:
            worker.busy.discard(key)
            worker.ended.add(key)
            self._free.update(worker, self._clock())

    def choose(self) -> list[Lease]:
        """Grant as many runs as can go now. Each returned lease takes a slot; the store has not heard of it yet."""
        now = self._clock()
        self._queue.wake(now)
        self._free.wake(now)
        granted = []
        while (lease := self._grant_one(now)) is not None:
            granted.append(lease)
        return granted

    def _grant_one(self, now: float) -> Lease | None:
        best: tuple[tuple[int, int], str, Worker] | None = None
        for place, lane, run_id in self._queue.heads():
            if best is None or place < best[0]:
                worker = self._worker_for(lane)
                if worker is not None:
                    best = (place, run_id, worker)
        if best is None:
            return None
        _, run_id, worker = best
        waiting = self._queue.take(run_id)
        lease = self._lease(waiting.run, waiting.run.attempt + 1, worker.name)
        lease.waited = now - max(waiting.since, waiting.due)
        worker.busy.add(lease.key)
        self._slot_at[lease.key] = worker.name
        worker.last_grant = now
        self._free.update(worker, now)
        return lease

    def _capable(self, lane: LaneKey) -> list[Worker]:
        """Workers that may take the lane's runs at some time: those to avoid only if there are no others."""
        codec, device, avoid = lane
        able = [worker for worker in self.workers.values() if self.alive(worker) and worker.takes_runs
                and worker.can(codec, device)]
        return [worker for worker in able if worker.name not in avoid] or able

    def _worker_for(self, lane: LaneKey) -> Worker | None:
        """The one with the largest share of free slots, and of equals the one that was given nothing for longest."""
        codec, device, avoid = lane
        worker = self._free.best(codec, device, avoid)
        if worker is None and avoid and not any(
                each.name not in avoid and self.alive(each) and each.takes_runs and each.can(codec, device)
                for each in self.workers.values()):
            return self._free.best(codec, device, frozenset())
        return worker

    # --- leases ----------------------------------------------------------------------------------------------------

    def restore(self, run: Run, *, started: bool) -> Lease:
        """A fresh lease for an attempt from before a restart."""
        lease = self._lease(run, run.attempt, run.worker or "")
        lease.started, lease.began = started, lease.granted
        return lease

    def knows(self, run_id: str) -> bool:
        """Whether the run is queued or leased here."""
        return run_id in self._queue.waiting or run_id in self._leases.by_run

    def renew(self, lease: Lease) -> bool:
        """Begin the lease anew, if it is still in force: it was granted, but is only now being sent."""
        if self._leases.by_run.get(lease.run.id) is not lease:
            return False
        lease.expires = self._clock() + self._lease_s
        return True

    def _lease(self, run: Run, attempt: int, worker: str) -> Lease:
        now = self._clock()
        lease = Lease(run, attempt, worker, now + self._lease_s,
                      now + run.settings["timeout_s"] + DEADLINE_GRACE_S + self._lease_s, now)
        self._leases.add(lease)
        return lease

    def current(self, run_id: str, attempt: int) -> Lease | None:
        """The lease on exactly this attempt, if it is in force."""
        lease = self._leases.by_run.get(run_id)
        return lease if lease is not None and lease.attempt == attempt else None

    def start(self, lease: Lease) -> None:
        """The worker holds it; the deadline counts from now."""
        lease.started = True
        lease.began = self._clock()
        lease.deadline = lease.began + lease.run.settings["timeout_s"] + DEADLINE_GRACE_S
        self._leases.sooner(lease)

    def looking(self, longest_s: float) -> None:
        """To be called at least every `longest_s`. If it was not, this process was stopped, and no worker could have
        renewed anything: leases and workers get the time back."""
        now = self._clock()
        missed = now - self._looked - longest_s
        self._looked = now
        if missed > longest_s:
            for lease in self._leases.by_run.values():
                lease.expires += missed
            for worker in self.workers.values():
                worker.heard += missed

    def expired(self) -> list[Lease]:
        """Leases that have run out. They stay until withdrawn."""
        now = self._clock()
        return [lease for lease in self._leases.over(now) if lease.expires <= now]

    def overdue(self) -> list[Lease]:
        """Attempts past their deadline whose worker keeps the lease but does not end them."""
        now = self._clock()
        return [lease for lease in self._leases.over(now) if lease.deadline <= now < lease.expires]

    def next_due_s(self) -> float | None:
        """Seconds until `choose` or `expired` may give something although nothing happened; None: never."""
        worker_due = self._free.next_wake() if self._queue.waiting else None
        times = [time for time in (self._leases.next_due(), self._queue.next_due(), worker_due) if time is not None]
        return max(0.0, min(times) - self._clock()) if times else None

    # --- why -------------------------------------------------------------------------------------------------------

    def why(self, run_id: str) -> tuple[str, str, float | None]:
        """Of an unfinished run: why it waits, what happens next, and in how many seconds (None: when something else
        happens)."""
        now = self._clock()
        lease = self._leases.by_run.get(run_id)
        if lease is not None:
            left = max(0.0, lease.expires - now)
            if lease.started:
                return f"worker {lease.worker} is at work", "a heartbeat renews the lease, or it is taken back", left
            return f"worker {lease.worker} has been asked and has not answered yet", "the lease is taken back", left
        waiting = self._queue.waiting.get(run_id)
        if waiting is None:
            return "it has just changed", "look again", 0.0
        if waiting.due > now:
            return f"back-off after attempt {waiting.run.attempt}", "it joins the queue", waiting.due - now
        codec, device, _ = waiting.lane
        able = self._capable(waiting.lane)
        if not able:
            return self._why_nobody(codec, device), "a worker registers", None
        open_to_it = [worker for worker in able if worker.not_before <= now]
        if not open_to_it:
            first = min(able, key=lambda worker: worker.not_before)
            return f"worker {first.name} is left alone: {first.trouble}", "it is asked again", first.not_before - now
        slots = sum(worker.slots for worker in open_to_it)
        words = f"all {slots} slots are taken" if slots > 1 else "the only slot is taken"
        return f"{words}, of the workers that have codec {codec}", "a slot becomes free", None

    def _why_nobody(self, codec: str, device: str) -> str:
        living = [worker for worker in self.workers.values() if self.alive(worker) and worker.present]
        if not self.workers:
            return "no worker has registered"
        if not living:
            return "every worker is lost: " + ", ".join(sorted(self.workers))
        able = [worker for worker in living if worker.can(codec, device)]
        if not able:
            offered = sorted({name for worker in living for name in worker.about.get("codecs") or ()})
            return f"no worker has codec {codec} on device {device}; there are {', '.join(offered) or 'no codecs'}"
        return "every worker that can take it is draining or starting: " + ", ".join(sorted(w.name for w in able))
