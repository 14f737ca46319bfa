"""The loop filter: samples by definition, what is left alone, and what a stream says of it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from nvc.entropy.range_coder import Decoder, Encoder
from nvc.loop_filter import filter as loop_filter
from nvc.loop_filter.kernels import BLOCK, CLIPS, DIRECTIONS, FRACTION, TAPS
from nvc.loop_filter.planes import ACTIVITY, CLASSES, LIMITS, class_of, classify, filter_plane, levels_of, limits_of
from nvc.network.network import T_MAX
from video.picture import Picture

T = 40          # a step index: steps of 5.66
SHAPE = (loop_filter.COMPONENTS, loop_filter.TYPES, loop_filter.BANDS, CLASSES, loop_filter.WEIGHTS)


def smooth_noise(height: int, width: int, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    walk = np.cumsum(rng.normal(0, 3, (height, width)), 1) + np.cumsum(rng.normal(0, 9, (height, 1)), 0) + 128
    walk[: height // 3, : width // 3] = 90                                      # flat
    walk[: height // 3, width // 3 : width // 2] += 40 * (np.arange(height // 3) % 7 > 3)[:, None]       # stripes
    return np.clip(walk, 0, 255).astype(np.uint8)


def random_weights(seed: int = 2) -> np.ndarray:
    return np.random.default_rng(seed).integers(-60, 60, (CLASSES, len(TAPS) * CLIPS)).astype(np.int16)


def wide(weights: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(weights.repeat(BLOCK, -1))


def by_definition(plane: np.ndarray, t: int, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Classes and filtered samples, one sample after the other."""
    height, width = plane.shape

    def at(y: int, x: int) -> int:
        return int(plane[min(max(y, 0), height - 1), min(max(x, 0), width - 1)])

    classes, made = np.zeros((height // 4, width // 4), int), np.zeros_like(plane)
    limits = [int(v) for v in limits_of(t)]
    for i, j in itertools.product(range(height // 4), range(width // 4)):
        sums = [sum(abs(at(y + a, x + b) + at(y - a, x - b) - 2 * at(y, x))
                    for y in range(4 * i - 1, 4 * i + 5) for x in range(4 * j - 1, 4 * j + 5)) for a, b in DIRECTIONS]
        classes[i, j] = class_of(*sums, levels_of(t))
        for y, x in itertools.product(range(4 * i, 4 * i + 4), range(4 * j, 4 * j + 4)):
            total = 1 << (FRACTION - 1)
            for k, (a, b) in enumerate(TAPS):
                for n, limit in enumerate(limits):
                    pair = sum(min(max(at(y + s * a, x + s * b) - at(y, x), -limit), limit) for s in (1, -1))
                    total += int(weights[classes[i, j], k * CLIPS + n]) * pair
            made[y, x] = min(max(at(y, x) + (total >> FRACTION), 0), 255)
    return classes, made


@pytest.mark.parametrize(("height", "width"), [(48, 64), (32, 40), (16, 8)])
def test_samples_are_those_of_the_definition(height: int, width: int) -> None:
    plane, weights = smooth_noise(height, width), random_weights()
    classes, made = by_definition(plane, T, weights)
    assert np.array_equal(classify(plane, T), classes)
    assert np.array_equal(filter_plane(plane, T, wide(weights), np.ones((height // 8, width // 8), np.bool_)), made)


def test_only_tiles_that_are_coded_are_filtered() -> None:
    plane, weights = smooth_noise(48, 64), random_weights()
    whole = filter_plane(plane, T, wide(weights), np.ones((3, 4), np.bool_))
    coded = np.array([[1, 0, 0, 1], [0, 0, 0, 0], [0, 1, 1, 0]], np.bool_)
    where = coded.repeat(16, 0).repeat(16, 1)
    assert np.array_equal(filter_plane(plane, T, wide(weights), coded), np.where(where, whole, plane))


def test_tiles_of_chroma_are_half_as_wide_as_a_group_of_lanes() -> None:
    plane, weights = smooth_noise(24, 40), random_weights()
    whole = filter_plane(plane, T, wide(weights), np.ones((3, 5), np.bool_))
    coded = np.array([[1, 0, 0, 1, 0], [0, 0, 0, 0, 1], [0, 1, 0, 0, 0]], np.bool_)
    where = coded.repeat(8, 0).repeat(8, 1)
    assert np.array_equal(filter_plane(plane, T, wide(weights), coded), np.where(where, whole, plane))


@pytest.mark.parametrize(("sums", "expected"), [
    ((0, 0, 0, 0), 0),
    ((100, 100, 100, 100), 3 * 9),      # (100 + 100) / 36 samples / 5.66 = 0.98 steps: over 0.4
    ((101, 106, 100, 100), 4 * 9),      # 1.02 steps: over 1.0
    ((160, 100, 120, 120), 4 * 9 + 1),  # weak across
    ((400, 100, 120, 120), 5 * 9 + 2),  # strong across
    ((100, 160, 120, 120), 4 * 9 + 3),
    ((100, 400, 120, 120), 5 * 9 + 4),
    ((120, 120, 200, 100), 4 * 9 + 5),
    ((120, 120, 400, 100), 4 * 9 + 6),
    ((120, 120, 100, 200), 4 * 9 + 7),
    ((120, 120, 100, 400), 4 * 9 + 8),
])
def test_classes(sums: tuple[int, ...], expected: int) -> None:
    assert class_of(*sums, levels_of(T)) == expected


def test_no_limit_or_level_lies_where_machines_could_round_otherwise() -> None:
    for t in range(T_MAX + 1):
        values = [share * 2.0 ** (t / 16) for share in LIMITS] + [level * 36 * 2.0 ** (t / 16) for level in ACTIVITY]
        exact = [v for v in values if t % 16 == 0]         # powers of two are exact everywhere
        assert all(abs(v % 1 - 0.5) > 1e-9 for v in values if v not in exact)


def test_weights_of_zero_change_nothing() -> None:
    plane, nothing = smooth_noise(32, 32), wide(np.zeros_like(random_weights()))
    assert np.array_equal(filter_plane(plane, T, nothing, np.ones((2, 2), np.bool_)), plane)


def picture(seed: int = 1) -> Picture:
    return Picture(smooth_noise(32, 48, seed), smooth_noise(16, 24, seed + 1), smooth_noise(16, 24, seed + 2))


def test_a_plane_is_filtered_only_if_that_brings_it_nearer_to_the_source() -> None:
    weights = np.zeros(SHAPE, np.int16)
    weights[0, 1, T // 16] = random_weights()           # luma of P pictures of these steps
    found, coded = loop_filter.LoopFilter(weights), np.ones((2, 3), np.bool_)
    made = picture()
    moved = found.luma(made, coded, 1, T)
    assert not np.array_equal(moved.y, made.y)
    assert moved.u is made.u

    nearer, use = found.chosen(made, moved, coded, 1, T)
    assert use == (True, False)
    assert np.array_equal(nearer.y, moved.y)
    same, use = found.chosen(made, made, coded, 1, T)
    assert use == (False, False)
    assert np.array_equal(same.y, made.y)


def test_weights_follow_picture_type_component_and_step() -> None:
    weights = np.zeros(SHAPE, np.int16)
    weights[1, 2, 3] = random_weights()
    found, coded, made = loop_filter.LoopFilter(weights), np.ones((2, 3), np.bool_), picture()
    assert not np.array_equal(found.chroma(made, coded, 2, 48).u, made.u)
    assert not np.array_equal(found.chroma(made, coded, 2, 63).v, made.v)
    for kind, t in ((2, 47), (2, 64), (1, 48), (0, 48)):
        assert np.array_equal(found.chroma(made, coded, kind, t).u, made.u)
    assert np.array_equal(found.luma(made, coded, 2, 48).y, made.y)


@pytest.mark.parametrize("use", list(itertools.product((False, True), repeat=2)))
def test_what_is_filtered_is_read_as_it_was_written(use: tuple[bool, bool]) -> None:
    coder = Encoder()
    loop_filter.write_use(coder, use)
    data = coder.finish()
    assert loop_filter.read_use(Decoder(data)) == use


def test_weights_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"weights \(2, 3\), expected \(2, 3, 8, 63, 36\)"):
        loop_filter.LoopFilter(np.zeros((2, 3), np.int16))
