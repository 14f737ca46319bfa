"""Codes the pictures of one GOP: what is the same for a clip coded here and for one coded by several processes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from coding.interface import FrameReport, Settings
from nvc.encoder.batches import Coded, code_batch
from nvc.encoder.encode import Encoder, Tally
from nvc.encoder.lookahead import code_ahead
from nvc.encoder.mode_trial import code_by_trial
from nvc.encoder.sources.mini_gop import MINI_GOP
from nvc.encoder.sources.structure import Planner, schedule
from nvc.network.model import load_model
from nvc.network.planes import crop
from nvc.stream.syntax import Header
from nvc.stream.writing import GopWriter
from video.picture import Picture


@dataclass(frozen=True)
class Work:
    """What all GOPs of a clip have in common. t, slack: see `Encoder`."""

    settings: Settings
    t: float
    header: Header
    slack: float = 0.0

    def encoder(self) -> Encoder:
        """An encoder for them, to be used for one GOP after the other."""
        return Encoder(load_model(self.settings.model), self.settings, self.t, self.slack)


@dataclass
class CodedGop:
    """A whole GOP: its bytes as they stand in the stream, and what was spent on them."""

    first: int
    pictures: int
    data: bytes
    tally: Tally


@dataclass
class Step:
    """What one batch brought: its pictures' reports, and the decoded pictures that can be shown now, in order.

    gop: the whole, with the last step of a GOP."""

    reports: list[FrameReport] = field(default_factory=list)
    shown: list[Picture] = field(default_factory=list)
    gop: CodedGop | None = None


def code_gop(encoder: Encoder, header: Header, first: int, pictures: Iterable[Picture]) -> Iterator[Step]:
    """Code one GOP, batch by batch; its bytes depend on nothing before it but `first`, its place in the clip.

    pictures: in display order, padded; taken only as they are needed. header: of the stream."""
    encoder.frames, encoder.importance, encoder.tally = {}, {}, Tally()
    writer, show, waiting = GopWriter(header), first, dict[int, Picture]()
    planner = Planner(header.structure, first, MINI_GOP)
    coded: Iterator[Coded]
    if header.structure != "random_access":
        coded = (code_batch(encoder, batch) for batch in schedule(pictures, planner))
    elif encoder.effort.mini_gops:
        coded = code_by_trial(encoder, planner, pictures, header)
    else:
        coded = code_ahead(encoder, planner, pictures)
    for batch in coded:
        waiting |= batch.pictures
        step = Step([FrameReport(packet.number, packet.type, writer.add(packet)) for packet in batch.packets])
        while show in waiting:
            step.shown.append(crop(waiting.pop(show), header.width, header.height))
            show += 1
        yield step
    yield Step(gop=CodedGop(first, writer.pictures, writer.finish(), encoder.tally))
