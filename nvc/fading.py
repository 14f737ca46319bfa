"""Finds the weights of references (nvc/weighting.py): for the encoder, on pictures of half and quarter size.

Gain and offset that give a reference the mean and the deviation of the picture. Covered and uncovered things move both
a little, so weights have to make the picture better predicted, along the motion that then fits best.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nvc.coarse import match
from nvc.motion import MARGIN, Plane
from nvc.weighting import GAIN_MAX, OFFSET_MAX, UNIT, Weight, luma

# Gains and offsets that differ by no more are as good as none: they are not looked into.
GAIN_LEAST, OFFSET_LEAST = 3, 2
BETTER = 0.95               # of the mean absolute error, at most, that weights must leave

Pyramid = tuple[Plane, Plane]


def weigh(current: Pyramid, references: Sequence[Pyramid], reaches: Sequence[int], step: float) -> tuple[Weight, ...]:
    """Weights of the references, none where they do not pay; all as `coarse.match` takes them."""
    weights = tuple(estimated(current[1], reference[1]) for reference in references)
    if all(weight == Weight() for weight in weights):
        return ()
    plain, better = (np.sqrt(match(current, seen, reaches, step).error).sum()
                     for seen in (references, weighted(references, weights)))
    return weights if better <= BETTER * plain else ()


def weighted(references: Sequence[Pyramid], weights: Sequence[Weight]) -> list[Pyramid]:
    """What the references look like with their weights, if they have any."""
    return [(luma(half, weight), luma(quarter, weight)) for (half, quarter), weight
            in zip(references, weights, strict=True)] if weights else list(references)


def estimated(x: Plane, r: Plane) -> Weight:
    """The weight that gives r the mean and the deviation of x, both padded and of quarter size; none if it is small."""
    (mean, deviation), (its_mean, its_deviation) = _moments(x), _moments(r)
    gain = min(max(round(UNIT * deviation / max(its_deviation, 1.0)), 0), GAIN_MAX)
    offset = min(max(round(mean - its_mean * gain / UNIT), -OFFSET_MAX - 1), OFFSET_MAX)
    if abs(gain - UNIT) < GAIN_LEAST and abs(offset) < OFFSET_LEAST:
        return Weight()
    return Weight(gain, offset)


def _moments(plane: Plane) -> tuple[float, float]:
    inside = plane[MARGIN // 4:-MARGIN // 4, MARGIN // 4:-MARGIN // 4]
    return float(inside.mean()), float(inside.std())
