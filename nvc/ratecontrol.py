"""Aim at a bit rate or a PSNR: the clip is coded a few times, each time at a better step.

Both log rate and PSNR are nearly linear in the step index t, so the secant through the two nearest probes on either
side of the target lands close; t is real-valued here (`encode.Encoder` dithers its fraction over the pictures), hence
the target can be met much closer than one quality allows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from coding import Encoded, Report, Settings
from nvc.clip import encode_clip
from nvc.encode import SPREAD_UNALIKE, T_COARSEST, T_FINEST
from nvc.errors import SettingsError
from nvc.structure import LEVEL_OFFSETS
from nvc.worth import CENTRE, FARTHEST
from picture import ClipInfo, Picture

PROBES = 7
RATE_TOLERANCE = 0.01           # of the target rate, where 0.02 is promised
PSNR_TOLERANCE_DB = 0.03        # where 0.05 is promised
LOG2_RATE_PER_T = -0.045        # slopes of a usual clip, for the first guess
PSNR_PER_T = -0.26
STEEPER = 4.0                   # than that, a clip is taken to be at most; and the inverse, flatter

# The most that a picture's step index lies beyond t.
SPREAD = SPREAD_UNALIKE * LEVEL_OFFSETS[-1] + CENTRE + FARTHEST

Psnr = Callable[[Picture, Picture], float]


def choose_quality(pictures: list[Picture], info: ClipInfo, settings: Settings, progress: Report,
                   psnr: Psnr) -> Encoded:
    """Encode so that `settings.bitrate_mbps` or `settings.psnr_db` is met; the trace is in `details["rate_control"]`.

    psnr(source, decoded): dB, YUV 6:1:1. The result nearest to the target is given even where the target lies outside
    what the codec reaches; the trace then says so. SettingsError for both targets at once, or one that is not positive.
    """
    if settings.bitrate_mbps is not None and settings.psnr_db is not None:
        raise SettingsError("bitrate_mbps and psnr_db: expected one of them, got both")
    wanted = settings.bitrate_mbps if settings.bitrate_mbps is not None else settings.psnr_db
    name = "bitrate_mbps" if settings.bitrate_mbps is not None else "psnr_db"
    if wanted is None or not (math.isfinite(wanted) and wanted > 0):
        raise SettingsError(f"{name} is {wanted}, expected a number above 0")
    rate = name == "bitrate_mbps"
    target, usual = (math.log2(wanted), LOG2_RATE_PER_T) if rate else (wanted, PSNR_PER_T)
    slope = usual
    tolerance = math.log2(1 + RATE_TOLERANCE) if rate else PSNR_TOLERANCE_DB
    plain = replace(settings, bitrate_mbps=None, psnr_db=None)
    tries: list[tuple[float, float, Encoded]] = []          # t, log2 rate or PSNR, result
    trace: list[dict[str, Any]] = []
    t = (T_COARSEST + T_FINEST) / 2
    while len(tries) < PROBES:
        total = 0.0

        def watch(number: int, picture: Picture) -> None:
            nonlocal total
            total += psnr(pictures[number], picture)

        encoded = encode_clip(pictures, info, plain, progress, t=t, watch=None if rate else watch)
        seconds = len(pictures) / float(info.fps)
        mbps = len(encoded.data) * 8e-6 / seconds
        value = math.log2(mbps) if rate else total / len(pictures)
        tries.append((t, value, encoded))
        trace.append({"step_index": round(t, 3), name: round(mbps if rate else value, 6)})
        if abs(value - target) <= tolerance:
            break
        above = min((x for x in tries if x[1] >= target), key=lambda x: x[1], default=None)
        below = max((x for x in tries if x[1] < target), key=lambda x: x[1], default=None)
        if above and below and above[1] > below[1]:
            t = below[0] + (target - below[1]) * (above[0] - below[0]) / (above[1] - below[1])
        else:
            if len(tries) > 1:          # both on one side: further along the line through the last two
                (t0, v0, _), (t1, v1, _) = tries[-2:]
                slope = usual * min(max((v1 - v0) / (t1 - t0) / usual, 1 / STEEPER), STEEPER)
            t += (target - value) / slope
        t = min(max(t, T_FINEST - SPREAD), T_COARSEST + SPREAD)
        if any(abs(t - x[0]) < 1e-3 for x in tries):
            break
    _, value, best = min(tries, key=lambda x: abs(x[1] - target))
    met = abs(value - target) <= (math.log2(1.02) if rate else 0.05)
    best.details["rate_control"] = {"target": {name: wanted}, "met": met, "probes": trace}
    return best
