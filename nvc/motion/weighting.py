"""Weighted prediction: a reference as it looks brighter, darker or with another contrast (H.264, 8.4.2.3.2).

A fade moves nothing and changes every sample, so what a P picture would copy has to be changed first. A reference with
a weight is another picture, made from it sample by sample and used in its place: luma v becomes gain·v + offset, chroma
keeps its distance from grey times gain. The decoder's part; nvc/encoder/search/weight_estimation.py finds weights.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from video.picture import Picture

UNIT = 128                      # a gain of one
GREY = 128                      # of chroma
GAIN_MAX, OFFSET_MAX = 255, 127  # offset: -128 … 127


class Weight(NamedTuple):
    """gain in 1/128, 0 … 255; offset in levels of luma, -128 … 127."""

    gain: int = UNIT
    offset: int = 0


def table(gain: int, centre: int, shift: int) -> NDArray[np.uint8]:
    """uint8 [256]: (gain · (v - centre) + 64 >> 7) + shift of each sample v, clamped to 0 … 255."""
    samples = np.arange(256, dtype=np.int32)
    return np.clip((gain * (samples - centre) + UNIT // 2 >> 7) + shift, 0, 255).astype(np.uint8)


def luma(plane: NDArray[np.uint8], weight: Weight) -> NDArray[np.uint8]:
    """A plane of luma, weighted."""
    return table(weight.gain, 0, weight.offset)[plane]


def weighted(picture: Picture, weight: Weight) -> Picture:
    """All three planes, weighted."""
    chroma = table(weight.gain, GREY, GREY)
    return Picture(luma(picture.y, weight), chroma[picture.u], chroma[picture.v])
