"""A folder of pictures packed into one file, ZIP or plain TAR, read where it lies: nothing is ever extracted.

Pictures are taken as from a folder: by name with numbers by value, PNG, JPEG or WebP, one size, at 25 a second unless
an entry ``clip.json`` says another rate: ``{"fps": "30000/1001"}``.  Other entries are passed over.  Each picture is
read into memory when its turn comes.

An archive comes from anywhere, so it is refused whole, by the name of the entry, where it holds links, devices, names
that lead out of it, or encrypted entries, and where it would grow beyond bounds: ``MAX_ENTRIES`` entries,
``MAX_FILE_BYTES`` each, ``MAX_GROWTH`` times its own size in all (pictures are compressed already).
"""

from __future__ import annotations

import json
import os
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import IO, BinaryIO

from video.containers import Opened
from video.picture import DamagedVideo, EmptyVideo, Limits, NotAVideo, TooLarge, VideoError
from video.planar import rate_of
from video.stills import MAX_FILE_BYTES, SUFFIXES, by_number, gaps, read_pictures

MAX_ENTRIES = 65_534            # what a ZIP of the first kind can count; an hour at 18 a second
MAX_GROWTH = 100
MAX_DIRECTORY_BYTES = 64 << 20  # of a ZIP's list of entries, which is read at once
ABOUT = "clip.json"
MAX_ABOUT_BYTES = 4096

# What the library's readers raise over damaged bytes, besides what they are documented to raise.
PARSER_ERRORS = (zipfile.BadZipFile, tarfile.TarError, zlib.error, struct.error, EOFError, OSError, ValueError,
                 LookupError, ArithmeticError, RuntimeError, AttributeError, NotImplementedError)
Reader = Callable[[], IO[bytes] | None]
ZIP_MAGIC = (b"PK\x03\x04", b"PK\x05\x06")
COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "Zstandard",
              b"7z\xbc\xaf\x27\x1c": "7-Zip", b"Rar!": "RAR"}


def is_archive(file: BinaryIO, name: str) -> bool:
    """Whether an open file, which is left at its first byte, is a ZIP or TAR. Raises NotAVideo for other archives."""
    head = file.read(512)
    file.seek(0)
    packed = next((kind for magic, kind in COMPRESSED.items() if head.startswith(magic)), None)
    if packed:
        raise NotAVideo(f"{name}: compressed by {packed}, which is not read: pack pictures as .zip or plain .tar")
    return head.startswith(ZIP_MAGIC) or head[257:262] == b"ustar"


def read_archive(file: BinaryIO, name: str, limits: Limits) -> Opened:
    """Open an archive of pictures; the file is the clip's from here on. Raises NotAVideo (refused, see above),
    EmptyVideo, DamagedVideo, TooLarge."""
    zipped = file.read(4) in ZIP_MAGIC
    file.seek(0)
    try:
        entries = dict(_zip_entries(file, name) if zipped else _tar_entries(file, name))
    except PARSER_ERRORS as error:
        raise NotAVideo(f"{name}: a damaged archive: {error}") from error
    paths = sorted((path for path in entries if path.suffix.lower() in SUFFIXES), key=by_number)
    if not paths:
        raise EmptyVideo(f"{name}: an archive without pictures (expected {', '.join(SUFFIXES)})")
    info, pictures = read_pictures([(f"{name}: {path}", partial(_read, entries[path], f"{name}: {path}"))
                                    for path in paths], limits)
    info = replace(info, warnings=info.warnings + gaps([path.name for path in paths]))
    about = next((path for path in entries if path.name == ABOUT), None)
    if about is not None:
        info = replace(info, fps=_rate(_read(entries[about], f"{name}: {about}"), f"{name}: {about}"))
    return info, pictures, file.close


def _zip_entries(file: BinaryIO, name: str) -> Iterator[tuple[Path, Reader]]:
    _check_zip_directory(file, name)
    archive = zipfile.ZipFile(file)
    bound = _Bound(name, file)
    for entry in archive.infolist():
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise _refused(name, entry.filename, "is a link or device")
        if entry.flag_bits & 1:
            raise _refused(name, entry.filename, "is encrypted")
        path = bound.check(entry.filename, entry.file_size)
        if path is not None and not entry.is_dir():
            yield path, partial(archive.open, entry)


def _check_zip_directory(file: BinaryIO, name: str) -> None:
    """Before `zipfile` reads the whole list of entries into memory: the list's end says how long it is."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - (1 << 16) - 22))
    tail = file.read()
    file.seek(0)
    end = tail.rfind(b"PK\x05\x06")
    if end < 0 or len(tail) < end + 22:
        raise NotAVideo(f"{name}: a damaged archive: its list of entries is missing; was it cut short?")
    count, length = struct.unpack_from("<HI", tail, end + 10)
    if count > MAX_ENTRIES or length > MAX_DIRECTORY_BYTES:
        raise TooLarge(f"{name}: more than {MAX_ENTRIES} entries")


def _tar_entries(file: BinaryIO, name: str) -> Iterator[tuple[Path, Reader]]:
    archive = tarfile.TarFile(fileobj=file)     # and not open(), which would also take compressed ones
    bound = _Bound(name, file)
    while (entry := archive.next()) is not None:
        archive.members = []    # type: ignore[attr-defined]    # what it remembers would grow with the file
        if not (entry.isreg() or entry.isdir()):
            raise _refused(name, entry.name, "is a link or device")
        path = bound.check(entry.name, entry.size)
        if path is not None and entry.isreg():
            yield path, partial(archive.extractfile, entry)


class _Bound:
    """What may be in an archive, entry by entry."""

    def __init__(self, name: str, file: BinaryIO) -> None:
        self._name = name
        self._left = MAX_GROWTH * (file.seek(0, os.SEEK_END) + 1024)
        self._count = 0
        self._seen: set[str] = set()
        file.seek(0)

    def check(self, entry: str, size: int) -> Path | None:
        """The entry's path, or None for one to pass over (hidden files, what systems add). Raises VideoError."""
        parts = re.split(r"[/\\]", entry)
        if entry.startswith(("/", "\\")) or ".." in parts or "\0" in entry or re.match(r"[A-Za-z]:", entry):
            raise _refused(self._name, entry, "leads out of the archive")
        self._count += 1
        self._left -= size
        if self._count > MAX_ENTRIES:
            raise TooLarge(f"{self._name}: more than {MAX_ENTRIES} entries")
        if size > MAX_FILE_BYTES or self._left < 0:
            raise TooLarge(f"{self._name}: entry {entry[:100]!r} grows to {size} bytes; at most {MAX_FILE_BYTES} each "
                           f"were expected, and {MAX_GROWTH} times the archive's size in all")
        if any(part.startswith(".") and part != "." for part in parts) or "__MACOSX" in parts:
            return None
        if entry in self._seen:
            raise _refused(self._name, entry, "is there twice")
        self._seen.add(entry)
        return Path(entry)


def _read(opener: Reader, where: str) -> bytes:
    """An entry's bytes, no more than it may have, whatever the archive says of their number."""
    try:
        entry = opener()
        if entry is None:
            raise DamagedVideo(f"{where}: is no file")
        with entry:
            data = entry.read(MAX_FILE_BYTES + 1)
    except PARSER_ERRORS as error:
        raise DamagedVideo(f"{where}: cannot be read: {error}") from error
    if len(data) > MAX_FILE_BYTES:
        raise TooLarge(f"{where}: grows beyond {MAX_FILE_BYTES} bytes")
    return data


def _rate(data: bytes, where: str) -> Fraction:
    found = None
    with suppress(ValueError, RecursionError):
        found = json.loads(data[:MAX_ABOUT_BYTES])
    if not isinstance(found, dict) or set(found) != {"fps"}:
        raise VideoError(f'{where}: expected {{"fps": "30000/1001"}}')
    return rate_of(str(found["fps"]), where)


def _refused(name: str, entry: str, why: str) -> NotAVideo:
    return NotAVideo(f"{name}: entry {entry[:100]!r} {why}")
