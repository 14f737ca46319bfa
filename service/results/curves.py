"""Rate-distortion curves of a grid, from the figures of its runs, without I/O; their BD-rates are in matrix.py.

A curve is what one codec does on one clip while the quality varies; where model, structure or effort vary too, each of
their values is a curve of its own, and says so in its name.
"""

import hashlib
import json
import statistics
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from measures import bd_rate as bdrate
from metrics import bd_rate, ssim_db
from service.jobs.states import TERMINAL, State
from service.results import bd_rate_matrix as matrix_module
from service.results.bd_rate_matrix import PERCEPTUAL, QUALITIES, RATES, Document, matrix, measured
from service.storage.records import GridRun

MEAN = "mean of all clips"      # in place of a clip's name
NAMING = ("model", "structure", "effort", "preset")         # part of a curve's name where they vary
MAX_KEPT_BYTES = 64 << 20   # of analyses in memory; the largest have three million
MAX_FILES = 1000        # of analyses on disk
# Another program may come to another analysis: what it finds of this one is not for it.
MADE_BY = hashlib.sha256(b"".join(Path(file).read_bytes() for file in (
    __file__, matrix_module.__file__, bdrate.__file__))).hexdigest()[:12]



class Analyses:
    """The analysis of each grid that was asked for lately; made anew only when another of its runs has ended. Those of
    grids that have ended are also kept in `folder`, since with many curves they take longer than a client should wait
    after a restart. What is there may be lost at any time. Safe for threads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, tuple[int, str]] = OrderedDict()

    def warm(self) -> None:
        """Load what analyses are made with, where there have been any: the first one need not wait for it."""
        if self._folder.is_dir():
            any_curve = [(1.0 + n, 30.0 + n) for n in range(4)]
            threading.Thread(target=bd_rate, args=(any_curve, any_curve), name="warm", daemon=True).start()

    def of(self, experiment_id: str, document: Mapping[str, Any], runs: Sequence[GridRun]) -> str:
        """`analyse` of the runs so far, as JSON: with many curves it is so large that it is written only once."""
        ended = sum(run.state in TERMINAL for run in runs)
        with self._lock:
            kept = self._kept.get(experiment_id)
            if kept is not None and kept[0] == ended:
                self._kept.move_to_end(experiment_id)
                return kept[1]
        file = self._folder / f"{experiment_id}.{len(runs)}.{MADE_BY}.json"
        made = None
        if ended == len(runs):
            with suppress(OSError, UnicodeError):
                made = file.read_text(encoding="utf-8")
        if made is None:
            made = json.dumps(analyse(document, runs), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
            if ended == len(runs):
                with suppress(OSError):     # no reason not to answer
                    self._write(file, made)
        with self._lock:
            self._kept[experiment_id] = (ended, made)
            while len(self._kept) > 1 and sum(len(text) for _, text in self._kept.values()) > MAX_KEPT_BYTES:
                self._kept.popitem(last=False)
        return made

    def _write(self, file: Path, made: str) -> None:
        self._folder.mkdir(exist_ok=True)
        part = file.with_suffix(f".{threading.get_ident()}.part")
        part.write_text(made, encoding="utf-8")
        part.replace(file)
        old = sorted(self._folder.iterdir(), key=lambda path: path.stat().st_mtime)[:-MAX_FILES]
        for path in old:
            path.unlink(missing_ok=True)


def analyse(document: Mapping[str, Any], runs: Sequence[GridRun]) -> Document:
    """`document` is the filled-in experiment. "curves" has one entry for each clip and curve, points by rate."""
    curves = curves_of(document, runs)
    return {"curves": curves, "bd_rate": matrix(curves, qualities=measured(curves))}


def curves_of(document: Mapping[str, Any], runs: Sequence[GridRun]) -> list[Document]:
    """One entry for each clip and curve, points by rate."""
    varying = [name for name in NAMING if isinstance(document.get(name), list) and len(document[name]) > 1]
    found: dict[tuple[str, str], Document] = {}
    for run in runs:
        name = _name(run.settings, varying)
        clip = run.settings["clip"]
        curve = found.setdefault((clip, name), {"clip": clip, "curve": name, "codec": run.settings["codec"],
                                                **{field: run.settings.get(field) for field in NAMING}, "points": []})
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
        by_setting = [{(point["quality"], point["psnr_db"], point.get("target_mbps")): point
                       for point in curve["points"]} for curve in mine]
        common = [setting for setting in by_setting[0] if all(setting in points for points in by_setting)]
        points = [_mean([points[setting] for points in by_setting]) for setting in common]
        points.sort(key=lambda point: point["bitrate_mbps"])
        made.append({**mine[0], "clip": MEAN, "points": points})
    return made


def _mean(points: Sequence[Document]) -> Document:
    def over(name: str) -> float | None:
        values: list[Any] = [point.get(name) for point in points]
        if None in values:
            return None
        if name.endswith("ssim_db"):
            return ssim_db(1 - statistics.fmean(10 ** (-value / 10) for value in values))
        return statistics.fmean(values)

    return {"runs": [point["run"] for point in points], "quality": points[0]["quality"],
            "psnr_db": points[0]["psnr_db"], **{name: over(name) for name in (*RATES, *QUALITIES)},
            **{name: over(name) for name in PERCEPTUAL if all(name in point for point in points)}}


def _name(settings: Mapping[str, Any], varying: Sequence[str]) -> str:
    return " ".join([settings["codec"], *(f"effort {settings[name]}" if name == "effort" else str(settings[name])
                                          for name in varying)])


def _point(run: GridRun, figures: Mapping[str, Any]) -> Document:
    def decibels(name: str) -> float | None:
        value = figures.get(name)
        return None if value is None else ssim_db(value)

    target = run.settings.get("bitrate_mbps")
    return {"run": run.id, **{name: run.settings[name] for name in ("quality", "psnr_db")},
            **({} if target is None else {"target_mbps": target}),
            "bitrate_mbps": figures["bitrate_mbps"], "bpp": figures.get("bpp"), "psnr_y": figures.get("psnr_y"),
            "psnr": figures.get("psnr_db"), "ssim_db": decibels("ssim"), "ms_ssim_db": decibels("ms_ssim"),
            **{name: figures[name] for name in PERCEPTUAL if figures.get(name) is not None}}
