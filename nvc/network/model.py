"""Weights by name, and by the id that a stream carries; each loaded and proved exact once for a process."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

from nvc.network.fixed_point import FixedNetwork, Weights
from nvc.stream.errors import BitstreamError, SettingsError
from nvc.stream.syntax import MODEL_BYTES

FOLDER = Path(__file__).resolve().parents[1] / "weights"
DEFAULT_MODEL = "nvc-1"


@dataclass
class Model:
    """`network` decodes; `tensors` also holds what only the encoder uses."""

    name: str
    sha256: str
    network: FixedNetwork
    weights: Weights

    @property
    def id(self) -> bytes:
        """What a stream names the model by."""
        return bytes.fromhex(self.sha256)[:MODEL_BYTES]


_loaded: dict[tuple[str, str], Model] = {}
_lock = threading.Lock()


def models() -> list[str]:
    """Names of the weights files here."""
    return sorted(f.stem for f in FOLDER.glob("*.safetensors"))


def load_model(name: str, device: str = "cpu") -> Model:
    """SettingsError: no such model. ExactnessError: this machine cannot run it exactly."""
    with _lock:
        if (name, device) not in _loaded:
            path = FOLDER / f"{name}.safetensors"
            if name not in models():
                raise SettingsError(f"model: unknown name {name!r}, known are {', '.join(models())}")
            weights = Weights.read(path)
            _loaded[name, device] = Model(name, weights.model_sha256, FixedNetwork(weights, device), weights)
        return _loaded[name, device]


def load_for(identity: bytes, device: str = "cpu") -> Model:
    """The model that a stream names. BitstreamError: made with weights that are not here."""
    with _lock:
        at_hand = [model for (_, where), model in _loaded.items() if where == device and model.id == identity]
    if at_hand:
        return at_hand[0]
    for name in models():
        if Weights.read(FOLDER / f"{name}.safetensors").model_sha256.startswith(identity.hex()):
            return load_model(name, device)
    raise BitstreamError(f"made with model {identity.hex()}, which is none of those here ({', '.join(models())})", 5)
