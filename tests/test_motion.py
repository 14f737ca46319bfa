"""Compensation and phases against a twin that interpolates one sample at a time from a plane without end."""
from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nvc import motion
from nvc.motion import BACKWARD, BOTH, FORWARD, INTRA, MotionField, Reference
from picture import Picture

LUMA = [[0, 0, 0, 64, 0, 0, 0, 0], [-1, 4, -10, 58, 17, -5, 1, 0],
        [-1, 4, -11, 40, 40, -11, 4, -1], [0, 1, -5, 17, 58, -10, 4, -1]]
CHROMA = [[0, 64, 0, 0], [-2, 58, 10, -2], [-4, 54, 16, -2], [-6, 46, 28, -4],
          [-4, 36, 36, -4], [-4, 28, 46, -6], [-2, 16, 54, -4], [-2, 10, 58, -2]]


def sample(plane: np.ndarray, y: int, x: int, taps: list[list[int]]) -> int:
    """The sample at (y, x) in 1 / len(taps) of a sample, its edges continued for ever."""
    parts, n = len(taps), len(taps[0])
    h, w = plane.shape
    total = 0
    for i, a in enumerate(taps[y % parts]):
        for j, b in enumerate(taps[x % parts]):
            row = min(max(y // parts + i - n // 2 + 1, 0), h - 1)
            column = min(max(x // parts + j - n // 2 + 1, 0), w - 1)
            total += a * b * int(plane[row, column])
    return min(max((total + 2048) >> 12, 0), 255)


def twin(field: MotionField, pictures: list[Picture]) -> list[Picture]:
    made = [[], []]
    for p in range(3):
        taps, n = (CHROMA, 4) if p else (LUMA, 8)
        outs = [np.full(pictures[0][p].shape, 128, np.uint8) for _ in range(2)]
        for (i, j), mode in np.ndenumerate(field.mode):
            for k in range(2):
                source = {FORWARD: 0, BACKWARD: 1, BOTH: k}.get(int(mode))
                if source is None:
                    continue
                vy, vx = (int(c) for c in field.vectors[i, j, source])
                for a in range(i * n, i * n + n):
                    for b in range(j * n, j * n + n):
                        outs[k][a, b] = sample(pictures[source][p], a * len(taps) + vy, b * len(taps) + vx, taps)
        for k in range(2):
            made[k].append(outs[k])
    return [Picture(*made[0]), Picture(*made[1])]


def picture(rng: np.random.Generator, height: int, width: int) -> Picture:
    """Noise between 0 and 255 with many extremes, so that the clamps are met."""
    def noise(h: int, w: int) -> np.ndarray:
        return np.clip(rng.integers(-120, 376, (h, w)), 0, 255).astype(np.uint8)
    return Picture(noise(height, width), noise(height // 2, width // 2), noise(height // 2, width // 2))


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 2), st.integers(1, 3), st.integers(0, 2**32), st.sampled_from([6, 90, 600, motion.VECTOR_MAX]))
def test_compensation_agrees_with_its_twin(rows, columns, seed, size):
    rng = np.random.default_rng(seed)
    pictures = [picture(rng, rows * 16, columns * 16) for _ in range(2)]
    shape = (rows * 2, columns * 2)
    vectors = rng.integers(-size, size + 1, (*shape, 2, 2)).astype(np.int16)
    vectors[:, ::2] = vectors[:, :1]                       # neighbours alike, so that runs are met
    field = MotionField(rng.integers(0, 4, shape).astype(np.uint8), vectors, (1, -1))
    for made, wanted in zip(motion.predict(field, [Reference(p) for p in pictures]), twin(field, pictures),
                            strict=True):
        for a, b in zip(made, wanted, strict=True):
            assert np.array_equal(a, b)


def test_long_runs_that_leave_the_picture_agree_with_the_twin():
    rng = np.random.default_rng(5)
    pictures = [picture(rng, 16, 96), picture(rng, 16, 96)]
    for vx in (-333, -97, 101, 333):
        field = MotionField(np.full((2, 12), BOTH, np.uint8), np.full((2, 12, 2, 2), vx, np.int16), (1, -1))
        made = motion.predict(field, [Reference(p) for p in pictures])
        assert np.array_equal(made[0].y, twin(field, pictures)[0].y)
        assert np.array_equal(made[1].u, twin(field, pictures)[1].u)


def test_phases_are_the_samples_of_compensation():
    rng = np.random.default_rng(2)
    source = picture(rng, 32, 48)
    got = Reference(source).phases
    assert got.shape == (4, 4, 32 + 2 * motion.REACH, 48 + 2 * motion.REACH)
    for _ in range(300):
        y, x, fy, fx = (int(rng.integers(n)) for n in (*got.shape[2:], 4, 4))
        at = (4 * (y - motion.REACH) + fy, 4 * (x - motion.REACH) + fx)
        assert got[fy, fx, y, x] == sample(source.y, *at, LUMA)


def test_one_reference_gives_both_predictions():
    reference = Reference(picture(np.random.default_rng(3), 16, 16))
    field = MotionField(np.zeros((2, 2), np.uint8), np.zeros((2, 2, 2, 2), np.int16), (1, 0))
    p0, p1 = motion.predict(field, [reference])
    assert np.array_equal(p0.y, reference.y[32:48, 32:48])
    assert all(np.array_equal(a, b) for a, b in zip(p0, p1, strict=True))


def test_intra_is_mid_grey():
    reference = Reference(picture(np.random.default_rng(3), 16, 16))
    field = MotionField(np.full((2, 2), INTRA, np.uint8), np.zeros((2, 2, 2, 2), np.int16), (1, 0))
    assert all((plane == 128).all() for p in motion.predict(field, [reference]) for plane in p)


@pytest.mark.parametrize(("y", "c", "message"), [
    ((24, 16), (12, 8), "luma size must be a multiple of 16, got 16x24"),
    ((0, 16), (0, 8), "luma size must be a multiple of 16, got 16x0"),
    ((16, 32), (16, 8), r"u and v must be \(8, 16\), got \(16, 8\) and \(16, 8\)"),
])
def test_a_picture_of_a_bad_size_is_refused(y, c, message):
    with pytest.raises(ValueError, match=message):
        Reference(Picture(np.zeros(y, np.uint8), np.zeros(c, np.uint8), np.zeros(c, np.uint8)))


def test_a_field_of_another_size_is_refused():
    reference = Reference(picture(np.random.default_rng(3), 16, 16))
    with pytest.raises(ValueError, match="reference of 16x16 for a field of 32x16"):
        motion.predict(MotionField(np.zeros((2, 4), np.uint8), np.zeros((2, 4, 2, 2), np.int16), (1, 0)), [reference])


def test_a_field_that_uses_a_missing_reference_is_refused():
    reference = Reference(picture(np.random.default_rng(3), 16, 16))
    field = MotionField(np.full((2, 2), BOTH, np.uint8), np.zeros((2, 2, 2, 2), np.int16), (1, 0))
    with pytest.raises(ValueError, match="field uses reference 1, but one reference was given"):
        motion.predict(field, [reference])
