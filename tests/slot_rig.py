"""A slot with its codec process, here or on a node of a Ray cluster, and tasks that code as a script says."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.jobs.fields import read_request
from service.processes.supervision import ProcessSpec
from service.ray.cluster import driver_program
from service.runs.outcome import Outcome
from service.runs.slots import Slot
from video.containers import VideoWriter
from video.picture import ClipInfo, Picture

RAY_MARK = "NVC_TEST_RAY"
CODECS = ("raw=tests.standin:Raw", "scripted=tests.standin:Scripted")
PATIENCE_S = 30.0  # for anything that a working machine does in a second


class Job:
    """A task that codes four small pictures as the script says."""

    def __init__(self, folder: Path, script: str = "plain", timeout_s: float = PATIENCE_S) -> None:
        self.folder, self.script, self.timeout_s = folder, script, timeout_s
        self.phases: list[str] = []
        self.heard = threading.Event()
        self.done = threading.Event()
        self.outcome = Outcome("never ended")

    def prepare(self) -> tuple[dict[str, Any], Path] | Outcome:
        experiment = read_request({"codec": "scripted", "model": self.script})
        clip = {"name": "tiny", "sha256": None, "path": str(self.folder / "tiny.mkv")}
        return {"run": "exp_1", "experiment": experiment, "clip": clip, "threads": 1}, self.folder

    def started(self) -> None: ...

    def progressed(self, progress: dict[str, Any]) -> None:
        self.phases.append(progress["phase"])
        if progress["phase"] not in ("encode", "decode"):
            self.heard.set()

    def ended(self, outcome: Outcome) -> None:
        assert not self.done.is_set(), "a task ends once"
        self.outcome = outcome
        self.done.set()

    def wait(self) -> Outcome:
        assert self.done.wait(PATIENCE_S)
        return self.outcome


class Watched:
    """A slot, and a way to wait for its states."""

    def __init__(self, spec: ProcessSpec) -> None:
        self.on_ray = False
        self.states: list[str] = []
        self.changed = threading.Condition()
        self.slot = Slot(0, spec, self.on_change, lambda event, **fields: None)

    def on_change(self) -> None:
        with self.changed:
            self.states.append(self.slot.state)
            self.changed.notify_all()

    def wait_for(self, what: Callable[[], bool]) -> None:
        with self.changed:
            assert self.changed.wait_for(what, PATIENCE_S)

    def wait_ready(self) -> None:
        self.wait_for(lambda: self.slot.state == "ready" and self.slot.free)

    def run(self, job: Job) -> Outcome:
        self.wait_ready()
        assert self.slot.offer(job)
        return job.wait()

    def family(self) -> dict[int, str]:
        """The codec process and all that it has started, wherever they are, and when each was born."""
        assert self.slot.pid is not None
        roots = codecs_on_ray() if self.on_ray else {self.slot.pid}
        return {member: born_at(member) for root in roots for member in descendants(root)}


@pytest.fixture(scope="module", params=["local", "ray"])
def watched(request: pytest.FixtureRequest) -> Iterator[Watched]:
    """A slot whose codec process is here, and one whose is on a node of a Ray cluster."""
    program: tuple[str, ...] = ()
    if request.param == "ray":
        program = driver_program(request.getfixturevalue("ray_cluster").address, 1, 0)
    spec = ProcessSpec(warm=("raw",), codecs=CODECS)
    made = Watched(replace(spec, program=program) if program else spec)
    made.on_ray = request.param == "ray"
    made.slot.start()
    yield made
    made.slot.close(PATIENCE_S)


@pytest.fixture(scope="session")
def ray_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A cluster of two nodes of one CPU each, on this machine, all of whose processes bear RAY_MARK."""
    cluster_utils = pytest.importorskip("ray.cluster_utils", reason="Ray is not installed (requirements-ray.txt)")
    os.environ[RAY_MARK] = "1"
    os.environ["NVC_TEST_GATE"] = str(tmp_path_factory.mktemp("ray") / "gate")
    made = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(2):
        made.add_node(num_cpus=1)
    yield made
    made.shutdown()
    del os.environ[RAY_MARK]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(1)
    with VideoWriter(tmp_path / "tiny.mkv", ClipInfo(32, 16, Fraction(25))) as writer:
        for _ in range(4):
            writer.write(Picture(*(rng.integers(0, 256, size, np.uint8) for size in ((16, 32), (8, 16), (8, 16)))))
    return tmp_path


def codecs_on_ray() -> set[int]:
    """The codec processes of the cluster's nodes."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if b"codec_process.py" in (entry / "cmdline").read_bytes() and \
                    f"{RAY_MARK}=1".encode() in (entry / "environ").read_bytes():
                found.add(int(entry.name))
    return found


def born_at(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]


def descendants(pid: int) -> set[int]:
    """The process, its children, and theirs."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return {pid}.union(*(descendants(int(child)) for child in children))


def alive(pid: int, born: str) -> bool:
    """Whether the process that was born at that clock tick runs."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False
    return fields[0] != "Z" and fields[19] == born
