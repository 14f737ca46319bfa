"""Aim at a bit rate or a PSNR: the clip is coded a few times, each time at a better step.

Both log rate and PSNR are nearly linear in the step index t, so the secant through the two nearest probes on either
side of the target lands close; t is real-valued here (`encode.Encoder` dithers its fraction over the pictures), hence
the target can be met much closer than one quality allows. On clips whose PSNR still jumps between two neighbouring t,
since an I picture's step changes there, `slack` is moved instead: the finer step stays, symbols are chosen as for a
coarser one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from coding.interface import Encoded, Report, Settings
from nvc.encoder.clip import encode_clip
from nvc.encoder.encode import SPREAD_UNALIKE, T_COARSEST, T_FINEST, WIDER
from nvc.encoder.sources.propagation import CENTRE, OFFSET_MOST
from nvc.encoder.sources.structure import LEVEL_OFFSETS
from nvc.stream.errors import SettingsError
from video.picture import ClipInfo, Picture

PROBES = 10
RATE_TOLERANCE = 0.01           # of the target rate, where 0.02 is promised
PSNR_TOLERANCE_DB = 0.03        # where 0.05 is promised
LOG2_RATE_PER_T = -0.045        # slopes of a usual clip, for the first guess
PSNR_PER_T = -0.26
STEEPER = 4.0                   # than that, a clip is taken to be at most; and the inverse, flatter

# The most that a picture's step index lies beyond t.
SPREAD = SPREAD_UNALIKE * (1 + WIDER) * LEVEL_OFFSETS[-1] + CENTRE + OFFSET_MOST

NEW = 0.02                      # of t or slack: nearer to what was probed, nothing new is learned

Psnr = Callable[[Picture, Picture], float]


@dataclass(frozen=True)
class Probe:
    """One result. place: t, or slack; value: log2 of the rate, or PSNR."""

    place: float
    value: float
    encoded: Encoded


@dataclass
class Probes:
    """Results along one axis, and where the target should lie on it. usual: slope of a usual clip."""

    target: float
    usual: float
    tries: list[Probe] = field(default_factory=list)

    def ends(self) -> tuple[Probe | None, Probe | None]:
        """The probes nearest to the target that are not below it, and below."""
        above = min((x for x in self.tries if x.value >= self.target), key=lambda x: x.value, default=None)
        below = max((x for x in self.tries if x.value < self.target), key=lambda x: x.value, default=None)
        return above, below

    def exhausted(self, place: float) -> bool:
        """It is no new one."""
        return any(abs(place - other.place) < NEW for other in self.tries)

    def following(self) -> float:
        """The place to probe next: on the secant through both ends, or further along the line through the last two."""
        above, below = self.ends()
        if above and below and above.value > below.value:
            share = (self.target - below.value) / (above.value - below.value)
            return below.place + share * (above.place - below.place)
        slope, last = self.usual, self.tries[-1]
        if len(self.tries) > 1:
            first = self.tries[-2]
            found = (last.value - first.value) / (last.place - first.place)
            slope = self.usual * min(max(found / self.usual, 1 / STEEPER), STEEPER)
        return last.place + (self.target - last.value) / slope


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
    tolerance = math.log2(1 + RATE_TOLERANCE) if rate else PSNR_TOLERANCE_DB
    plain = replace(settings, bitrate_mbps=None, psnr_db=None)
    tries: list[Probe] = []
    trace: list[dict[str, Any]] = []
    steps = Probes(target, usual)
    probes, t, slack = steps, (T_COARSEST + T_FINEST) / 2, 0.0
    while len(tries) < PROBES:
        total = 0.0

        def watch(number: int, picture: Picture) -> None:
            nonlocal total
            total += psnr(pictures[number], picture)

        encoded = encode_clip(pictures, info, plain, progress, t=t, slack=slack, watch=None if rate else watch)
        seconds = len(pictures) / float(info.fps)
        mbps = len(encoded.data) * 8e-6 / seconds
        value = math.log2(mbps) if rate else total / len(pictures)
        tries.append(Probe(t if probes is steps else slack, value, encoded))
        probes.tries.append(tries[-1])
        trace.append({"step_index": round(t, 3), "slack": round(slack, 3), name: round(mbps if rate else value, 6)})
        if abs(value - target) <= tolerance:
            break
        place = probes.following()
        if probes is steps:
            place = min(max(place, T_FINEST - SPREAD), T_COARSEST + SPREAD)
        finer, coarser = probes.ends()
        if probes is steps and finer and coarser and probes.exhausted(place):
            # Where an I picture's step changes, PSNR may jump by more than is left: the finer step stays, and symbols
            # are chosen the more sparingly.
            probes = Probes(target, usual, [replace(finer, place=0.0)])
            t, place = finer.place, probes.following()
        if probes.exhausted(place):
            break
        if probes is steps:
            t = place
        else:
            slack = place
    nearest = min(tries, key=lambda probe: abs(probe.value - target))
    value, best = nearest.value, nearest.encoded
    met = abs(value - target) <= (math.log2(1.02) if rate else 0.05)
    best.details["rate_control"] = {"target": {name: wanted}, "met": met, "probes": trace}
    return best
