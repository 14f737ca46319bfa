"""A clip coded in segments, each by itself, and joined to the stream that one encoder would have written.

A closed GOP depends on nothing before it but its place in the clip, so it can be coded anywhere. A segment is some GOPs
in a row, as a stream (nvc/stream/syntax.py) whose first pictures are missing: numbers are those of the clip, and the
header's `frames` counts the pictures up to the segment's end.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain

from coding.interface import Settings
from nvc.encoder.clip import Gops, gops_of
from nvc.stream.errors import BitstreamError
from nvc.stream.reading import parse
from nvc.stream.writing import Writer
from video.picture import Picture


def gops_within(pictures: Iterable[Picture], settings: Settings, low: int, high: int) -> tuple[int, Gops] | None:
    """The GOPs that begin at picture `low` or later and before `high`, and the number of their first picture; None
    where none does. pictures: of the clip from its first one on, since cuts are found by comparison with what was
    before."""

    def chosen() -> Iterator[tuple[int, Iterable[Picture]]]:
        for first, group in gops_of(pictures, settings):
            if first >= high:
                return
            if first >= low:
                yield first, group

    found = chosen()
    head = next(found, None)
    return None if head is None else (head[0], chain([head], found))


def join(segments: Sequence[bytes]) -> bytes:
    """The stream of all segments, given in order. BitstreamError where one is damaged, or is not of the same clip and
    settings; ValueError without any."""
    writer: Writer | None = None
    header = None
    for number, data in enumerate(segments):
        stream = parse(data, first=writer.frames if writer else 0)
        if writer is None or header is None:
            header = stream.header
            writer = Writer(header)
        if stream.header != replace(header, frames=stream.header.frames):
            raise BitstreamError(f"segment {number} is not of the same clip and settings as segment 0", 0)
        for gop in stream.gops:
            writer.add_gop(gop.first, gop.pictures, bytes(stream.data[gop.offset : gop.offset + gop.size]))
    if writer is None:
        raise ValueError("segments: expected at least one")
    return writer.finish()
