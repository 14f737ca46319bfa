"""What pictures will copy from each other, guessed from the sources before any is coded: at half size, in blocks of 16.

For efforts without trials (nvc/encoder/mode_trial.py), which see it in pictures that were really coded: steps that
follow this guess save as much, for a tenth of the time that coding takes. x264 looks ahead in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from nvc.encoder.batches import Coded, code_segment
from nvc.encoder.encode import Encoder
from nvc.encoder.search import pyramid_search
from nvc.encoder.search.weight_estimation import weigh, weighted
from nvc.encoder.sources.mini_gop import segments, suited
from nvc.encoder.sources.propagation import ROUNDING, Copied, importance_of
from nvc.encoder.sources.structure import Planner, Unit, schedule
from nvc.machine.parallel import each
from nvc.motion.prediction import MARGIN, MotionField
from video.picture import Picture

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
            ahead = look.copied(segment, guessing, encoder.step)
        importances = importance_of(copied + ahead, goes_on)
        yield from code_segment(encoder, planner, coded, waiting, segment, mini_gop, importances)
        coded, waiting, copied = waiting, segment, ahead
    yield from code_segment(encoder, planner, coded, waiting, [], guessing.mini_gop, importance_of(copied, False))


class Lookahead:
    """Sources of one GOP, as small pictures for as long as others may refer to them."""

    def __init__(self) -> None:
        self.small: dict[int, pyramid_search.Pyramid] = {}

    def copied(self, segment: list[Picture], planner: Planner, step_of: Callable[[Unit], float]) -> list[Copied]:
        """What the next segment's padded pictures will copy, in coding order; planner: at its begin, moved on; step_of:
        the size of a unit's steps."""
        for number, picture in enumerate(segment, planner.number):
            self.small[number] = pyramid_search.pyramid(picture.y)
        units = [unit for batch in schedule(segment, planner) for unit, _ in batch]
        made = each(partial(self._guess, step_of), units)
        last = planner.number - 1
        self.small = {last: self.small[last]}
        return made

    def _guess(self, step_of: Callable[[Unit], float], unit: Unit) -> Copied:
        step = step_of(unit)
        current = self.small[unit.number]
        if not unit.references:
            rows, columns = ((n - MARGIN) // 4 for n in current[0].shape)
            return Copied(unit, None, np.zeros((rows, columns), np.float32))
        reaches = [pyramid_search.reach_of(unit.number - number) for number in unit.references]
        references = [self.small[number] for number in unit.references]
        weights = weigh(current, references, reaches, step)
        found = pyramid_search.match(current, weighted(references, weights), reaches, step)
        kept = (np.minimum(found.error, CODED * step**2) + ROUNDING) / (found.error + ROUNDING)
        field = MotionField(_twice(found.mode), _twice(found.vectors), (0, 0))
        return Copied(unit, field, _twice(kept.astype(np.float32)))


def _twice(grid: NDArray) -> NDArray:
    """Each entry of the first two axes in two rows and two columns."""
    return np.ascontiguousarray(grid.repeat(2, 0).repeat(2, 1))
