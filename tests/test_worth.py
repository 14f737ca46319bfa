"""What errors are worth, as pictures copy them: by hand on small fields."""

from __future__ import annotations

import numpy as np
import pytest

from nvc.compensation import BOTH, FORWARD, INTRA
from nvc.motion import MotionField
from nvc.structure import Unit
from nvc.worth import MOST, POWER, SHARED, USUAL, Copied, hand_on, worth
from picture import Picture

I = Unit(0, "I", (), 0, ())
P = Unit(1, "P", (0,), 1, ())


def field(mode: int, vector: tuple[int, int] = (0, 0), size: tuple[int, int] = (4, 4)) -> MotionField:
    vectors = np.zeros((*size, 2, 2), np.int16)
    vectors[:] = vector
    return MotionField(np.full(size, mode, np.uint8), vectors, (1, 0))


def copied(unit: Unit, mode: int, kept: float = 1.0) -> Copied:
    return Copied(unit, field(mode), np.full((4, 4), kept, np.float32))


START = Copied(I, None, np.zeros((4, 4), np.float32))


@pytest.mark.parametrize(("mode", "kept", "own"), [
    (FORWARD, 1.0, 2.0), (FORWARD, 0.5, 1.5), (BOTH, 1.0, 1 + SHARED), (INTRA, 1.0, 1.0)])
def test_what_is_copied_counts_again_as_far_as_it_is_kept(mode: int, kept: float, own: float) -> None:
    counts = worth([START, copied(P, mode, kept)])
    assert counts[0] == pytest.approx(np.full((4, 4), max((own / USUAL[0]) ** POWER, 1 / MOST)))
    assert counts[1] == pytest.approx(np.full((4, 4), (1 / USUAL[1]) ** POWER))


def test_it_is_handed_on_through_all_that_copy_it() -> None:
    chain = [Unit(n, "P", (n - 1,), 1, ()) for n in range(1, 30)]
    counts = worth([START, *(copied(unit, FORWARD) for unit in chain)])
    assert counts[9] == pytest.approx(np.full((4, 4), (21 / USUAL[1]) ** POWER))
    assert counts[0].max() == counts[0].min() == pytest.approx((30 / USUAL[0]) ** POWER)


def test_no_position_counts_more_than_the_most() -> None:
    chain = [Unit(n, "P", (n - 1,), 1, ()) for n in range(1, 60)]
    assert worth([START, *(copied(unit, FORWARD) for unit in chain)])[0].max() == MOST


def test_amounts_go_where_vectors_point_and_stay_inside() -> None:
    there = np.zeros((4, 4), np.float32)
    amount = np.zeros((4, 4), np.float32)
    amount[1, 1] = 1
    hand_on(there, amount, field(FORWARD, (32, 16)).vectors[:, :, 0])      # 8 down, 4 to the right
    assert there[2].tolist() == [0, 0.5, 0.5, 0]
    assert there.sum() == 1
    hand_on(there, amount, field(FORWARD, (-4000, 0)).vectors[:, :, 0])
    assert there[0].tolist() == [0, 1, 0, 0]


def test_kept_is_the_share_of_the_predictions_error() -> None:
    def grey(value: int) -> Picture:
        return Picture(*(np.full((n, n), value, np.uint8) for n in (16, 8, 8)))

    made = Copied.of(P, grey(100), (grey(107), grey(107)), grey(103), field(FORWARD, size=(2, 2)))
    assert made.kept == pytest.approx(np.full((2, 2), (9 + 1) / (49 + 1)))
    worse = Copied.of(P, grey(100), (grey(101), grey(101)), grey(103), field(FORWARD, size=(2, 2)))
    assert worse.kept.max() == 1
