"""The queue of runs that wait for a worker: round robin over experiments.

Runs with the same requirements (codec, device, workers to avoid) wait in one lane. Placement looks at a lane as a
whole, so thousands of runs that no worker can take cost nothing. A run in its back-off is outside of the lanes until
it is due.

Round robin
===========
An experiment's runs go oldest first. An experiment that was given a worker goes to the end of the round, so a sweep of
a thousand runs does not hold up an experiment that is submitted after it, nor do many small experiments hold up the
sweep. `_round` is the round that is now being served. An experiment that joins, or was given a worker, is next served
in the following round; the lowest round goes first, and of equal ones the oldest run. An experiment one of whose runs
comes back from a worker joins the round that is being served: what was at work when a worker died is soon at work
again. This is start-time fair queueing: an experiment that could not be served for a while is served at once, and has
no credit beyond that. Rounds are not remembered across a restart.
"""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field

from service.storage.records import Run

LaneKey = tuple[str, str, frozenset[str]]   # codec, device, workers to avoid


@dataclass
class Waiting:
    """A run in the queue: since when, and from when on it may go (monotonic seconds)."""

    run: Run
    lane: LaneKey
    since: float
    due: float


@dataclass
class _Lane:
    """`runs`: the runs of each experiment by age. `order`: a heap of experiments by round and oldest run. An entry may
    be out of date but not too high: an older run that joins, and one that comes back and may lower its experiment's
    round, add an entry of their own. (Other lanes of that experiment may find it one round later.)"""

    runs: dict[int, list[tuple[int, str, int]]] = field(default_factory=dict)
    order: list[tuple[int, int, int]] = field(default_factory=list)


class FairQueue:
    """See above. Not safe for threads by itself."""

    def __init__(self) -> None:
        self.waiting: dict[str, Waiting] = {}
        self._lanes: dict[LaneKey, _Lane] = {}
        self._delayed: list[tuple[float, int, str, int]] = []
        self._round = 0
        self._rounds: dict[int, int] = {}    # of experiments with waiting runs
        self._counts: dict[int, int] = {}   # of those runs

    def add(self, waiting: Waiting, now: float) -> None:
        """The run waits. Adding it again moves it."""
        run = waiting.run
        self.remove(run.id)
        self.waiting[run.id] = waiting
        self._counts[run.experiment] = self._counts.get(run.experiment, 0) + 1
        joins = self._round + (run.attempt == 0)
        self._rounds[run.experiment] = min(joins, self._rounds.get(run.experiment, joins))
        if waiting.due > now:
            heapq.heappush(self._delayed, (waiting.due, run.number, run.id, run.attempt))
        else:
            self._join(waiting)

    def remove(self, run_id: str) -> Waiting | None:
        """The run does not wait any more; what it was, if it waited."""
        waiting = self.waiting.pop(run_id, None)
        if waiting is not None:
            experiment = waiting.run.experiment
            self._counts[experiment] -= 1
            if not self._counts[experiment]:
                del self._counts[experiment], self._rounds[experiment]
        return waiting

    def take(self, run_id: str) -> Waiting:
        """The run is given a worker: its experiment goes to the next round."""
        waiting = self.waiting[run_id]
        experiment = waiting.run.experiment
        self._round = max(self._round, self._rounds[experiment])
        self._rounds[experiment] = self._round + 1
        self.remove(run_id)
        return waiting

    def wake(self, now: float) -> None:
        """Runs whose back-off is over join their lanes."""
        while self._delayed and self._delayed[0][0] <= now:
            _, _, run_id, attempt = heapq.heappop(self._delayed)
            waiting = self.waiting.get(run_id)
            if waiting is not None and waiting.run.attempt == attempt:
                self._join(waiting)

    def next_due(self) -> float | None:
        """When the next back-off is over."""
        return self._delayed[0][0] if self._delayed else None

    def heads(self) -> Iterator[tuple[tuple[int, int], LaneKey, str]]:
        """Of each lane, the run that is to go next: (its place among all, lane, run)."""
        for key in list(self._lanes):
            head = self._head(key, self._lanes[key])
            if head is None:
                del self._lanes[key]
            else:
                yield head[0], key, head[1]

    def _join(self, waiting: Waiting) -> None:
        run = waiting.run
        lane = self._lanes.setdefault(waiting.lane, _Lane())
        runs = lane.runs.setdefault(run.experiment, [])
        if not runs or run.attempt or run.number < runs[0][0]:
            heapq.heappush(lane.order, (self._rounds[run.experiment], run.number, run.experiment))
        heapq.heappush(runs, (run.number, run.id, run.attempt))

    def _head(self, key: LaneKey, lane: _Lane) -> tuple[tuple[int, int], str] | None:
        """Drops what is not meant any more, and brings entries up to date until the first one is."""
        while lane.order:
            _, _, experiment = first = lane.order[0]
            runs = lane.runs.get(experiment, [])
            while runs and not self._is_meant(key, runs[0]):
                heapq.heappop(runs)
            if not runs:
                heapq.heappop(lane.order)
                lane.runs.pop(experiment, None)
                continue
            now = (self._rounds[experiment], runs[0][0], experiment)
            if now == first:
                return now[:2], runs[0][1]
            heapq.heapreplace(lane.order, now)
        return None

    def _is_meant(self, key: LaneKey, entry: tuple[int, str, int]) -> bool:
        waiting = self.waiting.get(entry[1])
        return waiting is not None and waiting.run.attempt == entry[2] and waiting.lane == key
