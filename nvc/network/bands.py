"""Group 0's second transform in integers: see `nvc.network.join`. Normative."""

from __future__ import annotations

from numba import njit


@njit(cache=True, nogil=True)
def band(grid, i, j, c):
    """Twice the band of channel c that stands at position (i, j) of a grid [H, W, C] of integers, H and W even."""
    y, x = i & ~1, j & ~1
    upper, lower = grid[y, x, c], grid[y + 1, x, c]
    if j & 1:
        upper, lower = upper - grid[y, x + 1, c], lower - grid[y + 1, x + 1, c]
    else:
        upper, lower = upper + grid[y, x + 1, c], lower + grid[y + 1, x + 1, c]
    return upper - lower if i & 1 else upper + lower


@njit(cache=True, nogil=True)
def half(v):
    """v / 2, ties to even."""
    return (v >> 1) + (v & (v >> 1) & 1)
