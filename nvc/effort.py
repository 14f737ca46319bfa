"""What the encoder spends at each effort; no decoder knows of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Effort:
    """searches: how far motion is searched (see `search.search`); where there are several, trials tell which.
    mini_gops: how many mini-GOPs are tried besides the one that suits a segment.
    passes: how often latents go through the networks and back to be refined."""

    searches: tuple[int, ...] = (0,)
    mini_gops: int = 0
    passes: int = 0

    @property
    def tries(self) -> bool:
        """Whether segments are coded in several ways."""
        return len(self.searches) > 1 or self.mini_gops > 0


EFFORTS = (Effort(), Effort(passes=2), Effort(mini_gops=1, passes=5), Effort((0, 2), mini_gops=2, passes=12))
EFFORT_MAX = len(EFFORTS) - 1
