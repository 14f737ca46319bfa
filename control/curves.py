"""Rate-distortion curves of a grid, and the BD-rate of each against each. From the figures of its runs, without I/O.

A curve is what one codec does on one clip while the quality varies; where model, structure or effort vary too, each of
their values is a curve of its own, and says so in its name. BD-rates are as media/bdrate.py defines them; one that
would be no measurement is null and has a reason.
"""

import functools
import json
import statistics
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from control.records import GridRun
from jobs import TERMINAL, State
from metrics import BDRate, bd_rate, ssim_db

QUALITIES = ("psnr_y", "psnr", "ssim_db", "ms_ssim_db")     # all in dB
RATES = ("bitrate_mbps", "bpp")
MEAN = "mean of all clips"      # in place of a clip's name
NAMING = ("model", "structure", "effort")                   # part of a curve's name where they vary
BOOTSTRAPS = 2000
MIN_CLIPS = 3           # for an interval: two clips say nothing about others
MAX_KEPT = 64           # analyses in memory

Document = dict[str, Any]
Points = tuple[tuple[float, float], ...]


class Analyses:
    """The analysis of each grid that was asked for lately; made anew only when another of its runs has ended. Safe for
    threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, tuple[int, str]] = OrderedDict()

    def of(self, experiment_id: str, document: Mapping[str, Any], runs: Sequence[GridRun]) -> str:
        """`analyse` of the runs so far, as JSON: with many curves it is so large that it is written only once."""
        ended = sum(run.state in TERMINAL for run in runs)
        with self._lock:
            kept = self._kept.get(experiment_id)
            if kept is not None and kept[0] == ended:
                self._kept.move_to_end(experiment_id)
                return kept[1]
        made = json.dumps(analyse(document, runs), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        with self._lock:
            self._kept[experiment_id] = (ended, made)
            if len(self._kept) > MAX_KEPT:
                self._kept.popitem(last=False)
        return made


def analyse(document: Mapping[str, Any], runs: Sequence[GridRun]) -> Document:
    """`document` is the filled-in experiment. "curves" has one entry for each clip and curve, points by rate."""
    curves = curves_of(document, runs)
    return {"curves": curves, "bd_rate": matrix(curves)}


def curves_of(document: Mapping[str, Any], runs: Sequence[GridRun]) -> list[Document]:
    """One entry for each clip and curve, points by rate."""
    varying = [name for name in NAMING if isinstance(document[name], list) and len(document[name]) > 1]
    found: dict[tuple[str, str], Document] = {}
    for run in runs:
        name = _name(run.settings, varying)
        clip = run.settings["clip"]
        curve = found.setdefault((clip, name), {"clip": clip, "curve": name, "codec": run.settings["codec"],
                                                **{field: run.settings[field] for field in NAMING}, "points": []})
        if run.state is State.COMPLETED and run.figures is not None and run.figures.get("bitrate_mbps"):
            curve["points"].append(_point(run, run.figures))
    for curve in found.values():
        curve["points"].sort(key=lambda point: point["bitrate_mbps"])
    return list(found.values())


def mean_curves(curves: Sequence[Document]) -> list[Document]:
    """Each curve's mean over the clips, at the settings at which every clip has a point: of rates, PSNRs, and SSIMs
    before they become decibels. "runs" of a point are those that it is the mean of."""
    made = []
    for name in dict.fromkeys(curve["curve"] for curve in curves):
        mine = [curve for curve in curves if curve["curve"] == name]
        by_setting = [{(point["quality"], point["psnr_db"]): point for point in curve["points"]} for curve in mine]
        common = [setting for setting in by_setting[0] if all(setting in points for points in by_setting)]
        points = [_mean([points[setting] for points in by_setting]) for setting in common]
        points.sort(key=lambda point: point["bitrate_mbps"])
        made.append({**mine[0], "clip": MEAN, "points": points})
    return made


def _mean(points: Sequence[Document]) -> Document:
    def over(name: str) -> float | None:
        values = [point[name] for point in points]
        if None in values:
            return None
        if name.endswith("ssim_db"):
            return ssim_db(1 - statistics.fmean(10 ** (-value / 10) for value in values))
        return statistics.fmean(values)

    return {"runs": [point["run"] for point in points], "quality": points[0]["quality"],
            "psnr_db": points[0]["psnr_db"], **{name: over(name) for name in (*RATES, *QUALITIES)}}


def matrix(curves: Sequence[Document], rate: str = "bitrate_mbps", qualities: Sequence[str] = QUALITIES) -> Document:
    """BD-rates: metrics[m]["per_clip"][clip][a][t] is how much more rate curve t takes than curve a, in percent."""
    names = list(dict.fromkeys(curve["curve"] for curve in curves))
    clips = list(dict.fromkeys(curve["clip"] for curve in curves))
    by_key = {(curve["clip"], curve["curve"]): curve["points"] for curve in curves}
    document: Document = {"method": "pchip", "rate": rate, "curves": names, "clips": clips, "metrics": {}}
    for quality in qualities:
        per_clip = {}
        for clip in clips:
            points = [tuple((point[rate], point[quality]) for point in by_key.get((clip, name), ())
                            if point.get(quality) is not None and point.get(rate) is not None) for name in names]
            lacking = [f"{name} has no {rate if all(point.get(rate) is None for point in whole) else quality}"
                       if not some and whole else "" for name, some in zip(names, points, strict=True)
                       for whole in [by_key.get((clip, name), ())]]
            per_clip[clip] = [[_cell(points[a], points[t], lacking[a] or lacking[t]) for t in range(len(names))]
                              for a in range(len(names))]
        document["metrics"][quality] = {
            "per_clip": per_clip,
            **{average: _over_clips([*per_clip.values()], average) for average in ("mean", "median")},
        }
    return document


def _name(settings: Mapping[str, Any], varying: Sequence[str]) -> str:
    return " ".join([settings["codec"], *(f"effort {settings[name]}" if name == "effort" else str(settings[name])
                                          for name in varying)])


def _point(run: GridRun, figures: Mapping[str, Any]) -> Document:
    def decibels(name: str) -> float | None:
        value = figures.get(name)
        return None if value is None else ssim_db(value)

    return {"run": run.id, **{name: run.settings[name] for name in ("quality", "psnr_db")},
            "bitrate_mbps": figures["bitrate_mbps"], "bpp": figures.get("bpp"), "psnr_y": figures.get("psnr_y"),
            "psnr": figures.get("psnr_db"), "ssim_db": decibels("ssim"), "ms_ssim_db": decibels("ms_ssim")}


@functools.lru_cache(maxsize=1 << 16)   # while a grid runs, one curve of a thousand gets another point
def _bd_rate(anchor: Points, test: Points) -> BDRate:
    return bd_rate(anchor, test)


def _cell(anchor: Points, test: Points, lacking: str) -> Document:
    found = BDRate(None, 0.0, None, lacking) if lacking else _bd_rate(anchor, test)
    return {"percent": found.percent, "overlap": found.overlap, "interval": found.interval and [*found.interval],
            "reason": found.reason}


def _over_clips(tables: Sequence[Sequence[Sequence[Document]]], average: str) -> list[list[Document]]:
    """One figure for all clips, from those that have one, with the interval that holds it in 95 % of draws of clips."""
    return [[_average(cells, average) for cells in zip(*rows, strict=True)] for rows in zip(*tables, strict=True)]


def _average(cells: Sequence[Document], average: str) -> Document:
    known = [cell for cell in cells if cell["percent"] is not None]
    if not known:
        reasons = list(dict.fromkeys(cell["reason"] for cell in cells))
        return {"percent": None, "overlap": 0.0, "clips": 0, "interval_95": None,
                "reason": reasons[0] if len(reasons) == 1 else "no clip has one: " + "; ".join(reasons[:3])}
    percents = [cell["percent"] for cell in known]
    left_out = "" if len(known) == len(cells) else f"{len(cells) - len(known)} of {len(cells)} clips have none"
    return {"percent": statistics.fmean(percents) if average == "mean" else statistics.median(percents),
            "overlap": statistics.fmean(cell["overlap"] for cell in known), "clips": len(known),
            "interval_95": _interval(percents, average) if len(known) >= MIN_CLIPS else None, "reason": left_out}


def _interval(percents: Sequence[float], average: str) -> list[float]:
    drawn = np.array(sorted(percents)) @ _draws(len(percents), average)
    drawn.sort()
    return [float(drawn[round(share * (BOOTSTRAPS - 1))]) for share in (0.025, 0.975)]


@functools.lru_cache(maxsize=64)
def _draws(clips: int, average: str) -> np.ndarray:
    """What each draw of as many clips, with replacement, makes of their percents in ascending order: weights, float
    (clips, BOOTSTRAPS). The same each time, so that a figure does not change between two looks at it."""
    ranks = np.sort(np.random.default_rng(0).integers(0, clips, (BOOTSTRAPS, clips)), axis=1)
    if average == "median":
        ranks = ranks[:, [(clips - 1) // 2, clips // 2]]
    return np.array([np.mean(ranks == clip, axis=1) for clip in range(clips)])
