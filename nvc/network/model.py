"""Weights by name, and by the id that a stream carries; each loaded and proved exact once for a process."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass, replace
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
                own = LoopFilter.read(filter_path)
                whole = replace(plain, sha256=_joined(plain.sha256, own.sha256), loop_filter=own)
            _loaded[name, device] = plain, whole
        return _loaded[name, device]


def _joined(*sha256: str) -> str:
    return hashlib.sha256(b"".join(map(bytes.fromhex, sha256))).hexdigest()


def load_for(identity: bytes, device: str = "cpu") -> Model:
    """The model that a stream names: with its filter, or without one, as before version 6.

    BitstreamError: made with weights that are not here."""
    with _lock:
        first = {name for name, where in _loaded if where == device}
    for name in sorted(models(), key=lambda name: name not in first):
        for model in _both(name, device):
            if model.id == identity:
                return model
    raise BitstreamError(f"made with model {identity.hex()}, which is none of those here ({', '.join(models())})", 5)
