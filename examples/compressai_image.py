"""A CompressAI image model as a codec: each picture by itself, weights from files of your own.

    pip install compressai
    export COMPRESSAI_WEIGHTS=~/weights     # a file, or a folder of them: one for each quality, in order of their names
    export COMPRESSAI_MODEL=bmshj2018-factorized        # the architecture, as CompressAI names it
    python worker.py --orchestrator http://127.0.0.1:8081 --codec compressai=examples.compressai_image:CompressAI

Quality 0…63 chooses among the files: with eight of them 0…7 is the first. The models work on RGB; pictures are
converted on the way in and back, so that what is measured is the whole of what a user would get. CompressAI decodes by
floating-point arithmetic: a stream decodes on the kind of machine that made it, and a stream made on another may not.

Stream: HEADER, the first eight bytes of the SHA-256 of the weights file, then for each picture the latent's shape, the
number of strings, and each string behind its length (32-bit words, big-endian).
"""

import hashlib
import os
import struct
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from coding import BitstreamError, CodecError, Decoded, Encoded, FrameReport, Progress, Report, Settings, no_report
from video.picture import MATRICES, ClipInfo, Picture
from video.pixels import rgb_to_420
from video.rgb import rgb

HEADER = struct.Struct(">4sHHIIIBB")  # magic, width, height, rate as a fraction, pictures, matrix, place of the weights
MAGIC = b"CAI1"
PAD = 64  # what the deepest of these models divides both sides by


class CompressAI:
    """See above. Raises CodecError that says what is missing: the package, the weights, the architecture."""

    name = "compressai"

    def __init__(self) -> None:
        self._nets: dict[Path, Any] = {}

    def warm(self) -> None:
        for place in range(len(weights_files())):
            self._net(place)

    def describe(self) -> dict[str, Any]:
        return {"codec": self.name, "architecture": architecture(), "weights": [path.name for path in weights_files()]}

    def encode(self, pictures: Iterable[Picture], info: ClipInfo, settings: Settings,
               progress: Report = no_report) -> Encoded:
        if info.range != "limited":
            raise CodecError("range: this wrapper gives limited-range pictures back; the clip is full range")
        files = weights_files()
        place = settings.quality * len(files) // 64
        net, weights = self._net(place)
        parts, reports = [], []
        for index, picture in enumerate(pictures):
            parts.append(pack(net.compress(tensor_of(rgb(picture, info)))))
            reports.append(FrameReport(index, "I", len(parts[-1])))
            progress(Progress("encode", index + 1, info.frames))
        head = HEADER.pack(MAGIC, info.width, info.height, info.fps.numerator, info.fps.denominator, len(parts),
                           MATRICES.index(info.matrix), place)
        return Encoded(head + bytes.fromhex(weights)[:8] + b"".join(parts), reports, "", info,
                       {"model_sha256": weights, "weights": files[place].name})

    def decode(self, data: bytes, progress: Report = no_report) -> Decoded:
        if len(data) < HEADER.size + 8 or not data.startswith(MAGIC):
            raise BitstreamError("offset 0: no stream of this codec")
        _, width, height, over, under, frames, matrix, place = HEADER.unpack_from(data)
        net, weights = self._net(place)
        if bytes.fromhex(weights)[:8] != data[HEADER.size : HEADER.size + 8]:
            raise BitstreamError(f"offset {HEADER.size}: coded with other weights than {weights_files()[place].name}")
        info = ClipInfo(width, height, Fraction(over, under), frames, MATRICES[matrix])
        return Decoded(info, self._pictures(net, data, info))

    def _pictures(self, net: Any, data: bytes, info: ClipInfo) -> Iterator[Picture]:
        at = HEADER.size + 8
        for _ in range(info.frames or 0):
            strings, shape, at = unpack(data, at)
            made = net.decompress(strings, shape)["x_hat"][0].clamp(0, 1).permute(1, 2, 0).cpu().numpy()
            levels = np.rint(255 * made[: info.height, : info.width]).astype(np.uint8)
            yield rgb_to_420(levels, 8, info.matrix)

    def _net(self, place: int) -> tuple[Any, str]:
        """The model of the weights file at this place, made once, and the file's SHA-256."""
        path = weights_files()[place]
        if path not in self._nets:
            try:
                import torch
                from compressai.zoo import load_state_dict
                from compressai.zoo.image import model_architectures
            except ImportError as error:
                raise CodecError(f"codec compressai: {error}; install it with: pip install compressai") from error
            if architecture() not in model_architectures:
                known = ", ".join(sorted(model_architectures))
                raise CodecError(f"COMPRESSAI_MODEL: expected one of {known}, got {architecture()!r}")
            state = torch.load(path, map_location="cpu", weights_only=True)  # no code comes out of the file
            state = state.get("state_dict", state)  # the checkpoint of a training run holds more than the weights
            net = model_architectures[architecture()].from_state_dict(load_state_dict(state)).eval()
            net.update()
            torch.set_grad_enabled(False)
            self._nets[path] = net, hashlib.sha256(path.read_bytes()).hexdigest()
        return self._nets[path]


def architecture() -> str:
    return os.environ.get("COMPRESSAI_MODEL", "bmshj2018-factorized")


def weights_files() -> list[Path]:
    """The files that COMPRESSAI_WEIGHTS names, lowest quality first. Raises CodecError."""
    named = os.environ.get("COMPRESSAI_WEIGHTS", "")
    path = Path(named).expanduser()
    files = sorted(each for each in path.iterdir() if each.is_file()) if named and path.is_dir() else [path]
    if not named or not files or not files[0].is_file():
        raise CodecError(f"COMPRESSAI_WEIGHTS: expected a file of weights or a folder of them, got {named!r}")
    return files


def tensor_of(levels: np.ndarray) -> Any:
    """(H, W, 3), 0…255, as (1, 3, H', W'), 0…1, its sides filled up to multiples of PAD with the last samples."""
    import torch

    height, width = levels.shape[:2]
    padded = np.pad(levels, ((0, -height % PAD), (0, -width % PAD), (0, 0)), "edge")
    return torch.from_numpy(np.ascontiguousarray(padded.transpose(2, 0, 1)[None], np.float32) / 255)


def pack(coded: dict[str, Any]) -> bytes:
    """What a model's ``compress`` gives for one picture, as bytes."""
    strings = [string[0] for string in coded["strings"]]
    words = struct.pack(">3I", *coded["shape"], len(strings))
    return words + b"".join(struct.pack(">I", len(string)) + string for string in strings)


def unpack(data: bytes, at: int) -> tuple[list[list[bytes]], tuple[int, int], int]:
    """The strings and shape that ``decompress`` takes, and where they end."""
    rows, columns, count = struct.unpack_from(">3I", data, at)
    at, strings = at + 12, []
    for _ in range(count):
        (size,) = struct.unpack_from(">I", data, at)
        strings.append([data[at + 4 : at + 4 + size]])
        at += 4 + size
    return strings, (rows, columns), at
