"""Which mini-GOP suits a segment: it is coded with those that come into question, from the same state, and the
cheapest stays."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from nvc.encode import Encoder
from nvc.pace import MINI_GOP, segments, suited
from nvc.planes import crop
from nvc.structure import Planner, Unit, schedule
from nvc.syntax import Header, Packet
from picture import Picture

OTHERS = {16: (8, 4), 8: (16, 4), 4: (8, 16)}   # what is tried besides the mini-GOP that suits, as many as the effort
# A decibel of PSNR-YUV is worth this share of the rate: the slope of usual clips. D + λR with squared errors, at its
# best λ, agrees less with BD-rate, which counts decibels and shares too.
WORTH_OF_A_DB = 0.21
# What later segments copy of the anchor at the end: it counts as much again as this share of a segment. Short mini-GOPs
# leave it 0.2 dB worse on average.
ANCHOR = 0.5
ROUNDING = 1 / 12           # least squared error that counts: that of rounding


@dataclass
class Coded:
    """A batch: its packets, and its decoded pictures by number (padded). An empty one says that a trial goes on."""

    packets: list[Packet] = field(default_factory=list)
    pictures: dict[int, Picture] = field(default_factory=dict)


def code_batch(encoder: Encoder, batch: list[tuple[Unit, Picture]]) -> Coded:
    """Code a batch, and let go of references that are needed no more."""
    packets = list(encoder.encode(batch))
    pictures = {packet.number: encoder.frames[packet.number].picture for packet in packets}
    for unit, _ in batch:
        for number in unit.drop:
            encoder.frames.pop(number, None)
    return Coded(packets, pictures)


def psnr(decoded: Picture, source: Picture) -> float:
    """dB, the planes weighed 6:1:1."""
    total = 0.0
    for weight, a, b in zip((6, 1, 1), decoded, source, strict=True):
        error = float(np.mean((a.astype(np.float32) - b) ** 2))
        total += weight * 10 * math.log10(255**2 / max(error, ROUNDING)) / 8
    return total


class Trial:
    """A segment coded in one way: its batches and bits, the sum of its PSNRs (dB, the last more than once); encoder and
    planner as they are then."""

    def __init__(self, encoder: Encoder, planner: Planner) -> None:
        self.encoder, self.planner = encoder, planner
        self.coded: list[Coded] = []
        self.bits, self.db = 0, 0.0

    def run(self, segment: list[Picture], header: Header) -> Iterator[Coded]:
        """Code the segment's padded pictures; gives an empty batch after each."""
        sources = dict(enumerate(segment, self.planner.number))
        for batch in schedule(segment, self.planner):
            coded = code_batch(self.encoder, batch)
            self.coded.append(coded)
            self.bits += sum(8 * (len(packet.motion) + len(packet.latents)) for packet in coded.packets)
            for number, picture in coded.pictures.items():
                db = psnr(*(crop(p, header.width, header.height) for p in (picture, sources[number])))
                self.db += db * (1 + ANCHOR * MINI_GOP * (number == max(sources)))
            yield Coded()


def code_by_trial(encoder: Encoder, planner: Planner, pictures: Iterable[Picture], header: Header,
                  effort: int) -> Iterator[Coded]:
    """Code one GOP's padded pictures, each segment with the mini-GOP that suits it, or with one of the `effort` next
    ones where that turns out better. Latents are refined, where they are, only in what stays."""
    intra_bits = 0
    for before, segment in segments(pictures):
        first = suited(before, segment)
        best, chosen = Trial(encoder.fork(refining=False), planner.copy(first)), first
        yield from best.run(segment, header)
        # Bits that a decibel of one picture is worth; an I picture's are spread over those that it serves.
        a_db = WORTH_OF_A_DB * (intra_bits / header.intra_period + best.bits / len(segment))
        for mini_gop in OTHERS[first][:effort]:
            if min(first, mini_gop) >= len(segment):
                continue                            # both leave the segment whole
            other = Trial(encoder.fork(refining=False), planner.copy(mini_gop))
            yield from other.run(segment, header)
            if other.bits - a_db * other.db < best.bits - a_db * best.db:
                best, chosen = other, mini_gop
        if encoder.smooth:
            best = Trial(encoder.fork(), planner.copy(chosen))
            yield from best.run(segment, header)
        yield from best.coded
        encoder.frames, encoder.tally, planner = best.encoder.frames, best.encoder.tally, best.planner
        intra_bits = intra_bits or best.bits
