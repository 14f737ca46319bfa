"""What pictures will copy from each other, guessed from the sources before any is coded: at half size, in blocks of 16.

For efforts without trials (nvc/trial.py), which see it in pictures that were really coded: steps that follow this guess
save as much, for a tenth of the time that coding takes. x264 looks ahead in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from nvc import coarse
from nvc.batches import Coded, code_segment
from nvc.compensation import BACKWARD, BOTH, FORWARD, INTRA
from nvc.encode import Encoder
from nvc.motion import MARGIN, MotionField, Plane, padded
from nvc.pace import segments, suited
from nvc.parallel import each
from nvc.structure import Planner, Unit, schedule
from nvc.worth import ROUNDING, Copied, worth
from picture import Picture

# Squared error at half size of a decoded sample whose prediction is worse than that, in Δ² of its step.
CODED = 0.3


def code_ahead(encoder: Encoder, planner: Planner, pictures: Iterable[Picture]) -> Iterator[Coded]:
    """Code one GOP's padded pictures, each segment by the mini-GOP that suits it; steps follow what its own and the
    next segment's pictures will copy."""
    look, guessing = Lookahead(), planner.copy(planner.mini_gop)
    coded: list[Picture] = []
    waiting: list[Picture] = []
    copied: list[Copied] = []
    for anchor, segment, goes_on in segments(pictures):
        mini_gop, guessing.mini_gop = guessing.mini_gop, suited(anchor, segment)
        with encoder.tally.clock.part("motion"):
            following = look.copied(segment, guessing, encoder.step)
        worths = worth(copied + following, goes_on)
        yield from code_segment(encoder, planner, coded, waiting, segment, mini_gop, worths)
        coded, waiting, copied = waiting, segment, following
    yield from code_segment(encoder, planner, coded, waiting, [], guessing.mini_gop, worth(copied, False))


class Lookahead:
    """Sources of one GOP, as small pictures for as long as others may refer to them."""

    def __init__(self) -> None:
        self.small: dict[int, tuple[Plane, Plane]] = {}

    def copied(self, segment: list[Picture], planner: Planner, step_of: Callable[[Unit], float]) -> list[Copied]:
        """What the next segment's padded pictures will copy, in coding order; planner: at its begin, moved on; step_of:
        the size of a unit's steps."""
        for number, picture in enumerate(segment, planner.number):
            self.small[number] = coarse.pyramid(padded(np.require(picture.y, np.uint8, ["C", "W"]), MARGIN))
        units = [unit for batch in schedule(segment, planner) for unit, _ in batch]
        made = each(partial(self._guess, step_of), units)
        last = planner.number - 1
        self.small = {last: self.small[last]}
        return made

    def _guess(self, step_of: Callable[[Unit], float], unit: Unit) -> Copied:
        step = step_of(unit)
        current = self.small[unit.number]
        source = _blocks(current[0])
        rows, columns = source.shape[:2]
        if not unit.references:
            return Copied(unit, None, np.zeros((2 * rows, 2 * columns), np.float32))
        vectors, made = [], []
        for number in unit.references:
            vectors.append(coarse.guess(current, self.small[number], coarse.reach_of(unit.number - number), step))
            made.append(coarse.follow(current[0], self.small[number][0], vectors[-1]))
        errors = {FORWARD: _error(source, made[0])}
        if len(made) == 2:
            errors |= {BACKWARD: _error(source, made[1]), BOTH: _error(source, np.float32(0.5) * (made[0] + made[1]))}
        errors[INTRA] = source.var((2, 3))
        all_of = np.stack(list(errors.values()))
        mode = np.array(list(errors), np.uint8)[all_of.argmin(0)]
        error = all_of.min(0)
        kept = (np.minimum(error, CODED * step**2) + ROUNDING) / (error + ROUNDING)
        pair = np.stack([vectors[0], vectors[-1]], 2).astype(np.int16)
        return Copied(unit, MotionField(_twice(mode), _twice(pair), (0, 0)), _twice(kept.astype(np.float32)))


def _blocks(half: Plane) -> NDArray[np.float32]:
    """Blocks [H/16, W/16, 8, 8] of a padded plane at half size."""
    inside = half[MARGIN // 2:-MARGIN // 2, MARGIN // 2:-MARGIN // 2].astype(np.float32)
    return inside.reshape(inside.shape[0] // 8, 8, -1, 8).swapaxes(1, 2)


def _error(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    difference = a - b
    return (difference * difference).mean((2, 3))


def _twice(grid: NDArray) -> NDArray:
    """Each entry of the first two axes in two rows and two columns."""
    return np.ascontiguousarray(grid.repeat(2, 0).repeat(2, 1))
