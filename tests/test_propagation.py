"""What errors are worth, as pictures copy them: by hand on small fields."""

from __future__ import annotations

import numpy as np
import pytest

from nvc.encoder.sources.propagation import (
    CENTRE,
    MOST,
    OFFSET_MOST,
    POWER,
    SHARED,
    USUAL,
    Copied,
    importance_of,
    propagate,
)
from nvc.encoder.sources.structure import Unit
from nvc.motion.compensation import BOTH, FORWARD, INTRA
from nvc.motion.prediction import MotionField
from video.picture import Picture

I = Unit(0, "I", (), 0, ())
P = Unit(1, "P", (0,), 1, ())


def field(mode: int, vector: tuple[int, int] = (0, 0), size: tuple[int, int] = (4, 4)) -> MotionField:
    vectors = np.zeros((*size, 2, 2), np.int16)
    vectors[:] = vector
    return MotionField(np.full(size, mode, np.uint8), vectors, (1, 0))


def copied(unit: Unit, mode: int, kept: float = 1.0) -> Copied:
    return Copied(unit, field(mode), np.full((4, 4), kept, np.float32))


START = Copied(I, None, np.zeros((4, 4), np.float32))


def chain(length: int) -> list[Copied]:
    """An I picture and P pictures, each copied whole by the next."""
    return [START, *(copied(Unit(n, "P", (n - 1,), 1, ()), FORWARD) for n in range(1, length))]


@pytest.mark.parametrize(("mode", "kept", "own"), [
    (FORWARD, 1.0, 2.0), (FORWARD, 0.5, 1.5), (BOTH, 1.0, 1 + SHARED), (INTRA, 1.0, 1.0)])
def test_what_is_copied_counts_again_as_far_as_it_is_kept(mode: int, kept: float, own: float) -> None:
    """Half an octave of the step for an octave of worth: the step's square goes with λ."""
    middle, leaf = Unit(8, "B", (0, 16), 3, ()), Unit(9, "B", (8,), 5, ())
    importances = importance_of([Copied(middle, None, START.kept), copied(leaf, mode, kept)], False)
    assert importances[8].offset == pytest.approx(CENTRE - 8 * np.log2(own / USUAL[3]))
    assert importances[9].offset == pytest.approx(CENTRE - 8 * np.log2(1 / USUAL[5]))


def test_it_is_handed_on_through_all_that_copy_it() -> None:
    importances = importance_of(chain(12), False)
    assert importances[9].offset == pytest.approx(CENTRE - 8 * np.log2(3 / USUAL[1]))
    assert importances[0].offset == pytest.approx(CENTRE - 8 * np.log2(12 / USUAL[0]))


def test_where_pictures_follow_they_copy_as_much_of_the_last_anchor_as_these_of_the_one_before() -> None:
    """Number 10 is copied once, by 11. So what follows is taken to copy 11 once, and all before count one more."""
    importances = importance_of(chain(12), True)
    assert importances[11].offset == pytest.approx(CENTRE - 8 * np.log2(2 / USUAL[1]))
    assert importances[9].offset == pytest.approx(CENTRE - 8 * np.log2(4 / USUAL[1]), abs=1e-4)


def test_no_step_moves_farther_than_the_farthest() -> None:
    importances = importance_of(chain(600), False)
    assert importances[0].offset == CENTRE - OFFSET_MOST
    assert importance_of([START, copied(P, INTRA)], False)[0].offset == CENTRE + OFFSET_MOST


def test_nothing_is_said_of_a_still() -> None:
    assert importance_of([START], False) == {}


def test_a_last_picture_that_nothing_copies_is_no_still() -> None:
    last = copied(Unit(17, "P", (16,), 1, ()), FORWARD)
    assert importance_of([last], False)[17].offset == CENTRE + OFFSET_MOST


def test_positions_of_a_picture_count_by_how_much_each_is_copied() -> None:
    """The upper half is copied by one picture, the lower by none; their geometric mean counts 1."""
    mode = field(FORWARD).mode.copy()
    mode[2:] = INTRA
    half = Copied(P, field(FORWARD)._replace(mode=mode), np.ones((4, 4), np.float32))
    grid = importance_of([START, half], False)[0].grid
    assert grid[:2] == pytest.approx(np.full((2, 4), 2 ** (POWER / 2)))
    assert grid[2:] == pytest.approx(np.full((2, 4), 2 ** (-POWER / 2)))


def test_no_position_counts_more_than_the_most() -> None:
    corner = np.zeros((4, 4), np.float32)
    corner[0, 0] = 1
    pictures = [Copied(c.unit, c.field, corner) for c in chain(60)]
    assert importance_of(pictures, False)[0].grid.max() == MOST


def test_amounts_go_where_vectors_point_and_stay_inside() -> None:
    there = np.zeros((4, 4), np.float32)
    amount = np.zeros((4, 4), np.float32)
    amount[1, 1] = 1
    propagate(there, amount, field(FORWARD, (32, 16)).vectors[:, :, 0])      # 8 down, 4 to the right
    assert there[2].tolist() == [0, 0.5, 0.5, 0]
    assert there.sum() == 1
    propagate(there, amount, field(FORWARD, (-4000, 0)).vectors[:, :, 0])
    assert there[0].tolist() == [0, 1, 0, 0]


def test_kept_is_the_share_of_the_predictions_error() -> None:
    def grey(value: int) -> Picture:
        return Picture(*(np.full((n, n), value, np.uint8) for n in (16, 8, 8)))

    made = Copied.of(P, grey(100), (grey(107), grey(107)), grey(103), field(FORWARD, size=(2, 2)))
    assert made.kept == pytest.approx(np.full((2, 2), (9 + 1) / (49 + 1)))
    worse = Copied.of(P, grey(100), (grey(101), grey(101)), grey(103), field(FORWARD, size=(2, 2)))
    assert worse.kept.max() == 1
