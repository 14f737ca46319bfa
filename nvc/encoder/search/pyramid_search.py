"""A first guess of the motion on smaller pictures: far enough for fast motion, near enough to refine from."""
from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from nvc.encoder.search.block_differences import sad8
from nvc.motion.compensation import BACKWARD, BOTH, FORWARD, INTRA
from nvc.motion.prediction import MARGIN, Plane, halved, padded

Pyramid = tuple[Plane, Plane]   # a padded luma plane at half and at quarter size
REACH_MOST = 16               # of a guess, in samples of quarter size: 64 luma samples
_FAR = 1 << 40
_DIGITS = np.array([int(n).bit_length() for n in range(64)], np.int64)


def pyramid(luma: Plane) -> Pyramid:
    """Of a luma plane, padded by MARGIN."""
    half = halved(padded(np.require(luma, np.uint8, ["C", "W"]), MARGIN))
    return half, halved(half)


@njit(cache=True, nogil=True)
def _difference(x, r, height, width, y, x0, vy, vx):
    """SAD of 8x8 at (y, x0) against r displaced by (vy, vx); _FAR outside."""
    a, b = y + vy, x0 + vx
    if a < 0 or b < 0 or a > height - 8 or b > width - 8:
        return np.int64(_FAR)
    return sad8(x, y * width + x0, width, r, a * width + b, width)


@njit(cache=True, nogil=True)
def _at_quarter(x, r, height, width, reach, price, out):
    """Search every second row and every column within +-reach, then the rows next to the best.

    For each block of 16 it compares 8x8 samples around it. x, r: flat planes of height x width. price: SAD per binary
    digit of a vector."""
    m = MARGIN // 4
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            y, x0 = 4 * i - 2 + m, 4 * j - 2 + m
            best, by, bx = _difference(x, r, height, width, y, x0, 0, 0), 0, 0
            for vy in range(-(min(reach, y) & ~1), min(reach, height - 8 - y) + 1, 2):
                price_y = price * _DIGITS[abs(vy)]
                row = (y + vy) * width + x0
                for vx in range(-min(reach, x0), min(reach, width - 8 - x0) + 1):
                    rate = price_y + price * _DIGITS[abs(vx)]
                    if rate < best:
                        cost = sad8(x, y * width + x0, width, r, row + vx, width) + rate
                        if cost < best:
                            best, by, bx = cost, vy, vx
            cy, cx = by, bx
            for q in range(6):
                vy, vx = cy + (q // 3) * 2 - 1, cx + q % 3 - 1
                cost = (_difference(x, r, height, width, y, x0, vy, vx)
                        + price * (_DIGITS[min(abs(vy), 63)] + _DIGITS[min(abs(vx), 63)]))
                if cost < best:
                    best, by, bx = cost, vy, vx
            out[i, j, 0], out[i, j, 1] = by, bx


@njit(cache=True, nogil=True)
def _at_half(x, r, height, width, out):
    """Refine in place from quarter to half size: own, left's and upper's vector, then at most three steps of one."""
    m = MARGIN // 2
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            y, x0 = 8 * i + m, 8 * j + m
            vy, vx = 2 * out[i, j, 0], 2 * out[i, j, 1]
            best = _difference(x, r, height, width, y, x0, vy, vx)
            for q in range(2):
                a, b = (i, max(j - 1, 0)) if q == 0 else (max(i - 1, 0), j)
                cost = _difference(x, r, height, width, y, x0, out[a, b, 0], out[a, b, 1])
                if cost < best:
                    best, vy, vx = cost, out[a, b, 0], out[a, b, 1]
            for _ in range(3):
                cy, cx = vy, vx
                for q in range(9):
                    ty, tx = cy + q // 3 - 1, cx + q % 3 - 1
                    cost = _difference(x, r, height, width, y, x0, ty, tx)
                    if cost < best:
                        best, vy, vx = cost, ty, tx
                if vy == cy and vx == cx:
                    break
            out[i, j, 0], out[i, j, 1] = vy, vx


def reach_of(distance: int) -> int:
    """How far to look in a picture that many away, in samples of quarter size: less where it is near."""
    return min(REACH_MOST, 6 + 2 * abs(distance))


def guess(current: Pyramid, reference: Pyramid, reach: int, step: float) -> NDArray[np.int64]:
    """Vectors int64 [H/16, W/16, (y, x)] in quarter luma samples, from pyramids of the padded planes.

    reach: in quarter-size samples, up to 63; step: the quantiser's step, for what a vector's digits may cost in SAD."""
    (x2, x4), (r2, r4) = current, reference
    out = np.zeros(((x2.shape[0] - MARGIN) // 8, (x2.shape[1] - MARGIN) // 8, 2), np.int64)
    _at_quarter(x4.reshape(-1), r4.reshape(-1), x4.shape[0], x4.shape[1], reach, int(step), out)
    _at_half(x2.reshape(-1), r2.reshape(-1), x2.shape[0], x2.shape[1], out)
    return out * 8


@njit(cache=True, nogil=True)
def _between(x, r, vectors, made):
    """See `follow`; vectors are refined in place, made [H/16, W/16, 8, 8] is written."""
    height, width = r.shape
    tried = np.empty((8, 8), np.float32)
    for i in range(made.shape[0]):
        for j in range(made.shape[1]):
            y, x0 = 8 * i + MARGIN // 2, 8 * j + MARGIN // 2
            best, vy, vx = np.float32(np.inf), vectors[i, j, 0], vectors[i, j, 1]
            step = 8
            while step > 1:
                cy, cx = vy, vx
                for q in range(9):
                    if (q == 4) != (step == 8):
                        continue                # at first the vector itself, then those around the best
                    ty, tx = cy + (q // 3 - 1) * step, cx + (q % 3 - 1) * step
                    a, b = min(max(y + (ty >> 3), 0), height - 9), min(max(x0 + (tx >> 3), 0), width - 9)
                    fy, fx = np.float32((ty & 7) * 0.125), np.float32((tx & 7) * 0.125)
                    cost = np.float32(0)
                    for k in range(8):
                        for n in range(8):
                            up, below = np.float32(r[a + k, b + n]), np.float32(r[a + k + 1, b + n])
                            up += fx * (np.float32(r[a + k, b + n + 1]) - up)
                            below += fx * (np.float32(r[a + k + 1, b + n + 1]) - below)
                            tried[k, n] = up + fy * (below - up)
                            cost += (tried[k, n] - np.float32(x[y + k, x0 + n])) ** 2
                        if cost >= best:
                            break
                    if cost < best:
                        best, vy, vx = cost, ty, tx
                        made[i, j] = tried
                step //= 2
            vectors[i, j, 0], vectors[i, j, 1] = vy, vx


def follow(x: Plane, r: Plane, vectors: NDArray[np.int64]) -> NDArray[np.float32]:
    """The blocks [H/16, W/16, 8, 8] of r, a padded plane at half size, that look most like those of x, between samples
    bilinear; vectors, as `guess` gives them, are refined in place to multiples of 2."""
    made = np.empty((*vectors.shape[:2], 8, 8), np.float32)
    _between(x, r, vectors, made)
    return made


class Match(NamedTuple):
    """How a picture's blocks of 16 are best predicted, at half size."""

    mode: NDArray[np.uint8]         # [H/16, W/16], as in MotionField
    vectors: NDArray[np.int16]      # [H/16, W/16, 2 references, (y, x)] in quarter luma samples
    error: NDArray[np.float32]      # [H/16, W/16] mean squared


def match(current: Pyramid, references: Sequence[Pyramid], reaches: Sequence[int], step: float) -> Match:
    """Find a picture in one or two references, pyramids of padded planes; reaches, step: see `guess`."""
    source = _blocks(current[0])
    vectors = [guess(current, reference, reach, step) for reference, reach in zip(references, reaches, strict=True)]
    made = [follow(current[0], reference[0], v) for reference, v in zip(references, vectors, strict=True)]
    errors = {FORWARD: _error(source, made[0])}
    if len(made) == 2:
        errors |= {BACKWARD: _error(source, made[1]), BOTH: _error(source, np.float32(0.5) * (made[0] + made[1]))}
    errors[INTRA] = source.var((2, 3))
    all_of = np.stack(list(errors.values()))
    mode = np.array(list(errors), np.uint8)[all_of.argmin(0)]
    return Match(mode, np.stack([vectors[0], vectors[-1]], 2).astype(np.int16), all_of.min(0))


def _blocks(half: Plane) -> NDArray[np.float32]:
    """Blocks [H/16, W/16, 8, 8] of a padded plane at half size."""
    inside = half[MARGIN // 2:-MARGIN // 2, MARGIN // 2:-MARGIN // 2].astype(np.float32)
    return inside.reshape(inside.shape[0] // 8, 8, -1, 8).swapaxes(1, 2)


def _error(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    difference = a - b
    return (difference * difference).mean((2, 3))


def warm() -> None:
    """Compile every kernel into numba's cache."""
    small = pyramid(np.zeros((16, 16), np.uint8))
    follow(small[0], small[0], guess(small, small, 1, 1.0))
