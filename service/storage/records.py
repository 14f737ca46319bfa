"""What the store hands out: runs, attempts, events, experiments; and what it refuses."""

from dataclasses import dataclass
from typing import Any

from service.jobs.states import State


class StoreError(Exception):
    """Root of what this module raises. By itself: the database could not be opened, read or written."""


class StoreFull(StoreError):
    """The disk has no room for a commit; nothing of it was kept."""


class StateInUse(StoreError):
    """Another process holds the state directory."""


class TooNew(StoreError):
    """The database was written by a later version of this program."""


class UnknownExperiment(StoreError):
    """No experiment or run has this id."""


class KeyReused(StoreError):
    """The idempotency key was used with another body."""


class Finished(StoreError):
    """The experiment has ended in a way that what was asked cannot change; `state` says which."""

    def __init__(self, state: State) -> None:
        super().__init__(f"the experiment is {state}")
        self.state = state


class Unfinished(StoreError):
    """What was asked is for experiments that have ended."""

    def __init__(self, state: State) -> None:
        super().__init__(f"the experiment is {state}; cancel it first, or wait for its end")


class ClipInUse(StoreError):
    """The clip has experiments."""


class ClipGone(StoreError):
    """The clip was deleted while the experiment was being accepted."""


class Stale(StoreError):
    """The message names an attempt that is not the one now dispatched or running."""


@dataclass(frozen=True)
class Run:
    """A run as stored. `attempt` is the last one granted (0: none); `tries` and `returns` count ended attempts by
    blame; `worker` holds the attempt while dispatched or running; `number` and `experiment` order runs and their
    experiments by acceptance; `clip` is {"name", "sha256", "url"}: which bytes to code, and where on the orchestrator
    they are (null for a clip that workers have by themselves); `whole` is the number of the run that this is a segment
    of, `waits` how many of its own segments are not yet completed; times in Unix seconds."""

    number: int
    id: str
    experiment: int
    experiment_id: str
    state: State
    attempt: int
    tries: int
    returns: int
    worker: str | None
    finished_s: float | None
    settings: dict[str, Any]
    clip: dict[str, Any]
    trace: str
    whole: int | None = None
    waits: int = 0

    @property
    def in_segments(self) -> bool:
        """Whether it is a segment, or is made of some."""
        return self.whole is not None or isinstance(self.settings.get("segments"), int)

    @property
    def needs(self) -> str:
        """What a worker must have for it."""
        codec: str = self.settings["codec"]
        return f"{codec} in segments" if self.in_segments else codec


@dataclass(frozen=True)
class Attempt:
    """One try of a run by one worker; times in Unix seconds."""

    attempt: int
    worker: str
    dispatched_s: float
    started_s: float | None
    ended_s: float | None
    outcome: str | None
    detail: str | None


@dataclass(frozen=True)
class StoredEvent:
    """One row of an experiment's history; `kind` is state, progress or result."""

    seq: int
    kind: str
    at_s: float
    data: dict[str, Any]


@dataclass(frozen=True)
class GridRun:
    """What is known of one run among many. `worker` is who had its last attempt."""

    id: str
    state: State
    attempt: int
    worker: str | None
    settings: dict[str, Any]
    figures: dict[str, Any] | None
    error: dict[str, Any] | None


@dataclass(frozen=True)
class RunRecord:
    """Everything known of one run. `artifacts`: name to {"sha256", "bytes"}; `removed`: those that are not kept any
    more, with "removed", when; `segments`: of a clip that is cut."""

    run: Run
    attempts: list[Attempt]
    metrics: dict[str, Any] | None
    error: dict[str, Any] | None
    result: dict[str, Any] | None
    artifacts: dict[str, dict[str, Any]]
    removed: dict[str, dict[str, Any]]
    segments: list[GridRun]

    @property
    def state(self) -> State:
        """The run's; "running" while a segment of it is."""
        busy = any(segment.state in (State.DISPATCHED, State.RUNNING) for segment in self.segments)
        return State.RUNNING if busy and self.run.state is State.QUEUED else self.run.state


# Name: where a result has it. What many runs are compared by, in a table of their own, since results are large.
FIGURES: dict[str, tuple[str, ...]] = {
    **{name: ("metrics", name) for name in ("bitrate_mbps", "bpp", "compression_ratio", "psnr_db", "ssim", "ms_ssim")},
    "psnr_y": ("decoding_result", "quality_metrics", "psnr_y"),
    "bytes": ("encoding_result", "bytes"),
    "encode_s": ("encoding_result", "encode_s"),
    "decode_s": ("decoding_result", "decode_s"),
    "stream_sha256": ("encoding_result", "sha256"),
    "decoded_sha256": ("decoding_result", "decoded_sha256"),
}
OPTIONAL_FIGURES = {name: ("metrics", name) for name in ("vmaf", "vmaf_neg", "xpsnr")}    # where they were asked for


def figures_of(result: Any) -> dict[str, Any]:
    """The figures of a worker's result; null where it has none, and of OPTIONAL_FIGURES those that it has."""
    figures = {}
    for name, path in (FIGURES | OPTIONAL_FIGURES).items():
        value = result
        for step in path:
            value = value.get(step) if isinstance(value, dict) else None
        plain = isinstance(value, str) if name.endswith("sha256") else (
            isinstance(value, int | float) and not isinstance(value, bool))
        if plain or name in FIGURES:
            figures[name] = value if plain else None
    return figures


@dataclass(frozen=True)
class Experiment:
    """An experiment, `counts` of its runs by state, and either the whole of its one run or all of its grid in order.
    `origin` is {"rerun_of"} or {"clone_of"} with an id, or None."""

    number: int
    id: str
    state: State
    label: str
    document: dict[str, Any]
    accepted_s: float
    finished_s: float | None
    origin: dict[str, str] | None
    counts: dict[State, int]
    runs: list[RunRecord]
    grid: list[GridRun]


@dataclass(frozen=True)
class Conservation:
    """Everything accepted, of one moment. `accepted` was counted at submission and equals `deleted` and the sum of
    `counts`, at every read; `segments` of these were segments of others; `unfinished` holds runs with their last
    attempt, oldest first; `refused` the last stale messages that were turned away, newest first."""

    accepted: int
    segments: int
    deleted: int
    counts: dict[State, int]
    unfinished: list[tuple[Run, Attempt | None]]
    refused: list[dict[str, Any]]
