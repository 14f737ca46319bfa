"""In which order pictures are coded and what each refers to: decided here by the encoder, written in the stream.

    intra          I I I I I                                    every picture is a GOP
    low_delay      I P P P P                                    each refers to the one or two before it
    random_access  I                       P                    a mini-GOP of 8: the P picture at its end comes first,
                               B                                then B pictures halve the gaps, level by level
                         B           B
                      B     B     B     B
    number         0  1  2  3  4  5  6  7  8

GOPs are closed: an I picture starts one at the latest after the intra period, and at scene cuts; nothing refers across,
so each can be coded by itself. What is left before it is a shorter mini-GOP of the same shape. Pictures of a level do
not refer to each other, so they can be coded as one batch. At most one mini-GOP is waited for, and the references held
at any time are at most half a mini-GOP and two (one more where P pictures have two references), however long the clip.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import TypeVar

from nvc.stream.errors import SettingsError

STRUCTURES = ("intra", "low_delay", "random_access")
MINI_GOPS = (1, 2, 4, 8, 16)

# Steps of 1/16 octave of the quantiser's step by which a level is coarser than an I picture: 0 I, 1 P, 2… B. What many
# pictures refer to deserves the bits: against (0, 8, 15, 21, 25, 27) these saved 3 % on four clips of 33 pictures.
LEVEL_OFFSETS = (0, 11, 20, 28, 33, 35)

T = TypeVar("T")


@dataclass(frozen=True)
class Unit:
    """One picture to code. A number is a place in display order, from 0."""

    number: int
    type: str  # "I", "P", "B"
    references: tuple[int, ...]  # none, one or two; a B picture's are (earlier, later)
    level: int  # 0: I, 1: P, 2…: B, one more for each halving of the gap
    drop: tuple[int, ...]  # after this unit nothing refers to these; holds its own number where nothing refers to it

    @property
    def step_offset(self) -> int:
        """What to add to the step index q for this level, in 1/16 octave."""
        return LEVEL_OFFSETS[self.level]



def gops(pictures: Iterable[tuple[T, bool]], structure: str, intra_period: int) -> Iterator[tuple[int, Iterator[T]]]:
    """Each GOP's first number and its pictures, from (picture, is it the first of a scene) in display order.

    Like itertools.groupby it keeps nothing: a GOP's pictures are to be taken before the next GOP. SettingsError names
    an argument out of its range.
    """
    if structure not in STRUCTURES:
        raise SettingsError(f"structure is {structure!r}, expected one of {', '.join(STRUCTURES)}")
    if intra_period < 1:
        raise SettingsError(f"intra_period is {intra_period}, expected at least 1")
    period = 1 if structure == "intra" else intra_period

    def numbered() -> Iterator[tuple[int, T]]:
        first = 0
        for number, (picture, cut) in enumerate(pictures):
            if cut or number - first == period:
                first = number
            yield first, picture

    return ((first, map(itemgetter(1), group)) for first, group in groupby(numbered(), itemgetter(0)))


class Planner:
    """Turns the pictures of one GOP, announced one by one, into units in coding order.

    first: number of its I picture. ``mini_gop`` may be set to another of MINI_GOPS at any time; it holds from the next
    mini-GOP on. SettingsError names an argument out of its range.
    """

    def __init__(self, structure: str, first: int = 0, mini_gop: int = 8, past_references: int = 1) -> None:
        if structure not in STRUCTURES:
            raise SettingsError(f"structure is {structure!r}, expected one of {', '.join(STRUCTURES)}")
        if mini_gop not in MINI_GOPS:
            raise SettingsError(f"mini_gop is {mini_gop}, expected one of {', '.join(map(str, MINI_GOPS))}")
        if past_references not in (1, 2):
            raise SettingsError(f"past_references is {past_references}, expected 1 or 2")
        self.mini_gop = 1 if structure == "low_delay" else mini_gop
        self._past_references = past_references
        self.number = first  # of the next picture
        self._anchors: tuple[int, ...] = ()  # the latest I and P pictures, which the next P may refer to
        self._waiting: list[int] = []  # numbers without a unit yet

    def copy(self, mini_gop: int) -> Planner:
        """A planner that goes on from here by itself, with another mini-GOP."""
        other = copy.copy(self)
        other._waiting = list(self._waiting)
        other.mini_gop = mini_gop
        return other

    def push(self) -> list[Unit]:
        """Announce the next picture; the units that can now be coded, if any."""
        number = self.number
        self.number += 1
        if not self._anchors:
            self._anchors = (number,)
            return [Unit(number, "I", (), 0, ())]
        self._waiting.append(number)
        return self._mini_gop(self.mini_gop) if len(self._waiting) >= self.mini_gop else []

    def finish(self) -> list[Unit]:
        """The units of what still waits, because the GOP ends."""
        units: list[Unit] = []
        while self._waiting:
            units += self._mini_gop(min(len(self._waiting), self.mini_gop))
        return units

    def _mini_gop(self, length: int) -> list[Unit]:
        end = self._waiting[length - 1]
        del self._waiting[:length]
        order = [(end, "P", self._anchors[::-1], 1)]
        gaps, level = [(self._anchors[-1], end)], 2
        while gaps:
            halves = [(low, (low + high) // 2, high) for low, high in gaps if high - low > 1]
            order += [(middle, "B", (low, high), level) for low, middle, high in halves]
            gaps = [gap for low, middle, high in halves for gap in ((low, middle), (middle, high))]
            level += 1
        self._anchors = (*self._anchors, end)[-self._past_references :]
        last_use = {number: place for place, (number, *_) in enumerate(order)}
        for place, (_, _, references, _) in enumerate(order):
            last_use.update(dict.fromkeys(references, place))
        return [
            Unit(number, type_, references, level, tuple(
                n for n in (*references, number) if last_use[n] == place and n not in self._anchors
            ))
            for place, (number, type_, references, level) in enumerate(order)
        ]  # fmt: skip


def batches(units: Iterable[Unit]) -> Iterator[list[Unit]]:
    """Group neighbours in coding order that do not depend on each other: those of one level."""
    batch: list[Unit] = []
    for unit in units:
        if batch and (unit.level != batch[-1].level or not {u.number for u in batch}.isdisjoint(unit.references)):
            yield batch
            batch = []
        batch.append(unit)
    if batch:
        yield batch


def schedule(pictures: Iterable[T], planner: Planner) -> Iterator[list[tuple[Unit, T]]]:
    """Batches of one GOP in coding order, each unit with its picture, from pictures in display order.

    Takes pictures only as they are needed and keeps those of one mini-GOP.
    """
    waiting: dict[int, T] = {}
    for picture in pictures:
        waiting[planner.number] = picture
        for batch in batches(planner.push()):
            yield [(unit, waiting.pop(unit.number)) for unit in batch]
    for batch in batches(planner.finish()):
        yield [(unit, waiting.pop(unit.number)) for unit in batch]
