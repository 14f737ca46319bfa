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

from coding.interface import Encoded, Report, Settings, part_of
from nvc.encoder.clip import Gops, encode_clip
from nvc.encoder.encode import SPREAD_UNALIKE, T_COARSEST, T_FINEST, WIDER
from nvc.encoder.sources.propagation import CENTRE, OFFSET_MOST
from nvc.encoder.sources.structure import LEVEL_OFFSETS
from nvc.stream.errors import SettingsError
from video.picture import ClipInfo, Picture

PROBES = 10
RATE_TOLERANCE = 0.01           # of the target rate, where 0.02 is promised
PSNR_TOLERANCE_DB = 0.03        # where 0.05 is promised
# A usual clip at T_USUAL, and its slopes from there: the first guess. Means of ten training clips.
T_USUAL, LOG2_BPP, PSNR_DB = 46.0, -4.2, 36.7
LOG2_RATE_PER_T = -0.055
PSNR_PER_T = -0.175
LOG2_RATE_PER_SLACK = -0.045
PSNR_PER_SLACK = -0.3
NEAR_DB = 0.5                   # from there on PSNR is moved by slack alone, which it follows without jumps
STEEPER = 4.0                   # than that, a clip is taken to be at most; and the inverse, flatter

# The most that a picture's step index lies beyond t.
SPREAD = SPREAD_UNALIKE * (1 + WIDER) * LEVEL_OFFSETS[-1] + CENTRE + OFFSET_MOST

NEW = 0.02                      # of t or slack: nearer to what was probed, nothing new is learned

Psnr = Callable[[Picture, Picture], float]


@dataclass(frozen=True)
class Probe:
    """One result. t, slack: its step; value: log2 of the rate, or PSNR, whichever is aimed at."""

    t: float
    slack: float
    value: float
    psnr: float
    encoded: Encoded

    def beaten_by(self, other: Probe) -> bool:
        """Whether the other has a higher PSNR in no more bytes."""
        return other.psnr > self.psnr and len(other.encoded.data) <= len(self.encoded.data)


@dataclass
class Axis:
    """Values found along t, or along slack, and where the target should lie. usual: slope of a usual clip."""

    target: float
    usual: float
    found: list[tuple[float, float]] = field(default_factory=list)  # (place, value)

    def ends(self) -> tuple[tuple[float, float] | None, tuple[float, float] | None]:
        """The places nearest to the target whose value is not below it, and is below."""
        above = min((x for x in self.found if x[1] >= self.target), key=lambda x: x[1], default=None)
        below = max((x for x in self.found if x[1] < self.target), key=lambda x: x[1], default=None)
        return above, below

    def is_known(self, place: float) -> bool:
        """Whether it lies so near to one that was tried that nothing is learned."""
        return any(abs(place - other) < NEW for other, _ in self.found)

    def next_place(self) -> float:
        """Where to try next: on the secant through both ends, or further along the line through the last two."""
        above, below = self.ends()
        if above and below and above[1] > below[1]:
            share = (self.target - below[1]) / (above[1] - below[1])
            return below[0] + share * (above[0] - below[0])
        slope, (place, value) = self.usual, self.found[-1]
        if len(self.found) > 1:
            before = self.found[-2]
            measured = (value - before[1]) / (place - before[0])
            slope = self.usual * min(max(measured / self.usual, 1 / STEEPER), STEEPER)
        return place + (self.target - value) / slope


def choose_quality(pictures: list[Picture], info: ClipInfo, settings: Settings, progress: Report,
                   psnr: Psnr, *, first: int = 0, coded: Gops | None = None) -> Encoded:
    """Encode so that `settings.bitrate_mbps` or `settings.psnr_db` is met; the trace is in `details["rate_control"]`.

    psnr(source, decoded): dB, YUV 6:1:1; first, coded: as of `encode_clip`. A target outside of what the codec
    reaches gives the nearest that was seen, and the trace says so; a result of more bytes and less PSNR than another is
    never given. Progress counts all passes as one. SettingsError for both targets at once, or one that is not positive.
    """
    if settings.bitrate_mbps is not None and settings.psnr_db is not None:
        raise SettingsError("bitrate_mbps and psnr_db: expected one of them, got both")
    wanted = settings.bitrate_mbps if settings.bitrate_mbps is not None else settings.psnr_db
    name = "bitrate_mbps" if settings.bitrate_mbps is not None else "psnr_db"
    if wanted is None or not (math.isfinite(wanted) and wanted > 0):
        raise SettingsError(f"{name} is {wanted}, expected a number above 0")
    rate = name == "bitrate_mbps"
    tolerance = math.log2(1 + RATE_TOLERANCE) if rate else PSNR_TOLERANCE_DB
    target = math.log2(wanted) if rate else wanted
    plain = replace(settings, bitrate_mbps=None, psnr_db=None)
    seconds = len(pictures) / float(info.fps)
    samples = info.width * info.height * len(pictures)

    probes: list[Probe] = []
    trace: list[dict[str, Any]] = []
    steps = Axis(target, LOG2_RATE_PER_T if rate else PSNR_PER_T)
    slacks: Axis | None = None
    usual = LOG2_BPP + math.log2(samples / seconds * 1e-6) if rate else PSNR_DB
    t, slack, finest = T_USUAL + (target - usual) / steps.usual, 0.0, T_FINEST - SPREAD
    t = min(max(t, T_FINEST), T_COARSEST)
    while True:
        total = 0.0

        def watch(number: int, picture: Picture) -> None:
            nonlocal total
            total += psnr(pictures[number], picture)

        encoded = encode_clip(pictures, info, plain, part_of(progress, len(probes)), t=t, slack=slack, watch=watch,
                              first=first, coded=coded)
        mbps, quality = len(encoded.data) * 8e-6 / seconds, total / len(pictures)
        probe = Probe(t, slack, math.log2(mbps) if rate else quality, quality, encoded)
        probes.append(probe)
        (slacks or steps).found.append((slack if slacks else t, probe.value))
        trace.append({"step_index": round(t, 3), "slack": round(slack, 3), name: round(mbps if rate else quality, 6)})
        if abs(probe.value - target) <= tolerance or len(probes) == PROBES:
            break
        if any(probe.beaten_by(other) for other in probes):  # too fine: the peak lies between it and the best
            best = max(probes, key=lambda other: other.psnr)
            finest = max(finest, (probe.t + best.t) / 2)
            steps.found = [(place, value) for place, value in steps.found if place >= finest]
        if slacks is None:
            place = min(max(steps.next_place(), finest), T_COARSEST + SPREAD)
            finer, coarser = steps.ends()
            jumps = finer is not None and coarser is not None and steps.is_known(place)
            if finer is not None and (jumps or (not rate and abs(finer[1] - target) < NEAR_DB)):
                # Where an I picture's step changes, PSNR may jump by more than is left: the finer step stays, and
                # symbols are chosen the more sparingly.
                slacks = Axis(target, LOG2_RATE_PER_SLACK if rate else PSNR_PER_SLACK, [(0.0, finer[1])])
                t = finer[0]
            elif steps.is_known(place):
                break
            else:
                t = place
        if slacks is not None:
            slack = slacks.next_place()
            if slacks.is_known(slack):
                break
    useful = [probe for probe in probes if not any(probe.beaten_by(other) for other in probes)]
    best = min(useful, key=lambda probe: abs(probe.value - target))
    met = abs(best.value - target) <= (math.log2(1.02) if rate else 0.05)
    best.encoded.details["rate_control"] = {"target": {name: wanted}, "met": met, "probes": trace}
    return best.encoded
