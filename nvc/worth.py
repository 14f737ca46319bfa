"""What the errors of each position of a picture are worth: more where later pictures copy them.

x264's macroblock tree (Garrett-Glaser 2009) for pictures that were really coded: going through them backwards, each
position hands what it is worth on to those that it was predicted from, as far as its decoded samples kept the
prediction's error. The steps of levels (`structure.LEVEL_OFFSETS`) hold what is usual of this already, so what counts
is how much more or less a position is copied than is usual at its level. Refinement weighs errors by it; steps stay.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nvc.compensation import BACKWARD, BOTH, FORWARD
from nvc.motion import MotionField
from nvc.structure import Unit
from picture import Picture

Grid = NDArray[np.float32]      # [H/8, W/8], one entry for 8×8 luma samples

USUAL = (8.0, 4.2, 3.0, 1.75, 1.35, 1.0)   # of levels: geometric mean over 12 training clips of 17 pictures
POWER = 0.5                 # of what a position is worth; 0.8 gives less
MOST = 2.5                  # and the inverse is the least
SHARED = 0.4                # handed on to each of two references: errors that differ cancel in part
ROUNDING = 1.0              # squared error added to both: below that nothing is told apart


@dataclass(frozen=True)
class Copied:
    """A picture as it was coded: its motion, and which share of the prediction's error its samples kept."""

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


def worth(pictures: Iterable[Copied]) -> dict[int, Grid]:
    """By picture number: what its positions' errors count, 1 where a position is copied as much as is usual.

    pictures: in coding order; what the last ones are copied by later is not known."""
    sums: dict[int, Grid] = {}
    result: dict[int, Grid] = {}
    for copied in reversed(list(pictures)):
        own = 1.0 + sums.pop(copied.unit.number, np.zeros_like(copied.kept))
        result[copied.unit.number] = np.clip((own / USUAL[copied.unit.level]) ** POWER, 1 / MOST, MOST)
        if copied.field is not None:
            for k, number in enumerate(copied.unit.references):
                there = sums.setdefault(number, np.zeros_like(own))
                hand_on(there, own * copied.kept * uses(copied.field.mode, k), copied.field.vectors[:, :, k])
    return result


def uses(mode: NDArray[np.uint8], k: int) -> Grid:
    """How far positions are predicted from reference k: SHARED where from both."""
    alone = mode == (BACKWARD if k else FORWARD)
    return np.where(mode == BOTH, SHARED, alone).astype(np.float32)


def hand_on(there: Grid, amount: Grid, vectors: NDArray[np.int16]) -> None:
    """Add amounts to the positions that vectors [H/8, W/8, (y, x)] (quarter samples) lead to, spread over the four that
    they lie between; what lies outside counts for the border."""
    rows, columns = there.shape
    y, x = np.mgrid[:rows, :columns] + vectors.transpose(2, 0, 1) / 32.0
    y, x = np.clip(y, 0, rows - 1), np.clip(x, 0, columns - 1)
    top, left = np.floor(y).astype(np.intp), np.floor(x).astype(np.intp)
    for i, share_y in ((top, top + 1 - y), (np.minimum(top + 1, rows - 1), y - top)):
        for j, share_x in ((left, left + 1 - x), (np.minimum(left + 1, columns - 1), x - left)):
            np.add.at(there, (i, j), amount * share_y * share_x)
