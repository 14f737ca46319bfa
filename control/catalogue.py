"""Which bytes a clip's name means: clips that were uploaded, and the library that every worker carries.

Uploaded clips are content-addressed: a name points to a SHA-256, and an experiment keeps the digest that the name had
when it was accepted, whatever is uploaded under that name later. Library clips keep their names for themselves.
"""

import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import clips
import jobs
from control import probe
from control.blobs import Blobs
from control.registry import Registry
from picture import VideoError


class ClipError(Exception):
    """Root of what this module raises; the text is for the client."""


class UnknownClip(ClipError):
    """Nothing here has this name or digest."""


class NotFetched(ClipError):
    """The clip is an address, and addresses are not fetched here."""


class NameReserved(ClipError):
    """The name cannot be given to an upload."""


class Catalogue:
    """Clips by name. `find_library` gives the file of a library clip (clips.find)."""

    def __init__(self, registry: Registry, blobs: Blobs, find_library: Callable[[str], Path] = clips.find) -> None:
        self._registry = registry
        self._blobs = blobs
        self._find_library = find_library
        self._lock = threading.Lock()
        self._library: dict[str, dict[str, Any]] = {}

    def resolve(self, wanted: str) -> dict[str, Any]:
        """The clip field of a request as a run's clip: {"name", "sha256", "url"}. Raises UnknownClip, NotFetched."""
        if wanted.startswith("https:"):
            raise NotFetched("addresses are not fetched here; upload the clip with PUT /clips/{name} and give its name")
        if wanted in clips.names():
            return {"name": wanted, "sha256": None, "url": None}
        found = self._uploaded(wanted)
        if found is None:
            known = ", ".join(clips.names() + [clip["name"] for clip in self._registry.clips()][:20])
            raise UnknownClip(f"no clip {wanted}; known are {known}")
        return {"name": found["name"], "sha256": found["sha256"], "url": f"/clips/sha256:{found['sha256']}/data"}

    def add(self, name: str, save: Callable[[BinaryIO], tuple[int, str]]) -> tuple[dict[str, Any], bool]:
        """Take an upload: what is known of it, and whether the name is new. `save` streams it into a file and gives
        bytes and SHA-256. Raises NameReserved, probe.NotAClip, OSError and what `save` raises."""
        if not re.fullmatch(jobs.LIBRARY_NAME, name):
            raise NameReserved("name: expected at most 100 letters, digits, dots, hyphens and underscores, "
                               f"got {name[:120]!r}")
        if name in clips.names():
            raise NameReserved(f"name: {name} is a clip of the library; choose another")
        with self._blobs.receiving(name) as part:
            with open(part, "wb") as out:
                size, sha256 = save(out)
            # Looked at under its own name: that of a headerless file says its size and rate.
            info = probe.look(part)
            self._blobs.keep(part, sha256)
        before = self._registry.clip(name=name)
        if before is None or before["sha256"] != sha256:
            self._registry.put_clip(name, sha256, size, info)
        return self.get(name), before is None

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

    def file(self, name: str) -> tuple[Path, str]:
        """A clip's bytes, and their digest. Raises UnknownClip."""
        clip = self.get(name)
        if clip["data"] is None:
            raise UnknownClip(f"clip {name}: {clip['error']}")
        if clip["source"] == "library":
            return self._find_library(name), clip["sha256"]
        return self._blobs.path(clip["sha256"]), clip["sha256"]

    def _uploaded(self, wanted: str) -> dict[str, Any] | None:
        if wanted.startswith("sha256:"):
            return self._registry.clip(sha256=wanted.removeprefix("sha256:"))
        return self._registry.clip(name=wanted)

    def _document(self, clip: dict[str, Any]) -> dict[str, Any]:
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
            seen = probe.look_at_all(list(paths.values())) if paths else []
        except probe.NotAClip as error:
            seen = [{"error": str(error)}] * len(paths)
        for name, found in zip(paths, seen, strict=False):
            library[name] |= found
        return {name: {**about, "source": "library", "data": None if "error" in about else f"/clips/{name}/data"}
                for name, about in library.items()}
