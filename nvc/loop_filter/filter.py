"""The filter of a whole decoded picture: which weights, on which planes, and the bits that say so. Normative.

    filter = [luma = 1] [chroma = 1]       after the latents of all regions, where the networks code anything

[..] an adaptive bit: whether that plane (both of chroma) is filtered.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numba import njit
from numpy.typing import NDArray
from safetensors.numpy import load_file

from nvc.entropy.bits import DECODE, ENCODE, code_bit
from nvc.entropy.range_coder import Decoder, Encoder, fresh_contexts
from nvc.loop_filter.kernels import BLOCK, CLIPS, TAPS
from nvc.loop_filter.planes import CLASSES, filter_plane
from video.picture import Picture

COMPONENTS, TYPES = 2, 3        # luma and chroma; I, P and B
BAND = 16                       # step indices that share weights
BANDS = 8
WEIGHTS = len(TAPS) * CLIPS

_START = np.array([0.03, 0.03])     # probability that a plane is not filtered
_CONFIDENCE = 12


class LoopFilter:
    """Weights int16 [COMPONENTS, TYPES, BANDS, CLASSES, WEIGHTS], in 1/1024."""

    def __init__(self, weights: NDArray[np.int16]) -> None:
        if weights.shape != (COMPONENTS, TYPES, BANDS, CLASSES, WEIGHTS):
            raise ValueError(f"weights {weights.shape}, expected {(COMPONENTS, TYPES, BANDS, CLASSES, WEIGHTS)}")
        # Each as often as a block is wide, as the kernels want them.
        self._weights = np.ascontiguousarray(weights.repeat(BLOCK, -1))

    @classmethod
    def read(cls, path: Path) -> LoopFilter:
        """Of a safetensors file with the one tensor ``weights``."""
        return cls(load_file(path)["weights"])

    def luma(self, picture: Picture, coded: NDArray[np.bool_], kind: int, t: int) -> Picture:
        """A picture, luma filtered in the tiles that the networks code; kind, t: see nvc.network.network.Side."""
        return picture._replace(y=filter_plane(picture.y, t, self._weights[0, kind, t // BAND], coded))

    def chroma(self, picture: Picture, coded: NDArray[np.bool_], kind: int, t: int) -> Picture:
        """The same with both planes of chroma."""
        weights = self._weights[1, kind, t // BAND]
        return picture._replace(u=filter_plane(picture.u, t, weights, coded),
                                v=filter_plane(picture.v, t, weights, coded))

    def chosen(self, picture: Picture, source: Picture, coded: NDArray[np.bool_], kind: int,
               t: int) -> tuple[Picture, tuple[bool, bool]]:
        """The picture with those planes filtered that come nearer to the source by it, and which these are."""
        luma, chroma = self.luma(picture, coded, kind, t), self.chroma(picture, coded, kind, t)
        use = (_error(luma.y, source.y) < _error(picture.y, source.y),
               _error(chroma.u, source.u) + _error(chroma.v, source.v)
               < _error(picture.u, source.u) + _error(picture.v, source.v))
        return Picture(luma.y if use[0] else picture.y, *((chroma if use[1] else picture)[1:])), use


@njit(cache=True, nogil=True)
def _sum_of_squares(a, b):
    total = np.int64(0)
    for k in range(a.shape[0]):
        d = np.int32(a[k]) - np.int32(b[k])
        total += d * d
    return total


def _error(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> int:
    return int(_sum_of_squares(a.reshape(-1), b.reshape(-1)))


@njit(cache=True, nogil=True)
def _walk(direction, state, buffer, contexts, use):
    for k in range(COMPONENTS):
        use[k] = code_bit(direction, state, buffer, contexts, k, use[k])


def write_use(coder: Encoder, use: tuple[bool, bool]) -> None:
    """Say which planes are filtered."""
    coder.reserve(COMPONENTS)
    _walk(ENCODE, coder.state, coder.buffer, fresh_contexts(_START, _CONFIDENCE), np.array(use, np.int64))


def read_use(coder: Decoder) -> tuple[bool, bool]:
    """What `write_use` wrote. Look at coder.overrun."""
    use = np.zeros(COMPONENTS, np.int64)
    _walk(DECODE, coder.state, coder.data, fresh_contexts(_START, _CONFIDENCE), use)
    return bool(use[0]), bool(use[1])


def warm() -> None:
    """Compile every kernel into numba's cache."""
    own = LoopFilter(np.zeros((COMPONENTS, TYPES, BANDS, CLASSES, WEIGHTS), np.int16))
    grey = Picture(np.zeros((16, 16), np.uint8), np.zeros((8, 8), np.uint8), np.zeros((8, 8), np.uint8))
    coder = Encoder()
    write_use(coder, own.chosen(grey, grey, np.ones((1, 1), np.bool_), 0, 0)[1])
    read_use(Decoder(coder.finish()))
