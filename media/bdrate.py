"""BD-rate: how much more or less rate a codec takes for the same quality, in percent, averaged over a quality range.

Bjøntegaard, "Calculation of average PSNR differences between RD-curves", VCEG-M33, 2001, with the rate's logarithm
interpolated over quality by PCHIP (or Akima, or the original's cubic) as JCTVC-L1100 and later practice have it:

    100 · (10^((∫ test - ∫ anchor) / (hi - lo)) - 1),   ∫ of log10(rate) over quality from lo to hi,

where lo…hi is the range of quality that both curves reach.  An average over a range that is small beside the curves,
or over a curve that is no function of quality, is no measurement: then ``percent`` is None, and ``reason`` says why.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

METHODS = ("pchip", "akima", "cubic")
MIN_POINTS = 4  # as the original has it
MIN_OVERLAP = 0.5

Point = tuple[float, float]  # rate (any unit above 0, the same in both curves), quality (dB)


@dataclass(frozen=True)
class BDRate:
    """``percent`` below 0: the test takes less rate. None: see ``reason``, which is "" otherwise.

    ``interval`` is the range of quality that both reach (None where there is none), ``overlap`` its share of the
    range that either reaches, 0…1.
    """

    percent: float | None
    overlap: float
    interval: tuple[float, float] | None
    reason: str = ""


def bd_rate(anchor: Sequence[Point], test: Sequence[Point], method: str = "pchip") -> BDRate:
    """BD-rate of ``test`` against ``anchor``; points in any order. ValueError for an unknown method."""
    if method not in METHODS:
        raise ValueError(f"method: expected one of {', '.join(METHODS)}, got {method!r}")
    curves = []
    for name, points in (("anchor", anchor), ("test", test)):
        problem, qualities, area = _curve(tuple((rate, quality) for rate, quality in points), method)
        if problem:
            return BDRate(None, 0.0, None, f"{name}: {problem}")
        curves.append((qualities, area))
    (q_anchor, anchor_area), (q_test, test_area) = curves
    low, high = max(q_anchor[0], q_test[0]), min(q_anchor[-1], q_test[-1])
    if high <= low:
        return BDRate(None, 0.0, None, "the curves reach no quality in common")
    overlap = (high - low) / (max(q_anchor[-1], q_test[-1]) - min(q_anchor[0], q_test[0]))
    if overlap < MIN_OVERLAP:
        reason = f"the curves share {100 * overlap:.0f} % of their quality range, under {100 * MIN_OVERLAP:.0f} %"
        return BDRate(None, overlap, (low, high), reason)
    mean = (test_area(low, high) - anchor_area(low, high)) / (high - low)
    return BDRate(100 * math.expm1(math.log(10) * mean), overlap, (low, high))


@functools.lru_cache(maxsize=4096)  # in a matrix each curve meets every other
def _curve(points: tuple[Point, ...], method: str) -> tuple[str, Sequence[float], Callable[[float, float], float]]:
    """Why these points are no curve, or ""; their qualities in order; the integral of log rate over quality."""
    if problem := _problem(points):
        return problem, (), lambda low, high: math.nan
    rates, qualities = np.array(sorted(points), np.float64).T
    return "", qualities.tolist(), _integral(qualities, np.log10(rates), method)


def _problem(points: Sequence[Point]) -> str:
    """Why these points are no curve, or ""."""
    if len(points) < MIN_POINTS:
        return f"{len(points)} points, at least {MIN_POINTS} are needed"
    for rate, quality in points:
        if not (math.isfinite(rate) and rate > 0 and math.isfinite(quality)):
            return f"the point ({rate:g}, {quality:g}) is not a rate above 0 and a finite quality"
    ordered = sorted(points)
    for (rate, quality), (next_rate, next_quality) in itertools.pairwise(ordered):
        if next_rate == rate or next_quality <= quality:
            return f"not monotone: {quality:g} at rate {rate:g}, then {next_quality:g} at rate {next_rate:g}"
    return ""


def _integral(qualities: np.ndarray, rates: np.ndarray, method: str) -> Callable[[float, float], float]:
    """The definite integral of log rate over quality, as a function of the bounds."""
    from scipy import interpolate  # takes half a second, which programs that never ask for it need not wait

    if method == "cubic":  # one polynomial of degree 3 fitted to all points; about the mean it is well conditioned
        middle = float(qualities.mean())
        antiderivative = np.polynomial.Polynomial.fit(qualities - middle, rates, 3).integ()
        return lambda low, high: float(antiderivative(high - middle) - antiderivative(low - middle))
    interpolator = interpolate.PchipInterpolator if method == "pchip" else interpolate.Akima1DInterpolator
    curve = interpolator(qualities, rates)
    return lambda low, high: float(curve.integrate(low, high))
