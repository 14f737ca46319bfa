"""The inverse transform in integers, against a plain twin in arbitrary precision."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from nvc.network import linear


def plain_inverse(v8: np.ndarray, local: np.ndarray, gains: np.ndarray, core: np.ndarray) -> np.ndarray:
    rows, columns, channels = v8.shape
    sums = np.zeros((6, 4 * rows + 4, 4 * columns + 4), object)
    found = np.zeros((rows, columns, channels), object)
    for i, j, c in np.ndindex(found.shape):
        found[i, j, c] = clipped((int(v8[i, j, c]) * int(gains[c]) * int(local[i, j]) + 32768) >> 16)
    for i, j, c in np.ndindex(rows // 2, columns // 2, 4):
        four = found[2 * i:2 * i + 2, 2 * j:2 * j + 2, c]
        both = [[four.sum(), (four * [1, -1]).sum()],
                [(four * [[1], [-1]]).sum(), (four * [[1, -1], [-1, 1]]).sum()]]
        four[:] = [[clipped(round(Fraction(int(v), 2))) for v in row] for row in both]
    for i, j, c in np.ndindex(found.shape):
        sums[:, 4 * i:4 * i + 8, 4 * j:4 * j + 8] += found[i, j, c] * core[c].astype(object)
    return sums


def clipped(coefficient: int) -> int:
    return min(max(coefficient, -32767), 32767)


ALIKE = np.full((2, 4), 1024, np.int32)         # every position takes the picture's step


def random_case(seed: int, density: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    v8 = (rng.integers(-300, 300, (2, 4, 96)) * (rng.random((2, 4, 96)) < density)).astype(np.int32)
    return v8, rng.integers(1, 4000, 96).astype(np.int32), rng.integers(-4000, 4000, (96, 6, 8, 8)).astype(np.int32)


def test_inverse_equals_the_plain_twin_for_dense_and_sparse_latents() -> None:
    for seed, density in enumerate((0.0, 0.03, 0.5)):
        v8, gains, core = random_case(seed, density)
        core = core // 16           # so that no sum wraps
        local = np.random.default_rng(seed).integers(128, 8192, (2, 4)).astype(np.int32)
        assert (linear.sums_of(v8, local, gains, core) == plain_inverse(v8, local, gains, core)).all()


def test_a_position_with_half_the_step_gives_half_the_block() -> None:
    v8, core = np.zeros((2, 2, 96), np.int32), np.zeros((96, 6, 8, 8), np.int32)
    v8[0, 0, 4], core[4, 0, 0, 0] = 64, 1
    gains = np.full(96, 100, np.int32)
    assert linear.sums_of(v8, np.full((2, 2), 1024, np.int32), gains, core)[0, 0, 0] == 100
    assert linear.sums_of(v8, np.full((2, 2), 512, np.int32), gains, core)[0, 0, 0] == 50


def test_a_band_stands_for_four_positions() -> None:
    gains, core = np.full(96, 64, np.int32), np.zeros((96, 6, 8, 8), np.int32)
    core[0, 0, 0, 0] = 1
    made = []
    for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
        v8 = np.zeros((2, 2, 96), np.int32)
        v8[i, j, 0] = 20
        made.append(linear.sums_of(v8, ALIKE[:, :2], gains, core)[0, :8:4, :8:4].tolist())
    assert made == [[[10, 10], [10, 10]], [[10, -10], [10, -10]], [[10, 10], [-10, -10]], [[10, -10], [-10, 10]]]


def test_sums_that_leave_int32_wrap() -> None:
    v8, gains, core = random_case(9, 1.0)
    plain = plain_inverse(v8, ALIKE, gains * 0 + 90000, core)
    wrapped = np.array([int(s) & 0xFFFFFFFF for s in plain.ravel()], np.uint64)
    made = linear.sums_of(v8, ALIKE, gains * 0 + np.int32(90000), core).ravel()
    assert (made.astype(np.uint32) == wrapped).all()


def test_a_coefficient_beyond_sixteen_bits_is_clipped() -> None:
    v8, core = np.zeros((2, 2, 96), np.int32), np.zeros((96, 6, 8, 8), np.int32)
    v8[0, 0, 4], core[4, 0, 0, 0] = 1 << 20, 1
    assert linear.sums_of(v8, ALIKE[:, :2], np.full(96, 4096, np.int32), core)[0, 0, 0] == 32767


def test_finish_rounds_half_up_and_clips() -> None:
    prediction = np.array([10, 10, 250, 3], np.uint8).reshape(1, 1, 4).repeat(6, 0)
    sums = np.zeros((6, 5, 8), np.int32)
    sums[:, 2, 2:6] = np.array([1 << 17, (1 << 17) - 1, 9 << 18, -(9 << 18)])
    out = np.empty((6, 1, 4), np.uint8)
    linear.finish(prediction, sums, np.zeros((6, 1, 4), np.float32), out)
    assert out[0, 0].tolist() == [11, 10, 255, 0]
    linear.finish(prediction, sums, np.full((6, 1, 4), -4.0, np.float32), out)
    assert out[0, 0].tolist() == [10, 10, 255, 0]
