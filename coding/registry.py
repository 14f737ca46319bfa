"""The codecs by name: nvc, the peers, and those that a user registers.

Other codecs join under a name of their own: `register("mine", "package.module:factory")`, or an entry point in the
group `neural_codec.codecs`. A factory takes no arguments and gives an object with the methods of
`coding.interface.Codec`.
"""

from __future__ import annotations

import importlib
import threading
from importlib.metadata import entry_points

from coding.interface import Codec, CodecError

ENTRY_POINTS = "neural_codec.codecs"
_PEERS = {name: f"peers.ffmpeg:{name}" for name in ("x264", "x265", "svtav1")} | {
    name: f"peers.program:{name}" for name in ("vp9", "aom", "rav1e", "vvenc")}
_factories: dict[str, str] = {"nvc": "nvc.codec:Nvc", **_PEERS}
_made: dict[str, Codec] = {}
_lock = threading.Lock()


def register(name: str, target: str) -> None:
    """Make `target` ("module:factory") known as codec `name`. CodecError for a target of another form."""
    if target.count(":") != 1 or not all(target.split(":")):
        raise CodecError(f"codec {name}: expected module:factory, got {target!r}")
    with _lock:
        _factories[name] = target
        _made.pop(name, None)


def names() -> list[str]:
    """Names of all codecs known here, sorted."""
    return sorted({*_factories, *(e.name for e in entry_points(group=ENTRY_POINTS))})


def target_of(name: str) -> str:
    """Where the codec of that name comes from, "module:factory". CodecError: unknown (lists the known ones)."""
    target = _factories.get(name) or next((e.value for e in entry_points(group=ENTRY_POINTS) if e.name == name), "")
    if not target:
        raise CodecError(f"codec: unknown name {name!r}, known are {', '.join(names())}")
    return target


def get(name: str) -> Codec:
    """The codec of that name, made once. CodecError: unknown (lists the known ones), or it cannot be imported."""
    with _lock:
        if name not in _made:
            target = target_of(name)
            module, factory = target.split(":")
            try:
                _made[name] = getattr(importlib.import_module(module), factory)()
            except (ImportError, AttributeError) as error:
                raise CodecError(f"codec {name}: cannot load {target}: {error}") from error
        return _made[name]
