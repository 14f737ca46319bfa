"""Weights by name, and by the id that a stream carries; each loaded and proved exact once for a process."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from nvc.loop_filter.filter import LoopFilter
from nvc.network.fixed_point import FixedNetwork, Weights
from nvc.stream.errors import BitstreamError, SettingsError
from nvc.stream.syntax import MODEL_BYTES

FOLDER = Path(__file__).resolve().parents[1] / "weights"
FILTERS = FOLDER / "loop_filters"
DEFAULT_MODEL = "nvc-1"


@dataclass
class Model:
    """`network` and the filter after it, if there is one, decode; `weights` also hold what only the encoder uses.

    sha256: of the weights' file, or, with a filter, of the SHA-256 of both files, one after the other."""

    name: str
    sha256: str
    network: FixedNetwork
    weights: Weights
    loop_filter: LoopFilter | None = None

    @property
    def id(self) -> bytes:
        """What a stream names the model by."""
        return bytes.fromhex(self.sha256)[:MODEL_BYTES]


_loaded: dict[tuple[str, str], tuple[Model, Model]] = {}     # without a filter, and with what there is
_lock = threading.Lock()


def models() -> list[str]:
    """Names of the weights files here."""
    return sorted(f.stem for f in FOLDER.glob("*.safetensors"))


def load_model(name: str, device: str = "cpu") -> Model:
    """With its filter, if any. SettingsError: no such model. ExactnessError: this machine cannot run it exactly."""
    return _both(name, device)[1]


def _both(name: str, device: str) -> tuple[Model, Model]:
    with _lock:
        if (name, device) not in _loaded:
            path = FOLDER / f"{name}.safetensors"
            if name not in models():
                raise SettingsError(f"model: unknown name {name!r}, known are {', '.join(models())}")
            weights = Weights.read(path)
            plain = whole = Model(name, weights.model_sha256, FixedNetwork(weights, device), weights)
            if (filter_path := FILTERS / path.name).exists():
                whole = replace(plain, sha256=_hashes(name)[1], loop_filter=LoopFilter.read(filter_path))
            _loaded[name, device] = plain, whole
        return _loaded[name, device]


@cache
def _hashes(name: str) -> list[str]:
    """What `Model.sha256` is without a filter and, if there is one, with it."""
    files = [path for path in (FOLDER / f"{name}.safetensors", FILTERS / f"{name}.safetensors") if path.exists()]
    parts = [hashlib.sha256(path.read_bytes()) for path in files]
    joined = hashlib.sha256(b"".join(part.digest() for part in parts))
    return [parts[0].hexdigest(), *([joined.hexdigest()] if len(parts) > 1 else [])]


def load_for(identity: bytes, device: str = "cpu") -> Model:
    """The model that a stream names: with its filter, or without one, as before version 6.

    BitstreamError: made with weights that are not here."""
    for name in models():
        for place, sha256 in enumerate(_hashes(name)):
            if sha256.startswith(identity.hex()):
                return _both(name, device)[place]
    raise BitstreamError(f"made with model {identity.hex()}, which is none of those here ({', '.join(models())})", 5)
