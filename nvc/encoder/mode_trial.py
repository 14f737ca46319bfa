"""Which mini-GOP, search of motion and steps suit a segment: it is coded with the ways that come into question, from
the same state, and the cheapest stays; steps follow what was copied from where."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Iterator

import numpy as np

from nvc.encoder.batches import Coded, code_batch, code_segment
from nvc.encoder.encode import Encoder
from nvc.encoder.sources.mini_gop import MINI_GOP, segments, suited
from nvc.encoder.sources.propagation import Copied, Importance, importance_of
from nvc.encoder.sources.structure import Planner, Unit, schedule
from nvc.network.planes import crop
from nvc.stream.syntax import Header
from video.picture import Picture

OTHERS = {16: (8, 4), 8: (16, 4), 4: (8, 16)}   # what is tried besides the mini-GOP that suits, the first ones first
# A decibel of PSNR-YUV equals this share of the rate: the slope of usual clips. D + λR with squared errors, at its
# best λ, agrees less with BD-rate, which counts decibels and shares too.
RATE_OF_A_DB = 0.21
# What later segments copy of the anchor at the end, where there are any: it counts as much again as this share of a
# segment. Short mini-GOPs leave it 0.2 dB worse on average.
ANCHOR = 0.5
ROUNDING = 1 / 12           # least squared error that counts: that of rounding


def psnr(decoded: Picture, source: Picture) -> float:
    """dB, the planes weighed 6:1:1."""
    total = 0.0
    for weight, a, b in zip((6, 1, 1), decoded, source, strict=True):
        error = float(np.mean((a.astype(np.float32) - b) ** 2))
        total += weight * 10 * math.log10(255**2 / max(error, ROUNDING)) / 8
    return total


class Trial:
    """A segment coded in one way, unrefined: its bits, the sum of its PSNRs (dB, the last more than once where more
    follow) and what was copied from where; encoder and planner as they are then."""

    def __init__(self, encoder: Encoder, planner: Planner, segment: list[Picture], goes_on: bool) -> None:
        self.encoder, self.planner, self.segment = encoder, planner, segment
        self.again = ANCHOR * MINI_GOP if goes_on else 0.0      # how often the anchor counts besides
        self.bits, self.db = 0, 0.0
        self.copied: list[Copied] = []
        encoder.observe = self.note

    def note(self, unit: Unit, picture: Picture, pair: tuple[Picture, Picture] | None) -> None:
        frame = self.encoder.frames[unit.number]
        self.copied.append(Copied.of(unit, picture, pair, frame.picture, frame.reference.field))

    def run(self, header: Header) -> Iterator[Coded]:
        """Code the segment's padded pictures; gives an empty batch after each."""
        sources = dict(enumerate(self.segment, self.planner.number))
        for batch in schedule(self.segment, self.planner):
            coded = code_batch(self.encoder, batch)
            self.bits += sum(8 * len(packet.payload) for packet in coded.packets)
            for number, picture in coded.pictures.items():
                db = psnr(*(crop(p, header.width, header.height) for p in (picture, sources[number])))
                self.db += db * (1 + self.again * (number == max(sources)))
            yield Coded()


def code_by_trial(encoder: Encoder, planner: Planner, pictures: Iterable[Picture], header: Header) -> Iterator[Coded]:
    """Code one GOP's padded pictures, each segment in the best of its effort's ways: the mini-GOP that suits it or one
    of the next ones, and one of the searches of motion.

    Trials go ahead by a segment, unrefined and from their own decoded pictures. So it is known what the following
    segment copies of one that is coded in earnest."""
    scout, ahead = encoder, planner.copy(planner.mini_gop)
    chosen: Trial | None = None
    coded: list[Picture] = []
    intra_bits = 0
    for anchor, segment, goes_on in segments(pictures):
        best = yield from _best(scout, ahead, anchor, segment, goes_on, header, intra_bits)
        if chosen:
            importances = importance_of(chosen.copied + best.copied, goes_on)
            yield from _as_chosen(encoder, planner, coded, chosen, segment, importances)
            coded = chosen.segment
        scout, ahead, chosen = best.encoder, best.planner, best
        intra_bits = intra_bits or best.bits
    if chosen:
        yield from _as_chosen(encoder, planner, coded, chosen, [], importance_of(chosen.copied, False))


def _best(encoder: Encoder, planner: Planner, before: Picture | None, segment: list[Picture], goes_on: bool,
          header: Header, intra_bits: int) -> Generator[Coded, None, Trial]:
    """The best trial of a segment, from encoder and planner as they are. goes_on: whether more follow; intra_bits: of
    the GOP's I picture."""
    fastest, *searches = encoder.effort.searches
    first = suited(before, segment)
    best = Trial(encoder.fork(fastest), planner.copy(first), segment, goes_on)
    yield from best.run(header)
    # Bits that a decibel of one picture equals; an I picture's are spread over those that it serves.
    a_db = RATE_OF_A_DB * (intra_bits / header.intra_period + best.bits / len(segment))
    # Where both mini-GOPs leave the segment whole, there is nothing to try.
    others = [n for n in OTHERS[first][:encoder.effort.mini_gops] if min(first, n) < len(segment)]
    ways = [(first, search) for search in searches if before] + [(mini_gop, None) for mini_gop in others]
    for mini_gop, search in ways:
        other = encoder.fork(best.encoder.search if search is None else search)
        trial = Trial(other, planner.copy(mini_gop), segment, goes_on)
        yield from trial.run(header)
        if trial.bits - a_db * trial.db < best.bits - a_db * best.db:
            best = trial
    return best


def _as_chosen(encoder: Encoder, planner: Planner, before: list[Picture], chosen: Trial, after: list[Picture],
               importances: dict[int, Importance]) -> Iterator[Coded]:
    """Code a segment in earnest, with all that the effort allows. before, after: the segments on both sides."""
    encoder.search = chosen.encoder.search
    yield from code_segment(encoder, planner, before, chosen.segment, after, chosen.planner.mini_gop, importances)
