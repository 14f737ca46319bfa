"""Between pictures and what the networks see: padding to multiples of 16 and six planes of half the size."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from video.picture import Picture

MULTIPLE = 16       # luma samples; the latent grid then has even sides, as the checkerboard wants
GREY = 128          # what an I picture is predicted from

Planes = NDArray[np.uint8]      # [6, h, w]: the four phases of Y (row by row), U, V


def pad(picture: Picture) -> Picture:
    """The picture with sides made multiples of 16 (luma) by repeating its edge."""
    height, width = picture.y.shape
    rows, columns = -height % MULTIPLE, -width % MULTIPLE
    if not rows and not columns:
        return picture
    h, w = (height + rows) // 2, (width + columns) // 2
    chroma = [np.pad(c, ((0, h - c.shape[0]), (0, w - c.shape[1])), mode="edge") for c in (picture.u, picture.v)]
    return Picture(np.pad(picture.y, ((0, rows), (0, columns)), mode="edge"), *chroma)


def crop(picture: Picture, width: int, height: int) -> Picture:
    """Undo `pad`: contiguous planes of a picture of the size given (luma samples)."""
    h, w = (height + 1) // 2, (width + 1) // 2
    parts = (picture.y[:height, :width], picture.u[:h, :w], picture.v[:h, :w])
    return Picture(*(np.ascontiguousarray(c) for c in parts))


def pack(picture: Picture) -> Planes:
    """Planes of a picture with even sides."""
    h, w = picture.u.shape
    planes = np.empty((6, h, w), np.uint8)
    for dy in range(2):
        for dx in range(2):
            planes[2 * dy + dx] = picture.y[dy::2, dx::2]
    planes[4], planes[5] = picture.u, picture.v
    return planes


def unpack(planes: Planes) -> Picture:
    """Inverse of `pack`."""
    _, h, w = planes.shape
    y = np.empty((2 * h, 2 * w), np.uint8)
    for dy in range(2):
        for dx in range(2):
            y[dy::2, dx::2] = planes[2 * dy + dx]
    return Picture(y, planes[4].copy(), planes[5].copy())


@njit(cache=True, nogil=True)
def _meet(first, second, p, d):
    """Mean and difference of samples uint8 [n] into p uint8 and d int16."""
    for k in range(p.shape[0]):
        x, y = np.int32(first[k]), np.int32(second[k])
        p[k] = np.uint8((x + y + np.int32(1)) >> np.int32(1))
        d[k] = np.int16(x - y)


def predictions(pairs: list[tuple[Picture, Picture] | None], height: int,
                width: int) -> tuple[NDArray[np.uint8], NDArray[np.int16]]:
    """Prediction p and difference d of the two predictions of each picture, [B, 6, h, w]; None: an I picture's.

    p = ⌊(p0 + p1 + 1) / 2⌋ and d = p0 - p1. height, width: padded luma size."""
    p = np.full((len(pairs), 6, height // 2, width // 2), GREY, np.uint8)
    d = np.zeros(p.shape, np.int16)
    for k, pair in enumerate(pairs):
        if pair is not None:
            _meet(*(planes.reshape(-1) for planes in (pack(pair[0]), pack(pair[1]), p[k], d[k])))
    return p, d


def warm() -> None:
    """Compile every kernel into numba's cache."""
    grey = Picture(np.zeros((16, 16), np.uint8), np.zeros((8, 8), np.uint8), np.zeros((8, 8), np.uint8))
    predictions([(grey, grey)], 16, 16)
