"""Simulate a large fleet: python -m bench.fleet [--small] > bench/results/fleet.json

The real placement (service/scheduling/placement.py) under a virtual clock: workers that beat, take runs, end them, die
and come; a run takes a time drawn around 30 s. Nothing is sent and nothing is stored. What is measured in real time is
the placement alone.

    sizes    a tenth, and a hundredth, of the largest fleet, for how the time of a placement grows
    shapes   of the largest fleet, 1,000 workers of one slot and 100,000 runs:
             sweeps       100 sweeps of 1,000 runs, submitted over ten minutes
             mixed        one sweep of 1,000 runs beside 33,000 experiments of three
             third_dies   the same, and a third of the workers dies at once, to return after ten minutes
             refuser      one worker in ten refuses everything that it is asked
             spot         every worker lives ten minutes on average and comes back after two
    store    a real orchestrator with 100,000 unfinished runs: size of the database, time of lists and sums

`place_us` is the real time of the calls that placed, by run placed; `call_us` that of every call that looked for
something to place, `beat_us` of a heartbeat, `leases_us` of a look for leases that have run out. `efficiency` is the
work done over what living slots could have done, from the first placement to the last end. `fairness` is Jain's index
over experiments with runs left, of the time that they were served in a minute: 1 for equal shares. `recovery_s` is from
the deaths until every run that the dead had is at work again; leases last 30 s.
"""

from __future__ import annotations

import argparse
import gc
import heapq
import json
import random
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from bench.service import Caller, machine, running, timed
from service.jobs.states import State
from service.scheduling.placement import Lease, Placement
from service.storage.records import Run

LEASE_S, BEAT_S, RUN_S = 30.0, 10.0, 30.0
ABOUT = {"codecs": ["nvc", "x264", "x265", "svtav1", "vp9"], "device": "cpu"}
CODECS = ("nvc", "x264", "x265")


class Fleet:
    """Workers, runs and the clock. `at` plans something, `play` lets the time go by."""

    def __init__(self, workers: int, seed: int = 1) -> None:
        self.now = 0.0
        self.draw = random.Random(seed)
        self.placement = Placement(LEASE_S, lambda: self.now, self.draw.uniform)
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.planned = 0
        self.size = workers
        self.boots = dict.fromkeys(range(workers), 0)       # of the living
        self.refusing: set[int] = set()
        self.held: dict[int, tuple[str, int]] = {}          # worker: attempt
        self.left: dict[int, int] = defaultdict(int)        # experiment: runs that have not ended
        self.accepted = self.ended = self.attempts = 0
        self.worked_s = self.living_s = 0.0     # of slots
        self.first_s: float | None = None       # the first placement
        self.place_s: list[float] = []
        self.call_s: list[float] = []
        self.beats_s: list[float] = []
        self.leases_s: list[float] = []
        self.served: dict[int, float] = defaultdict(float)
        self.indices: list[float] = []
        self.bereft: set[str] = set()           # runs of dead workers that are not at work again
        self.died_s = 0.0
        self.recovered_s: float | None = None
        for worker in range(workers):
            self.at(self.draw.uniform(0, BEAT_S), lambda worker=worker: self.beat(worker, 0))
        self.at(60.0, self.minute)

    def at(self, seconds: float, does: Callable[[], None]) -> None:
        self.planned += 1
        heapq.heappush(self.events, (self.now + seconds, self.planned, does))

    def submit(self, experiment: int, runs: int, codec: str = "nvc") -> None:
        for _ in range(runs):
            self.accepted += 1
            settings = {"codec": codec, "device": "auto", "timeout_s": 600}
            self.placement.enqueue(Run(self.accepted, f"r{self.accepted}", experiment, f"e{experiment}", State.QUEUED,
                                       0, 0, 0, None, None, settings, {}, ""))
        self.left[experiment] += runs
        self.place()

    def play(self) -> None:
        while self.ended < self.accepted or not self.accepted:
            before = self.now
            self.now, _, does = heapq.heappop(self.events)
            if self.first_s is not None:
                self.living_s += len(self.boots) * (self.now - before)
            does()

    # --- what happens ----------------------------------------------------------------------------------------------

    def beat(self, worker: int, boot: int) -> None:
        if self.boots.get(worker) != boot:
            return      # that process is dead
        held = {self.held[worker]: {"phase": "encode"}} if worker in self.held else {}
        began = time.perf_counter()
        self.placement.heartbeat(f"w{worker}", f"http://w{worker}", 1, ABOUT, held, boot_id=str(boot))
        self.beats_s.append(time.perf_counter() - began)
        self.place()
        self.at(BEAT_S, lambda: self.beat(worker, boot))

    def place(self) -> None:
        """What the scheduler does when it wakes."""
        self.placement.looking(BEAT_S)
        began = time.perf_counter()
        self.placement.next_due_s()
        over = self.placement.expired()
        self.leases_s.append(time.perf_counter() - began)
        for lease in over:
            self.placement.withdraw(lease.run.id)
            self.placement.let_go(lease.key)
            self.again(lease)
        began = time.perf_counter()
        granted = self.placement.choose()
        seconds = time.perf_counter() - began
        self.call_s.append(seconds)
        if granted:
            self.place_s += [seconds / len(granted)] * len(granted)
        for lease in granted:
            self.take(lease)

    def again(self, lease: Lease) -> None:
        """Back into the queue, and not to the same worker if there is another."""
        run = lease.run
        self.placement.enqueue(Run(run.number, run.id, run.experiment, run.experiment_id, State.QUEUED, lease.attempt,
                                   run.tries, run.returns, None, None, run.settings, run.clip, run.trace),
                               frozenset({lease.worker}))

    def take(self, lease: Lease) -> None:
        worker = int(lease.worker[1:])
        self.attempts += 1
        if worker not in self.boots:
            return      # dead, and nobody knows yet: the lease will say so
        if worker in self.refusing:
            self.placement.withdraw(lease.run.id)
            self.placement.let_go(lease.key)
            self.placement.trouble(lease.worker, "503 draining")
            self.again(lease)
            return
        self.placement.well(lease.worker)
        self.placement.start(lease)
        self.held[worker] = lease.key
        if self.first_s is None:
            self.first_s = self.now
        if lease.run.id in self.bereft:
            self.bereft.discard(lease.run.id)
            if not self.bereft:
                self.recovered_s = self.now - self.died_s
        seconds, boot = self.draw.uniform(0.5, 1.5) * RUN_S, self.boots[worker]
        self.at(seconds, lambda: self.end(worker, boot, lease, seconds))

    def end(self, worker: int, boot: int, lease: Lease, seconds: float) -> None:
        if self.boots.get(worker) != boot or self.held.get(worker) != lease.key:
            return
        del self.held[worker]
        if self.placement.current(lease.run.id, lease.attempt) is None:
            self.placement.let_go(lease.key)    # stale: another worker has the run
            return
        self.placement.withdraw(lease.run.id)
        self.placement.let_go(lease.key)
        self.ended += 1
        self.left[lease.run.experiment] -= 1
        self.served[lease.run.experiment] += seconds
        self.worked_s += seconds
        self.place()

    def die(self, worker: int, back_s: float) -> None:
        boot = self.boots.pop(worker, None)
        self.held.pop(worker, None)
        if boot is not None:
            self.at(back_s, lambda: self.live(worker, boot + 1))

    def live(self, worker: int, boot: int) -> None:
        self.boots[worker] = boot
        self.beat(worker, boot)

    def minute(self) -> None:
        """Fairness of the last minute, over experiments that had a run to be served all the time."""
        shares = [seconds for experiment, seconds in self.served.items() if self.left[experiment]]
        if len(shares) > 1:
            self.indices.append(sum(shares) ** 2 / (len(shares) * sum(share**2 for share in shares)))
        self.served.clear()
        self.at(60.0, self.minute)

    def result(self) -> dict[str, Any]:
        def microseconds(values: list[float]) -> dict[str, float]:
            ordered = sorted(values)
            return {"mean": round(1e6 * statistics.fmean(values), 1), "p50": round(1e6 * ordered[len(ordered) // 2], 1),
                    "p99": round(1e6 * ordered[int(0.99 * (len(ordered) - 1))], 1)}

        return {"workers": self.size, "runs": self.accepted, "ended": self.ended, "attempts": self.attempts,
                "place_us": microseconds(self.place_s), "call_us": microseconds(self.call_s),
                "beat_us": microseconds(self.beats_s), "leases_us": microseconds(self.leases_s),
                "efficiency": round(self.worked_s / self.living_s, 3),
                "fairness": round(statistics.fmean(self.indices), 3) if self.indices else None,
                "hours_simulated": round(self.now / 3600, 2),
                **({"recovery_s": round(self.recovered_s, 1)} if self.recovered_s is not None else {})}


# --- shapes --------------------------------------------------------------------------------------------------------


def sweeps(fleet: Fleet, runs: int) -> None:
    for number in range(100):
        fleet.at(fleet.draw.uniform(0, 600),
                 lambda number=number: fleet.submit(number, runs // 100, CODECS[number % 3]))


def mixed(fleet: Fleet, runs: int) -> None:
    fleet.at(1.0, lambda: fleet.submit(0, runs // 100))
    small = (runs - runs // 100) // 3
    for number in range(1, small + 1):
        fleet.at(fleet.draw.uniform(0, 600), lambda number=number: fleet.submit(number, 3, CODECS[number % 3]))


def third_dies(fleet: Fleet, runs: int) -> None:
    mixed(fleet, runs)

    def strike() -> None:
        fleet.died_s = fleet.now
        dead = range(0, fleet.size, 3)
        fleet.bereft = {fleet.held[worker][0] for worker in dead if worker in fleet.held}
        for worker in dead:
            fleet.die(worker, 600.0)

    fleet.at(900.0, strike)


def refuser(fleet: Fleet, runs: int) -> None:
    mixed(fleet, runs)
    fleet.refusing = set(range(0, fleet.size, 10))


def spot(fleet: Fleet, runs: int) -> None:
    mixed(fleet, runs)

    def strike(worker: int) -> None:
        fleet.die(worker, fleet.draw.uniform(60, 180))
        fleet.at(fleet.draw.expovariate(1 / 600), lambda: strike(worker))

    for worker in range(fleet.size):
        fleet.at(fleet.draw.expovariate(1 / 600), lambda worker=worker: strike(worker))


SHAPES = {"sweeps": sweeps, "mixed": mixed, "third_dies": third_dies, "refuser": refuser, "spot": spot}


def simulate(shape: str, workers: int, runs: int) -> dict[str, Any]:
    fleet = Fleet(workers)
    SHAPES[shape](fleet, runs)
    gc.disable()        # a pause of the collector is no part of a placement
    fleet.play()
    gc.enable()
    print(f"{shape} {workers} {runs}: {json.dumps(fleet.result())}", file=sys.stderr, flush=True)
    return fleet.result()


# --- the store -----------------------------------------------------------------------------------------------------


def stored(folder: Path, runs: int) -> dict[str, Any]:
    """A real orchestrator without workers, and so many runs that wait."""
    with running("orchestrator", folder) as url:
        call = Caller(url)
        for number in range(runs // 1000):
            call("POST", "/experiment", {"quality": list(range(50)), "model": [f"m{n}" for n in range(20)],
                                         "codec": CODECS[number % 3], "label": f"sweep {number}"})
        found = {name: timed(20, partial(call, "GET", path)) for name, path in (
            ("conservation_ms", "/conservation"), ("list_ms", "/experiments"))}
        size = sum(path.stat().st_size for path in folder.rglob("*.sqlite*"))
    return {"runs": runs, "database_bytes": size, "bytes_a_run": round(size / runs), **found}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--small", action="store_true", help="a hundredth of everything, to see that it runs")
    options = parser.parse_args()
    workers, runs = (50, 5_000) if options.small else (1000, 100_000)
    sizes = {f"{workers // part} workers, {runs // part} runs": simulate("mixed", workers // part, runs // part)
             for part in (100, 10) if workers // part}
    shapes = {shape: simulate(shape, workers, runs) for shape in SHAPES}
    with tempfile.TemporaryDirectory() as name:
        store, about = stored(Path(name), runs), machine(Path(name))
    print(json.dumps({"command": "python -m bench.fleet", **about, "sizes": sizes, "shapes": shapes, "store": store},
                     indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
