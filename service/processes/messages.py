"""Messages between a worker and its processes: four bytes of length (big-endian), then so many bytes of UTF-8 JSON."""

from __future__ import annotations

import json
import struct
from typing import Any

MAX_MESSAGE_BYTES = 64 << 20  # a result with a row for each of 500,000 pictures; more is a codec gone wrong
LENGTH = struct.Struct(">I")


class MessageError(Exception):
    """The other side's bytes are no message: over MAX_MESSAGE_BYTES, or no JSON object."""


def frame_message(message: dict[str, Any]) -> bytes:
    """The bytes of one message. Raises ValueError for what JSON cannot say (NaN, foreign types)."""
    body = json.dumps(message, allow_nan=False, separators=(",", ":")).encode()
    if len(body) > MAX_MESSAGE_BYTES:
        raise MessageError(f"a message of {len(body)} bytes is over the limit of {MAX_MESSAGE_BYTES}")
    return LENGTH.pack(len(body)) + body


class MessageBuffer:
    """Collects bytes as they come and gives whole messages."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def feed(self, data: bytes) -> None:
        self._bytes += data

    def next(self) -> dict[str, Any] | None:
        """The oldest whole message, or None. Raises MessageError."""
        if len(self._bytes) < LENGTH.size:
            return None
        (length,) = LENGTH.unpack_from(self._bytes)
        if length > MAX_MESSAGE_BYTES:
            raise MessageError(f"a message of {length} bytes is over the limit of {MAX_MESSAGE_BYTES}")
        if len(self._bytes) < LENGTH.size + length:
            return None
        body = bytes(self._bytes[LENGTH.size : LENGTH.size + length])
        del self._bytes[: LENGTH.size + length]
        try:
            message = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise MessageError(f"a message is no JSON: {error}") from error
        if not isinstance(message, dict):
            raise MessageError(f"a message is a {type(message).__name__}, not an object")
        return message
