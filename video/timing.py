"""When the pictures of a file are shown: rate, count and duration from its time stamps, not from its header.

Headers are often wrong: the rate of a clock (1000, 60000) is given for that of the pictures, or nothing at all.  The
time stamps are what players go by, so they decide; where there are none, the header's word is all there is.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

# Rates that exist; a clock's rounding of one of them is undone.
_WHOLE = (1, 2, 5, 6, 8, 10, 12, 15, 16, 20, 24, 25, 30, 36, 48, 50, 60, 72, 75, 90, 96, 100, 120, 144, 180, 200, 240)
STANDARD_RATES = tuple(sorted([Fraction(n) for n in _WHOLE] + [Fraction(1000 * n, 1001)
                                                                for n in (12, 15, 24, 30, 48, 60, 120, 240)]
                              + [Fraction(25, 2)]))
_JITTER = Fraction(1, 20)  # of an interval: more than this off, and the rate is called variable


@dataclass(frozen=True)
class Timing:
    """What time stamps say of a clip.

    fps         pictures a second: of a constant rate that rate, else pictures over duration
    duration_s  seconds from the first picture's time to the end of the last one's
    intervals_s (smallest, largest) seconds between two pictures where the rate varies, else None
    """

    fps: Fraction
    duration_s: Fraction
    intervals_s: tuple[float, float] | None = None


def timing_of(stamps: Sequence[int], tick: Fraction, last: int | None = None,
              said: Sequence[Fraction] = ()) -> Timing | None:
    """The timing of pictures shown at these times (in any order), in ticks of so many seconds; None of fewer than two
    different times.  last: ticks that the last picture is shown, where that is known.  said: rates that the header
    names; of several rates that the times may be roundings of, one of these is taken."""
    times = sorted(set(stamps))
    if len(times) < 2 or tick <= 0:
        return None
    intervals = [b - a for a, b in itertools.pairwise(times)]
    mean = Fraction(times[-1] - times[0], len(intervals))
    if _spread(times, mean) <= max(Fraction(2), mean * _JITTER):
        fps = _plain_rate(times, mean, tick, [standard(rate) for rate in said])
        return Timing(fps, len(times) / fps)
    usual = Counter(intervals).most_common(1)[0][0]
    # A last picture's duration is often a tick, or the whole pause after it; the commonest interval is likelier then.
    held = last if last and last <= 10 * usual and last * 2 >= usual else usual
    duration = (times[-1] - times[0] + held) * tick
    return Timing((len(times) / duration).limit_denominator(100_000), duration,
                  (float(min(intervals) * tick), float(max(intervals) * tick)))


def standard(rate: Fraction) -> Fraction:
    """The standard rate that a header's rate is a rounding of, such as 60000/1001 of 19001/317; else that itself."""
    nearest = min(STANDARD_RATES, key=lambda known: abs(known - rate))
    return nearest if abs(nearest - rate) * 100_000 < nearest else rate


def _spread(times: Sequence[int], interval: Fraction) -> Fraction:
    """How far times lie off a constant interval: the range, in ticks, of what it leaves."""
    left = [time - number * interval for number, time in enumerate(times)]
    return max(left) - min(left)


def _plain_rate(times: Sequence[int], mean: Fraction, tick: Fraction, said: Sequence[Fraction]) -> Fraction:
    """The rate whose rounding to ticks these times are: one that the header names too, else of the standard rates the
    one that fits best, else the mean."""
    exact = 1 / (mean * tick)
    # Each end of the span is rounded to a tick.
    near = [rate for rate in {*STANDARD_RATES, *said}
            if rate > 0 and abs(1 / (rate * tick) - mean) * (len(times) - 1) <= 1]
    if near:
        spreads = {rate: _spread(times, 1 / (rate * tick)) for rate in near}
        return min(near, key=lambda rate: (spreads[rate] > 1, rate not in said, rate not in STANDARD_RATES,
                                           spreads[rate], abs(rate - exact)))
    simple = exact.limit_denominator(1001)
    return simple if abs(simple - exact) < exact / 10**5 else exact.limit_denominator(1_000_000)


def notes_of(timing: Timing) -> tuple[str, ...]:
    """What to say of a clip with this timing; () of a constant rate."""
    if timing.intervals_s is None:
        return ()
    smallest, largest = timing.intervals_s
    return (f"variable frame rate: pictures are {smallest:.3g} to {largest:.3g} s apart; rates are measured over "
            f"{float(timing.duration_s):.4g} s, and streams are played at {float(timing.fps):.5g} pictures a second "
            "throughout",)
