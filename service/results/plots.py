"""Rate-distortion plots as files, drawn by matplotlib: for papers, reports and scripts. The page draws its own.

The library is loaded when the first plot is asked for; it is no part of the service's start. It keeps its settings for
the whole process, so plots are drawn one at a time.
"""

from __future__ import annotations

import io
import os
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from service.results.bd_rate_matrix import Document

FORMS = {"svg": "image/svg+xml", "png": "image/png"}
QUALITY_WORDS = {"psnr_y": "PSNR-Y, dB", "psnr": "PSNR-YUV 6:1:1, dB", "ssim_db": "SSIM, dB",
                 "ms_ssim_db": "MS-SSIM, dB", "vmaf": "VMAF", "vmaf_neg": "VMAF-NEG", "xpsnr": "XPSNR 6:1:1, dB"}
RATE_WORDS = {"bitrate_mbps": "Mbit/s", "bpp": "bits a pixel"}
MAX_PANELS = 12         # clips in one picture; more are too small to read
MAX_KEPT = 32           # plots in memory
PATIENCE_S = 20.0       # a plot takes a fraction of a second; the first one, with the library, a few
PNG_DPI = 160

# The page's colours and marks on white, which tell eight curves apart, also without colours.
COLOURS = ("#2456b8", "#c2410c", "#15803d", "#a21caf", "#0e7490", "#a16207", "#be123c", "#475569")
MARKS = ("o", "s", "^", "D", "v", "P")
STYLE: Any = {
    "font.size": 9, "axes.edgecolor": "#8a94a3", "axes.labelcolor": "#1a1f27", "axes.titlesize": 10, "axes.grid": True,
    "axes.titleweight": "bold", "axes.axisbelow": True, "axes.spines.top": False, "axes.spines.right": False,
    "grid.color": "#e3e7ed", "grid.linewidth": 0.7, "xtick.color": "#5b6573", "ytick.color": "#5b6573",
    "legend.frameon": False, "lines.linewidth": 1.6, "lines.markersize": 4.5,
    "text.parse_math": False,           # a name with two dollar signs is a name
    "svg.hashsalt": "nvc", "svg.fonttype": "path",      # the same plot is the same bytes, and looks the same anywhere
}


class NoPlots(Exception):
    """matplotlib is not installed here."""


class PlotsBusy(Exception):
    """Others are being drawn; try again."""


class Plots:
    """Draws, and keeps what was drawn lately. Safe for threads. In `folder` matplotlib keeps its list of fonts."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[Any, ...], bytes] = OrderedDict()

    def draw(self, key: tuple[Any, ...], curves: Sequence[Document], quality: str, rate: str, form: str) -> bytes:
        """`curves` as a picture; `key` is what it must be drawn anew for. Raises NoPlots, PlotsBusy."""
        key = (*key, quality, rate, form)
        if not self._lock.acquire(timeout=PATIENCE_S):
            raise PlotsBusy("other plots are being drawn; try again in a moment")
        try:
            if key not in self._kept:
                os.environ.setdefault("MPLCONFIGDIR", str(self._folder))
                self._kept[key] = _drawn(curves, quality, rate, form)
            self._kept.move_to_end(key)
            while len(self._kept) > MAX_KEPT:
                self._kept.popitem(last=False)
            return self._kept[key]
        finally:
            self._lock.release()


def _drawn(curves: Sequence[Document], quality: str, rate: str, form: str) -> bytes:
    try:
        import matplotlib
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise NoPlots("plots need the package matplotlib, which is not installed here") from error
    clips = list(dict.fromkeys(curve["clip"] for curve in curves))[:MAX_PANELS]
    names = list(dict.fromkeys(curve["curve"] for curve in curves))
    columns = 1 if len(clips) < 2 else 2 if len(clips) in (2, 4) else 3
    rows = -(-len(clips) // columns) or 1
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=((6.4, 4.4) if len(clips) < 2 else (3.9 * columns, 3.0 * rows + 0.5)),
                        layout="constrained")
        FigureCanvasAgg(figure)
        lines: dict[str, Any] = {}
        for index in range(rows * columns):
            axes = figure.add_subplot(rows, columns, index + 1)
            if index >= max(1, len(clips)):
                axes.set_axis_off()
                continue
            clip = clips[index] if clips else ""
            lines |= _panel(axes, [curve for curve in curves if curve["clip"] == clip], names, quality, rate)
            axes.set_title(clip, loc="left")
        if len(lines) > 1:
            figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=min(len(lines), 4))
        out = io.BytesIO()
        figure.savefig(out, format=form, dpi=PNG_DPI, metadata={"Date": None} if form == "svg" else {"Software": None})
    return out.getvalue()


def _panel(axes: Any, curves: Sequence[Document], names: Sequence[str], quality: str, rate: str) -> Mapping[str, Any]:
    """One clip's curves; the lines by name."""
    lines, drawn = {}, 0
    for curve in curves:
        points = [(point[rate], point[quality]) for point in curve["points"]
                  if point.get(rate) is not None and point.get(quality) is not None]
        place = names.index(curve["curve"])
        xs, ys = zip(*points, strict=True) if points else ((), ())
        (lines[curve["curve"]],) = axes.plot(
            xs, ys, color=COLOURS[place % len(COLOURS)], marker=MARKS[place % len(MARKS)], markeredgecolor="white",
            markeredgewidth=0.6, linestyle="--" if curve.get("anchor") else "-")
        drawn += len(points)
    axes.set_xlabel(RATE_WORDS[rate])
    axes.set_ylabel(QUALITY_WORDS[quality])
    if drawn:
        axes.set_xscale("log")
        _plain_ticks(axes)
    else:
        axes.text(0.5, 0.5, "no points yet", transform=axes.transAxes, ha="center", va="center", color="#5b6573")
        axes.set_xticks([])
        axes.set_yticks([])
    return lines


def _plain_ticks(axes: Any) -> None:
    """1, 2, 5 times a power of ten, written out: rates are read, not counted in decades."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, place: f"{value:.6g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
