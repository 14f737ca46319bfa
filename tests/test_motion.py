"""Compensation and phases against a twin that interpolates one sample at a time from a plane without end."""
from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nvc.motion import prediction as motion
from nvc.motion.compensation import BACKWARD, BOTH, FORWARD, INTRA
from nvc.motion.prediction import MotionField, Reference
from video.picture import Picture

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


RAMPS = {8: [4, 2, 1], 4: [3]}


def shares(at: int, size: int, count: int) -> dict[int, int]:
    """Which blocks of a line have a part in the sample at `at`, in 1/16."""
    block, inside = at // size, at % size
    parts = {block: 16}
    for other, depth in ((block - 1, inside), (block + 1, size - 1 - inside)):
        if 0 <= other < count and depth < len(RAMPS[size]):
            parts[other] = RAMPS[size][depth]
            parts[block] -= RAMPS[size][depth]
    return parts


def twin(field: MotionField, pictures: list[Picture]) -> list[Picture]:
    """Both predictions, each sample by itself: interpolated for every block that has a part in it."""
    made: list[list[np.ndarray]] = [[], []]
    rows, columns = field.mode.shape
    for p, k in ((p, k) for p in range(3) for k in range(2)):
        taps, n = (CHROMA, 4) if p else (LUMA, 8)
        out = np.full(pictures[0][p].shape, 128, np.uint8)
        for y, x in np.ndindex(out.shape):
            i, j = y // n, x // n
            if field.mode[i, j] == INTRA:
                continue
            around = field.mode[max(i - 1, 0):i + 2, max(j - 1, 0):j + 2]
            alone = (around == INTRA).any()
            total = 0
            for a, wa in ({i: 16} if alone else shares(y, n, rows)).items():
                for b, wb in ({j: 16} if alone else shares(x, n, columns)).items():
                    source = {FORWARD: 0, BACKWARD: 1, BOTH: k}[int(field.mode[a, b])]
                    vy, vx = (int(c) for c in field.vectors[a, b, source])
                    total += wa * wb * sample(pictures[source][p], y * len(taps) + vy, x * len(taps) + vx, taps)
            out[y, x] = (total + 128) >> 8
        made[k].append(out)
    return [Picture(*made[0]), Picture(*made[1])]


def picture(rng: np.random.Generator, height: int, width: int) -> Picture:
    """Noise between 0 and 255 with many extremes, so that the clamps are met."""
    def noise(h: int, w: int) -> np.ndarray:
        return np.clip(rng.integers(-120, 376, (h, w)), 0, 255).astype(np.uint8)
    return Picture(noise(height, width), noise(height // 2, width // 2), noise(height // 2, width // 2))


def assert_agree(field: MotionField, pictures: list[Picture]) -> None:
    made = motion.predict(field, [Reference(p) for p in pictures])
    for got, wanted in zip(made, twin(field, pictures), strict=True):
        for a, b in zip(got, wanted, strict=True):
            assert np.array_equal(a, b)


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 2), st.integers(1, 3), st.integers(0, 2**32), st.sampled_from([1, 6, 90, motion.VECTOR_MAX]),
       st.sampled_from([(FORWARD, BACKWARD, BOTH), (BOTH,), (FORWARD, BOTH, INTRA)]))
def test_compensation_agrees_with_its_twin(rows, columns, seed, size, modes):
    rng = np.random.default_rng(seed)
    pictures = [picture(rng, rows * 16, columns * 16) for _ in range(2)]
    shape = (rows * 2, columns * 2)
    vectors = rng.integers(-size, size + 1, (*shape, 2, 2)).astype(np.int16)
    assert_agree(MotionField(rng.choice(modes, shape).astype(np.uint8), vectors, (1, -1)), pictures)


@pytest.mark.parametrize("vector", [(0, 0), (0, 5), (-9, 0), (-333, 101), (97, -97)])
def test_large_areas_of_one_motion_agree_with_the_twin(vector):
    """Taller than a tile, wider than the lanes, leaving the picture on some sides."""
    rng = np.random.default_rng(5)
    mode = np.full((10, 6), FORWARD, np.uint8)
    vectors = np.full((10, 6, 2, 2), vector, np.int16)
    mode[3, 4], vectors[7:, :2] = BACKWARD, (2, 2)
    assert_agree(MotionField(mode, vectors, (1, -1)), [picture(rng, 80, 48), picture(rng, 80, 48)])


def test_an_intra_block_among_others_agrees_with_the_twin():
    rng = np.random.default_rng(6)
    mode = np.full((6, 6), BOTH, np.uint8)
    mode[2, 2] = INTRA
    vectors = rng.integers(-20, 20, (6, 6, 2, 2)).astype(np.int16)
    assert_agree(MotionField(mode, vectors, (1, -1)), [picture(rng, 48, 48), picture(rng, 48, 48)])


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
