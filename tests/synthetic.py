"""Pictures made by formula for the codec's tests: the same on every machine."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from fractions import Fraction

import numpy as np

from video.picture import ClipInfo, Picture


def moving(frames: int, width: int = 80, height: int = 64, cut: int | None = None) -> list[Picture]:
    """A pan over smooth texture; another, brighter texture from picture `cut` on."""
    rng = np.random.default_rng(5)

    def texture(seed: int) -> np.ndarray:
        waves = np.random.default_rng(seed).uniform(0.02, 0.25, (6, 3))
        yy, xx = np.mgrid[0:height + 8, 0:width + 2 * frames + 8]
        field = sum(np.sin(a * yy * 2 + b * xx * 2 + c * 40) for a, b, c in waves)
        return (128 + 16 * np.asarray(field) + rng.normal(0, 1.5, yy.shape)).clip(0, 255).astype(np.uint8)

    scenes = [texture(1), texture(2) // 2 + 100]
    out = []
    for k in range(frames):
        scene = scenes[int(cut is not None and k >= cut)][4:4 + height, 2 * k:2 * k + width]
        chroma = np.ascontiguousarray(scene[::2, ::2] // 4 + 96)
        out.append(Picture(np.ascontiguousarray(scene), chroma, np.ascontiguousarray(255 - chroma)))
    return out


def screen(frames: int, width: int = 96, height: int = 64) -> list[Picture]:
    """What a screen shows: rows of letters that grow by one a picture, on a flat ground; texture that moves in a corner
    of 32×32."""
    rng = np.random.default_rng(11)
    letters = rng.choice(np.array([30, 30, 90, 220], np.uint8), (6, 7, 5))
    text, moved, out = rng.integers(0, 6, 200), moving(frames, 32, 32), []
    for k in range(frames):
        y = np.full((height, width), 220, np.uint8)
        u, v = (np.full((height // 2, width // 2), level, np.uint8) for level in (120, 134))
        per_row = (width - 40) // 6
        for n in range(min(3 * per_row + k, len(text))):
            row, column = 4 + 9 * (n // per_row), 4 + 6 * (n % per_row)
            if row + 7 <= height:
                y[row:row + 7, column:column + 5] = letters[text[n]]
        y[:32, -32:], u[:16, -16:], v[:16, -16:] = moved[k].y, moved[k].u, moved[k].v
        out.append(Picture(y, u, v))
    return out


def faded(pictures: list[Picture], least: float = 0.2) -> list[Picture]:
    """The same, fading towards black (of limited range) down to that share of its brightness."""
    def plane(samples: np.ndarray, share: float, black: int) -> np.ndarray:
        return np.rint(black + share * (samples.astype(float) - black)).astype(np.uint8)

    return [Picture(plane(p.y, share, 16), plane(p.u, share, 128), plane(p.v, share, 128))
            for p, share in zip(pictures, np.linspace(1.0, least, len(pictures)), strict=True)]


def info_of(pictures: list[Picture]) -> ClipInfo:
    height, width = pictures[0].y.shape
    return ClipInfo(width, height, Fraction(25), len(pictures))


def sha_of(pictures: Iterable[Picture]) -> str:
    digest = hashlib.sha256()
    for picture in pictures:
        for plane in picture:
            digest.update(plane)
    return digest.hexdigest()
