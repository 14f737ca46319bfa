"""Between pictures and what the networks see: padding to multiples of 16 and six planes of half the size."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from picture import Picture

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


def tensor(planes: list[Planes], device: torch.device) -> Tensor:
    """[B, 6, h, w] float32, channels last."""
    stacked = torch.from_numpy(np.stack(planes)).to(device)
    return stacked.float().contiguous(memory_format=torch.channels_last)


def predictions(pairs: list[tuple[Picture, Picture] | None], height: int, width: int,
                device: torch.device) -> tuple[Tensor, Tensor]:
    """Prediction p and difference d of the two predictions of each picture, [B, 6, h, w]; None: an I picture's.

    p = ⌊(p0 + p1 + 1) / 2⌋ and d = p0 - p1, integers in float32. height, width: padded luma size."""
    grey = np.full((6, height // 2, width // 2), GREY, np.uint8)
    first = tensor([grey if pair is None else pack(pair[0]) for pair in pairs], device)
    second = tensor([grey if pair is None else pack(pair[1]) for pair in pairs], device)
    return torch.floor((first + second + 1.0) * 0.5), first - second
