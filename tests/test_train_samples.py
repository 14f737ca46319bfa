"""Samples for training: what x264 gives back for the pictures of a clip."""

from __future__ import annotations

import numpy as np

from train.samples import by_x264
from video.picture import Picture


def test_x264_gives_back_each_picture_at_its_place_coarser_at_a_larger_quantiser() -> None:
    noise = np.random.default_rng(1).normal(0, 12, (64, 64))
    greys = [np.clip(40 + 20 * k + noise, 0, 255).astype(np.uint8) for k in range(9)]
    pictures = [Picture(y, y[::2, ::2].copy(), y[1::2, 1::2].copy()) for y in greys]
    errors = []
    for qp in (10, 40):
        made = by_x264(pictures, qp)
        assert len(made) == 9
        for k, picture in enumerate(made):
            assert abs(picture.y.mean() - greys[k].mean()) < 3
        errors.append(np.mean([np.abs(a.y - b.astype(float)).mean() for a, b in zip(made, greys, strict=True)]))
    assert errors[0] < 1 < errors[1]
