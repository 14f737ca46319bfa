"""Reads what is stored, slowly, and finds files whose bytes are not those that their name says: a disk forgets."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from service.storage.blobs import Blobs

PIECE = 1 << 20


class Scrubber:
    """Goes over all files again and again, some bytes with each `step`. Of what was found `damaged` holds the digests,
    until the file is read again and is whole. One thread."""

    def __init__(self, blobs: Blobs, bytes_a_step: float) -> None:
        """bytes_a_step: 0: nothing is read."""
        self.damaged: set[str] = set()
        self.rounds = 0     # over all files
        self._blobs, self._bytes = blobs, bytes_a_step
        self._allowed = 0.0
        self._files: Iterator[Path] = iter(())
        self._open: tuple[str, BinaryIO] | None = None
        self._digest = hashlib.sha256()

    def step(self) -> list[str]:
        """Read on; the digests of files newly found to be damaged."""
        found = []
        self._allowed = min(self._allowed + self._bytes, self._bytes)   # below 0 after a piece of more than a step's
        while self._allowed > 0:
            if self._open is None and not self._next():
                break
            assert self._open is not None
            sha256, file = self._open
            try:
                piece = file.read(PIECE)
            except OSError:     # the disk cannot read it: as bad as other bytes
                piece, self._digest = b"", hashlib.sha256(b"unreadable")
            self._allowed -= max(len(piece), 1)
            self._digest.update(piece)
            if not piece:
                file.close()
                self._open = None
                if self._digest.hexdigest() == sha256:
                    self.damaged.discard(sha256)
                elif sha256 not in self.damaged:
                    self.damaged.add(sha256)
                    found.append(sha256)
        return found

    def _next(self) -> bool:
        """Open the next file; false where a round is over, or there is none."""
        for path in self._files:
            try:
                self._open, self._digest = (path.name, open(path, "rb")), hashlib.sha256()     # noqa: SIM115
            except FileNotFoundError:   # removed since
                self.damaged.discard(path.name)
                continue
            return True
        self._files = iter(sorted(self._blobs.files()))
        self.rounds += 1
        return False
