"""Aim of a peer at a PSNR: the clip is coded a few times, each time at a better CRF or QP.

PSNR falls nearly in a straight line with CRF and QP, so the secant through the neighbours on either side of the target
lands close; an encoder that takes whole numbers only gives the nearest of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from coding.interface import Decoded, Encoded, Report, Settings, SettingsError, part_of
from metrics import frame_psnr
from peers.kinds import Kind
from video.picture import ClipInfo, Picture

PASSES = 8
TOLERANCE_DB = 0.03  # where 0.05 is promised of encoders that take fractions
DB_PER_QUALITY = 0.25  # a usual clip's slope, and its PSNR at quality 32: the first guess
USUAL_QUALITY, USUAL_DB = 32, 38.0

Encode = Callable[[Iterable[Picture], Settings, Report], Encoded]


@dataclass(frozen=True)
class Probe:
    constant: float
    psnr: float
    encoded: Encoded


def choose_constant(kind: Kind, encode: Encode, decode: Callable[[bytes], Decoded], pictures: Iterable[Picture],
                    info: ClipInfo, settings: Settings, progress: Report) -> Encoded:
    """Encode so that ``settings.psnr_db`` is met as nearly as the encoder can; ``details["rate_control"]`` has the
    trace, and whether it is met.  SettingsError for a target that is not positive, or beside a bit rate."""
    target = settings.psnr_db
    if target is None or not (math.isfinite(target) and target > 0):
        raise SettingsError(f"psnr_db: expected a number above 0, got {target}")
    if settings.bitrate_mbps is not None:
        raise SettingsError("psnr_db: expected one aim, got bitrate_mbps too")
    pictures = list(pictures) if iter(pictures) is pictures else pictures
    fall = (kind.scale[0] - kind.scale[-1]) / 63 / DB_PER_QUALITY  # CRF or QP for a decibel
    constant = kind.constant_at(USUAL_QUALITY) - (target - USUAL_DB) * fall
    probes: list[Probe] = []
    while len(probes) < PASSES:
        constant = min(max(round(constant, 0 if kind.whole else 2), 0), kind.worst)
        if any(probe.constant == constant for probe in probes):
            break  # the end of the scale, or as near as whole numbers come
        options = {**settings.options, kind.constant: constant}
        encoded = encode(pictures, replace(settings, psnr_db=None, options=options), part_of(progress, len(probes)))
        ratios = [frame_psnr(*pair, info.bits) for pair in zip(pictures, decode(encoded.data), strict=True)]
        probes.append(Probe(constant, sum(ratios) / len(ratios), encoded))
        if abs(probes[-1].psnr - target) <= TOLERANCE_DB:
            break
        next_constant = _next(probes, target, fall, 1 if kind.whole else 0.01)
        if next_constant is None:
            break
        constant = next_constant
    best = min(probes, key=lambda probe: abs(probe.psnr - target))
    trace: list[dict[str, Any]] = [{kind.constant: probe.constant, "psnr_db": round(probe.psnr, 4)} for probe in probes]
    best.encoded.details["rate_control"] = {
        "target": {"psnr_db": target}, "met": abs(best.psnr - target) <= 0.05, "probes": trace}
    return best.encoded


def _next(probes: list[Probe], target: float, fall: float, least: float) -> float | None:
    """Between the two neighbours that have the target between them, where the secant says, but away from both, so that
    a curve with a knee is closed in on too; else further along the usual slope.  None where nothing is left to try."""
    known = sorted(probes, key=lambda probe: probe.constant)
    for better, worse in pairwise(known):
        if better.psnr >= target > worse.psnr:
            width = worse.constant - better.constant
            share = (better.psnr - target) / (better.psnr - worse.psnr)
            place = better.constant + min(max(share, 0.1), 0.9) * width
            return min(max(place, better.constant + least), worse.constant - least) if width > least else None
    last = known[0] if known[0].psnr < target else known[-1]
    return last.constant + (last.psnr - target) * fall
