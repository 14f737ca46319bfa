"""Pictures in RGB, for people to look at; nothing is measured on them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from video.picture import ClipInfo, Picture

LUMA_WEIGHTS = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722), "bt2020": (0.2627, 0.0593)}  # of R and B


def rgb(picture: Picture, info: ClipInfo) -> NDArray[np.floating]:
    """(H, W, 3), 0…255, for looking at."""
    height, width = picture.y.shape
    u: NDArray[np.floating]
    v: NDArray[np.floating]
    u, v = (plane.repeat(2, 0).repeat(2, 1)[:height, :width].astype(np.float32) - 128 for plane in picture[1:])
    y: NDArray[np.floating] = picture.y.astype(np.float32)
    if info.range == "limited":
        y, u, v = (y - 16) * 255 / 219, u * 255 / 224, v * 255 / 224
    kr, kb = LUMA_WEIGHTS.get(info.matrix, LUMA_WEIGHTS["bt601"])
    red, blue = y + 2 * (1 - kr) * v, y + 2 * (1 - kb) * u
    return np.stack([red, (y - kr * red - kb * blue) / (1 - kr - kb), blue], -1).clip(0, 255)
