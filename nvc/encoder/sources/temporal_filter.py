"""Sources of pictures that others copy, averaged with what those show: a filter along motion. No decoder knows of it.

Where later pictures copy a position, its best source is not the one picture but the mean of all that are made from it:
noise that only one of them has costs bits once and spoils the prediction of the others. So pictures of the first levels
are averaged with the sources around them, moved to where they are. Weights fall with the distance in time and with how
far samples differ, the more so at fine steps (Enhorn, Sjöberg and Wennersten, "A temporal pre-filter for video coding
based on bilateral filtering", ICIP 2020: what VTM does); and here with how little of a position is copied.
What looks drawn has no noise, and stays as it is: a mean would spoil the repetitions that its samples are coded by.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray

from nvc.encoder.search import pyramid_search
from nvc.encoder.search.motion_field import search
from nvc.encoder.search.weight_estimation import weigh
from nvc.encoder.sources.propagation import Grid
from nvc.encoder.sources.screen import drawn
from nvc.encoder.sources.structure import Unit
from nvc.machine.parallel import each
from nvc.motion.prediction import Reference, predict
from nvc.tiles.kinds import TILE, spread
from video.picture import Picture

REACH = (4, 4, 2)                   # of levels: pictures that far before and after are averaged with; then none
PICTURES_AROUND = max(REACH)
WEIGHTS = (1.13, 0.97, 0.81, 0.57)  # of sources 1, 2, 3, 4 pictures away, beside 1 of the picture's own
ENOUGH = 16.0                       # bits of residual at which an 8×8 block is merged: samples that differ count less
POWER = 2.0                         # of the share of a position's importance that comes from copies of it
# Samples count less by the Gaussian of their difference whose deviation goes with the octaves of the step above 2.
DEVIATION, LEAST_DEVIATION = 6.0, 0.5

Planes = list[NDArray[np.float32]]


def filtered(unit: Unit, sources: Mapping[int, Picture], copied: Grid, step: float) -> Picture:
    """The padded picture to code for a unit.

    sources: by number, the unit's own and those around it that are at hand; copied [H/8, W/8]: see `Importance`;
    step: Δ of the unit."""
    reach = REACH[unit.level] if unit.level < len(REACH) else 0
    near = [unit.number + d for k in range(1, reach + 1) for d in (-k, k) if unit.number + d in sources]
    own = sources[unit.number]
    if not near:
        return own
    parts = each(partial(_part, own, pyramid_search.pyramid(own.y), unit.number, sources, copied**POWER, step), near)
    weights = [1.0 + sum(part[0][k] for part in parts) for k in range(3)]
    moves = [sum(part[1][k] for part in parts) / weights[k] for k in range(3)]
    keep = drawn(own)
    planes = [np.where(spread(keep, size), plane, np.rint(plane + move).astype(np.uint8))
              for plane, move, size in zip(own, moves, (TILE, TILE // 2, TILE // 2), strict=True)]
    return Picture(*planes)


def _part(own: Picture, pyramid: pyramid_search.Pyramid, number: int, sources: Mapping[int, Picture], share: Grid,
          step: float, other: int) -> tuple[Planes, Planes]:
    """What source `other` counts in each sample of the planes, and that times the difference it makes."""
    reference = Reference(sources[other])
    for weight in weigh(pyramid, [reference.pyramid], [pyramid_search.reach_of(number - other)], step):
        reference = reference.weighted(weight)
    field = search(own.y, [reference], (number - other, 0), step, enough=ENOUGH)
    moved, _ = predict(field, [reference])
    deviation = max(DEVIATION * (math.log2(step) - 1.0), LEAST_DEVIATION)
    weights, products = [], []
    for mine, theirs, size in zip(own, moved, (8, 4, 4), strict=True):
        difference = theirs.astype(np.float32) - mine
        weight = np.exp(difference**2 * np.float32(-0.5 / deviation**2))
        weight *= WEIGHTS[abs(other - number) - 1] * spread(share, size)
        weights.append(weight)
        products.append(weight * difference)
    return weights, products
