"""Which tiles of a picture look drawn and not taken by a camera: text, lines, flat areas. No decoder knows of it."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from nvc.tiles.kinds import TILE
from video.picture import Picture

REPEATED = 0.6          # at least that share of a drawn tile's luma equals its neighbour on the left or above
NOISE, NOISY = 4, 0.04  # at most that share differs from both by one to so many levels
SHARE = 0.2             # of a picture: where fewer of its tiles look drawn, they do so by chance


@njit(cache=True, nogil=True)
def _count(y, repeated, noisy):
    for i in range(y.shape[0]):
        for j in range(y.shape[1]):
            left = abs(np.int64(y[i, j]) - np.int64(y[i, max(j - 1, 0)]))
            up = abs(np.int64(y[i, j]) - np.int64(y[max(i - 1, 0), j]))
            if left == 0 or up == 0:
                repeated[i // TILE, j // TILE] += 1
            elif left <= NOISE and up <= NOISE:
                noisy[i // TILE, j // TILE] += 1


def drawn(picture: Picture) -> NDArray[np.bool_]:
    """Which tiles [H/16, W/16] of a padded picture; none where they are few."""
    repeated, noisy = (np.zeros((picture.y.shape[0] // TILE, picture.y.shape[1] // TILE), np.int32) for _ in range(2))
    _count(picture.y, repeated, noisy)
    found = (repeated >= REPEATED * TILE * TILE) & (noisy <= NOISY * TILE * TILE)
    return found & (found.mean() >= SHARE)


def warm() -> None:
    """Compile the kernel into numba's cache."""
    counts = np.zeros((1, 1), np.int32)
    _count(np.zeros((16, 16), np.uint8), counts, counts)
