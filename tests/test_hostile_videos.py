"""Videos made to harm whoever opens them: each is refused with a reason, by a process that has limits and may die."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from service.clips import probe
from service.jobs.fields import read_request
from service.runs.slots import Outcome, ProcessSpec, Slot
from video.containers import VideoWriter
from video.picture import ClipInfo, Picture

ROOT = Path(__file__).resolve().parent.parent
PATIENCE_S = 60.0


def chunk(kind: bytes, data: bytes) -> bytes:
    """One chunk of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int) -> bytes:
    """A picture that says it is that large, and holds next to nothing."""
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)) + chunk(
        b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def y4m(fields: str, frames: int, frame_bytes: int) -> bytes:
    return f"YUV4MPEG2 {fields}\n".encode() + (b"FRAME\n" + bytes(frame_bytes)) * frames


def with_streams(count: int) -> Callable[[Path], bytes]:
    """A file of that many video streams, the last of which alone has a picture."""

    def make(folder: Path) -> bytes:
        path = folder / "streams.nut"
        with av.open(str(path), "w") as container:
            streams = [container.add_stream("rawvideo", rate=25) for _ in range(count)]
            for stream in streams:
                stream.width, stream.height, stream.pix_fmt = 16, 16, "yuv420p"
            frame = av.VideoFrame(16, 16, "yuv420p")
            frame.pts = 0
            for packet in streams[-1].encode(frame):
                container.mux(packet)
        return path.read_bytes()

    return make


def sound(folder: Path, name: str = "sound.mkv") -> Path:
    """A clip that is what it should be."""
    rng = np.random.default_rng(1)
    with VideoWriter(folder / name, ClipInfo(32, 16, Fraction(25))) as writer:
        for _ in range(4):
            writer.write(Picture(*(rng.integers(0, 256, size, np.uint8) for size in ((16, 32), (8, 16), (8, 16)))))
    return folder / name


BOMBS: list[tuple[str, bytes | Callable[[Path], bytes]]] = [
    ("a picture of 4 gigapixels", png(65_535, 65_535)),
    ("a picture of 2^31 rows", png(1, 2**31 - 1)),
    ("a film of 4 gigapixels", y4m("W65535 H65535 F25:1", 1, 10)),
    ("a film of no size", y4m("W0 H0 F25:1", 1, 10)),
    ("a size of 1,000 digits", y4m(f"W{'9' * 1000} H16 F25:1", 1, 10)),
    ("a million pictures and one", y4m("W2 H2 F25:1", 1_000_001, 6)),
    ("a head without an end", b"YUV4MPEG2 " + b"X" * (1 << 20)),
    ("600 streams, pictures in the last", with_streams(600)),
    ("a Matroska file that is one large element", b"\x1a\x45\xdf\xa3\x01\xff\xff\xff\xff\xff\xff\xfe" + bytes(4096)),
    ("an MP4 box larger than the file", b"\xff\xff\xff\xf0ftypisom" + bytes(4096)),
    ("boxes in boxes", (b"\x00\x00\x10\x00moov" * 500) + bytes(64)),
    ("a playlist of other files", b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n"),
    ("a list to concatenate", b"ffconcat version 1.0\nfile /etc/passwd\n"),
    ("a script", b"#!/bin/sh\nexit 0\n"),
]


def test_a_bomb_is_refused_with_a_reason_by_the_process_that_looks(tmp_path: Path) -> None:
    paths = []
    for number, (_, made) in enumerate(BOMBS):
        paths.append(tmp_path / f"bomb{number}")
        paths[-1].write_bytes(made if isinstance(made, bytes) else made(tmp_path))
    seen = probe.look_at_all([*paths, sound(tmp_path)])  # one process for all: none of them may take it down
    taken = [name for (name, _), found in zip(BOMBS, seen, strict=False) if not found.get("error")]
    assert (taken, seen[-1]["frames"], len(seen)) == ([], 4, len(BOMBS) + 1)


def test_a_demuxer_that_hangs_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "endless")  # opening it for reading waits for somebody who never comes
    monkeypatch.setattr(probe, "WALL_S", 0.5)
    with pytest.raises(probe.NotAClip, match="longer than"):
        probe.look(tmp_path / "endless")


@pytest.mark.parametrize(("harm", "end"), [
    ("bytearray(4 << 30)", "MemoryError"),
    ("open('file', 'wb', 0).write(b'x')", "OSError: [Errno 27]"),
    ("[open('/dev/null') for _ in range(100)]", "OSError: [Errno 24]"),
])
def test_the_process_that_looks_has_little(tmp_path: Path, harm: str, end: str) -> None:
    done = limited(tmp_path, harm)
    assert done.stderr.splitlines()[-1].startswith(end)


def test_the_process_that_looks_has_little_time(tmp_path: Path) -> None:
    done = limited(tmp_path, "\nwhile True: pass", "probe.CPU_S = 1")
    assert -done.returncode in (signal.SIGXCPU, signal.SIGKILL)


def limited(folder: Path, harm: str, before: str = "") -> subprocess.CompletedProcess[str]:
    """A process with the limits of the one that looks, and what becomes of it."""
    code = "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\nfrom service.clips import probe\n" \
           f"{before}\nprobe.limit_this_process()\n{harm}"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE_S, check=False,
                          cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)})


# --- in the codec process -------------------------------------------------------------------------------------------


class Job:
    """A run over a file, for a slot."""

    def __init__(self, folder: Path, clip: Path, timeout_s: float = PATIENCE_S) -> None:
        self.folder, self.clip, self.timeout_s = folder, clip, timeout_s
        self.done = threading.Event()
        self.outcome = Outcome("never ended")

    def prepare(self) -> tuple[dict[str, Any], Path] | Outcome:
        return {"run": "exp_1", "experiment": read_request({"codec": "raw"}), "threads": 1,
                "clip": {"name": "x", "sha256": None, "path": str(self.clip)}}, self.folder

    def started(self) -> None: ...

    def progressed(self, progress: dict[str, Any]) -> None: ...

    def ended(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self.done.set()


class Room:
    """A slot whose runs one waits for."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.slot = Slot(0, ProcessSpec(warm=("raw",), codecs=("raw=tests.standin:Raw",), memory_mb=4096),
                         self.on_change, lambda event, **fields: None)
        self.slot.start()

    def on_change(self) -> None:
        with self.changed:
            self.changed.notify_all()

    def run(self, job: Job) -> Outcome:
        with self.changed:
            assert self.changed.wait_for(lambda: self.slot.state == "ready" and self.slot.free, PATIENCE_S)
        assert self.slot.offer(job)
        assert job.done.wait(PATIENCE_S)
        return job.outcome


@pytest.fixture(scope="module")
def room() -> Iterator[Room]:
    made = Room()
    yield made
    made.slot.close(PATIENCE_S)


def test_a_bomb_fails_its_own_run_and_no_other(room: Room, tmp_path: Path) -> None:
    for number, (name, made) in enumerate(BOMBS):
        path = tmp_path / f"bomb{number}"
        path.write_bytes(made if isinstance(made, bytes) else made(tmp_path))
        outcome = room.run(Job(tmp_path, path))
        assert outcome.error is not None, name
        assert (name, outcome.state, outcome.error["type"], outcome.error["retry"]) == (
            name, "failed", "bad-video", False)
    assert room.run(Job(tmp_path, sound(tmp_path))).state == "completed"
    assert room.slot.restarts == 0  # the very process that saw them all


def test_a_clip_that_hangs_is_ended_by_the_runs_deadline(room: Room, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "endless")
    outcome = room.run(Job(tmp_path, tmp_path / "endless", timeout_s=0.5))
    assert outcome.error is not None
    assert (outcome.state, outcome.error["type"]) == ("failed", "timeout")
    assert room.run(Job(tmp_path, sound(tmp_path))).state == "completed"
