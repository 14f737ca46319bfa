"""Writing a stream (nvc/stream/syntax.py): packets in coding order, or whole GOPs."""

from __future__ import annotations

import hashlib

from nvc.stream.coding_order import CodedOrder
from nvc.stream.fields import write_fields
from nvc.stream.syntax import (
    END_MARK,
    GOP_MARK,
    I_FIELDS,
    P_AND_B_FIELDS,
    Gop,
    Header,
    Packet,
    crc_of,
    write_head,
    write_index,
)


class GopWriter:
    """Writes one GOP; for encoders that code several GOPs at a time, each in its own process.

    ValueError names a packet's field that the format does not allow: a fault of the encoder.
    """

    def __init__(self, header: Header) -> None:
        self._header = header
        self._coded: CodedOrder | None = None
        self._data = bytearray()

    @property
    def first(self) -> int:
        """Number of the I picture."""
        return self._begun().first

    @property
    def pictures(self) -> int:
        """Pictures so far."""
        return len(self._begun().order)

    def _begun(self) -> CodedOrder:
        if self._coded is None:
            raise ValueError("type: a GOP begins with an I picture")
        return self._coded

    def add(self, packet: Packet) -> int:
        """Append the next picture in coding order; the bytes that it took."""
        before = len(self._data)
        if self._coded is None:
            if packet.type != "I" or packet.references:
                raise ValueError("type: a GOP begins with an I picture, without references")
            self._data += GOP_MARK + write_fields(I_FIELDS, vars(packet))
            self._coded = CodedOrder(packet.number, self._header.structure)
        else:
            if packet.type not in ("P", "B") or len(packet.references) not in (1, 2):
                raise ValueError(f"type: {packet.type!r}, expected P or B with 1 or 2 references")
            if packet.weights and len(packet.weights) != len(packet.references):
                raise ValueError(f"weights: {len(packet.weights)} for {len(packet.references)} references")
            data = write_fields(P_AND_B_FIELDS, vars(packet))
            head = write_head(self._coded, packet)
            complaint = self._coded.admit(packet.number, packet.references)
            if complaint:
                raise ValueError(f"number: {complaint}")
            self._data += head + data
        if self.pictures > self._header.intra_period:
            raise ValueError(f"intra_period: a GOP of more than {self._header.intra_period} pictures")
        return len(self._data) - before

    def finish(self) -> bytes:
        """The GOP, complete."""
        complaint = self._begun().complaint()
        if complaint:
            raise ValueError(f"number: {complaint}")
        self._data += END_MARK
        return bytes(self._data) + crc_of(self._data)


class Writer:
    """Writes a stream: packets in coding order by :meth:`add`, or whole GOPs by :meth:`add_gop`, then :meth:`finish`.

    first: number of the first picture; above 0 what is written is a segment of a stream (nvc/segments.py).
    Keeps the coded bytes, no pictures. ValueError names what the format does not allow: a fault of the encoder.
    """

    def __init__(self, header: Header, first: int = 0) -> None:
        self._header, self._first = header, first
        self._gop: GopWriter | None = None
        self._gops: list[Gop] = []
        self._body = bytearray()

    @property
    def frames(self) -> int:
        """Pictures in the GOPs that are complete."""
        return self._gops[-1].first + self._gops[-1].pictures - self._first if self._gops else 0

    @property
    def size(self) -> int:
        """Bytes of the GOPs that are complete."""
        return len(self._body)

    def add(self, packet: Packet) -> int:
        """Append the next picture in coding order; the bytes that its packet took. An I picture begins a new GOP."""
        if packet.type == "I":
            self._close()
        if self._gop is None:
            self._gop = GopWriter(self._header)
        return self._gop.add(packet)

    def add_gop(self, first: int, pictures: int, data: bytes) -> None:
        """Append a GOP that a GopWriter made. They come in display order."""
        self._close()
        if first != (expected := self._first + self.frames):
            raise ValueError(f"first: a GOP of picture {first}, expected {expected}")
        self._gops.append(Gop(first, pictures, len(self._body), len(data)))
        self._body += data

    def _close(self) -> None:
        if self._gop is not None:
            gop, self._gop = self._gop, None
            self.add_gop(gop.first, gop.pictures, gop.finish())

    def finish(self) -> bytes:
        """The stream, complete."""
        self._close()
        if not self._gops:
            raise ValueError("frames: a stream has at least one picture")
        header = Header(**(vars(self._header) | {"frames": self._first + self.frames}))
        data = header.write() + bytes(self._body) + write_index(self._gops)
        return data + hashlib.sha256(data).digest()
