"""A whole codec in under a hundred lines: 8×8 DCT, one quantiser, zlib. Intra only, real bytes, a real decoder.

    python worker.py --orchestrator http://127.0.0.1:8081 --codec tiny=examples.tiny_transform:Tiny

Stream: HEADER, then for each picture four bytes of length (big-endian) and the coefficients of its planes y, u, v as
int16, all blocks' first coefficients together, then all second ones …, through zlib. docs/own-codec.md says how to run
a codec of your own.
"""

import hashlib
import struct
import zlib
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from coding import BitstreamError, Decoded, Encoded, FrameReport, Progress, Report, Settings, SettingsError, no_report
from video.picture import MATRICES, RANGES, ClipInfo, Picture

HEADER = struct.Struct(">4sHHIIIBBd")  # magic, width, height, rate as a fraction, pictures, matrix, range, step
MAGIC = b"TINY"
_K, _N = np.mgrid[0:8, 0:8]
DCT = np.sqrt(np.where(_K == 0, 1, 2) / 8) * np.cos(np.pi * _K * (2 * _N + 1) / 16)  # (frequency, sample), orthonormal


class Tiny:
    """See above. ``quality`` 0…63 becomes a step of 180…2."""

    name = "tiny"

    def warm(self) -> None:
        """Nothing to load."""

    def describe(self) -> dict[str, Any]:
        return {"codec": self.name, "version": 1}

    def encode(self, pictures: Iterable[Picture], info: ClipInfo, settings: Settings,
               progress: Report = no_report) -> Encoded:
        if settings.bitrate_mbps is not None or settings.psnr_db is not None:
            raise SettingsError("quality: expected; this codec cannot aim at a bitrate_mbps or psnr_db")
        step = 2 ** ((63 - settings.quality) / 9.7 + 1)
        digest, parts, reports = hashlib.sha256(), [], []
        for index, picture in enumerate(pictures):
            levels = [forward(plane, step) for plane in picture]
            packed = zlib.compress(b"".join(level.tobytes() for level in levels), 9)
            parts.append(len(packed).to_bytes(4) + packed)
            reports.append(FrameReport(index, "I", len(parts[-1])))
            for level, plane in zip(levels, picture, strict=True):  # what the decoder will make of it
                digest.update(inverse(level, plane.shape, step).tobytes())
            progress(Progress("encode", index + 1, info.frames))
        head = HEADER.pack(MAGIC, info.width, info.height, info.fps.numerator, info.fps.denominator, len(parts),
                           MATRICES.index(info.matrix), RANGES.index(info.range), step)
        return Encoded(head + b"".join(parts), reports, digest.hexdigest(), info, {"step": step})

    def decode(self, data: bytes, progress: Report = no_report) -> Decoded:
        if len(data) < HEADER.size or not data.startswith(MAGIC):
            raise BitstreamError("offset 0: no stream of this codec")
        _, width, height, over, under, frames, matrix, span, step = HEADER.unpack_from(data)
        info = ClipInfo(width, height, Fraction(over, under), frames, MATRICES[matrix], RANGES[span])
        return Decoded(info, self._pictures(data, info, step))

    def _pictures(self, data: bytes, info: ClipInfo, step: float) -> Iterator[Picture]:
        at, shapes = HEADER.size, [(info.height, info.width), info.chroma_shape, info.chroma_shape]
        counts = [blocks_of(shape)[0] * blocks_of(shape)[1] * 64 for shape in shapes]
        for _ in range(info.frames or 0):
            size = int.from_bytes(data[at : at + 4])
            levels = np.frombuffer(zlib.decompress(data[at + 4 : at + 4 + size]), np.int16)
            at += 4 + size
            planes = np.split(levels, np.cumsum(counts)[:-1])
            yield Picture(*(inverse(plane, shape, step) for plane, shape in zip(planes, shapes, strict=True)))


def blocks_of(shape: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns of 8×8 blocks that cover a plane."""
    return -(-shape[0] // 8), -(-shape[1] // 8)


def forward(plane: np.ndarray, step: float) -> np.ndarray:
    """Quantised coefficients of a plane, int16, frequency by frequency."""
    rows, columns = blocks_of(plane.shape)
    padded = np.pad(plane, ((0, 8 * rows - plane.shape[0]), (0, 8 * columns - plane.shape[1])), "edge")
    blocks = padded.reshape(rows, 8, columns, 8).transpose(0, 2, 1, 3) - 128.0
    return np.rint(DCT @ blocks @ DCT.T / step).astype(np.int16).reshape(-1, 64).T.ravel()


def inverse(levels: np.ndarray, shape: tuple[int, ...], step: float) -> np.ndarray:
    """The plane, uint8, that those coefficients stand for."""
    rows, columns = blocks_of(shape)
    blocks = DCT.T @ (levels.reshape(64, -1).T.reshape(rows, columns, 8, 8) * step) @ DCT + 128.0
    plane = blocks.transpose(0, 2, 1, 3).reshape(8 * rows, 8 * columns)[: shape[0], : shape[1]]
    return np.ascontiguousarray(np.rint(plane).clip(0, 255).astype(np.uint8))
