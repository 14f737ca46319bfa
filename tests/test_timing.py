"""Rates from time stamps: whatever clock they were rounded to, and whatever the header says."""

from __future__ import annotations

from fractions import Fraction

import pytest

from video.timing import timing_of

MS = Fraction(1, 1000)
NTSC = Fraction(30000, 1001)


def stamps(fps: Fraction, count: int, tick: Fraction, first: int = 0) -> list[int]:
    """Times of pictures at a constant rate, rounded to ticks as muxers do."""
    return [round(first + number / fps / tick) for number in range(count)]


@pytest.mark.parametrize("fps", [Fraction(24000, 1001), Fraction(24), Fraction(25), NTSC, Fraction(30), Fraction(50),
                                 Fraction(60000, 1001), Fraction(60), Fraction(15000, 1001), Fraction(12)])
@pytest.mark.parametrize("tick", [MS, Fraction(1, 90_000), Fraction(1, 12_800)])
def test_a_constant_rate_is_found_whatever_the_clock(fps: Fraction, tick: Fraction) -> None:
    found = timing_of(stamps(fps, 150, tick, first=67), tick)
    assert found is not None
    assert (found.fps, found.intervals_s) == (fps, None)


@pytest.mark.parametrize("fps", [NTSC, Fraction(30)])
def test_of_rates_that_few_times_cannot_tell_apart_the_headers_is_taken(fps: Fraction) -> None:
    found = timing_of(stamps(fps, 2, MS), MS, said=[fps])
    assert found is not None
    assert found.fps == fps


def test_a_headers_rate_that_was_rounded_means_the_standard_one() -> None:
    fps = Fraction(60000, 1001)
    found = timing_of(stamps(fps, 12, MS), MS, said=[Fraction(19001, 317)])     # of 16,683,333 ns, as Matroska has it
    assert found is not None
    assert found.fps == fps


def test_the_header_is_not_believed_against_the_time_stamps() -> None:
    found = timing_of(stamps(NTSC, 30, MS), MS, said=[Fraction(1000), Fraction(60)])
    assert found is not None
    assert found.fps == NTSC


def test_the_order_of_the_file_does_not_matter() -> None:  # B pictures are stored after those that they lie between
    found = timing_of([0, 160, 80, 40, 120], MS)
    assert found is not None
    assert found.fps == 25


def test_a_pause_makes_the_rate_variable_and_counts_in_the_duration() -> None:
    at_30 = stamps(Fraction(30), 30, Fraction(1, 30))
    found = timing_of([t if t < 15 else t + 15 for t in at_30], Fraction(1, 30))
    assert found is not None
    assert (found.fps, found.duration_s, found.intervals_s) == (20, Fraction(3, 2), (1 / 30, 16 / 30))


@pytest.mark.parametrize(("last", "duration_s"), [(2, Fraction(12, 10)), (None, Fraction(11, 10)),
                                                  (500, Fraction(11, 10))])
def test_the_last_picture_is_shown_as_long_as_it_says_or_as_is_usual(last: int | None, duration_s: Fraction) -> None:
    found = timing_of([0, 1, 2, 3, 4, 9, 10], Fraction(1, 10), last)
    assert found is not None
    assert found.duration_s == duration_s


@pytest.mark.parametrize("times", [[], [7], [7, 7]])
def test_of_one_time_nothing_follows(times: list[int]) -> None:
    assert timing_of(times, MS) is None
