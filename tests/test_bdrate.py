"""BD-rate: literal cases, agreement with the package bjontegaard, and what is refused."""

import warnings

import bjontegaard
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from measures.bd_rate import METHODS, Point, bd_rate

ANCHOR = [(100.0, 30.0), (200.0, 33.0), (400.0, 36.0), (800.0, 38.5)]


def oracle(anchor: list[Point], test: list[Point], method: str) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(
            bjontegaard.bd_rate(
                [r for r, _ in anchor],
                [q for _, q in anchor],
                [r for r, _ in test],
                [q for _, q in test],
                method=method,
                require_matching_points=False,
            )
        )


@pytest.mark.parametrize("method", METHODS)
def test_a_curve_against_itself_is_zero(method: str) -> None:
    result = bd_rate(ANCHOR, ANCHOR, method)
    assert (result.percent, result.overlap, result.interval, result.reason) == (0.0, 1.0, (30.0, 38.5), "")


@pytest.mark.parametrize("method", METHODS)
def test_half_the_rate_everywhere_is_minus_50_percent(method: str) -> None:
    result = bd_rate(ANCHOR, [(rate / 2, quality) for rate, quality in ANCHOR], method)
    assert result.percent == pytest.approx(-50.0, abs=1e-9)


def test_the_order_of_the_points_does_not_matter() -> None:
    test = [(90.0, 30.5), (210.0, 34.0), (380.0, 36.5), (900.0, 39.0)]
    assert bd_rate(ANCHOR[::-1], [test[i] for i in (2, 0, 3, 1)]) == bd_rate(ANCHOR, test)


def test_overlap_is_the_share_of_the_union() -> None:
    test = [(120.0, 31.5), (220.0, 34.0), (430.0, 37.0), (850.0, 40.0)]
    result = bd_rate(ANCHOR, test)
    assert result.interval == (31.5, 38.5)
    assert result.overlap == pytest.approx(7.0 / 10.0)


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_every_method_agrees_with_the_package(method: str, data: st.DataObject) -> None:
    def curve() -> list[Point]:
        count = data.draw(st.integers(4, 7))
        rate, quality = data.draw(st.floats(50, 200)), data.draw(st.floats(28, 32))
        points = []
        for _ in range(count):
            points.append((rate, quality))
            rate *= data.draw(st.floats(1.2, 2.5))
            quality += data.draw(st.floats(0.5, 4.0))
        return points

    anchor, test = curve(), curve()
    result = bd_rate(anchor, test, method)
    assume(result.percent is not None)
    assert result.percent == pytest.approx(oracle(anchor, test, method), abs=1e-6, rel=1e-9)


@pytest.mark.parametrize(
    ("test", "reason"),
    [
        (ANCHOR[:3], "test: 3 points, at least 4 are needed"),
        ([], "test: 0 points, at least 4 are needed"),
        ([*ANCHOR[:3], (800.0, 35.9)], "test: not monotone: 36 at rate 400, then 35.9 at rate 800"),
        ([*ANCHOR[:3], (800.0, 36.0)], "test: not monotone: 36 at rate 400, then 36 at rate 800"),
        ([*ANCHOR, (800.0, 39.0)], "test: not monotone: 38.5 at rate 800, then 39 at rate 800"),
        ([(0.0, 29.0), *ANCHOR], "test: the point (0, 29) is not a rate above 0 and a finite quality"),
        ([*ANCHOR, (900.0, float("inf"))], "test: the point (900, inf) is not a rate above 0 and a finite quality"),
        ([*ANCHOR, (900.0, float("nan"))], "test: the point (900, nan) is not a rate above 0 and a finite quality"),
        ([(rate, quality + 20) for rate, quality in ANCHOR], "the curves reach no quality in common"),
        ([(rate, quality + 5) for rate, quality in ANCHOR], "the curves share 26 % of their quality range, under 50 %"),
    ],
)
def test_what_is_no_measurement_is_none_with_a_reason(test: list[Point], reason: str) -> None:
    result = bd_rate(ANCHOR, test)
    assert (result.percent, result.reason) == (None, reason)


def test_a_bad_anchor_is_named_too() -> None:
    assert bd_rate(ANCHOR[:2], ANCHOR).reason == "anchor: 2 points, at least 4 are needed"


def test_an_overlap_that_is_too_small_is_still_shown() -> None:
    result = bd_rate(ANCHOR, [(rate, quality + 5) for rate, quality in ANCHOR])
    assert result.interval == (35.0, 38.5)
    assert result.overlap == pytest.approx(3.5 / 13.5)


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(ValueError, match="expected one of pchip, akima, cubic, got 'linear'"):
        bd_rate(ANCHOR, ANCHOR, "linear")
