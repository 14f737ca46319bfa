"""Which mini-GOP wins: by an encoder whose bits and errors are a formula, and with the real one."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
from synthetic import info_of, moving, sha_of

import codec
from coding.interface import Settings
from nvc.encoder.effort import Effort
from nvc.encoder.encode import Encoder, Tally
from nvc.encoder.mode_trial import code_by_trial, psnr
from nvc.encoder.sources.structure import Planner, Unit
from nvc.network.model import DEFAULT_MODEL, load_model
from nvc.stream.syntax import Header, Packet
from video.picture import Picture

HEADER = Header(b"\x01" * 8, 32, 32, Fraction(25))
GREY = Picture(*(np.full((n, n), 128, np.uint8) for n in (32, 16, 16)))
Formula = Callable[[Unit], int]
ALL = Effort(mini_gops=2)


class FormulaEncoder:
    """Stands for nvc.encode.Encoder: a picture takes as many bytes, and is as many grey levels off, as formulas say.

    tried: (number, search) of each picture that forks coded; coded: the same in earnest."""

    def __init__(self, size: Formula, off: Formula, effort: Effort = ALL) -> None:
        self.size, self.off, self.effort, self.search = size, off, effort, effort.searches[-1]
        self.frames: dict[int, SimpleNamespace] = {}
        self.tally = Tally()
        self.tried: list[tuple[int, int]] = []
        self.coded: list[tuple[int, int]] = []

    def fork(self, search: int) -> FormulaEncoder:
        other = copy.copy(self)
        other.frames, other.coded, other.search = dict(self.frames), self.tried, search
        return other

    def wanted(self, unit: Unit) -> float:
        return 40.0

    def encode(self, batch: list[tuple[Unit, Picture]]) -> Iterator[Packet]:
        for unit, picture in batch:
            assert self.frames.keys() >= set(unit.references)
            self.coded.append((unit.number, self.search))
            decoded = Picture(*(plane + np.uint8(self.off(unit)) for plane in picture))
            self.frames[unit.number] = SimpleNamespace(picture=decoded)
            size = self.size(unit) - (self.search > 0)
            yield Packet(unit.number, unit.type, unit.references, 40, bytes(size))


def types(frames: int, size: Formula, off: Formula = lambda unit: 2, first: int = 0) -> tuple[str, int]:
    """The types chosen, in display order, and how many pictures were coded for that."""
    encoder = FormulaEncoder(size, off)
    chosen: dict[int, str] = {}
    planner = Planner("random_access", first, 16)
    for coded in code_by_trial(encoder, planner, [GREY] * frames, HEADER):  # type: ignore[arg-type]
        chosen |= {packet.number: packet.type for packet in coded.packets}
        assert list(coded.pictures) == [packet.number for packet in coded.packets]
    assert sorted(chosen) == list(range(first, first + frames))
    assert list(encoder.frames) == [max(chosen)]        # nothing refers to the others any more
    return "".join(chosen[number] for number in sorted(chosen)), len(encoder.tried)


def far(unit: Unit) -> int:
    return max([0, *(abs(unit.number - n) for n in unit.references)])


def test_dear_p_pictures_make_long_mini_gops() -> None:
    assert types(33, lambda u: 100 if u.type == "P" else 10) == ("I" + 2 * "BBBBBBBBBBBBBBBP", 1 + 2 * 48)


def test_dear_distances_make_short_mini_gops() -> None:
    assert types(33, lambda u: 10 + far(u) ** 2) == ("I" + 8 * "BBBP", 1 + 2 * 48)


def test_each_segment_has_its_own() -> None:
    assert types(33, lambda u: 10 + far(u) ** 2 * (u.number > 16))[0] == "IBBBBBBBBBBBBBBBP" + 4 * "BBBP"


def test_between_them_lies_8() -> None:
    assert types(17, lambda u: 10 + 60 * (u.type == "P") + far(u) ** 2 // 2)[0] == "I" + 2 * "BBBBBBBP"


def test_what_is_left_of_a_gop_is_a_segment() -> None:
    assert types(8, lambda u: 10 + far(u) ** 2)[0] == "IBBBPBBP"
    assert types(4, lambda u: 10 + far(u) ** 2) == ("IBBP", 4)


def test_a_gop_may_begin_anywhere() -> None:
    assert types(6, lambda u: 10 + far(u) ** 2, first=70)[0] == "IBBBPP"


@pytest.mark.parametrize(("more", "chosen"), [(120, "IBBBBBBBPBBBBBBBP"), (130, "IBBBBBBBBBBBBBBBP")])
def test_a_decibel_is_worth_21_percent_of_the_rate(more: int, chosen: str) -> None:
    """As P picture, number 8 is 1 grey level off instead of 2: 6.02 dB, worth 128 bytes where all others take 100."""
    def middle(unit: Unit) -> bool:
        return unit.number == 8 and unit.type == "P"

    assert types(17, lambda u: 100 + more * middle(u), lambda u: 2 - middle(u))[0] == chosen


@pytest.mark.parametrize(("frames", "more", "chosen"), [
    (33, 1140, "IBBBBBBBPBBBBBBBP"), (33, 1170, "IBBBBBBBBBBBBBBBP"),
    (17, 120, "IBBBBBBBPBBBBBBBP"), (17, 130, "IBBBBBBBBBBBBBBBP")])
def test_the_anchor_counts_nine_times_where_more_pictures_follow(frames: int, more: int, chosen: str) -> None:
    """After a P picture 8, number 16 is 1 grey level off instead of 2; by 128 bytes a time that is worth 1155."""
    def anchor(unit: Unit) -> bool:
        return unit.number == 16 and unit.references == (8,)

    assert types(frames, lambda u: 100 + more * anchor(u), lambda u: 2 - anchor(u))[0][:17] == chosen


def test_psnr_weighs_luma_six_times_and_stops_where_rounding_rules() -> None:
    assert psnr(GREY, GREY) == pytest.approx(58.92, abs=0.01)
    assert psnr(GREY._replace(y=GREY.y + np.uint8(127)), GREY) == pytest.approx((6 * 6.05 + 2 * 58.92) / 8, abs=0.01)


@pytest.mark.parametrize("effort", [0, 1, 2, 3])
def test_the_decoder_follows_whatever_is_chosen(effort: int) -> None:
    pictures = moving(20)
    encoded = codec.get("nvc").encode(pictures, info_of(pictures), Settings(quality=20, effort=effort))
    assert sha_of(codec.get("nvc").decode(encoded.data)) == encoded.pictures_sha256


def test_a_search_that_saves_is_kept_for_all_that_follows() -> None:
    encoder = FormulaEncoder(lambda unit: 10, lambda unit: 2, Effort((0, 2), mini_gops=1))
    for _ in code_by_trial(encoder, Planner("random_access", 0, 16), [GREY] * 17, HEADER):  # type: ignore[arg-type]
        pass
    assert Counter(search for _, search in encoder.tried) == {0: 17, 2: 32}     # an I picture has no motion
    assert sorted(encoder.coded) == [(0, 0), *((number, 2) for number in range(1, 17))]


def test_in_earnest_each_picture_is_coded_once_a_segment_after_its_trial() -> None:
    encoder = FormulaEncoder(lambda unit: 10, lambda unit: 2)
    began = []
    for coded in code_by_trial(encoder, Planner("random_access", 0, 16), [GREY] * 49, HEADER):  # type: ignore[arg-type]
        began += [max(number for number, _ in encoder.tried)] * len(coded.packets)
    assert sorted(number for number, _ in encoder.coded) == list(range(49))
    assert began == [16] + [32] * 16 + [48] * 32


def test_what_the_next_segments_copy_is_coded_with_finer_steps() -> None:
    """Where nothing moves, an anchor in the middle of the clip is copied more than the last."""
    still = [moving(1)[0]] * 49
    encoder = Encoder(load_model(DEFAULT_MODEL), Settings(effort=2), 40.0)
    header = Header(b"\x01" * 8, still[0].y.shape[1], still[0].y.shape[0], Fraction(25))
    steps: dict[int, int] = {}
    for coded in code_by_trial(encoder, Planner("random_access", 0, 16), still, header):
        steps |= {packet.number: packet.q for packet in coded.packets}
    assert steps[0] < steps[16] < steps[48] - 4
