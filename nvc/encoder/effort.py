"""What the encoder spends at each effort; no decoder knows of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Effort:
    """searches: how far motion is searched (see `search.search`); where there are several, trials tell which.
    mini_gops: how many mini-GOPs are tried besides the one that suits a segment; without any, there are no trials.
    passes: how often latents of an I, P or B picture go through the networks and back to be refined. I pictures that no
    other refers to, in structure intra, go as often as B pictures.
    quiet_error: mean squared error of a prediction, in squares of a step, that is left as it is, so that no network
    runs there: it costs half a percent of the bits, and saves most of the time where a scene stands still.
    enough: bits of residual at which the fastest search merges a block of 8×8 without looking further.
    along_motion: whether sources are averaged along motion (nvc/encoder/sources/temporal_filter.py)."""

    searches: tuple[int, ...] = (0,)
    mini_gops: int = 0
    passes: tuple[int, int, int] = (0, 0, 0)
    quiet_error: float = 0.0
    enough: float = 2.0
    along_motion: bool = True


EFFORTS = {
    -1: Effort(quiet_error=0.08, enough=6.0, along_motion=False),
    0: Effort(passes=(2, 0, 0), quiet_error=0.04),
    1: Effort(passes=(8, 3, 3)),
    2: Effort(mini_gops=1, passes=(12, 8, 8)),
    3: Effort((0, 2), mini_gops=2, passes=(12, 12, 12)),
}
EFFORT_MIN, EFFORT_MAX = min(EFFORTS), max(EFFORTS)
