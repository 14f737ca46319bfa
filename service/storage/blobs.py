"""Bytes kept under their SHA-256: clips that were uploaded, streams and pictures that workers made.

    blobs/ab/ab12…      the bytes; whatever has this name has this digest, whole, and has been flushed to the disk
    incoming/…/         what is being received; emptied at every start

A file gets its name only when all of it is on the disk, so a crash or a full disk leaves nothing half-kept.

With a `bucket` the bytes are in S3, and what is in the folder is a copy: of what came through here, and of what was
needed here.
"""

import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from service.s3 import Bucket, S3Error

BLOBS = "blobs"
SHA256 = re.compile(r"[0-9a-f]{64}")


def blob_path(folder: Path, sha256: str) -> Path:
    """Where the state `folder` keeps bytes of this digest. Raises ValueError for what is no digest."""
    if not SHA256.fullmatch(sha256):
        raise ValueError(f"{sha256!r} is no SHA-256 in hexadecimal digits")
    return folder / BLOBS / sha256[:2] / sha256


class Blobs:
    """The files under `folder`. Safe for any number of threads; one process."""

    def __init__(self, folder: Path, bucket: Bucket | None = None) -> None:
        """Raises OSError when the folder cannot be used."""
        self.bucket = bucket
        self._folder, self._kept = folder, folder / BLOBS
        self._incoming = folder / "incoming"
        self._lock = threading.Lock()   # between giving a file its name and removing one that nothing names
        shutil.rmtree(self._incoming, ignore_errors=True)
        for made in (self._kept, self._incoming):
            made.mkdir(parents=True, exist_ok=True, mode=0o700)

    def path(self, sha256: str) -> Path:
        """Where bytes of this digest are, if they are here. Raises ValueError for what is no digest."""
        return blob_path(self._folder, sha256)

    def local(self, sha256: str) -> Path:
        """The same, after they were got from the bucket if that has them. Raises ValueError, OSError, S3Error."""
        path = self.path(sha256)
        if self.bucket is not None and not path.exists():
            with self.receiving("copy") as part, open(part, "wb") as out:
                _, found = self.bucket.read(sha256, out)
                out.flush()
                if found != sha256:
                    raise S3Error(f"{self.bucket.address}: the bytes of {sha256} have another SHA-256, {found}")
                self._keep_here(part, sha256)
        return path

    def size(self, sha256: str) -> int | None:
        """How many bytes have this digest; None if they are not kept. Raises S3Error."""
        try:
            return self.path(sha256).stat().st_size
        except FileNotFoundError:
            return None if self.bucket is None else self.bucket.size(sha256)

    @contextmanager
    def receiving(self, name: str) -> Iterator[Path]:
        """A path to write to, whose last part is `name`; what is not `keep`t by the end is removed."""
        folder = Path(tempfile.mkdtemp(dir=self._incoming))
        try:
            yield folder / name
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def keep(self, received: Path, sha256: str) -> bool:
        """Flush the file and give it its name; false if the bytes were here already. Raises OSError, S3Error.

        What arrives replaces what is here, which may have been damaged on the disk since."""
        if self.bucket is not None:
            self.bucket.put(received, sha256)
        return self._keep_here(received, sha256)

    def _keep_here(self, received: Path, sha256: str) -> bool:
        target = self.path(sha256)
        _flush(received)
        target.parent.mkdir(exist_ok=True, mode=0o700)
        os.utime(received)      # used just now: `sweep` spares it until something names it
        with self._lock:
            new = not target.exists()
            received.rename(target)
        _flush(target.parent)
        _flush(self._kept)
        return new

    def files(self) -> Iterator[Path]:
        """Every file that is kept here."""
        return self._kept.glob("*/*")

    def sweep(self, in_use: Callable[[str], bool], older_than_s: float) -> int:
        """Remove bytes that nothing names and nobody has touched for `older_than_s` (wall clock), and copies of what
        the bucket has that are as old; how many. Raises S3Error."""
        removed = 0
        if self.bucket is not None:
            for sha256 in self.bucket.older_than(older_than_s):
                if not in_use(sha256):
                    self.bucket.remove(sha256)
                    removed += 1
        for path in self.files():
            with self._lock:
                old = path.stat().st_mtime < time.time() - older_than_s
                if old and (self.bucket is not None or not in_use(path.name)):
                    path.unlink()
                    removed += 1
        return removed


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
