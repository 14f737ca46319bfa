"""Reading a stream (nvc/stream/syntax.py): whole, by its index alone, or what is left of a damaged one."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from nvc.stream.errors import BitstreamError
from nvc.stream.fields import Cursor
from nvc.stream.syntax import (
    GOP_MARK,
    HASH_BYTES,
    INDEX_MARK,
    LENGTH_BYTES,
    Gop,
    Header,
    Packet,
    read_gop,
    read_header,
    write_index,
)
from video.picture import DEFAULT_LIMITS, Limits


@dataclass(frozen=True)
class Stream:
    """A stream, or what was recovered of one: its header and where its GOPs stand, in display order."""

    header: Header
    gops: tuple[Gop, ...]
    data: memoryview

    def packets(self, gop: Gop) -> list[Packet]:
        """The GOP's pictures in coding order; BitstreamError if it is damaged, so after :func:`locate` it may be."""
        found, coded, values = read_gop(Cursor(self.data, gop.offset), self.header)
        if found != gop:
            raise BitstreamError(f"expected the GOP of pictures {gop.first}…{gop.first + gop.pictures - 1}", gop.offset)
        return [Packet(**fields, drop=drop) for fields, drop in zip(values, coded.drops(), strict=True)]

    @property
    def missing(self) -> list[range]:
        """The pictures that no GOP here holds, as ranges of numbers; empty for a whole stream."""
        ranges, number = [], 0
        for first, pictures in [(gop.first, gop.pictures) for gop in self.gops] + [(self.header.frames, 0)]:
            if first > number:
                ranges.append(range(number, first))
            number = first + pictures
        return ranges


def parse(data: bytes | bytearray | memoryview, limits: Limits = DEFAULT_LIMITS, first: int = 0) -> Stream:
    """Check the whole stream and say what is in it; payloads are not looked into. first: number of its first picture,
    above 0 in a segment of a stream.

    Raises BitstreamError, with the offset, for anything that is no undamaged NVC1 stream, and for one that asks for
    more than ``limits`` allow. Takes time and memory in proportion to ``len(data)``, whatever the bytes say.
    """
    cursor = Cursor(memoryview(data).toreadonly())
    header = read_header(cursor, limits)
    if header.frames <= first:
        raise BitstreamError(f"pictures up to {header.frames - 1}, expected some from {first} on", cursor.position)
    gops: list[Gop] = []
    frames = first
    while frames < header.frames:
        gop, _, _ = read_gop(cursor, header)
        if gop.first != frames:
            raise BitstreamError(f"a GOP of picture {gop.first}, expected {frames}", gop.offset)
        gops.append(gop)
        frames += gop.pictures
    start = cursor.position
    index = write_index(gops)
    if cursor.take(len(index), "the index") != index:
        raise BitstreamError("the index does not agree with the GOPs before it", start)
    at = cursor.position
    if cursor.take(HASH_BYTES, "the hash") != hashlib.sha256(cursor.data[:at]).digest():
        raise BitstreamError("damaged: the bytes before do not match the hash", at)
    if cursor.position != len(data):
        raise BitstreamError(f"{len(data) - cursor.position} bytes after the end", cursor.position)
    return Stream(header, tuple(gops), cursor.data)


def locate(data: bytes | bytearray | memoryview, limits: Limits = DEFAULT_LIMITS) -> Stream:
    """The stream by its header and index alone: for a quick look, or to decode one GOP of a long stream.

    Neither the hash nor the GOPs are read; a GOP is checked when :meth:`Stream.packets` opens it.
    """
    cursor = Cursor(memoryview(data).toreadonly())
    header = read_header(cursor, limits)
    offset, end = cursor.position, len(data) - HASH_BYTES - LENGTH_BYTES
    start = end - int.from_bytes(cursor.data[max(end, 0) :][:LENGTH_BYTES], "little")
    if start < offset:
        raise BitstreamError("truncated: there is no index at the end", len(data))
    cursor.position = start
    if cursor.take(len(INDEX_MARK), "the index") != INDEX_MARK:
        raise BitstreamError("truncated: there is no index at the end", start)
    gops: list[Gop] = []
    frames = 0
    for _ in range(cursor.varint("count")):
        gops.append(Gop(frames, cursor.varint("pictures"), offset, cursor.varint("size")))
        frames += gops[-1].pictures
        offset += gops[-1].size
    if (frames, offset, cursor.position) != (header.frames, start, end):
        raise BitstreamError("the index does not agree with the header and the stream's length", start)
    return Stream(header, tuple(gops), cursor.data)


def recover(data: bytes | bytearray | memoryview, limits: Limits = DEFAULT_LIMITS) -> Stream:
    """The GOPs that are still whole, found by their marks and held to their checks; the rest is in ``missing``.

    Raises BitstreamError if the header is damaged or over the limits, or if no GOP is whole. Time is bounded: after
    reading four times as many bytes as there are it stops with what it has.
    """
    cursor = Cursor(memoryview(data).toreadonly())
    header = read_header(cursor, limits)
    whole = bytes(data)
    found: dict[int, Gop] = {}
    budget = 4 * len(whole)
    at = whole.find(GOP_MARK, cursor.position)
    while at >= 0 and budget > 0:
        cursor.position = at
        try:
            gop, _, _ = read_gop(cursor, header)
        except BitstreamError:
            budget -= cursor.position - at
            at = whole.find(GOP_MARK, at + 1)
        else:
            budget -= gop.size
            found.setdefault(gop.first, gop)
            at = whole.find(GOP_MARK, cursor.position)
    gops: list[Gop] = []
    for _, gop in sorted(found.items()):
        if not gops or gop.first >= gops[-1].first + gops[-1].pictures:
            gops.append(gop)
    if not gops:
        raise BitstreamError("no GOP is whole", cursor.position)
    return Stream(header, tuple(gops), cursor.data)
