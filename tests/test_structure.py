"""Coding orders: literal ones first, then what holds for every length; and where scenes are cut."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

import numpy as np
import pytest
from numpy.typing import NDArray

from coding.interface import SettingsError
from nvc.encoder.sources.scene_cuts import change, mark_cuts, thumbnail
from nvc.encoder.sources.structure import LEVEL_OFFSETS, MINI_GOPS, STRUCTURES, Planner, Unit, batches, gops, schedule

T = TypeVar("T")


def plan(frames: int, structure: str, period: int = 64, cuts: tuple[int, ...] = (), **options: int) -> list[Unit]:
    units = []
    for first, numbers in gops(((n, n in cuts) for n in range(frames)), structure, period):
        planner = Planner(structure, first, **options)
        units += [unit for _ in numbers for unit in planner.push()] + planner.finish()
    return units


def short(units: list[Unit]) -> str:
    """Such as "I0 P8(0) B4(0,8)"."""
    return " ".join(
        f"{u.type}{u.number}" + f"({','.join(map(str, u.references))})" * bool(u.references) for u in units
    )


# --- Literal orders ---------------------------------------------------------------------------------------------------


def test_intra_codes_every_picture_alone() -> None:
    assert short(plan(3, "intra")) == "I0 I1 I2"


def test_low_delay_refers_to_the_picture_before() -> None:
    assert short(plan(6, "low_delay", 4)) == "I0 P1(0) P2(1) P3(2) I4 P5(4)"


def test_low_delay_may_refer_to_two_pictures_before() -> None:
    assert short(plan(5, "low_delay", past_references=2)) == "I0 P1(0) P2(1,0) P3(2,1) P4(3,2)"


def test_random_access_halves_the_gaps_of_a_mini_gop() -> None:
    assert short(plan(9, "random_access")) == "I0 P8(0) B4(0,8) B2(0,4) B6(4,8) B1(0,2) B3(2,4) B5(4,6) B7(6,8)"


def test_the_last_mini_gop_is_as_long_as_what_is_left() -> None:
    assert short(plan(6, "random_access")) == "I0 P5(0) B2(0,5) B1(0,2) B3(2,5) B4(3,5)"


def test_a_mini_gop_ends_before_the_intra_period() -> None:
    assert short(plan(8, "random_access", 6, mini_gop=4)) == "I0 P4(0) B2(0,4) B1(0,2) B3(2,4) P5(4) I6 P7(6)"


def test_a_cut_starts_a_gop() -> None:
    assert short(plan(7, "random_access", cuts=(3,))) == "I0 P2(0) B1(0,2) I3 P6(3) B4(3,6) B5(4,6)"


def test_the_intra_period_counts_from_the_latest_cut() -> None:
    units = plan(12, "random_access", 6, cuts=(3,))
    assert [u.number for u in units if u.type == "I"] == [0, 3, 9]


def test_p_pictures_of_random_access_may_have_two_references() -> None:
    units = plan(9, "random_access", mini_gop=2, past_references=2)
    assert [short([u]) for u in units if u.type == "P"] == ["P2(0)", "P4(2,0)", "P6(4,2)", "P8(6,4)"]


def test_levels_rise_with_each_halving() -> None:
    assert [(u.number, u.level) for u in plan(9, "random_access")] == [
        (0, 0), (8, 1), (4, 2), (2, 3), (6, 3), (1, 4), (3, 4), (5, 4), (7, 4),
    ]  # fmt: skip


def test_drop_names_what_is_needed_no_more() -> None:
    assert [(u.number, u.drop) for u in plan(5, "random_access", mini_gop=4)] == [
        (0, ()), (4, ()), (2, ()), (1, (0, 1)), (3, (2, 3)),
    ]  # fmt: skip


def test_the_mini_gop_may_change_between_mini_gops() -> None:
    planner = Planner("random_access", mini_gop=4)
    units = [unit for _ in range(5) for unit in planner.push()]
    planner.mini_gop = 2
    units += [unit for _ in range(4) for unit in planner.push()]
    assert short(units) == "I0 P4(0) B2(0,4) B1(0,2) B3(2,4) P6(4) B5(4,6) P8(6) B7(6,8)"


def test_pictures_of_a_level_are_one_batch() -> None:
    groups = batches(plan(9, "random_access"))
    assert [[u.number for u in group] for group in groups] == [[0], [8], [4], [2, 6], [1, 3, 5, 7]]


def test_p_pictures_that_refer_to_each_other_are_not_one_batch() -> None:
    assert [[u.number for u in group] for group in batches(plan(3, "low_delay"))] == [[0], [1], [2]]


def test_every_level_is_coarser_than_the_one_before() -> None:
    assert list(LEVEL_OFFSETS) == sorted(set(LEVEL_OFFSETS))
    assert plan(17, "random_access", mini_gop=16)[-1].step_offset == 35


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"structure": "random"}, "structure is 'random', expected one of intra, low_delay, random_access"),
        ({"mini_gop": 5}, "mini_gop is 5, expected one of 1, 2, 4, 8, 16"),
        ({"past_references": 3}, "past_references is 3, expected 1 or 2"),
    ],
)
def test_a_wrong_setting_is_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Planner(**({"structure": "random_access"} | options))  # type: ignore[arg-type]


def test_a_wrong_setting_of_gops_is_named() -> None:
    with pytest.raises(SettingsError, match="structure is 'random', expected one of intra, low_delay, random_access"):
        gops([], "random", 64)
    with pytest.raises(SettingsError, match="intra_period is 0, expected at least 1"):
        gops([], "intra", 0)


# --- What holds for every clip ----------------------------------------------------------------------------------------

PERIODS = (1, 2, 3, 7, 8, 9, 16, 31, 64)
EVERY = [
    (structure, period, mini_gop, past)
    for structure in STRUCTURES
    for period in PERIODS
    for mini_gop in (MINI_GOPS if structure == "random_access" else (8,))
    for past in (1, 2)
]


def every_plan() -> Iterator[tuple[tuple[int, int, int], list[Unit]]]:
    for structure, period, mini_gop, past in EVERY:
        for frames in range(1, 71):
            units = plan(frames, structure, period, (11, 12, 40), mini_gop=mini_gop, past_references=past)
            yield (frames, mini_gop, past), units


def test_each_picture_is_coded_once() -> None:
    for (frames, _, _), units in every_plan():
        assert sorted(u.number for u in units) == list(range(frames))


def test_references_are_held_when_they_are_wanted_and_few_at_a_time() -> None:
    for (_, mini_gop, past), units in every_plan():
        held: set[int] = set()
        for unit in units:
            if unit.type == "I":
                held.clear()  # what the GOP before ended with
            assert held.issuperset(unit.references)
            held.add(unit.number)
            assert held.issuperset(unit.drop)
            assert len(held) <= mini_gop // 2 + 1 + past
            held.difference_update(unit.drop)


def test_nothing_refers_across_an_i_picture() -> None:
    for _, units in every_plan():
        start = 0
        for unit in units:
            start = unit.number if unit.type == "I" else start
            assert all(reference >= start for reference in unit.references)
            assert unit.number >= start


def test_types_and_levels_agree() -> None:
    for _, units in every_plan():
        for unit in units:
            assert unit.type == "IPB"[min(unit.level, 2)]
            if unit.type == "B":
                assert unit.references[0] < unit.number < unit.references[1]
            else:
                assert all(reference < unit.number for reference in unit.references)


# --- A clip of any length ---------------------------------------------------------------------------------------------


def scheduled(clip: Iterable[tuple[T, bool]], period: int, mini_gop: int) -> Iterator[list[tuple[Unit, T]]]:
    for first, pictures in gops(clip, "random_access", period):
        yield from schedule(pictures, Planner("random_access", first, mini_gop))


def test_pictures_are_taken_only_as_they_are_needed() -> None:
    taken: list[int] = []

    def endless() -> Iterator[tuple[str, bool]]:
        number = 0
        while True:
            taken.append(number)
            yield f"picture {number}", False
            number += 1

    coded = 0
    for batch in islice(scheduled(endless(), 64, 4), 1000):
        coded += len(batch)
        assert len(taken) - coded <= 4
    assert coded == 1306  # a GOP of 64 is 49 batches


def test_each_unit_comes_with_its_picture() -> None:
    clip = [(f"picture {number}", number == 3) for number in range(6)]
    assert [(unit.number, picture) for batch in scheduled(clip, 64, 8) for unit, picture in batch] == [
        (0, "picture 0"), (2, "picture 2"), (1, "picture 1"),
        (3, "picture 3"), (5, "picture 5"), (4, "picture 4"),
    ]  # fmt: skip


def test_an_empty_clip_has_no_units() -> None:
    assert list(scheduled([], 64, 8)) == []


# --- Scene cuts -------------------------------------------------------------------------------------------------------


def texture(seed: int, height: int = 400, width: int = 700) -> NDArray[np.uint8]:
    """Smooth shapes of some size, as in pictures; another seed is another scene."""
    pyramid_search = np.random.default_rng(seed).uniform(20, 235, (height // 25, width // 25))
    return np.kron(pyramid_search, np.ones((25, 25))).astype(np.uint8)


def cuts_of(clip: list[NDArray[np.uint8]], lookahead: int = 2) -> list[int]:
    marked = list(mark_cuts(clip, lambda luma: luma, lookahead))
    assert [id(luma) for luma, _ in marked] == [id(luma) for luma in clip]
    return [number for number, (_, cut) in enumerate(marked) if cut]


def still(seed: int, frames: int) -> list[NDArray[np.uint8]]:
    noise = np.random.default_rng(seed)
    view = texture(seed)[:288, :352]
    return [np.clip(view + noise.normal(0, 2, view.shape), 0, 255).astype(np.uint8) for _ in range(frames)]


def test_a_cut_is_found() -> None:
    assert cuts_of(still(1, 12) + still(2, 12)) == [12]


def test_cuts_close_together_are_found() -> None:
    assert cuts_of(still(1, 5) + still(2, 4) + still(3, 5)) == [5, 9]


def test_a_cut_to_the_last_picture_is_found() -> None:
    assert cuts_of(still(1, 5) + still(2, 1)) == [5]


def test_a_pan_is_no_cut() -> None:
    wide = texture(4)
    assert cuts_of([wide[:288, 12 * n : 12 * n + 352] for n in range(25)]) == []


def test_a_pan_that_starts_at_once_is_no_cut() -> None:
    wide = texture(5)
    places = [0] * 10 + [14 * n for n in range(1, 20)]
    assert cuts_of([wide[:288, x : x + 352] for x in places]) == []


def test_a_zoom_is_no_cut() -> None:
    wide = texture(6)
    views = [wide[2 * n : 2 * n + 288, :352][: 288 - 4 * n, : 352 - 4 * n] for n in range(20)]
    rows, columns = np.linspace(0, 1, 288), np.linspace(0, 1, 352)
    clip = [v[(rows * (v.shape[0] - 1)).astype(int)][:, (columns * (v.shape[1] - 1)).astype(int)] for v in views]
    assert cuts_of(clip) == []


@pytest.mark.parametrize("pictures", [1, 2])
def test_a_flash_is_no_cut(pictures: int) -> None:
    clip = still(7, 20)
    for number in range(8, 8 + pictures):
        clip[number] = np.clip(clip[number].astype(int) // 4 + 190, 0, 255).astype(np.uint8)
    assert cuts_of(clip) == []


def test_without_lookahead_a_flash_is_a_cut() -> None:
    clip = [*still(7, 6), texture(11)[:288, :352], *still(7, 6)]
    assert cuts_of(clip) == []
    assert cuts_of(clip, lookahead=0) == [6, 7]


def test_a_fade_is_no_cut() -> None:
    a, b = still(8, 1)[0].astype(float), still(9, 1)[0].astype(float)
    assert cuts_of([(a + (b - a) * n / 24).astype(np.uint8) for n in range(25)]) == []


def test_a_fade_to_black_is_no_cut() -> None:
    """Not where next to nothing is left to see, either."""
    view = still(8, 1)[0].astype(float) - 16
    assert cuts_of([(16 + view * (16 - n) / 16).round().astype(np.uint8) for n in range(17)]) == []


def test_noise_is_not_a_cut_at_every_picture() -> None:
    noise = np.random.default_rng(10)
    assert cuts_of([noise.integers(0, 256, (288, 352), np.uint8) for _ in range(20)]) == []


@pytest.mark.parametrize("size", [(1, 1), (7, 3), (16, 4000), (145, 177)])
def test_any_size_has_a_thumbnail(size: tuple[int, int]) -> None:
    luma = np.full(size, 77, np.uint8)
    small = thumbnail(luma)
    assert max(small.shape) <= 48
    assert [side % 8 for side in small.shape] == [0, 0]
    assert change(small, small) == 0.0


def test_change_is_1_where_prediction_is_as_bad_as_none() -> None:
    """Prediction by black, of a tile of which half is 100: both differ by 50 a sample, and NOISE counts once."""
    now = np.zeros((8, 8), np.float32)
    now[:4] = 100.0
    assert change(now, np.zeros((8, 8), np.float32)) == pytest.approx(50 / 52)


def test_only_pictures_of_the_lookahead_are_kept() -> None:
    taken = 0

    def endless() -> Iterator[NDArray[np.uint8]]:
        nonlocal taken
        while True:
            taken += 1
            yield np.zeros((16, 16), np.uint8)

    marked = mark_cuts(endless(), lambda luma: luma, lookahead=2)
    for number in range(50):
        next(marked)
        assert taken - number <= 3
