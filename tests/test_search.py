"""The search finds motion that is there, exactly and for almost nothing; its fast sums agree with plain ones."""
from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit
from scipy.fft import dctn
from scipy.linalg import hadamard

from nvc.encoder.search import block_differences as differences
from nvc.encoder.search import motion_field as search
from nvc.encoder.search import pyramid_search
from nvc.motion import prediction as motion
from nvc.motion import vectors
from nvc.motion.compensation import BOTH, INTRA
from nvc.motion.prediction import MotionField, Reference
from video.picture import Picture


@njit
def all_sums(x, x_place, p, p_place, q, q_place, pitch, gain):
    a = (x, x_place, pitch, p, p_place, pitch)
    return (differences.sad8(*a), differences.sad16(*a), differences.satd8(*a), differences.bits8(*a, gain),
            differences.satd8_pair(*a, q, q_place, pitch), differences.bits8_pair(*a, q, q_place, pitch, gain),
            differences.satd16(*a), differences.satd16_pair(*a, q, q_place, pitch))


def satd_of(d):
    """Of the 8x8 in d, added up."""
    h = hadamard(8)
    return sum((np.abs(h @ d[i:i + 8, j:j + 8] @ h.T).sum() + 2) // 4
               for i in range(0, d.shape[0], 8) for j in range(0, d.shape[1], 8))


@pytest.mark.parametrize("values", [range(256), (0, 255), (0, 1)])
@pytest.mark.parametrize("gain", [4.0, 0.05, 0.0005])
def test_fast_sums_agree_with_plain_ones(values, gain):
    rng = np.random.default_rng(0)
    x, p, q = (rng.choice(list(values), (40, 40)).astype(np.uint8) for _ in range(3))
    for _ in range(50):
        places = rng.integers(0, 24, (3, 2))
        a, b, c = (plane[i:i + 16, j:j + 16].astype(int) for plane, (i, j) in zip((x, p, q), places, strict=True))
        whole, both = a - b, a - (b + c + 1) // 2
        one, pair = whole[:8, :8], both[:8, :8]
        got = all_sums(*(v for plane, (i, j) in zip((x, p, q), places, strict=True)
                         for v in (plane.reshape(-1), int(i * 40 + j))), 40, gain)
        assert got[0] == np.abs(one).sum()
        assert got[1] == np.abs(whole).sum()
        assert [got[k] for k in (2, 4, 6, 7)] == [satd_of(d) for d in (one, pair, whole, both)]
        for bits, d in ((got[3], one), (got[5], pair)):
            exact = np.log2(1 + gain * dctn(d.astype(float), norm="ortho") ** 2).sum()
            assert exact - 16 * 0.09 <= bits <= exact + 1e-3


def textured(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Smooth noise with detail at several scales, as uint8."""
    total = np.zeros((height, width))
    for n in (2, 4, 8, 16):
        coarse_ = rng.normal(size=(height // n + 2, width // n + 2))
        total += n * np.kron(coarse_, np.ones((n, n)))[:height, :width]
    for axis in (0, 1):
        total = (np.roll(total, 1, axis) + 2 * total + np.roll(total, -1, axis)) / 4
    return np.clip(128 + 4 * total, 0, 255).astype(np.uint8)


def as_reference(y: np.ndarray, field: MotionField | None = None) -> Reference:
    grey = np.full((y.shape[0] // 2, y.shape[1] // 2), 128, np.uint8)
    return Reference(Picture(y, grey, grey), field)


def moved(reference: Reference, vector: tuple[int, int]) -> np.ndarray:
    """The reference's luma displaced by a vector in quarter samples."""
    shape = (reference.height // 8, reference.width // 8)
    field = MotionField(np.zeros(shape, np.uint8), np.full((*shape, 2, 2), vector, np.int16), (1, 0))
    return motion.predict(field, [reference])[0].y


@pytest.mark.parametrize("vector", [(0, 0), (1, 3), (12, -20), (-88, 69), (160, 214)])
def test_a_global_shift_is_found_exactly_for_almost_nothing(vector):
    reference = as_reference(textured(np.random.default_rng(1), 288, 352))
    field = search.search(moved(reference, vector), [reference], (5, 0), 8.0)
    assert (field.vectors[7:-7, 7:-7, 0] == vector).all()
    assert vectors.field_bits(field, [reference]) / field.mode.size < 0.2


def test_nothing_moves_costs_nothing():
    y = textured(np.random.default_rng(3), 288, 352)
    references = [as_reference(y), as_reference(y)]
    field = search.search(y, references, (4, -4), 16.0)
    assert (field.mode == BOTH).all()
    assert not field.vectors.any()
    assert vectors.field_bits(field, references) / field.mode.size < 0.02


def test_the_middle_of_two_pictures_uses_both():
    """Independent noise on both references averages out."""
    rng = np.random.default_rng(4)
    y = textured(rng, 96, 96)
    noisy = [np.clip(y + rng.normal(scale=6, size=y.shape), 0, 255).astype(np.uint8) for _ in range(2)]
    field = search.search(y, [as_reference(n) for n in noisy], (1, -1), 10.0)
    assert (field.mode == BOTH).mean() > 0.9


def test_what_is_in_no_reference_is_intra():
    now = np.full((64, 64), 90, np.uint8)
    noise = np.random.default_rng(5).integers(0, 256, (64, 64)).astype(np.uint8)
    field = search.search(now, [as_reference(noise)], (1, 0), 8.0)
    assert (field.mode == INTRA).all()


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 2**32), st.sampled_from([(1, 0), (2, -1), (1, 2)]),
       st.sampled_from([1.0, 9.0, 300.0]))
def test_any_picture_gives_a_field_that_can_be_coded(rows, columns, seed, spans, step):
    rng = np.random.default_rng(seed)
    planes = [textured(rng, rows * 16, columns * 16) for _ in range(3)]
    references = [as_reference(p) for p in planes[1:]][: 2 if spans[1] else 1]
    field = search.search(planes[0], references, spans, step)
    assert field.mode.shape == (rows * 2, columns * 2)
    assert vectors.field_bits(field, references) > 0


def test_motion_pays():
    """Prediction by the field found leaves less than a tenth of the difference of the pictures."""
    world = textured(np.random.default_rng(6), 200, 260)
    before, now = world[10:170, 10:202], world[16:176, 3:195].copy()
    now[48:96, 64:128] = world[60:108, 60:124]              # something moves its own way
    reference = as_reference(before)
    field = search.search(now, [reference], (1, 0), 8.0)
    predicted = motion.predict(field, [reference])[0].y
    left, whole = (float(((now - p.astype(float)) ** 2).sum()) for p in (predicted, before))
    assert left < 0.1 * whole


def test_more_effort_finds_what_costs_less():
    """Residual and motion together, by the price that the search minimises."""
    rng = np.random.default_rng(8)
    world = textured(rng, 260, 260)
    before = as_reference(np.ascontiguousarray(world[30:222, 30:222]))
    shape = (24, 24)
    drift = np.cumsum(np.cumsum(rng.integers(-2, 3, (2, *shape)), axis=1), axis=2).clip(-60, 60)
    swirl = MotionField(np.zeros(shape, np.uint8), np.stack([drift, drift], 0).transpose(2, 3, 0, 1).astype(np.int16),
                        (1, 0))
    now = np.clip(motion.predict(swirl, [before])[0].y + rng.normal(scale=3, size=(192, 192)), 0, 255).astype(np.uint8)
    prices = []
    for effort in range(search.EFFORTS):
        field = search.search(now, [before], (1, 0), 6.0, effort=effort)
        left = now.astype(float) - motion.predict(field, [before])[0].y
        blocks = left.reshape(24, 8, 24, 8).transpose(0, 2, 1, 3)
        residual = 1.36 * np.log2(1 + 4 * (dctn(blocks, axes=(2, 3), norm="ortho") / 6.0) ** 2).sum()
        prices.append(residual + vectors.field_bits(field, [before]))
    assert prices[0] > prices[1] > prices[2]


def test_the_coarse_guess_follows_large_motion():
    world = textured(np.random.default_rng(7), 300, 300)
    pyramids = [pyramid_search.pyramid(world[a:a + 192, b:b + 192])
                for a, b in ((50, 60), (50 + 44, 60 - 52))]
    guess = pyramid_search.guess(pyramids[1], pyramids[0], 16, 8.0)
    assert (guess[1:-4, 4:-1] == (44 * 4, -52 * 4)).all()


def test_a_picture_of_another_size_is_refused():
    with pytest.raises(ValueError, match="reference of 32x16 for a picture of 16x16"):
        search.search(np.zeros((16, 16), np.uint8), [as_reference(np.zeros((16, 32), np.uint8))], (1, 0), 8.0)
