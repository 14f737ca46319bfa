"""From the other sample formats to 4:2:0 of 8 bits, or of up to 12, in one step and with one rounding.

Chroma is averaged over the samples that a 4:2:0 sample covers (two of 4:2:2, four of 4:4:4; the last column and row
are repeated where the size is odd).  Depth changes as the range wants it: limited range is a shift (16 and 235 move
with the depth), full range a scale by (2^bits - 1)/(2^depth - 1).  All values are rounded to nearest, halves upwards.
No dithering: the same input gives the same bytes on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from video.picture import Picture, kind_of

BAND_ROWS = 256  # even, so that chroma's pairs of rows stay together

# Weights of red and blue in luma: ITU-R BT.601-7, BT.709-6, BT.2020-2, SMPTE 240M, FCC 73.682.
LUMA_WEIGHTS = {
    "bt601": (0.299, 0.114),
    "bt709": (0.2126, 0.0722),
    "bt2020": (0.2627, 0.0593),
    "smpte240m": (0.212, 0.087),
    "fcc": (0.30, 0.11),
}


def to_420(planes: Sequence[np.ndarray], depth: int, full_range: bool, bits: int = 8) -> Picture:
    """Planes y, u, v (or y alone) of unsigned integers of ``depth`` bits to one 4:2:0 picture of ``bits``, 8…12.

    y is (H, W); u and v have H or ceil(H/2) rows and W or ceil(W/2) columns.  Without chroma u and v become grey.
    """
    y = _to_bits(planes[0], 1, depth, full_range, bits)
    rows, columns = (y.shape[0] + 1) // 2, (y.shape[1] + 1) // 2
    if len(planes) == 1:
        return Picture(y, *(np.full((rows, columns), 1 << (bits - 1), y.dtype) for _ in "uv"))
    chroma = []
    for plane in planes[1:3]:
        total, samples = plane, 1
        if plane.shape[0] != rows:
            total, samples = _sum_of_pairs(total, axis=0), samples * 2
        if plane.shape[1] != columns:
            total, samples = _sum_of_pairs(total, axis=1), samples * 2
        chroma.append(_to_bits(total, samples, depth, full_range, bits))
    return Picture(y, chroma[0], chroma[1])


def rgb_to_420(rgb: np.ndarray, depth: int, matrix: str) -> Picture:
    """R'G'B' (H, W, 3) of ``depth`` bits, full range, to 8-bit limited-range 4:2:0.

    ``matrix`` is one of LUMA_WEIGHTS; any other, which no RGB source has, counts as bt709.
    Y' = 16 + 219 (Kr R' + Kg G' + Kb B'), Cb = 128 + 112 (B' - Y') / (1 - Kb), Cr alike, with R'G'B' in 0…1.
    """
    rows = rgb.shape[0]
    if rows > BAND_ROWS:  # in bands: six planes of floats of a large picture would take gigabytes
        bands = [rgb_to_420(rgb[top:top + BAND_ROWS], depth, matrix) for top in range(0, rows, BAND_ROWS)]
        return Picture(*(np.concatenate(planes) for planes in zip(*bands, strict=True)))
    kr, kb = LUMA_WEIGHTS.get(matrix, LUMA_WEIGHTS["bt709"])
    r, g, b = (rgb[..., i].astype(np.float32) / np.float32((1 << depth) - 1) for i in range(3))
    luma = np.float32(kr) * r + np.float32(1 - kr - kb) * g + np.float32(kb) * b
    cb, cr = (b - luma) * np.float32(112 / (1 - kb)), (r - luma) * np.float32(112 / (1 - kr))
    u, v = (_sum_of_pairs(_sum_of_pairs(c, axis=0), axis=1) * np.float32(0.25) + 128 for c in (cb, cr))
    return Picture(_rounded(luma * 219 + 16), _rounded(u), _rounded(v))


def change_range(picture: Picture, full: bool) -> Picture:
    """An 8-bit picture of full range as one of limited range; or, where it is not `full`, the other way."""
    planes = []
    for plane, zero, span in zip(picture, (16, 128, 128), (219, 224, 224), strict=True):
        centre = 0 if zero == 16 else 128  # of full range
        values = plane.astype(np.float32)
        planes.append(_rounded((values - centre) * np.float32(span / 255) + zero if full else
                               (values - zero) * np.float32(255 / span) + centre))
    return Picture(*planes)


def change_depth(picture: Picture, depth: int, bits: int, full_range: bool) -> Picture:
    """A picture of ``depth`` bits as one of ``bits``, 8…12; the same one where they are equal."""
    if depth == bits:
        return picture
    return Picture(*(_to_bits(plane, 1, depth, full_range, bits) for plane in picture))


def _to_bits(total: np.ndarray, samples: int, depth: int, full_range: bool, bits: int) -> np.ndarray:
    """The sum of ``samples`` values of ``depth`` bits to their mean in ``bits``. Sums under 2^18 are exact floats."""
    if depth == bits and samples == 1:
        return np.ascontiguousarray(total, dtype=kind_of(bits))
    scale = ((1 << bits) - 1) / ((1 << depth) - 1) if full_range else 2.0 ** (bits - depth)
    return _rounded(total.astype(np.float32) * np.float32(scale / samples), bits)


def _rounded(values: np.ndarray, bits: int = 8) -> np.ndarray:
    return np.clip(np.floor(values + np.float32(0.5)), 0, (1 << bits) - 1).astype(kind_of(bits))


def _sum_of_pairs(plane: np.ndarray, axis: int) -> np.ndarray:
    """Sum neighbours two by two along ``axis``; an odd last line is its own neighbour."""
    if plane.shape[axis] % 2:
        plane = np.concatenate([plane, plane.take([-1], axis=axis)], axis=axis)
    kind = np.float32 if plane.dtype.kind == "f" else np.uint32
    even, odd = (plane[i::2] if axis == 0 else plane[:, i::2] for i in (0, 1))
    return even.astype(kind) + odd
