"""BD-rates of curves each against each, per clip and over clips.

They are as measures/bd_rate.py defines them; one that would be no measurement is null and has a reason. Over clips it
is the mean or median of the clips that have one, with the interval that holds it in 95 % of draws of clips (bootstrap).

All pairs are computed together, in arrays: with as many curves as are compared it takes a fraction of a second.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from metrics import bd_rates

QUALITIES = ("psnr_y", "psnr", "ssim_db", "ms_ssim_db")     # in dB
PERCEPTUAL = ("vmaf", "vmaf_neg", "xpsnr")      # measured only where they are asked for; 0…100, 0…100, dB
RGB = ("psnr_rgb", "ms_ssim_rgb_db")    # of other programs' files only: no run here is measured in RGB
RATES = ("bitrate_mbps", "bpp")
AVERAGES = ("mean", "median")
MAX_CURVES = 24         # each against each is more than can be read, and grows with the square
BOOTSTRAPS = 2000
MIN_CLIPS = 3           # for an interval: two clips say nothing about others
CHUNK = 256             # pairs whose draws are in memory at once

Document = dict[str, Any]
Points = list[tuple[float, float]]


def matrix(curves: Sequence[Document], rate: str = "bitrate_mbps", qualities: Sequence[str] = QUALITIES,
           method: str = "pchip") -> Document:
    """BD-rates: metrics[m]["per_clip"][clip][a][t] is how much more rate curve t takes than curve a, in percent. Of
    more than MAX_CURVES names the first ones are compared; the others are "left_out"."""
    every = list(dict.fromkeys(curve["curve"] for curve in curves))
    names = every[:MAX_CURVES]
    clips = list(dict.fromkeys(curve["clip"] for curve in curves if curve["curve"] in names))
    by_key = {(curve["clip"], curve["curve"]): curve["points"] for curve in curves}
    document: Document = {"method": method, "rate": rate, "curves": names, "left_out": every[MAX_CURVES:],
                          "clips": clips, "metrics": {}}
    for quality in qualities:
        per_clip, percents, overlaps = {}, [], []
        for clip in clips:
            of = [by_key.get((clip, name), ()) for name in names]
            points = [[(point[rate], point[quality]) for point in whole
                       if point.get(quality) is not None and point.get(rate) is not None] for whole in of]
            lacking = {n: f"{names[n]} has no {rate if all(point.get(rate) is None for point in whole) else quality}"
                       for n, whole in enumerate(of) if whole and not points[n]}
            per_clip[clip], percent, overlap = _table(points, lacking, method)
            percents.append(percent)
            overlaps.append(overlap)
        document["metrics"][quality] = {"per_clip": per_clip, **{
            average: _over_clips([*per_clip.values()], np.array(percents), np.array(overlaps), average)
            for average in AVERAGES}}
    return document


def measured(curves: Sequence[Document]) -> tuple[str, ...]:
    """QUALITIES, and those of PERCEPTUAL and RGB that any point of the curves has."""
    points = [point for curve in curves for point in curve["points"]]
    return (*QUALITIES, *(name for name in (*PERCEPTUAL, *RGB) if any(point.get(name) is not None for point in points)))


def _table(points: Sequence[Points], lacking: Mapping[int, str], method: str
           ) -> tuple[list[list[Document]], np.ndarray, np.ndarray]:
    """One clip's cells, and their percents (NaN for none) and overlaps as arrays."""
    found = bd_rates(points, method)
    rows: list[list[Document]] = []
    for a, columns in enumerate(zip(found.percent.tolist(), found.overlap.tolist(), found.low.tolist(),
                                    found.high.tolist(), strict=True)):
        rows.append([{"percent": None if math.isnan(percent) else percent, "overlap": overlap,
                      "interval": None if math.isnan(low) else [low, high],
                      "reason": lacking.get(a) or lacking.get(t) or found.reasons.get((a, t), "")}
                     for t, (percent, overlap, low, high) in enumerate(zip(*columns, strict=True))])
    return rows, found.percent, found.overlap


def _over_clips(tables: Sequence[Sequence[Sequence[Document]]], percents: np.ndarray, overlaps: np.ndarray, average: str
                ) -> list[list[Document]]:
    """One figure for all clips, from those that have one. `percents` and `overlaps` are (clips, n, n)."""
    if not tables:
        return []
    clips, size = percents.shape[:2]
    flat, share = percents.reshape(clips, -1), overlaps.reshape(clips, -1)
    known = ~np.isnan(flat)
    counts = known.sum(0)
    ordered = np.sort(flat, axis=0)     # NaN last
    means = np.divide(np.nansum(flat, axis=0), counts, out=np.zeros(len(counts)), where=counts > 0)
    middles = np.array([(column[(count - 1) // 2] + column[count // 2]) / 2 if count else 0.0
                        for column, count in zip(ordered.T, counts, strict=True)])
    values = (means if average == "mean" else middles).tolist()
    covered = np.divide((share * known).sum(0), counts, out=np.zeros(len(counts)), where=counts > 0).tolist()
    bounds = _intervals(ordered, counts, average)
    cells = [_average(count, clips, value, overlap, bound, [table[place // size][place % size] for table in tables])
             for place, (count, value, overlap, bound) in enumerate(
                 zip(counts.tolist(), values, covered, bounds, strict=True))]
    return [cells[row * size : (row + 1) * size] for row in range(size)]


def _average(known: int, clips: int, value: float, overlap: float, interval: list[float] | None,
             cells: Sequence[Document]) -> Document:
    if not known:
        reasons = list(dict.fromkeys(cell["reason"] for cell in cells))
        return {"percent": None, "overlap": 0.0, "clips": 0, "interval_95": None,
                "reason": reasons[0] if len(reasons) == 1 else "no clip has one: " + "; ".join(reasons[:3])}
    return {"percent": value, "overlap": overlap, "clips": known, "interval_95": interval,
            "reason": "" if known == clips else f"{clips - known} of {clips} clips have none"}


def _intervals(ordered: np.ndarray, counts: np.ndarray, average: str) -> list[list[float] | None]:
    """Of percents in ascending order, (clips, pairs) with NaN last, of which `counts` are known."""
    found: list[list[float] | None] = [None] * len(counts)
    ranks = [round(share * (BOOTSTRAPS - 1)) for share in (0.025, 0.975)]
    for count in np.unique(counts[counts >= MIN_CLIPS]).tolist():
        places = np.flatnonzero(counts == count)
        for part in np.array_split(places, math.ceil(len(places) / CHUNK)):
            drawn = ordered[:count, part].T @ _draws(count, average)
            drawn.partition(ranks, axis=1)
            for place, pair in zip(part.tolist(), drawn[:, ranks].tolist(), strict=True):
                found[place] = pair
    return found


@functools.lru_cache(maxsize=64)
def _draws(clips: int, average: str) -> np.ndarray:
    """What each draw of as many clips, with replacement, makes of their percents in ascending order: weights, float
    (clips, BOOTSTRAPS). The same each time, so that a figure does not change between two looks at it."""
    ranks = np.sort(np.random.default_rng(0).integers(0, clips, (BOOTSTRAPS, clips)), axis=1)
    if average == "median":
        ranks = ranks[:, [(clips - 1) // 2, clips // 2]]
    return np.array([np.mean(ranks == clip, axis=1) for clip in range(clips)])
