"""What the encoder spends at each effort; no decoder knows of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Effort:
    """searches: how far motion is searched (see `search.search`); where there are several, trials tell which.
    mini_gops: how many mini-GOPs are tried besides the one that suits a segment; without any, there are no trials.
    passes: how often latents go through the networks and back to be refined."""

    searches: tuple[int, ...] = (0,)
    mini_gops: int = 0
    passes: int = 0


EFFORTS = (Effort(), Effort(passes=3), Effort(mini_gops=1, passes=8), Effort((0, 2), mini_gops=2, passes=12))
EFFORT_MAX = len(EFFORTS) - 1
