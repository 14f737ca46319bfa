"""Clips that a worker has fetched from its orchestrator, kept under their SHA-256.

A clip is downloaded once, to a temporary name, and takes its place only when its bytes have the digest that was asked
for: so whatever is found under a digest has it.  A run gets a hard link of its own, which stays readable when the cache
makes room.
"""

from __future__ import annotations

import os
import re
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

SHA256 = re.compile(r"[0-9a-f]{64}")


class ClipCache:
    """A folder of clips of at most ``limit_bytes`` in all; those unused for longest make room. Safe from any thread."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._folder = folder
        self._limit = limit_bytes
        self._lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob("*.part"):  # of downloads that an earlier life did not finish
            left.unlink(missing_ok=True)

    def link(self, sha256: str, target: Path) -> bool:
        """Make ``target`` a link to the clip, if it is here. Raises OSError."""
        kept = self._path(sha256)
        with self._lock:
            if not kept.is_file():
                return False
            os.link(kept, target)
            os.utime(kept)  # used just now
            return True

    def fetch(self, sha256: str, download: Callable[[BinaryIO], tuple[int, str]]) -> None:
        """Get the clip by ``download(out) -> (bytes, sha256)`` and keep it. Raises OSError and what download raises."""
        kept = self._path(sha256)
        number, name = tempfile.mkstemp(dir=self._folder, suffix=".part")
        part = Path(name)
        try:
            with os.fdopen(number, "wb") as out:
                count, digest = download(out)
            if digest != sha256:
                raise OSError(f"the clip's {count} bytes have SHA-256 {digest}, expected {sha256}")
            with self._lock:
                part.rename(kept)
                self._make_room(kept)
        finally:
            part.unlink(missing_ok=True)

    def _path(self, sha256: str) -> Path:
        if not SHA256.fullmatch(sha256):
            raise ValueError(f"{sha256!r} is no SHA-256")
        return self._folder / sha256

    def _make_room(self, newest: Path) -> None:
        found = sorted(((path.stat(), path) for path in self._folder.iterdir() if SHA256.fullmatch(path.name)),
                       key=lambda pair: pair[0].st_mtime)
        total = sum(status.st_size for status, _ in found)
        for status, path in found:
            if total <= self._limit:
                return
            if path != newest:
                path.unlink(missing_ok=True)
                total -= status.st_size
