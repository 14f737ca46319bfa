"""Which bytes a clip's name means: clips that were uploaded or fetched, and the library that every worker carries.

Uploaded clips are content-addressed: a name points to a SHA-256, and an experiment keeps the digest that the name had
when it was accepted, whatever is uploaded under that name later. Library clips keep their names for themselves.

An address (https:// or s3://) is a name too, one that no upload can have. It is fetched for each experiment that names
it, before that is accepted, and then kept as if it had been uploaded.
"""

import hashlib
import re
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from service.clips import probe
from service.http.fetching import Fetcher, FetchError
from service.jobs.fields import FETCHED, LIBRARY_NAME
from service.s3 import S3Error
from service.s3 import fetch as fetch_from_s3
from service.storage.blobs import Blobs
from service.storage.registry import Registry
from video import library as clips
from video.headers import FIELDS, raw_format, wrap
from video.picture import DEFAULT_LIMITS, VideoError
from video.planar import RawFormat

MAX_ADDRESSES = 8   # of one experiment: their times to fetch add up


class ClipError(Exception):
    """Root of what this module raises; the text is for the client."""


class UnknownClip(ClipError):
    """Nothing here has this name or digest."""


class NotFetched(ClipError):
    """The clip is an address, and what is there cannot be had."""


class NameReserved(ClipError):
    """The name cannot be given to an upload."""


class FormatError(ClipError):
    """What is said of a headerless clip is not enough, or wrong; the text names the field."""

    @property
    def field(self) -> str:
        return next((field for field in FIELDS if f"{field}: " in str(self)), "name")


class Catalogue:
    """Clips by name. `buckets` are those that clips may be fetched from, of at most `limit_bytes`; `find_library` gives
    the file of a library clip (clips.find)."""

    def __init__(self, registry: Registry, blobs: Blobs, fetcher: Fetcher,
                 find_library: Callable[[str], Path] = clips.find, *, buckets: Collection[str] = (),
                 limit_bytes: int = 2 << 30) -> None:
        self._registry = registry
        self._blobs = blobs
        self._fetcher = fetcher
        self._find_library = find_library
        self._buckets, self._limit_bytes = frozenset(buckets), limit_bytes
        self._lock = threading.Lock()
        self._library: dict[str, dict[str, Any]] = {}

    def resolve(self, names: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Clip fields of a request as runs' clips, by name: {"name", "sha256", "url"}. Raises UnknownClip, NotFetched,
        probe.NotAClip, OSError."""
        wanted = list(dict.fromkeys(names))
        if sum(name.startswith(FETCHED) for name in wanted) > MAX_ADDRESSES:
            raise NotFetched(f"at most {MAX_ADDRESSES} addresses were expected in one experiment; upload the others")
        return {name: self._resolve(name) for name in wanted}

    def _resolve(self, wanted: str) -> dict[str, Any]:
        if wanted in clips.names():
            return {"name": wanted, "sha256": None, "url": None}
        if wanted.startswith(FETCHED):
            self._fetch(wanted)
        found = self._uploaded(wanted)
        if found is None:
            known = ", ".join(clips.names() + [clip["name"] for clip in self._registry.clips()][:20])
            raise UnknownClip(f"no clip {wanted}; known are {known}")
        return {"name": found["name"], "sha256": found["sha256"], "url": f"/clips/sha256:{found['sha256']}/data"}

    def add(self, name: str, save: Callable[[BinaryIO], tuple[int, str]], said: Mapping[str, str] | None = None,
            principal: str = "") -> tuple[dict[str, Any], bool]:
        """Take an upload: what is known of it, and whether the name is new. `save` streams it into a file and gives
        bytes and SHA-256; `said` are those of video.headers.FIELDS that are known of a headerless one, which is kept as
        Y4M; `principal` is the key that it came with. Raises NameReserved, FormatError, probe.NotAClip, OSError and
        what `save` raises."""
        if not re.fullmatch(LIBRARY_NAME, name):
            raise NameReserved("name: expected at most 100 letters, digits, dots, hyphens and underscores, "
                               f"got {name[:120]!r}")
        if name in clips.names():
            raise NameReserved(f"name: {name} is a clip of the library; choose another")
        new = self._take(name, name, save, said or {}, principal)
        return self.get(name), new

    def _fetch(self, address: str) -> None:
        # The end of its path may say the size and rate of a headerless file.
        file_name = "clip-" + re.sub(r"[^A-Za-z0-9._-]", "_", address.partition("?")[0])[-100:]
        try:
            self._take(address, file_name, lambda out: self._download(address, out), {})
        except FetchError as error:
            raise NotFetched(f"{address[:200]}: {error}; PUT /clips/{{name}} takes files in any case") from error
        except S3Error as error:
            raise NotFetched(str(error)) from error

    def _download(self, address: str, out: BinaryIO) -> tuple[int, str]:
        """Raises FetchError, S3Error, OSError."""
        if address.startswith("https:"):
            return self._fetcher.fetch(address, out)
        bucket = address.split("/")[2]
        if bucket not in self._buckets:
            known = f"those that are: {', '.join(sorted(self._buckets))}" if self._buckets else "it names none"
            raise S3Error(f"s3://{bucket}: not a bucket that fetch_buckets names; {known}")
        return fetch_from_s3(address, out, self._limit_bytes)

    def _take(self, name: str, file_name: str, save: Callable[[BinaryIO], tuple[int, str]],
              said: Mapping[str, str], principal: str = "") -> bool:
        """Keep bytes that are a video under their digest, and let `name` mean them; whether the name is new."""
        try:
            form = raw_format(file_name, said)
        except VideoError as error:
            raise FormatError(str(error)) from error
        with self._blobs.receiving(file_name) as part:
            with open(part, "wb") as out:
                size, sha256 = save(out)
            wrapped = {}
            if form is not None:
                wrapped = {"wrapped_from": form.name, "wrapped_sha256": sha256}
                part, size, sha256 = _wrapped(part, size, form)
            info = probe.look(part) | wrapped
            self._blobs.keep(part, sha256)
        before = self._registry.clip(name=name)
        if before is None or before["sha256"] != sha256:
            self._registry.put_clip(name, sha256, size, info, principal)
        return before is None

    def get(self, name: str) -> dict[str, Any]:
        """What is known of one clip, by name or "sha256:…". Raises UnknownClip."""
        if name in clips.names():
            return self._describe_library(name)
        found = self._uploaded(name)
        if found is None:
            raise UnknownClip(f"no clip {name}")
        return self._document(found)

    def all(self) -> list[dict[str, Any]]:
        """Every clip: the library, then uploads by name."""
        return [self._describe_library(name) for name in clips.names()] + [
            self._document(clip) for clip in self._registry.clips()]

    def delete(self, name: str) -> None:
        """Forget an upload, or by sha256:… what was fetched from an address. Raises UnknownClip, NameReserved for one
        of the library, ClipInUse."""
        if name in clips.names():
            raise NameReserved(f"name: {name} is a clip of the library, which cannot be deleted")
        found = self._uploaded(name)
        by_hash = name.startswith("sha256:") and found is not None and found["name"].startswith(FETCHED)
        if not self._registry.delete_clip(found["name"] if found is not None and by_hash else name):
            raise UnknownClip(f"no clip was uploaded as {name}")

    def file(self, name: str) -> tuple[Path, str]:
        """A clip's bytes, and their digest. Raises UnknownClip."""
        clip = self.get(name)
        if clip["data"] is None:
            raise UnknownClip(f"clip {name}: {clip['error']}")
        if clip["source"] == "library":
            return self._find_library(name), clip["sha256"]
        return self._blobs.local(clip["sha256"]), clip["sha256"]

    def _uploaded(self, wanted: str) -> dict[str, Any] | None:
        if wanted.startswith("sha256:"):
            return self._registry.clip(sha256=wanted.removeprefix("sha256:"))
        return self._registry.clip(name=wanted)

    def _document(self, clip: dict[str, Any]) -> dict[str, Any]:
        if clip["name"].startswith(FETCHED):    # which does not fit into a path
            return {**clip, "source": "fetched", "data": f"/clips/sha256:{clip['sha256']}/data"}
        return {**clip, "source": "uploaded", "data": f"/clips/{clip['name']}/data"}

    def _describe_library(self, name: str) -> dict[str, Any]:
        """Read once, all of them by one process; where a clip's file is missing, "error" says what to do."""
        with self._lock:
            if name not in self._library:
                self._library = self._read_library()
            return self._library[name]

    def _read_library(self) -> dict[str, dict[str, Any]]:
        library: dict[str, dict[str, Any]] = {}
        paths: dict[str, Path] = {}
        for name in clips.names():
            library[name] = {"name": name, "sha256": None, "bytes": None, "uploaded": None}
            try:
                paths[name] = self._find_library(name)
                library[name] |= {"sha256": clips.sha256(name), "bytes": paths[name].stat().st_size}
            except (VideoError, OSError) as error:
                library[name]["error"] = str(error)
        try:
            infos = probe.look_at_all(list(paths.values())) if paths else []
        except probe.NotAClip as error:
            infos = [{"error": str(error)}] * len(paths)
        for name, found in zip(paths, infos, strict=False):
            library[name] |= found
        return {name: {**about, "source": "library", "data": None if "error" in about else f"/clips/{name}/data"}
                for name, about in library.items()}


def _wrapped(part: Path, size: int, form: RawFormat) -> tuple[Path, int, str]:
    """A headerless file beside itself as Y4M: the file, its bytes and their SHA-256. Raises NotAClip, OSError."""
    made = part.with_name("wrapped.y4m")
    try:
        with open(part, "rb") as source, open(made, "wb") as out:
            wrap(source, size, out, part.name, form, DEFAULT_LIMITS)
    except VideoError as error:
        raise probe.NotAClip(str(error)) from error
    part.unlink()
    with open(made, "rb") as file:
        return made, made.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()
