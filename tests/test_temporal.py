"""Sources averaged along motion with those around them, on pictures whose noise and motion are known."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

import nvc.encoder.batches
from coding.interface import Settings
from nvc.encoder.gop import Work, code_gop
from nvc.encoder.sources.structure import Unit
from nvc.encoder.sources.temporal_filter import filtered
from nvc.network.model import DEFAULT_MODEL, load_model
from nvc.stream.syntax import Header
from video.picture import ClipInfo, Picture

SIDE = 64
ANCHOR, MIDDLE, LEAF = Unit(8, "P", (0,), 1, ()), Unit(8, "B", (0, 16), 2, ()), Unit(8, "B", (7, 9), 5, ())
WHOLE, NONE = np.ones((SIDE // 8, SIDE // 8), np.float32), np.zeros((SIDE // 8, SIDE // 8), np.float32)
STEP = 16.0


def scene(shift: int = 0, noise: float = 0.0, seed: int = 0) -> Picture:
    """Soft waves, moved to the right by `shift` samples, with noise of that deviation in luma."""
    y, x = np.mgrid[:SIDE, :SIDE]
    luma = 128 + 60 * np.sin((x - shift) / 6.0) * np.cos(y / 9.0)
    luma = luma + np.random.default_rng(seed).normal(0, noise, luma.shape)
    grey = np.full((SIDE // 2, SIDE // 2), 128, np.uint8)
    return Picture(np.clip(np.rint(luma), 0, 255).astype(np.uint8), grey, grey)


def error(a: Picture, b: Picture) -> float:
    return float(np.mean((a.y.astype(float) - b.y) ** 2))


NOISY = {n: scene(noise=4.0, seed=n) for n in range(17)}


def test_noise_that_each_source_has_for_itself_is_averaged_out() -> None:
    """Of nine pictures weighed 0.57 … 1.13, at best an eighth of the error is left."""
    out = filtered(ANCHOR, NOISY, WHOLE, STEP)
    assert error(NOISY[8], scene()) > 15
    assert error(out, scene()) < 4


def test_the_average_is_taken_along_motion() -> None:
    moving = {n: scene(shift=2 * n, noise=4.0, seed=n) for n in range(17)}
    out = filtered(ANCHOR, moving, WHOLE, STEP)
    assert error(out, scene(shift=16)) < 5


def test_what_nobody_copies_stays_as_it_is() -> None:
    out = filtered(ANCHOR, NOISY, NONE, STEP)
    assert (out.y == NOISY[8].y).all()


def test_positions_that_are_copied_more_are_averaged_more() -> None:
    half = WHOLE.copy()
    half[:, :4] = 0.3
    out = filtered(ANCHOR, NOISY, half, STEP)
    moved = np.abs(out.y.astype(int) - NOISY[8].y).mean(0)
    assert moved[:32].mean() < 0.5 * moved[32:].mean()


def test_what_others_do_not_show_stays_as_it_is() -> None:
    """Black and white squares, in each source others: their plain mean is more than 10,000 away."""
    squares = {n: Picture(np.random.default_rng(n).choice([0, 255], (8, 8)).astype(np.uint8).repeat(8, 0).repeat(8, 1),
                          *NOISY[0][1:]) for n in range(17)}
    out = filtered(ANCHOR, squares, WHOLE, STEP)
    assert error(out, squares[8]) < 20


def test_fine_steps_keep_what_coarse_ones_average() -> None:
    moved = [error(filtered(ANCHOR, NOISY, WHOLE, step), NOISY[8]) for step in (1.0, 4.0, 16.0)]
    assert 0 == moved[0] < moved[1] < 0.5 * moved[2]


@pytest.mark.parametrize(("unit", "used"), [
    (ANCHOR, {4, 5, 6, 7, 8, 9, 10, 11, 12}), (MIDDLE, {6, 7, 8, 9, 10}), (LEAF, {8})])
def test_lower_levels_look_farther(unit: Unit, used: set[int]) -> None:
    asked = set()

    class Asked(dict[int, Picture]):
        def __getitem__(self, number: int) -> Picture:
            asked.add(number)
            return super().__getitem__(number)

    filtered(unit, Asked(NOISY), WHOLE, STEP)
    assert asked == used


def test_a_source_alone_comes_back_itself() -> None:
    assert filtered(ANCHOR, {8: NOISY[8]}, WHOLE, STEP) is NOISY[8]


@pytest.mark.parametrize("effort", [0, 2])
def test_the_encoder_sees_both_sides_of_a_segment_within_the_gop(monkeypatch: pytest.MonkeyPatch, effort: int) -> None:
    """A GOP of 36 pictures from number 100 on: I, segments of 16, 16 and 3."""
    ranges = {}

    def spy(unit: Unit, sources: dict[int, Picture], copied: np.ndarray, step: float) -> Picture:
        ranges[unit.number] = (min(sources), max(sources))
        return sources[unit.number]

    monkeypatch.setattr(nvc.encoder.batches, "filtered", spy)
    settings = Settings(effort=effort)
    info = ClipInfo(SIDE, SIDE, Fraction(25))
    header = Header(load_model(DEFAULT_MODEL).id, SIDE, SIDE, info.fps, info.matrix, info.range,
                    settings.structure, settings.intra_period)
    work = Work(settings, 60.0, header)
    for _ in code_gop(work.encoder(), header, 100, [scene(shift=n) for n in range(36)]):
        pass
    assert ranges[100] == (100, 104)
    assert ranges[116] == (100, 120)
    assert ranges[132] == (113, 135)
    assert ranges[135] == (129, 135)
