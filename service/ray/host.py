"""What runs on a node of the cluster: an actor that keeps a codec process warm, and the node's copies of clips.

The codec process is started, supervised and killed as on a worker (service/processes/supervision.py): it has its limits
of memory and its guard, which ends it with all that it has started when the actor is gone.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from service.processes.memory import automatic_limit_mb
from service.processes.supervision import CodecProcess, ProcessSpec
from service.runs.clip_cache import ClipCache
from service.runs.outcome import how_it_died

CLIPS = Path(tempfile.gettempdir()) / f"nvc-ray-clips-{os.getuid()}"     # of all actors of a node
CLIPS_BYTES = 10 << 30
PIECE = 8 << 20     # of a file on its way


class Host:
    """One slot of the cluster. Its methods are called by the driver, one at a time."""

    def __init__(self, codecs: list[str], threads: int, memory_mb: int) -> None:
        limit = memory_mb or automatic_limit_mb(max(1, len(os.sched_getaffinity(0)) // threads))
        self._clips = ClipCache(own_folder(CLIPS), CLIPS_BYTES)
        self._folder = Path(tempfile.mkdtemp(prefix="nvc-ray-"))
        self._part: Path | None = None
        self._process = CodecProcess(ProcessSpec((), tuple(codecs), threads, limit), os.eventfd(0, os.EFD_CLOEXEC))

    def here(self) -> None:
        """Answers while the actor lives."""

    def command(self, message: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Hand a message to the codec process, and give what it says until it has answered."""
        try:
            self._process.send(message)
            while (heard := self._process.wait(None)).what == "message":
                yield heard.message
                if not heard.message.keys() <= {"progress"}:
                    return
        except OSError:
            pass
        error = how_it_died(self._process.kill(), self._process.tail).error
        yield {"error": error, "replace": True}

    # --- files

    def begin(self) -> str:
        """An empty folder for a run."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(mode=0o700)
        return str(self._folder)

    def link(self, sha256: str, name: str) -> bool:
        """Make a file that is on this node known to the run as `name`; false where it is not here."""
        return self._clips.link(sha256, self._folder / name)

    def receive(self, sha256: str, piece: bytes, last: bool) -> None:
        """The next piece of a file; with the last one it is kept under its SHA-256."""
        if self._part is None:
            self._part = self._folder / "arriving"
        with open(self._part, "ab") as out:
            out.write(piece)
        if last:
            part, self._part = self._part, None
            self._clips.fetch(sha256, lambda out: _copy(part, out))
            part.unlink()

    def read(self, name: str, offset: int) -> bytes:
        """A piece of a file of the run."""
        with open(self._folder / name, "rb") as file:
            file.seek(offset)
            return file.read(PIECE)


def own_folder(path: Path) -> Path:
    """The folder, made if need be. Raises PermissionError where it is somebody else's: in /tmp anyone may make one."""
    path.mkdir(mode=0o700, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(f"{path} is not a folder of this user alone")
    return path


def _copy(path: Path, out: BinaryIO) -> tuple[int, str]:
    """Bytes and SHA-256 of what was copied."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(PIECE):
            digest.update(piece)
            out.write(piece)
    return path.stat().st_size, digest.hexdigest()
