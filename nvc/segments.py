"""A clip coded in segments, each by itself, and joined to the stream that one encoder would have written.

A closed GOP depends on nothing before it but its place in the clip, so it can be coded anywhere. A segment is some GOPs
in a row, as a stream (nvc/stream/syntax.py) whose first pictures are missing: numbers are those of the clip, and the
header's `frames` counts the pictures up to the segment's end.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from nvc.encoder.sources.scene_cuts import mark_cuts
from nvc.encoder.sources.structure import gops
from nvc.network.planes import pad
from nvc.stream.errors import BitstreamError
from nvc.stream.reading import parse
from nvc.stream.writing import Writer
from video.picture import Picture


def gop_starts(pictures: Iterable[Picture], structure: str, intra_period: int, stop: int) -> list[int]:
    """Numbers of the pictures at which GOPs begin, up to the first that is `stop` or more."""
    marked = mark_cuts(map(pad, pictures), lambda picture: picture.y)
    starts: list[int] = []
    for first, _ in gops(marked, structure, intra_period):
        starts.append(first)
        if first >= stop:
            break
    return starts


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
