"""Finds the weights of references (nvc/motion/weighting.py): for the encoder, on pictures of half and quarter size.

Gain and offset that give a reference the mean and the deviation of the picture. Covered and uncovered things move both
a little, so weights have to make the picture better predicted: where it stands, which is soon asked, and along the
motion that then fits best.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nvc.encoder.search.pyramid_search import Pyramid, match
from nvc.motion.prediction import MARGIN, Plane
from nvc.motion.weighting import GAIN_MAX, OFFSET_MAX, UNIT, Weight, luma

# Gains and offsets that differ by no more are as good as none: they are not looked into.
GAIN_LEAST, OFFSET_LEAST = 3, 2
BETTER = 0.95               # of the mean absolute error, at most, that weights must leave


def weigh(current: Pyramid, references: Sequence[Pyramid], reaches: Sequence[int], step: float) -> tuple[Weight, ...]:
    """Weights of the references, none where they do not pay; all as `coarse.match` takes them."""
    weights = tuple(estimated(_inside(current[1]), _inside(reference[1])) for reference in references)
    if all(weight == Weight() for weight in weights):
        return ()
    plain, better = (np.sqrt(match(current, candidates, reaches, step).error).sum()
                     for candidates in (references, weighted(references, weights)))
    return weights if better <= BETTER * plain else ()


def weighted(references: Sequence[Pyramid], weights: Sequence[Weight]) -> list[Pyramid]:
    """What the references look like with their weights, if they have any."""
    return [(luma(half, weight), luma(quarter, weight)) for (half, quarter), weight
            in zip(references, weights, strict=True)] if weights else list(references)


def estimated(x: Plane, r: Plane) -> Weight:
    """The weight that gives r the mean and the deviation of x; none if it is small, or does not make r more like x."""
    gain = min(max(round(UNIT * float(x.std()) / max(float(r.std()), 1.0)), 0), GAIN_MAX)
    offset = min(max(round(float(x.mean()) - float(r.mean()) * gain / UNIT), -OFFSET_MAX - 1), OFFSET_MAX)
    weight = Weight(gain, offset)
    if abs(gain - UNIT) < GAIN_LEAST and abs(offset) < OFFSET_LEAST:
        return Weight()
    return weight if _apart(x, luma(r, weight)) <= BETTER * _apart(x, r) else Weight()


def _apart(x: Plane, r: Plane) -> int:
    return int(np.abs(x.astype(np.int16) - r).sum(dtype=np.int64))


def _inside(plane: Plane) -> Plane:
    """A plane of quarter size without what it is padded by."""
    return plane[MARGIN // 4:-MARGIN // 4, MARGIN // 4:-MARGIN // 4]
