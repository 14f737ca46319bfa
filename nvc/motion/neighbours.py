"""What is known of a block of the motion field before it is coded: what its neighbours, and the pictures referred to,
tell of it. Candidates to merge with, what vectors are predicted as, and which contexts its bits are coded in; see
nvc/motion/vectors.py for the syntax.

Encoder and decoder fill the same grid block by block, so both know the same.
"""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray

from nvc.motion.compensation import BACKWARD, BOTH, FORWARD, INTRA
from nvc.motion.prediction import VECTOR_MAX, Reference
from nvc.motion.vector_contexts import C_DIGITS, C_INDEX, C_MERGE, C_SPLIT, C_WHICH, CANDIDATES, DIGITS_MAX

# What the walk knows of each 8x8 block, int16 [H/8 + 2, W/8 + 6, 7]: one row above, one column left, five right of the
# picture stay MODE = NONE, so that no neighbour needs a test for the border. Blocks not yet coded are NONE as well.
MODE, V0Y, V0X, V1Y, V1X, DEPTH, MERGED = range(7)
NONE = -1
TOP, LEFT = 1, 1


# ---------------------------------------------------------------- vectors

@njit(cache=True, nogil=True)
def copy(target, source):
    """target[:] = source[:len(target)]; numba's own way compiles the making of its error message each time."""
    for k in range(target.shape[0]):
        target[k] = source[k]


@njit(cache=True, nogil=True)
def scaled(v, span, by):
    """v (quarter samples over `by` pictures) for `span` pictures, to the nearest, within VECTOR_MAX."""
    if by < 0:
        span, by = -span, -by
    return min(max((2 * v * span + by) // (2 * by), -VECTOR_MAX), VECTOR_MAX)


@njit(cache=True, nogil=True)
def second_prediction(p, d, spans):
    """Prediction p of the second vector's component, moved half as far as the first's difference d lets expect where
    motion is a straight line through time."""
    return min(max(p + scaled(d, spans[1], 2 * spans[0]), -VECTOR_MAX), VECTOR_MAX)


@njit(cache=True, nogil=True)
def fill_other(leaf, spans):
    """Put the vector that the leaf's mode does not use on the straight line of the other; zeros where intra."""
    mode = leaf[MODE]
    if mode == INTRA:
        leaf[V0Y:V1X + 1] = 0
    elif spans[1] == 0:
        leaf[V1Y], leaf[V1X] = 0, 0
    elif mode == FORWARD:
        leaf[V1Y], leaf[V1X] = scaled(leaf[V0Y], spans[1], spans[0]), scaled(leaf[V0X], spans[1], spans[0])
    elif mode == BACKWARD:
        leaf[V0Y], leaf[V0X] = scaled(leaf[V1Y], spans[0], spans[1]), scaled(leaf[V1X], spans[0], spans[1])


# ---------------------------------------------------------------- the grid

@njit(cache=True, nogil=True)
def empty_grid(h8, w8):
    grid = np.zeros((h8 + 2, w8 + 6, 7), np.int16)
    grid[:, :, MODE] = NONE
    return grid


@njit(cache=True, nogil=True)
def set_leaf(grid, y, x, n, leaf, merged):
    """Write a leaf into the grid."""
    for i in range(y + TOP, y + TOP + n):
        for j in range(x + LEFT, x + LEFT + n):
            for k in range(V1X + 1):
                grid[i, j, k] = leaf[k]
            grid[i, j, DEPTH] = 0 if n == 4 else (1 if n == 2 else 2)
            grid[i, j, MERGED] = merged


@njit(cache=True, nogil=True)
def grid_of(mode, vectors, spans):
    """A grid that holds a whole field, with the unused vectors filled in the one way that counts."""
    h8, w8 = mode.shape
    grid = empty_grid(h8, w8)
    leaf = np.zeros(5, np.int64)
    for y in range(h8):
        for x in range(w8):
            leaf[MODE] = mode[y, x]
            copy(leaf[V0Y:], vectors[y, x].reshape(-1))
            fill_other(leaf, spans)
            set_leaf(grid, y, x, np.int64(1), leaf, np.int64(0))
    return grid


# ---------------------------------------------------------------- what the references tell

@njit(cache=True, nogil=True)
def _add_temporal(temporal, mode, vectors, theirs, ours):
    """Where temporal int16 [H/8, W/8, 5] has nothing yet, put a reference's motion, scaled from its spans to ours."""
    h8, w8 = mode.shape
    leaf = np.zeros(5, np.int64)
    for y in range(h8):
        for x in range(w8):
            m = mode[y, x]
            if temporal[y, x, MODE] != NONE or m == INTRA:
                continue
            leaf[MODE] = BOTH if ours[1] else FORWARD
            for k in range(2):
                # Its vector that points to the same side in time as ours, if it used both.
                use = np.int64(m)
                if m == BOTH:
                    use = np.int64((theirs[0] > 0) != (ours[k] > 0))
                if ours[k]:
                    leaf[V0Y + 2 * k] = scaled(np.int64(vectors[y, x, use, 0]), ours[k], theirs[use])
                    leaf[V0X + 2 * k] = scaled(np.int64(vectors[y, x, use, 1]), ours[k], theirs[use])
                else:
                    leaf[V0Y + 2 * k], leaf[V0X + 2 * k] = 0, 0
            for k in range(5):
                temporal[y, x, k] = leaf[k]


def temporal_motion(references: Sequence[Reference], spans: NDArray[np.int64]) -> NDArray[np.int16]:
    """int16 [H/8, W/8, 5] (mode, v0y, v0x, v1y, v1x): motion that the references suggest; mode NONE where they do not.

    The reference whose own vectors reach less far in time goes first; the others fill what it coded intra."""
    shape = (references[0].height // 8, references[0].width // 8)
    temporal = np.zeros((*shape, 5), np.int16)
    temporal[..., MODE] = NONE
    fields = [r.field for r in references if r.field is not None]
    for field in sorted(fields, key=lambda f: max(abs(s) for s in f.spans)):
        if any(field.spans):
            _add_temporal(temporal, field.mode, field.vectors, np.array(field.spans, np.int64), spans)
    return temporal


# ---------------------------------------------------------------- what the neighbours tell

@njit(cache=True, nogil=True)
def equal(a, b):
    return ((a[MODE] == b[MODE]) & (a[V0Y] == b[V0Y]) & (a[V0X] == b[V0X]) & (a[V1Y] == b[V1Y]) & (a[V1X] == b[V1X]))


@njit(cache=True, nogil=True)
def _offer(found, count, motion):
    """Add a candidate unless it is none, intra or there already; -> how many there are."""
    if motion[MODE] == NONE or motion[MODE] == INTRA:
        return count
    for k in range(count):
        if equal(found[k], motion):
            return count
    for k in range(V1X + 1):
        found[count, k] = motion[k]
    return count + 1


@njit(cache=True, nogil=True)
def candidates(grid, temporal, spans, y, x, n, found):
    """Fill found int64 [CANDIDATES, 5] with what the block of n x n (in units of 8) may merge with; -> count."""
    gy, gx = y + TOP, x + LEFT
    count = _offer(found, np.int64(0), grid[gy + n - 1, gx - 1])
    count = _offer(found, count, grid[gy - 1, gx + n - 1])
    count = _offer(found, count, temporal[y + (n >> 1), x + (n >> 1)])
    count = _offer(found, count, grid[gy - 1, gx + n])
    count = _offer(found, count, grid[gy + n, gx - 1])
    count = _offer(found, count, grid[gy - 1, gx - 1])
    last = np.zeros(5, np.int64)
    last[MODE] = BOTH if spans[1] else FORWARD
    if spans[1] and 1 < count < CANDIDATES - 1:
        copy(last[V0Y:V1Y], found[0, V0Y:])
        copy(last[V1Y:], found[1, V1Y:])
        count = _offer(found, count, last)
        last[V0Y:] = 0
    return _offer(found, count, last)


@njit(cache=True, nogil=True)
def _median(a, b, c):
    return max(min(a, b), min(max(a, b), c))


@njit(cache=True, nogil=True)
def predicted(grid, temporal, y, x, n, k):
    """-> (y, x) that a vector for reference k is predicted as, and how much the neighbours differ: 0, 1 or 2."""
    gy, gx = y + TOP, x + LEFT
    left, up, right = grid[gy, gx - 1], grid[gy - 1, gx], grid[gy - 1, gx + n]
    if right[MODE] == NONE:
        right = grid[gy - 1, gx - 1]
    a, b, c = left[MODE] >= 0 and left[MODE] != INTRA, up[MODE] >= 0 and up[MODE] != INTRA, \
        right[MODE] >= 0 and right[MODE] != INTRA
    vy, vx = V0Y + 2 * k, V0X + 2 * k
    if not (a or b or c):
        col = temporal[y + (n >> 1), x + (n >> 1)]
        if col[MODE] == NONE:
            return np.int64(0), np.int64(0), 2
        return np.int64(col[vy]), np.int64(col[vx]), 2
    # One or two that are missing take the place of one that is there.
    if not a:
        left = up if b else right
    if not b:
        up = left
    if not c:
        right = up if b else left
    py = _median(np.int64(left[vy]), np.int64(up[vy]), np.int64(right[vy]))
    px = _median(np.int64(left[vx]), np.int64(up[vx]), np.int64(right[vx]))
    spread = (abs(np.int64(left[vy]) - up[vy]) + abs(np.int64(left[vx]) - up[vx])
              + abs(np.int64(right[vy]) - up[vy]) + abs(np.int64(right[vx]) - up[vx]))
    if not (a and b):
        spread = max(spread, 3)
    return py, px, 0 if spread < 3 else (1 if spread < 16 else 2)


@njit(cache=True, nogil=True)
def digits_context(both, spread, component):
    return C_DIGITS + ((both * 3 + spread) * 2 + component) * DIGITS_MAX


@njit(cache=True, nogil=True)
def like(grid, y, x, mode):
    """How many of the blocks left and up have this mode: 0, 1, 2."""
    gy, gx = y + TOP, x + LEFT
    return np.int64(grid[gy, gx - 1, MODE] == mode) + np.int64(grid[gy - 1, gx, MODE] == mode)


@njit(cache=True, nogil=True)
def split_context(grid, y, x, n):
    """n: 4 for a block of 32, 2 for one of 16."""
    gy, gx, depth = y + TOP, x + LEFT, np.int64(n == 2)
    return C_SPLIT + depth * 3 + np.int64(grid[gy, gx - 1, DEPTH] > depth) + np.int64(grid[gy - 1, gx, DEPTH] > depth)


@njit(cache=True, nogil=True)
def merge_context(grid, y, x, n):
    gy, gx = y + TOP, x + LEFT
    return C_MERGE + 3 * (2 - (n >> 1)) + np.int64(grid[gy, gx - 1, MERGED]) + np.int64(grid[gy - 1, gx, MERGED])


@njit(cache=True, nogil=True)
def index_context(count, k):
    return C_INDEX + count * CANDIDATES + k


@njit(cache=True, nogil=True)
def which_context(grid, y, x):
    return C_WHICH + 2 + like(grid, y, x, np.int64(BACKWARD)) - like(grid, y, x, np.int64(FORWARD))
