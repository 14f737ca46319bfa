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
from collections.abc import Callable, Mapping, Sequence
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


@dataclass(frozen=True)
class BDRates:
    """Of n curves each against each, as (n, n) arrays whose rows are anchors and columns tests: what a BDRate says.
    ``percent`` is NaN where ``reasons`` has the pair, ``low`` and ``high`` where nothing is reached in common."""

    percent: np.ndarray
    overlap: np.ndarray
    low: np.ndarray
    high: np.ndarray
    reasons: Mapping[tuple[int, int], str]


def bd_rate(anchor: Sequence[Point], test: Sequence[Point], method: str = "pchip") -> BDRate:
    """BD-rate of ``test`` against ``anchor``; points in any order. ValueError for an unknown method."""
    found = bd_rates([anchor, test], method)
    percent, overlap, low, high = (float(part[0, 1]) for part in (found.percent, found.overlap, found.low, found.high))
    interval = None if math.isnan(low) else (low, high)
    return BDRate(None if math.isnan(percent) else percent, overlap, interval, found.reasons.get((0, 1), ""))


def bd_rates(curves: Sequence[Sequence[Point]], method: str = "pchip") -> BDRates:
    """BD-rates of all pairs at once; points in any order. ValueError for an unknown method."""
    if method not in METHODS:
        raise ValueError(f"method: expected one of {', '.join(METHODS)}, got {method!r}")
    made = [_curve(tuple((rate, quality) for rate, quality in points), method) for points in curves]
    first, last = (np.array([curve.range[end] for curve in made], np.float64) for end in (0, 1))
    low, high = np.maximum.outer(first, first), np.minimum.outer(last, last)
    common = high > low     # NaN, of what is no curve, is never larger
    with np.errstate(invalid="ignore"):
        overlap = np.where(common, (high - low) / (np.maximum.outer(last, last) - np.minimum.outer(first, first)), 0.0)
    low, high = np.where(common, low, np.nan), np.where(common, high, np.nan)
    # Of curve i over what it has in common with each of the others.
    area = np.array([curve.antiderivative(high[i]) - curve.antiderivative(low[i]) for i, curve in enumerate(made)])
    percent = 100 * np.expm1(math.log(10) * (area.T - area) / (high - low))
    reasons: dict[tuple[int, int], str] = {}
    for i, j in np.argwhere(overlap < MIN_OVERLAP).tolist():
        percent[i, j] = np.nan
        if wrong := made[i].problem:
            reasons[i, j] = f"anchor: {wrong}"
        elif wrong := made[j].problem:
            reasons[i, j] = f"test: {wrong}"
        elif not common[i, j]:
            reasons[i, j] = "the curves reach no quality in common"
        else:
            share = f"{100 * overlap[i, j]:.0f} % of their quality range, under {100 * MIN_OVERLAP:.0f} %"
            reasons[i, j] = f"the curves share {share}"
    return BDRates(percent, overlap, low, high, reasons)


@dataclass(frozen=True)
class _Curve:
    """Why these points are no curve, or ""; the range of its quality; the antiderivative of log rate over quality."""

    problem: str
    range: tuple[float, float]
    antiderivative: Callable[[np.ndarray], np.ndarray]


@functools.lru_cache(maxsize=16_384)  # while a grid runs, one curve of many gets another point
def _curve(points: tuple[Point, ...], method: str) -> _Curve:
    if problem := _problem(points):
        return _Curve(problem, (math.nan, math.nan), lambda at: np.full_like(at, np.nan))
    rates, qualities = np.array(sorted(points), np.float64).T
    return _Curve("", (float(qualities[0]), float(qualities[-1])), _antiderivative(qualities, np.log10(rates), method))


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


def _antiderivative(qualities: np.ndarray, rates: np.ndarray, method: str) -> Callable[[np.ndarray], np.ndarray]:
    """Of log rate over quality, up to a constant."""
    from scipy import interpolate  # takes half a second, which programs that never ask for it need not wait

    if method == "cubic":  # one polynomial of degree 3 fitted to all points; about the mean it is well conditioned
        middle = float(qualities.mean())
        fitted = np.polynomial.Polynomial.fit(qualities - middle, rates, 3).integ()
        return lambda at: fitted(at - middle)
    interpolator = interpolate.PchipInterpolator if method == "pchip" else interpolate.Akima1DInterpolator
    return interpolator(qualities, rates).antiderivative()
