"""Importance: the weight of errors at each position of a picture, greater where later pictures copy them.

x264's macroblock tree (Garrett-Glaser 2009) for whole pictures: going through them backwards, each position hands its
importance on to those that it was predicted from, as far as its decoded samples kept the prediction's error. A
picture's step follows the importance of the positions that bits are spent on (docs/decisions, 24); quantisation weighs
errors within the picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from nvc.encoder.sources.structure import Unit
from nvc.motion.compensation import BACKWARD, BOTH, FORWARD
from nvc.motion.prediction import MotionField
from video.picture import Picture

Grid = NDArray[np.float32]      # [H/8, W/8], one entry for 8×8 luma samples

# Sixteenths of an octave of Δ: by which the step of a picture that nothing copies is coarser than t, and finer for each
# octave of importance. λ alone would ask for 8, as it goes with Δ²; but a finer picture also saves bits in its copies.
COARSEST, STEP = 48.0, 12.0
FREE = 0.02                 # octaves of error that count as coded where nothing is
POWER = 0.85                # of the importance of positions of a picture relative to each other
MOST = 5.0                  # of that, and the inverse is the least
SHARED = 0.45               # handed on to each of two references: errors that differ cancel in part
ROUNDING = 1.0              # squared error added to both: below that errors do not differ


@dataclass(frozen=True)
class Copied:
    """A picture as it was coded, or will be: its motion, and which share of the prediction's error its samples kept; in
    an I picture of their variance."""

    unit: Unit
    field: MotionField | None
    kept: Grid

    @staticmethod
    def of(unit: Unit, source: Picture, pair: tuple[Picture, Picture] | None, decoded: Picture,
           field: MotionField | None) -> Copied:
        """pair: the predictions of a P or B picture."""
        if pair is None:
            predicted = blocks(source.y).var((1, 3))
        else:
            predicted = error_of((pair[0].y.astype(np.float32) + pair[1].y) / 2, source.y)
        return Copied(unit, field, kept_of(error_of(decoded.y, source.y), predicted))


def kept_of(decoded: Grid, predicted: Grid) -> Grid:
    """The share, 0 … 1, that mean squared errors of decoded samples are of those of their predictions."""
    return np.minimum((decoded + ROUNDING) / (predicted + ROUNDING), 1.0).astype(np.float32)


def blocks(plane: NDArray) -> NDArray[np.float32]:
    """A plane [H, W] as [H/8, 8, W/8, 8]."""
    height, width = plane.shape
    return plane.astype(np.float32).reshape(height // 8, 8, width // 8, 8)


def error_of(a: NDArray, b: NDArray) -> Grid:
    """Mean squared difference of two planes [H, W] in each 8×8 samples."""
    return ((blocks(a) - blocks(b)) ** 2).mean((1, 3))


@dataclass(frozen=True)
class Importance:
    """Of a picture. offset: what to add to t for its step index; grid: what its positions' errors count beside others;
    copied: the share of it that others' copies of them make up, 0 … 1."""

    offset: float
    grid: Grid
    copied: Grid


def importance_of(pictures: list[Copied], goes_on: bool) -> dict[int, Importance]:
    """By picture number; nothing for a GOP of one picture, a still. pictures: in coding order; goes_on: whether more
    follow. What those copy of the last anchor is not known: it is taken for what these copy of the anchor before."""
    if not any(copied.unit.references for copied in pictures):
        return {}
    owns = counted(pictures, {})
    anchors = [copied.unit.number for copied in pictures if copied.unit.level <= 1]
    if goes_on and len(anchors) > 1:
        owns = counted(pictures, {anchors[-1]: float(np.exp(np.log(owns[anchors[-2]]).mean()))})
    result: dict[int, Importance] = {}
    for copied in pictures:
        own = owns[copied.unit.number]
        octaves, bits = np.log2(own), FREE - np.log2(copied.kept)
        mean = float((octaves * bits).sum() / bits.sum())
        grid = np.clip(np.exp2(POWER * (octaves - mean)), 1 / MOST, MOST)
        result[copied.unit.number] = Importance(COARSEST - STEP * mean, grid, (1 - 1 / own).astype(np.float32))
    return result


def counted(pictures: list[Copied], first: dict[int, float]) -> dict[int, Grid]:
    """Importance of positions of pictures, by number: 1 (or as `first` says) and what those that copy them hand on."""
    owns = {copied.unit.number: np.full_like(copied.kept, first.get(copied.unit.number, 1.0)) for copied in pictures}
    for copied in reversed(pictures):
        if copied.field is not None:
            for k, number in enumerate(copied.unit.references):
                if number in owns:      # else it is coded already
                    amount = owns[copied.unit.number] * copied.kept * uses(copied.field.mode, k)
                    propagate(owns[number], amount, np.ascontiguousarray(copied.field.vectors[:, :, k]))
    return owns


def uses(mode: NDArray[np.uint8], k: int) -> Grid:
    """How far positions are predicted from reference k: SHARED where from both."""
    alone = mode == (BACKWARD if k else FORWARD)
    return np.where(mode == BOTH, SHARED, alone).astype(np.float32)


@njit(cache=True, nogil=True)
def propagate(there, amount, vectors):
    """Add amount [H/8, W/8] to the positions of there, float32 alike, that vectors [H/8, W/8, (y, x)] (quarter samples)
    lead to, spread over the four that they lie between; what lies outside counts for the border."""
    rows, columns = there.shape
    for i in range(rows):
        for j in range(columns):
            y = min(max(i + vectors[i, j, 0] / 32.0, 0.0), rows - 1.0)
            x = min(max(j + vectors[i, j, 1] / 32.0, 0.0), columns - 1.0)
            top, left = int(y), int(x)
            down, right = amount[i, j] * (y - top), x - left
            up = amount[i, j] - down
            below, beyond = min(top + 1, rows - 1), min(left + 1, columns - 1)
            there[top, left] += up * (1 - right)
            there[top, beyond] += up * right
            there[below, left] += down * (1 - right)
            there[below, beyond] += down * right


def warm() -> None:
    """Compile the kernel into numba's cache."""
    grid = np.zeros((1, 1), np.float32)
    propagate(grid, grid.copy(), np.zeros((1, 1, 2), np.int16))
