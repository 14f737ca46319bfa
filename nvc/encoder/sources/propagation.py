"""Importance: the weight of errors at each position of a picture, greater where later pictures copy them.

x264's macroblock tree (Garrett-Glaser 2009) for pictures that were really coded: going through them backwards, each
position hands its importance on to those that it was predicted from, as far as its decoded samples kept the
prediction's error. The steps of levels (`structure.LEVEL_OFFSETS`) hold what is usual of this already, so what counts
is how much more or less a picture is copied than is usual at its level: its step follows. Refinement weighs errors
within the picture.
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

USUAL = (8.0, 4.2, 3.0, 1.75, 1.35, 1.0)   # of levels: geometric mean over 12 training clips of 17 pictures
# Added to every step: in longer GOPs pictures are copied more than was usual there. A quality then gives about the PSNR
# that steps by level alone would give.
CENTRE = 8.0
STEP = 8.0                  # sixteenths of an octave of Δ for an octave of importance: it goes with λ, so with Δ²
OFFSET_MOST = 16.0          # that a step is moved besides
POWER = 0.85                # of the importance of positions of a picture relative to each other
MOST = 5.0                  # of that, and the inverse is the least
SHARED = 0.4                # handed on to each of two references: errors that differ cancel in part
ROUNDING = 1.0              # squared error added to both: below that errors do not differ


@dataclass(frozen=True)
class Copied:
    """A picture as it was coded, or will be: its motion, and which share of the prediction's error its samples kept."""

    unit: Unit
    field: MotionField | None
    kept: Grid

    @staticmethod
    def of(unit: Unit, source: Picture, pair: tuple[Picture, Picture] | None, decoded: Picture,
           field: MotionField | None) -> Copied:
        """pair: the predictions of a P or B picture."""
        if pair is None:
            return Copied(unit, None, np.zeros([n // 8 for n in source.y.shape], np.float32))
        prediction = (pair[0].y.astype(np.float32) + pair[1].y) / 2
        kept = (error_of(decoded.y, source.y) + ROUNDING) / (error_of(prediction, source.y) + ROUNDING)
        return Copied(unit, field, np.minimum(kept, 1.0))


def error_of(a: NDArray, b: NDArray) -> Grid:
    """Mean squared difference of two planes [H, W] in each 8×8 samples."""
    height, width = a.shape
    squared = (a.astype(np.float32) - b) ** 2
    return squared.reshape(height // 8, 8, width // 8, 8).mean((1, 3))


@dataclass(frozen=True)
class Importance:
    """Of a picture. offset: what to add to its step index; grid: what its positions' errors count beside each other;
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
        octaves = np.log2(own / USUAL[copied.unit.level])
        mean = float(octaves.mean())
        grid = np.clip(np.exp2(POWER * (octaves - mean)), 1 / MOST, MOST)
        result[copied.unit.number] = Importance(CENTRE + min(max(-STEP * mean, -OFFSET_MOST), OFFSET_MOST), grid,
                                           (1 - 1 / own).astype(np.float32))
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
