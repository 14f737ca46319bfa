"""The linear core's inverse transform in integers: sparse, since most latents are zero.

Fixed-point formats: latents v8 in eighths of a step; gains 2^-10 pixel for one eighth of a step; a position's own step
2^-10 of the picture's; coefficients rounded to 2^-4 pixel and clipped to 16 bits; core 2^-14; sums 2^-18 pixel in
int32. Sums of real pictures stay under 2^10 pixels; those of a hostile stream may wrap, the same way everywhere.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from nvc.network.bands import band, half

LOCAL_BITS = 10         # of the picture's step, in positions' own steps
SUM_BITS = 18           # of a pixel, in sums
CORRECTION_BITS = 3     # of a pixel, in the networks' correction


@njit(cache=True, nogil=True)
def coefficient(v, gain, local):
    """Pixel units · 2^4 of a latent, 16 bits."""
    c = (np.int64(v) * np.int64(gain) * np.int64(local) + (32 << LOCAL_BITS)) >> (6 + LOCAL_BITS)
    return min(max(c, np.int64(-32767)), np.int64(32767))


@njit(cache=True, nogil=True)
def first_joined(v8, local, gains):
    """Coefficients of what group 0's bands stand for, int32 [H, W, 4]; v8, local, gains: see `inverse`."""
    rows, columns, _ = v8.shape
    bands, out = np.zeros((rows, columns, 4), np.int32), np.empty((rows, columns, 4), np.int32)
    for i in range(rows):
        for j in range(columns):
            for c in range(4):
                bands[i, j, c] = coefficient(v8[i, j, c], gains[c], local[i, j])
    for i in range(rows):
        for j in range(columns):
            for c in range(4):
                out[i, j, c] = min(max(half(band(bands, i, j, c)), -32767), 32767)
    return out


@njit(cache=True, nogil=True)
def inverse(v8, local, gains, core, sums):
    """Add the lapped blocks of latents v8 int32 [H, W, 96] to sums int32 [6, 4H + 4, 4W + 4].

    Group 0 of v8 is joined bands; H, W even. local int32 [H, W]; gains int32 [96]; core int32 [96, 6, 8, 8]. The block
    of position (i, j) covers rows 4i … 4i+7, columns 4j … 4j+7; the planes begin at row and column 2.
    """
    rows, columns, channels = v8.shape
    flat = core.reshape(channels, 384)
    first = first_joined(v8, local, gains)
    block = np.zeros(384, np.int32)
    for i in range(rows):
        for j in range(columns):
            used = False
            for c in range(channels):
                if c < 4:
                    size = np.int64(first[i, j, c])
                elif v8[i, j, c] != 0:
                    size = coefficient(v8[i, j, c], gains[c], local[i, j])
                else:
                    continue
                if size == 0:
                    continue
                if not used:
                    block[:] = 0
                    used = True
                row, factor = flat[c], np.int32(size)
                for k in range(384):
                    block[k] += np.int32(factor * row[k])       # 32 bits throughout: four times as fast
            if used:
                k = 0
                for plane in range(6):
                    for y in range(8):
                        for x in range(8):
                            sums[plane, 4 * i + y, 4 * j + x] += block[k]
                            k += 1


@njit(cache=True, nogil=True)
def finish(prediction, sums, correction, out):
    """out uint8 [6, h, w] = prediction + sums + correction, rounded half up and clipped.

    prediction uint8 [6, h, w]; correction float32 [6, h, w], whole eighths of a pixel."""
    planes, height, width = out.shape
    for plane in range(planes):
        for y in range(height):
            for x in range(width):
                s = (np.int64(prediction[plane, y, x]) << SUM_BITS) + np.int64(sums[plane, y + 2, x + 2])
                s += np.int64(correction[plane, y, x]) << (SUM_BITS - CORRECTION_BITS)
                out[plane, y, x] = min(max((s + (1 << (SUM_BITS - 1))) >> SUM_BITS, 0), 255)


def sums_of(v8: NDArray[np.int32], local: NDArray[np.int32], gains: NDArray[np.int32],
            core: NDArray[np.int32]) -> NDArray[np.int32]:
    """`inverse` of one picture into fresh sums."""
    rows, columns, _ = v8.shape
    sums = np.zeros((6, 4 * rows + 4, 4 * columns + 4), np.int32)
    inverse(v8, local, gains, core, sums)
    return sums


def warm() -> None:
    """Compile every kernel into numba's cache."""
    sums = sums_of(np.zeros((2, 2, 96), np.int32), np.zeros((2, 2), np.int32), np.zeros(96, np.int32),
                   np.zeros((96, 6, 8, 8), np.int32))
    finish(np.zeros((6, 4, 4), np.uint8), sums, np.zeros((6, 4, 4), np.float32), np.zeros((6, 4, 4), np.uint8))
