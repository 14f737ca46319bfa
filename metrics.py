"""What is measured, and its definitions. All on 4:2:0 pictures of 8 to 12 bits, of which the distorted came out of a
decoder; where the decoder's have fewer bits than the source, they are brought to its depth first.

PSNR          10 log10(peak² / MSE), the peak being 255, 1023 or 4095, of one plane of one picture, in dB.  Identical
              planes have no PSNR; they are given as 100 dB, and so is anything above, since JSON has no infinity.
psnr          (6 Y + U + V) / 8 of the planes' PSNRs.
SSIM, MS-SSIM of luma, see measures/ssim.py.
VMAF, XPSNR   where they are asked for, see measures/perceptual.py.
of a clip     The mean over pictures of each of these.  ``…_of_mean_mse``: the PSNR of the mean MSE over all pictures
              instead, which bad pictures pull down further; both averagings are found in papers.
bit rate      8 · bytes · fps / frames / 10^6, in Mbit/s.  bpp: bits per luma sample.
compression   Bytes of the clip as raw 4:2:0 over its coded bytes; a sample of 10 bits is 10/8 of a byte.
BD-rate       see measures/bd_rate.py.

    python metrics.py REFERENCE DISTORTED [--measures NAMES] [--frames N] [--json]

compares two clips (any that video/files.py opens; one may be ``-``).  Exit codes: 0 done, 1 failed with one line on
standard error, 2 wrong usage.
"""

from __future__ import annotations

import sys

if sys.version_info < (3, 11):
    sys.exit("metrics.py: Python 3.11 or newer is needed")


import argparse
import itertools
import json
import math
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np

from measures.bd_rate import BDRate, bd_rate, bd_rates
from measures.perceptual import NAMES as PERCEPTUAL
from measures.perceptual import PerceptualMeasures
from measures.ssim import MS_SSIM_SIDE, SSIM_SIDE, ssim, ssim_and_ms_ssim
from video.picture import MOST_BITS, ClipInfo, Picture, VideoError
from video.pixels import change_depth

__all__ = ["BDRate", "ClipMetrics", "MetricsError", "bd_rate", "bd_rates", "frame_metrics", "psnr",
           "rate_metrics", "ssim_db"]

MAX_DB = 100.0
PLANES = ("y", "u", "v")
OWN = ("psnr", "ssim", "ms_ssim")  # measured here, and wanted unless others are named; the PSNR is always measured
MEASURES = (*OWN, *PERCEPTUAL)
AVERAGED = ("psnr", "psnr_y", "psnr_u", "psnr_v", "ssim", "ms_ssim", "mse_y", "mse_u", "mse_v")


class MetricsError(Exception):
    """Two clips that cannot be compared, or a rate of nothing."""


def psnr(mse: float, bits: int = 8) -> float:
    """PSNR in dB of a mean squared error of samples of so many bits, at most MAX_DB."""
    return min(MAX_DB, 10 * math.log10(((1 << bits) - 1) ** 2 / mse)) if mse > 0 else MAX_DB


def weighted(y: float, u: float, v: float) -> float:
    """The 6:1:1 mean of values of the three planes."""
    return (6 * y + u + v) / 8


def ssim_db(ssim: float) -> float:
    """SSIM or MS-SSIM on a scale on which differences near 1 show, and on which BD-rate is taken: -10 log10(1 - x)."""
    return min(MAX_DB, -10 * math.log10(1 - ssim)) if ssim < 1 else MAX_DB


def plane_errors(reference: Picture, distorted: Picture) -> dict[str, float]:
    """Mean squared error of each plane, by its name.  MetricsError when the sizes differ."""
    errors = {}
    for name, a, b in zip(PLANES, reference, distorted, strict=True):
        if a.shape != b.shape:
            raise MetricsError(f"{name}: the reference is {_size(a)}, the distorted picture {_size(b)}")
        difference = np.subtract(a, b, dtype=np.float64).ravel()
        errors[name] = float(difference @ difference) / difference.size
    return errors


def frame_psnr(reference: Picture, distorted: Picture, bits: int = 8) -> float:
    """PSNR of one picture in dB, the planes weighted 6:1:1; what rate control aims at."""
    return weighted(**{name: psnr(mse, bits) for name, mse in plane_errors(reference, distorted).items()})


def frame_metrics(
    reference: Picture, distorted: Picture, wanted: Collection[str] = OWN, bits: int = 8
) -> dict[str, float | None]:
    """Of one picture: psnr, psnr_y, psnr_u, psnr_v (dB), mse_y, mse_u, mse_v, ssim, ms_ssim (luma).

    ssim is None under 11 lines or columns, ms_ssim under 161; either where it is not wanted (ms_ssim gives ssim too).
    MetricsError when the sizes differ.
    """
    errors = plane_errors(reference, distorted)
    ratios = {name: psnr(mse, bits) for name, mse in errors.items()}
    peak = (1 << bits) - 1
    similarity: tuple[float | None, float | None] = (None, None)
    if "ms_ssim" in wanted:
        similarity = ssim_and_ms_ssim(reference.y, distorted.y, peak)
    elif "ssim" in wanted:
        similarity = ssim(reference.y, distorted.y, peak), None
    return {
        "psnr": weighted(**ratios),
        **{f"psnr_{name}": value for name, value in ratios.items()},
        **{f"mse_{name}": value for name, value in errors.items()},
        "ssim": similarity[0],
        "ms_ssim": similarity[1],
    }


class ClipMetrics:
    """Metrics of a clip, picture by picture: ``add`` each pair in order, then ask for the ``summary``.  ``wanted``: of
    MEASURES; those of PERCEPTUAL are measured elsewhere (measures/perceptual.py)."""

    def __init__(self, wanted: Collection[str] = OWN, bits: int = 8) -> None:
        self.frames, self._bits = 0, bits
        self._wanted = frozenset(wanted)
        self._sums = dict.fromkeys(AVERAGED, 0.0)
        self._missing: dict[str, str] = {}

    def add(self, reference: Picture, distorted: Picture) -> dict[str, float | None]:
        """The :func:`frame_metrics` of this pair, which are kept in the means."""
        return self.add_values(frame_metrics(reference, distorted, self._wanted, self._bits), _size(reference.y))

    def add_values(self, values: dict[str, float | None], size: str) -> dict[str, float | None]:
        """The same, of a pair that was measured elsewhere. size: of its luma, "WIDTHxHEIGHT"."""
        self.frames += 1
        for name in AVERAGED:
            value = values[name]
            if value is None:
                side = SSIM_SIDE if name == "ssim" else MS_SSIM_SIDE
                self._missing[name] = (
                    f"needs at least {side} lines and columns, the luma is {size}"
                    if name in self._wanted or (name == "ssim" and "ms_ssim" in self._wanted)
                    else "not among the measures that were asked for")
            else:
                self._sums[name] += value
        return values

    def summary(self) -> dict[str, Any]:
        """Means over the pictures so far, by the names of :func:`frame_metrics`, and ``frames``.

        ``psnr_of_mean_mse`` and ``psnr_{y,u,v}_of_mean_mse`` are of the mean MSE.  A metric that cannot be had is
        None, and ``ssim_reason`` or ``ms_ssim_reason`` says why.  MetricsError without any picture.
        """
        if not self.frames:
            raise MetricsError("no picture was compared")
        means = {name: None if name in self._missing else self._sums[name] / self.frames for name in AVERAGED}
        of_mean = {name: psnr(self._sums[f"mse_{name}"] / self.frames, self._bits) for name in PLANES}
        return {
            "frames": self.frames,
            **means,
            "psnr_of_mean_mse": weighted(**of_mean),
            **{f"psnr_{name}_of_mean_mse": value for name, value in of_mean.items()},
            **{f"{name}_reason": reason for name, reason in self._missing.items()},
        }


def rate_metrics(total_bytes: int, info: ClipInfo) -> dict[str, float]:
    """bitrate_mbps (10^6 bits a second), bpp (bits per luma sample) and compression_ratio of a coded clip.

    MetricsError unless there are bytes, and pictures in ``info.frames``.
    """
    if total_bytes < 1 or not info.frames:
        raise MetricsError(f"a rate needs bytes and pictures, got {total_bytes} bytes and {info.frames} pictures")
    seconds = info.frames / info.fps
    return {
        "bitrate_mbps": float(Fraction(8 * total_bytes, 10**6) / seconds),
        "bpp": 8 * total_bytes / (info.width * info.height * info.frames),
        "compression_ratio": info.samples * info.bits / 8 * info.frames / total_bytes,
    }


def _size(plane: np.ndarray) -> str:
    return f"{plane.shape[1]}x{plane.shape[0]}"


def compare(
    reference: str, distorted: str, frames: int | None = None, wanted: Collection[str] = OWN
) -> dict[str, Any]:
    """Metrics of two clips: the summary, ``per_frame`` rows, and ``notes`` on what makes the numbers doubtful.
    frames: only so many pictures, from the first on; wanted: of MEASURES.

    Raises VideoError, and MetricsError when size or number of pictures differ.
    """
    from video.files import open_clip  # brings FFmpeg with it, which those who only ask for BD-rates need not load

    rows = []
    with ExitStack() as stack:
        a, b = (stack.enter_context(open_clip(path, most_bits=MOST_BITS)) for path in (reference, distorted))
        bits = max(a.info.bits, b.info.bits)
        total = ClipMetrics(wanted, bits)
        perceptual = stack.enter_context(PerceptualMeasures(wanted, replace(a.info, bits=bits)))
        pictures, others = itertools.islice(a, frames), itertools.islice(b, frames)
        for index, picture in enumerate(pictures):
            picture = change_depth(picture, a.info.bits, bits, a.info.range == "full")
            other = next(others, None)
            if other is None:
                raise MetricsError(f"{distorted} ends after {index} pictures, {reference} goes on")
            other = change_depth(other, b.info.bits, bits, b.info.range == "full")
            rows.append({"index": index, **total.add(picture, other)})
            perceptual.add(picture, other)
        if next(others, None) is not None:
            raise MetricsError(f"{reference} ends after {len(rows)} pictures, {distorted} goes on")
        notes = [
            f"{name} differs ({getattr(a.info, name)} and {getattr(b.info, name)}); samples are compared as they are"
            for name in ("matrix", "range", "bits")
            if getattr(a.info, name) != getattr(b.info, name)
        ]
        for path, clip in ((reference, a), (distorted, b)):
            notes += [f"{path} was converted: {clip.info.converted}"] if clip.info.converted else []
            notes += [f"{path}: {warning}" for warning in clip.info.warnings]
        found = perceptual.finish()
    more = found.rows or [{}] * len(rows)
    per_frame = [{**row, **other} for row, other in zip(rows, more, strict=True)]
    made_by = {"made_by": perceptual.made_by} if perceptual.made_by else {}
    return {**total.summary(), **found.summary, **made_by, "per_frame": per_frame, "notes": notes}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="metrics.py", description="Compare two clips, picture by picture.")
    parser.add_argument("reference", metavar="REFERENCE", help="the source: a video file, picture or folder, or -")
    parser.add_argument("distorted", metavar="DISTORTED", help="what a decoder made of it")
    parser.add_argument("--json", action="store_true", help="print one JSON object, with a row for each picture")
    parser.add_argument("--measures", default=",".join(OWN), metavar="NAMES",
                        help=f"which, with commas between them, of {', '.join(MEASURES)}; default: %(default)s")
    parser.add_argument("--frames", type=int, metavar="N", help="compare only the first N pictures")
    options = parser.parse_args(arguments)
    if options.frames is not None and options.frames < 1:
        parser.error(f"--frames: expected a number of pictures from 1 on, got {options.frames}")
    wanted = [name.strip() for name in options.measures.split(",")]
    if unknown := [name for name in wanted if name not in MEASURES]:
        parser.error(f"--measures: expected names of {', '.join(MEASURES)}, got {unknown[0]!r}")
    if options.reference == options.distorted == "-":
        parser.error("only one of the two can be standard input")
    try:
        result = compare(options.reference, options.distorted, options.frames, wanted)
    except (VideoError, MetricsError) as error:
        print(f"metrics.py: {error}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps(result))
        return 0
    print(f"{result['frames']} pictures")
    for name, unit in (("psnr", "dB YUV 6:1:1"), ("psnr_y", "dB"), ("psnr_u", "dB"), ("psnr_v", "dB"),
                       ("psnr_of_mean_mse", "dB YUV 6:1:1"), ("ssim", ""), ("ms_ssim", ""), ("vmaf", ""),
                       ("vmaf_neg", ""), ("xpsnr", "dB YUV 6:1:1")):  # fmt: skip
        if name in MEASURES and name not in wanted:
            continue
        value = result[name]
        shown = f"{value:.4f} {unit}" if value is not None else f"none: {result[f'{name}_reason']}"
        print(f"{name:<17} {shown.rstrip()}")
    for note in result["notes"]:
        print(f"note: {note}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
