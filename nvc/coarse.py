"""A first guess of the motion on smaller pictures: far enough for fast motion, near enough to refine from."""
from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from nvc.differences import sad8
from nvc.motion import MARGIN, Plane, halved, padded

REACH_MOST = 16               # of a guess, in samples of quarter size: 64 luma samples
_FAR = 1 << 40
_DIGITS = np.array([int(n).bit_length() for n in range(64)], np.int64)


def pyramid(plane: Plane) -> tuple[Plane, Plane]:
    """A luma plane padded by MARGIN, at half and at quarter size."""
    half = halved(plane)
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


def guess(current: tuple[Plane, Plane], reference: tuple[Plane, Plane], reach: int, step: float) -> NDArray[np.int64]:
    """Vectors int64 [H/16, W/16, (y, x)] in quarter luma samples, from pyramids of the padded planes.

    reach: in quarter-size samples, up to 63; step: the quantiser's step, for what a vector's digits may cost in SAD."""
    (x2, x4), (r2, r4) = current, reference
    out = np.zeros(((x2.shape[0] - MARGIN) // 8, (x2.shape[1] - MARGIN) // 8, 2), np.int64)
    _at_quarter(x4.reshape(-1), r4.reshape(-1), x4.shape[0], x4.shape[1], reach, int(step), out)
    _at_half(x2.reshape(-1), r2.reshape(-1), x2.shape[0], x2.shape[1], out)
    return out * 8


def warm() -> None:
    """Compile every kernel into numba's cache."""
    small = pyramid(padded(np.zeros((16, 16), np.uint8), MARGIN))
    guess(small, small, 1, 1.0)
