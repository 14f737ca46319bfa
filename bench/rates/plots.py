"""The result of bench/rd.py as plots: rate against PSNR-Y and MS-SSIM, one for each clip, one of the mean of all.

SVG, the same bytes for the same result.  A codec has one colour and one mark in all of them, told apart with any
colour vision (Okabe and Ito's set) and without colours.
"""

from __future__ import annotations

import io
import math
import re
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.rates.points import Point
from bench.rates.tables import CODEC_NAMES, STILL_NAMES
from metrics import ssim_db

LOOKS = {  # colour, mark
    "nvc": ("#d55e00", "o"),
    "x264": ("#000000", "s"),
    "x265": ("#0072b2", "^"),
    "svtav1": ("#009e73", "D"),
    "vp9": ("#cc79a7", "v"),
    "jpeg": ("#e69f00", "P"),
    "webp": ("#56b4e9", "X"),
}
DASHES = ("--", ":", "-.")  # nvc's other efforts and weight sets
PANELS = {"psnr_y": "PSNR-Y, dB", "ms_ssim": "MS-SSIM, dB"}
STYLE: Any = {
    "font.size": 9, "axes.grid": True, "axes.axisbelow": True, "axes.spines.top": False, "axes.spines.right": False,
    "axes.edgecolor": "#8a94a3", "grid.color": "#e3e7ed", "grid.linewidth": 0.7, "lines.linewidth": 1.4,
    "lines.markersize": 4, "legend.frameon": False, "figure.facecolor": "white",
    "text.parse_math": False,  # names of files may hold dollar signs
    "svg.hashsalt": "nvc", "svg.fonttype": "path",
    "path.simplify": True,
}  # fmt: skip
Curves = dict[str, list[Point]]


def write(result: dict[str, Any], folder: Path) -> list[Path]:
    """Draw into ``folder``: clips-mean.svg, each clip's by its name, stills-mean.svg. Returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    if "clips" in result:
        names = {**CODEC_NAMES, "nvc": result["variant"]}
        rows = [curves_of(row, result["encoders"]) for row in result["clips"]]
        mean = f"mean of {len(rows)} clips"
        made.append(_drawn(folder / "clips-mean.svg", mean_curves(rows, "bitrate_mbps"), mean, "bitrate_mbps", names))
        for row, curves in zip(result["clips"], rows, strict=True):
            made.append(_drawn(folder / f"{row['clip']}.svg", curves, row["clip"], "bitrate_mbps", names))
    if "pictures" in result.get("stills", {}):
        stills = result["stills"]
        rows = [curves_of(row, stills["encoders"]) for row in stills["pictures"]]
        mean = f"mean of {len(rows)} pictures"
        names = {**STILL_NAMES, "nvc": stills["variant"]}
        made.append(_drawn(folder / "stills-mean.svg", mean_curves(rows, "bpp"), mean, "bpp", names))
    return made


def curves_of(row: dict[str, Any], anchors: Sequence[str]) -> Curves:
    """The curves of a clip's row in the order of the legend: nvc, its variants by their names, the anchors."""
    variants = {name: other["nvc"] for name, other in row["others"].items()}
    return {"nvc": row["nvc"], **variants, **{name: row[name] for name in anchors}}


def mean_curves(rows: Sequence[Curves], rate: str) -> Curves:
    """Setting by setting: the geometric mean of the rates, the mean of PSNR-Y in dB and of MS-SSIM in dB."""
    curves: Curves = {}
    for name in rows[0]:
        curves[name] = []
        for same in zip(*(row[name] for row in rows), strict=True):  # the points at one setting
            point: Point = {rate: statistics.geometric_mean(point[rate] for point in same)}
            for metric in PANELS:
                point[metric] = None if any(p[metric] is None for p in same) else _mean(same, metric)
            curves[name].append(point)
    return curves


def _mean(points: Sequence[Point], metric: str) -> float:
    if metric != "ms_ssim":
        return statistics.mean(point[metric] for point in points)
    return 1 - 10 ** (-statistics.mean(ssim_db(point[metric]) for point in points) / 10)


def _drawn(path: Path, curves: Curves, title: str, rate: str, names: dict[str, str]) -> Path:
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8, 3.8), layout="constrained")
        FigureCanvasSVG(figure)
        lines: dict[str, Any] = {}
        for place, (metric, words) in enumerate(PANELS.items()):
            axes = figure.add_subplot(1, len(PANELS), place + 1)
            dashes = iter(DASHES * len(curves))
            for name, points in curves.items():
                pairs = sorted((point[rate], _shown(point[metric], metric)) for point in points
                               if point[metric] is not None)  # fmt: skip
                colour, mark = LOOKS.get(name, LOOKS["nvc"])
                style = "-" if name in LOOKS else next(dashes)
                (lines[names.get(name, name)],) = axes.plot(
                    [x for x, _ in pairs], [y for _, y in pairs], color=colour, marker=mark, linestyle=style
                )
            axes.set_ylabel(words)
            axes.set_xlabel("Mbit/s" if rate == "bitrate_mbps" else "bits a pixel")
            _rates(axes, [point[rate] for points in curves.values() for point in points])
        figure.suptitle(title, x=0.01, ha="left", fontsize=10, fontweight="bold")
        figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=min(len(lines), 4))
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    path.write_text(small(out.getvalue()), encoding="utf-8")
    return path


def small(svg: str) -> str:
    """The same picture in fewer bytes: hundredths of a point are enough, and comments and indents are for nobody."""
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r"(?<!scale\()-?\d+\.\d{3,}", lambda found: f"{float(found[0]):.2f}".rstrip("0").rstrip("."), svg)
    svg = re.sub(r"\s*\n\s*", "\n", svg)
    return re.sub(r"\n(?=[MLQCz])", "", svg)  # steps of a path


def _shown(value: float, metric: str) -> float:
    return ssim_db(value) if metric == "ms_ssim" else value


def _rates(axes: Any, values: Sequence[float]) -> None:
    """A logarithmic scale with plain numbers at 1, 2, 5 times a power of ten."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    axes.set_xscale("log")
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    ticks = [step * 10.0**power for power in range(low, high + 1) for step in (1, 2, 5)]
    axes.xaxis.set_major_locator(FixedLocator([t for t in ticks if min(values) / 1.1 <= t <= max(values) * 1.1]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, place: f"{value:.6g}"))
    axes.xaxis.set_minor_locator(NullLocator())
