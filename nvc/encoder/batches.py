"""Codes batches, the pictures of a level, and lets go of what no later one refers to.

What a batch is made from is its pictures as the segment has them, or filtered along motion where others copy them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from nvc.encoder.encode import Encoder
from nvc.encoder.sources.propagation import Importance
from nvc.encoder.sources.structure import Planner, Unit, schedule
from nvc.encoder.sources.temporal_filter import PICTURES_AROUND, filtered
from nvc.stream.syntax import Packet
from video.picture import Picture


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


def code_segment(encoder: Encoder, planner: Planner, before: list[Picture], segment: list[Picture],
                 after: list[Picture], mini_gop: int, importances: dict[int, Importance]) -> Iterator[Coded]:
    """Code a segment's padded pictures by mini-GOPs of that size, as far as it reaches. before, after: the GOP's
    segments on both sides; importances: by picture number."""
    first = before[-PICTURES_AROUND:]
    near = dict(enumerate([*first, *segment, *after[:PICTURES_AROUND]], planner.number - len(first)))
    planner.mini_gop, encoder.importance = mini_gop, importances
    for batch in schedule(segment, planner):
        with encoder.tally.clock.part("filter"):
            sources = [filtered(unit, near, importances[unit.number].copied, encoder.step(unit))
                       if importances and encoder.effort.along_motion else picture
                       for unit, picture in batch]
        yield code_batch(encoder, [(unit, source) for (unit, _), source in zip(batch, sources, strict=True)])
