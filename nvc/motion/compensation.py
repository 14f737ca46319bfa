"""What a field of block vectors predicts, for one plane: interpolation, and the overlap of neighbouring blocks.

Interpolation is separable: the horizontal taps, unrounded, then the vertical ones, + 2048, >> 12, clamped to 0..255.
The taps are those of H.265 (8.5.3.3.3): eight for luma at quarters, four for chroma at eighths of a sample. Planes go
on without end by their edge samples, so vectors need no limit from the picture's size.

Blocks overlap: a block's motion also predicts up to three samples beyond its borders, and counts there by weights that
fall, separably, while those of the neighbour rise from 12/16 (overlapped block motion compensation, Orchard and
Sullivan 1994). The weights of all that meet in a sample sum to 256; where neighbours move alike, the result is as
without. Around intra blocks nothing overlaps.
"""
from __future__ import annotations

import numpy as np
from numba import njit

from nvc.motion.filters import LANES, across4, across8, down4, down8, unfiltered

FORWARD, BACKWARD, BOTH, INTRA = 0, 1, 2, 3

LUMA_TAPS = np.array([[0, 0, 0, 64, 0, 0, 0, 0], [-1, 4, -10, 58, 17, -5, 1, 0],
                      [-1, 4, -11, 40, 40, -11, 4, -1], [0, 1, -5, 17, 58, -10, 4, -1]], np.int16)
CHROMA_TAPS = np.array([[0, 64, 0, 0], [-2, 58, 10, -2], [-4, 54, 16, -2], [-6, 46, 28, -4],
                        [-4, 36, 36, -4], [-4, 28, 46, -6], [-2, 16, 54, -4], [-2, 10, 58, -2]], np.int16)
# Weights in 1/16 of a block's motion in the samples of its neighbour, from their border on.
LUMA_RAMP, CHROMA_RAMP = np.array([4, 2, 1], np.uint16), np.array([3], np.uint16)
_TALLEST = 8                  # blocks in a tile, downwards: its rows shall stay in the cache


@njit(cache=True, nogil=True)
def _patch(plane, y, x, height, width):
    """uint8 [height, width] from (y, x) of a plane continued by its edge samples without end."""
    out = np.empty((height, width), np.uint8)
    for i in range(height):
        row = plane[min(max(y + i, 0), plane.shape[0] - 1)]
        for j in range(width):
            out[i, j] = row[min(max(x + j, 0), plane.shape[1] - 1)]
    return out


@njit(cache=True, nogil=True)
def _add_tile(plane, vy, vx, taps, y, x, height, width, down, across, total, rows):
    """Add the tile that a vector predicts at (y, x) to total uint16, weighted by down [height] x across [width].

    width: a multiple of LANES; weights beyond the tile are 0. rows: int16 [height + taps, pitch of total], scratch."""
    parts, n = taps.shape
    margin = (plane.shape[0] - total.shape[0]) // 2
    shift = 2 if parts == 4 else 3
    fy, fx = vy & (parts - 1), vx & (parts - 1)
    before = n // 2 - 1
    top, left = y + (vy >> shift) + margin - before, x + (vx >> shift) + margin - before
    if top < 0 or left < 0 or top + height + n > plane.shape[0] or left + width + n > plane.shape[1]:
        plane = _patch(plane, top, left, height + n, width + n)
        top, left = 0, 0
    pitch, source = total.shape[1], plane.shape[1]
    if fy == 0 and fx == 0:
        for i in range(height):
            for j in range(0, width, LANES):
                unfiltered(plane, (top + before + i) * source + left + before + j, np.int64(down[i]), across, j,
                           total, (y + i) * pitch + x + j)
        return
    for i in range(height + n - 1):
        for j in range(0, width, LANES):
            if n == 8:
                across8(plane, (top + i) * source + left + j, taps, fx * n, rows, i * pitch + j)
            else:
                across4(plane, (top + i) * source + left + j, taps, fx * n, rows, i * pitch + j)
    for i in range(height):
        for j in range(0, width, LANES):
            if n == 8:
                down8(rows, i * pitch + j, pitch, taps, fy * n, np.int64(down[i]), across, j,
                      total, (y + i) * pitch + x + j)
            else:
                down4(rows, i * pitch + j, pitch, taps, fy * n, np.int64(down[i]), across, j,
                      total, (y + i) * pitch + x + j)


@njit(cache=True, nogil=True)
def _window(first, last, end, ramp, weights):
    """Weights for the samples first..last - 1 and the overlap outside, in a line of `end`, then zeros.

    -> the first sample that has one, and how many do."""
    n = ramp.shape[0]
    before, after = n if first > 0 else 0, n if last < end else 0
    count = before + last - first + after
    weights[:count] = 16
    weights[count:count + LANES] = 0
    for i in range(n):
        if before:
            weights[before - 1 - i] = ramp[i]
            weights[before + i] -= ramp[i]
        if after:
            weights[count - after + i] = ramp[i]
            weights[count - after - 1 - i] -= ramp[i]
    return first - before, count


@njit(cache=True, nogil=True)
def _source(mode, k):
    """Which reference a block takes its part of prediction k from; INTRA if none."""
    return np.int64(k) if mode == BOTH else np.int64(mode)


@njit(cache=True, nogil=True)
def _alike(mode, vectors, k, r, i, j, a, b):
    """Block (a, b) takes prediction k from the same place as (i, j), which takes it from reference r."""
    return (_source(mode[a, b], k) == r and vectors[a, b, r, 0] == vectors[i, j, r, 0]
            and vectors[a, b, r, 1] == vectors[i, j, r, 1])


@njit(cache=True, nogil=True)
def _near_intra(mode, i, j):
    for a in range(max(i - 1, 0), min(i + 2, mode.shape[0])):
        for b in range(max(j - 1, 0), min(j + 2, mode.shape[1])):
            if mode[a, b] == INTRA:
                return True
    return False


@njit(cache=True, nogil=True)
def compensated(first, second, mode, vectors, k, size, taps, ramp):
    """One plane of prediction k (0 or 1), uint8 [blocks * size], from the padded planes of both references.

    Rectangles of blocks that move alike are one tile. mode, vectors: of a MotionField; blocks with one reference take
    both predictions from it, intra blocks are 128. size: of a block in this plane, 8 or 4."""
    h8, w8 = mode.shape
    height, width = h8 * size, w8 * size
    total = np.zeros((height, width + 2 * LANES), np.uint16)
    rows = np.empty(((_TALLEST + 2) * size + taps.shape[1], width + 2 * LANES), np.int16)
    down, across = np.empty(rows.shape[0] + LANES, np.uint16), np.empty(width + 3 * LANES, np.uint16)
    done = np.zeros((h8, w8), np.bool_)
    intra = False
    for i in range(h8):
        for j in range(w8):
            r = _source(mode[i, j], k)
            intra = intra or r == INTRA
            if done[i, j] or r == INTRA:
                continue
            right = j + 1
            while right < w8 and not done[i, right] and _alike(mode, vectors, k, r, i, j, i, right):
                right += 1
            bottom, whole = i, True
            while whole:
                for b in range(j, right):
                    done[bottom, b] = True
                bottom += 1
                whole = bottom < min(h8, i + _TALLEST)
                for b in range(j, right):
                    whole = whole and not done[bottom, b] and _alike(mode, vectors, k, r, i, j, bottom, b)
            y, tall = _window(i * size, bottom * size, height, ramp, down)
            x, wide = _window(j * size, right * size, width, ramp, across)
            _add_tile(first if r == 0 else second, np.int64(vectors[i, j, r, 0]), np.int64(vectors[i, j, r, 1]), taps,
                      y, x, tall, (wide + LANES - 1) // LANES * LANES, down, across, total, rows)
    if intra:
        down[:size], across[:size], across[size:LANES] = 16, 16, 0
        for i in range(h8):
            for j in range(w8):
                if not _near_intra(mode, i, j):
                    continue
                r, y, x = _source(mode[i, j], k), i * size, j * size
                total[y:y + size, x:x + size] = 128 * 256 if r == INTRA else 0
                if r != INTRA:
                    _add_tile(first if r == 0 else second, np.int64(vectors[i, j, r, 0]),
                              np.int64(vectors[i, j, r, 1]), taps, y, x, np.int64(size), np.int64(LANES), down, across,
                              total, rows)
    out = np.empty((height, width), np.uint8)
    for i in range(height):
        source, target = total[i], out[i]
        for j in range(width):
            target[j] = np.uint8((np.uint32(source[j]) + np.uint32(128)) >> np.uint32(8))
    return out
