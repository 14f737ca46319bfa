"""What pictures will copy from each other, guessed before any is coded: on pictures whose motion is known."""

from __future__ import annotations

import numpy as np
import pytest

from coding.interface import Settings
from nvc.encoder.encode import Encoder
from nvc.encoder.lookahead import CODED, Lookahead, code_ahead
from nvc.encoder.sources.propagation import ROUNDING, Copied
from nvc.encoder.sources.structure import Planner, Unit
from nvc.motion.compensation import BOTH, FORWARD, INTRA
from nvc.network.model import DEFAULT_MODEL, load_model
from video.picture import Picture

SIDE = 96
FINE, COARSE = 0.0, 80.0       # t of I pictures; a P picture's step is 11/16 octaves coarser


def picture(y: np.ndarray) -> Picture:
    grey = np.full((SIDE // 2, SIDE // 2), 128, np.uint8)
    return Picture(y.astype(np.uint8), grey, grey)


def blobs(seed: int = 1, side: int = 8) -> np.ndarray:
    """Squares of so many samples, each of one grey."""
    return np.random.default_rng(seed).integers(40, 216, (SIDE // side, SIDE // side)).repeat(side, 0).repeat(side, 1)


def board() -> np.ndarray:
    """Squares of 16 samples, 1 and -1 in turns: what no weight of a reference makes up for."""
    signs = 1 - 2 * (np.indices((SIDE // 16, SIDE // 16)).sum(0) % 2)
    return signs.repeat(16, 0).repeat(16, 1)


def copies(first: np.ndarray, *following: np.ndarray, t: float = FINE) -> list[Copied]:
    """Of the pictures after the first, in coding order."""
    def step(unit: Unit) -> float:
        return 2.0 ** ((t + unit.step_offset) / 16)

    look, planner = Lookahead(), Planner("random_access", 0, 16)
    look.copied([picture(first)], planner, step)
    return look.copied([picture(y) for y in following], planner, step)


def test_a_picture_that_stays_is_copied_whole() -> None:
    (p,) = copies(blobs(), blobs())
    assert p.field is not None
    assert p.field.mode.tolist() == [[FORWARD] * 12] * 12
    assert not p.field.vectors.any()
    assert p.kept.tolist() == [[1.0] * 12] * 12


def test_vectors_lead_to_where_it_was() -> None:
    """All moved by 8 samples to the right and 4 down: a block lay so much to the left and above."""
    (p,) = copies(blobs(), np.roll(blobs(), (4, 8), (0, 1)))
    assert p.field is not None
    inside = p.field.vectors[4:-4, 4:-4, 0].reshape(-1, 2)
    assert np.unique(inside, axis=0).tolist() == [[-16, -32]]


def test_vectors_lead_between_samples() -> None:
    """A slow wave moved by one luma sample, half a sample of the small pictures."""
    x = np.arange(SIDE + 1)
    wave = (128 + 60 * np.sin(x / 9)[:, None] * np.sin(x / 7)).round()
    (p,) = copies(wave[:-1, :-1], wave[:-1, 1:])
    assert p.field is not None
    inside = p.field.vectors[2:-2, 2:-2, 0].reshape(-1, 2)
    assert np.median(inside, axis=0).tolist() == [0, 4]


def test_what_is_new_is_copied_from_nowhere() -> None:
    """A flat picture after blobs is better not predicted at all."""
    (p,) = copies(blobs(), np.full((SIDE, SIDE), 128))
    assert p.field is not None
    assert p.field.mode.tolist() == [[INTRA] * 12] * 12


@pytest.mark.parametrize(("t", "kept"), [
    (COARSE, 1.0), (FINE, (CODED * 2 ** (11 / 8) + ROUNDING) / (64 + ROUNDING))])
def test_an_error_is_kept_as_far_as_the_step_leaves_it(t: float, kept: float) -> None:
    """8 grey levels brighter or darker, so 64 squared, and too fine for any other place to look more alike."""
    (p,) = copies(blobs(side=2), blobs(side=2) + 8 * board(), t=t)
    assert p.kept == pytest.approx(np.full((12, 12), kept), rel=1e-3)


def test_a_b_picture_halfway_between_is_copied_from_both() -> None:
    _, b = copies(blobs(), blobs() + 8 * board(), blobs() + 16 * board())
    assert b.unit.references == (0, 2)
    assert b.field is not None
    assert b.field.mode.tolist() == [[BOTH] * 12] * 12


def test_only_the_anchor_is_remembered() -> None:
    look, planner = Lookahead(), Planner("random_access", 0, 16)
    for n in (1, 16, 5):
        look.copied([picture(blobs())] * n, planner, lambda _: 1.0)
        assert list(look.small) == [planner.number - 1]


def steps(pictures: list[Picture]) -> dict[int, int]:
    """Step index of each picture of a coded GOP."""
    encoder = Encoder(load_model(DEFAULT_MODEL), Settings(), 40.0)
    coded = code_ahead(encoder, Planner("random_access", 0, 16), pictures)
    return {packet.number: packet.q for batch in coded for packet in batch.packets}


def test_what_stays_in_sight_is_coded_with_finer_steps() -> None:
    still, new = steps([picture(blobs())] * 33), steps([picture(blobs(seed)) for seed in range(33)])
    assert still.keys() == new.keys() == set(range(33))
    assert still[0] < new[0] - 16
    assert still[16] < still[32] - 4


def test_a_still_has_the_step_of_its_quality() -> None:
    assert steps([picture(blobs())]) == {0: 40}
