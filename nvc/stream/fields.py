"""Reading and writing fields of bytes by tables; nvc/stream/syntax.py says which fields a stream has.

A table is a tuple of :class:`Field`. ``write_fields(table, values)`` gives the bytes that ``Cursor.fields(table)``
reads the same values from; both refuse what the table does not allow, each as its own side's fault.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from nvc.stream.errors import BitstreamError

U32_MAX = 2**32 - 1


@dataclass(frozen=True)
class Field:
    """One field: its name in Header or Packet, how it is written, and its range (of a blob: of its length).

    ``kind`` is "bytes" (``high`` of them), "byte", "varint", "name" (one byte, a place in ``names``) or "blob".
    """

    name: str
    kind: str
    low: int = 0
    high: int = 0
    names: tuple[str, ...] = ()

    @property
    def expected(self) -> str:
        """The range, for messages."""
        return f"{self.low}…{self.high}" if self.low < self.high else str(self.low)


class Cursor:
    """Reads fields from bytes, each checked; every failure is a BitstreamError at the field's first byte."""

    def __init__(self, data: memoryview, position: int = 0) -> None:
        self.data = data
        self.position = position

    def take(self, count: int, name: str) -> memoryview:
        """The next ``count`` bytes, not copied."""
        start, stop = self.position, self.position + count
        if stop > len(self.data):
            raise BitstreamError(f"truncated: {name} takes {count} bytes, {len(self.data) - start} are left", start)
        self.position = stop
        return self.data[start:stop]

    def byte(self, name: str) -> int:
        """The next byte, 0…255."""
        return self.take(1, name)[0]

    def varint(self, name: str) -> int:
        """The next varint, 0…2³² - 1."""
        start, value = self.position, 0
        for shift in range(0, 35, 7):
            byte = self.byte(name)
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if (byte == 0 and shift) or value > U32_MAX:
                    break
                return value
        raise BitstreamError(f"{name} is no varint below 2^32 in its shortest form", start)

    def fields(self, table: Iterable[Field]) -> dict[str, Any]:
        """The values of the table's fields, in its order."""
        return {field.name: self._field(field) for field in table}

    def _field(self, field: Field) -> Any:
        start = self.position
        if field.kind == "bytes":
            return bytes(self.take(field.high, field.name))
        if field.kind == "name":
            place = self.byte(field.name)
            if place >= len(field.names):
                raise BitstreamError(f"{field.name} is {place}, expected 0…{len(field.names) - 1}", start)
            return field.names[place]
        value = self.byte(field.name) if field.kind == "byte" else self.varint(field.name)
        if not field.low <= value <= field.high:
            what = "the length of " * (field.kind == "blob") + field.name
            raise BitstreamError(f"{what} is {value}, expected {field.expected}", start)
        return self.take(value, field.name) if field.kind == "blob" else value


def varint(value: int) -> bytes:
    """The varint of 0…2³² - 1."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def write_fields(table: Iterable[Field], values: dict[str, Any]) -> bytes:
    """The bytes that :meth:`Cursor.fields` reads the values back from. ValueError names a field out of its range."""
    return b"".join(_write_field(field, values[field.name]) for field in table)


def _write_field(field: Field, value: Any) -> bytes:
    if field.kind == "bytes":
        if len(value) != field.high:
            raise ValueError(f"{field.name} has {len(value)} bytes, expected {field.high}")
        return bytes(value)
    if field.kind == "name":
        if value not in field.names:
            raise ValueError(f"{field.name} is {value!r}, expected one of {', '.join(field.names)}")
        return bytes([field.names.index(value)])
    number = len(value) if field.kind == "blob" else value
    if not field.low <= number <= field.high:
        what = "the length of " * (field.kind == "blob") + field.name
        raise ValueError(f"{what} is {number}, expected {field.expected}")
    if field.kind == "byte":
        return bytes([number])
    return varint(number) + (bytes(value) if field.kind == "blob" else b"")
