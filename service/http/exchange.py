"""A request as handlers see it, and the answer they give: bodies, trace context (W3C), event streams (HTML standard,
section 9.2), files.  What is then sent is rendering.py's; sockets live in server.py.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Protocol
from urllib.parse import quote

from service.http.parsing import Headers, Problem, read_json

_PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_WAIT = re.compile(r"wait\s*=\s*\"?([0-9]{1,6})\"?")
_DIGEST = re.compile(r"sha-256=:([A-Za-z0-9+/=]{44}):")


class Disconnected(Exception):
    """The client is gone; nobody is there to answer.  The server catches it."""


class BodySource(Protocol):
    """Where a streamed body comes from; the server's connection."""

    def read_body(self, view: memoryview) -> int:
        """Fill some of `view`; -> bytes read, 0 at the end.  Raises Problem 408, Disconnected."""

    def gone(self) -> bool:
        """Whether the client has closed."""


@dataclass(frozen=True)
class Trace:
    """W3C Trace Context: `trace_id` (32 hex) is carried through all services, `span_id` (16 hex) is this request."""

    trace_id: str
    span_id: str
    parent_id: str | None = None
    flags: str = "01"

    @property
    def traceparent(self) -> str:
        """The header value to send onward."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags}"


def new_trace(traceparent: str | None) -> Trace:
    """A span for a new request: child of `traceparent` (W3C Trace Context section 3.2) if valid, else a new trace."""
    span_id = secrets.token_hex(8)
    match = _PARENT.fullmatch(traceparent) if traceparent else None
    if match and match[1] != "ff" and int(match[2], 16) and int(match[3], 16) and not (match[1] == "00" and match[5]):
        return Trace(match[2], span_id, match[3], match[4])
    return Trace(secrets.token_hex(16), span_id)


@dataclass(frozen=True)
class Principal:
    """Who asks: `key` is the id of the API key ("" where keys are not in use), `role` one of access.ROLES."""

    key: str = ""
    role: str = "admin"


@dataclass
class Request:
    """One request whose head has passed every check of the HTTP layer and of its route.

    method, path   as sent, but HEAD arrives as "GET" with `head` set
    route          the pattern that matched, "/experiment/{id}/status"
    params         path variables, percent-decoded, never empty, never holding "/" or control characters
    query          query parameters, the first value of each; query_all has all of them
    peer           address of the client, without port
    wait_s         seconds of `Prefer: wait=n` (RFC 7240), at most http_max_wait_s; None when not asked for, or when no
                   waiting place is free: then answer at once
    body           the whole body for routes with a JSON body; b"" for streamed ones (use save)
    stopping       set when the server drains: whoever waits must return soon
    """

    method: str = "GET"
    path: str = "/"
    route: str = ""
    params: dict[str, str] = field(default_factory=dict)
    query: dict[str, str] = field(default_factory=dict)
    query_all: dict[str, list[str]] = field(default_factory=dict)
    headers: Headers = field(default_factory=Headers)
    peer: str = "127.0.0.1"
    principal: Principal = field(default_factory=Principal)
    trace: Trace = field(default_factory=lambda: new_trace(None))
    wait_s: float | None = None
    body: bytes = b""
    head: bool = False
    content_length: int = 0
    stopping: threading.Event = field(default_factory=threading.Event)
    source: BodySource | None = field(default=None, repr=False)

    @property
    def request_id(self) -> str:
        """Names this request in the log, in X-Request-Id and in problems."""
        return self.trace.span_id

    def json(self, default: Any = ...) -> Any:
        """The body as JSON (RFC 8259), read strictly.

        Refuses with Problem 400: empty body (unless `default` is given, which is then returned), bytes that are not
        UTF-8, duplicate keys, NaN and Infinity, integers beyond 2**53 - 1, nesting deeper than 32, lone surrogates.
        """
        if not self.body.strip(b" \t\r\n"):
            if default is not ...:
                return default
            raise Problem(400, "invalid-json", "the body is empty; JSON was expected")
        return read_json(self.body)

    def document(self) -> dict[str, Any]:
        """json() that must be an object; an empty body counts as {}."""
        document = self.json(default={})
        if not isinstance(document, dict):
            raise Problem(400, "invalid-json", "the body is JSON, but not an object {…}, which was expected")
        return document

    def save(self, out: BinaryIO) -> tuple[int, str]:
        """Stream the body of a route with `body=upload(...)` into `out`; -> (bytes, SHA-256 in hex).

        Memory is constant.  A Content-Digest or Repr-Digest of the client (RFC 9530) is checked.
        Raises Problem: 408 too slow, 400 digest-mismatch, 507 disk full; Disconnected when the client goes away.
        """
        digest, length = hashlib.sha256(), 0
        buffer = memoryview(bytearray(1 << 18))
        while count := self.source.read_body(buffer) if self.source is not None else 0:
            digest.update(buffer[:count])
            length += count
            try:
                out.write(buffer[:count])
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                    raise Problem(507, "disk-full", "no space left to keep the body; nothing was kept") from error
                raise
        for name in ("content-digest", "repr-digest"):
            sent = _DIGEST.search(self.headers.get(name, ""))
            if sent and base64.b64decode(sent[1]) != digest.digest():
                raise Problem(400, "digest-mismatch", f"the bytes that arrived do not have the SHA-256 of {name}; "
                              "send them again", field=name)
        return length, digest.hexdigest()

    def disconnected(self) -> bool:
        """Whether the client has closed its side (for handlers that wait)."""
        return self.source is not None and self.source.gone()


@dataclass
class Response:
    """An answer.

    body     dict or list: JSON; str: text/plain (set Content-Type otherwise); bytes: as they are; Path: a file, served
             with Range and streamed; iterator of bytes: sent piece by piece as it is made (event streams)
    etag     True: strong ETag from the bytes sent; a str: that ETag, without quotes.  If-None-Match -> 304.
    sha256   of a file, in hex: makes its strong ETag and Repr-Digest (RFC 9530)
    """

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    etag: str | bool = False
    sha256: str | None = None


@dataclass(frozen=True)
class Event:
    """One server-sent event (HTML standard, section 9.2). `data`: a dict is sent as JSON."""

    event: str
    data: dict[str, Any] | str
    id: str | None = None

    def encode(self) -> bytes:
        """The bytes of the event, with the empty line that ends it."""
        text = self.data if isinstance(self.data, str) else dumps(self.data)
        lines = [] if self.id is None else [f"id: {_one_line(self.id)}"]
        lines.append(f"event: {_one_line(self.event)}")
        lines += [f"data: {line}" for line in re.split(r"\r\n|\r|\n", text)]
        return ("\n".join(lines) + "\n\n").encode()


def event_stream(request: Request, wait: Callable[[float], Iterable[Event] | None], *,
                 beat_s: float = 15.0) -> Response:
    """An SSE answer for a route added with waits=True.

    `wait(timeout_s)` blocks until there is something to send and returns the new events, an empty list when the time
    is over with nothing new, or None when the stream is complete.  A comment line goes out every `beat_s` seconds
    without an event.  Ends by itself when the server drains or the client leaves; a client that stops reading is
    dropped.
    """

    def pieces() -> Iterator[bytes]:
        yield b"retry: 1000\n\n"  # milliseconds until a browser comes back after a restart
        last = time.monotonic()
        while not request.stopping.is_set() and not request.disconnected():
            events = wait(min(beat_s, 1.0))  # at most 1 s: a drain or a client that left is noticed
            if events is None:
                return
            piece = b"".join(event.encode() for event in events)
            if not piece and time.monotonic() - last >= beat_s:
                piece = b": beat\n\n"
            if piece:
                yield piece
                last = time.monotonic()

    return Response(200, pieces(), {"Content-Type": "text/event-stream", "Cache-Control": "no-store",
                                    "X-Accel-Buffering": "no"})


def file_response(path: Path, sha256: str, *, content_type: str = "application/octet-stream",
                  name: str | None = None) -> Response:
    """A file with Range, strong ETag and Repr-Digest; `name` becomes the file name of a download (RFC 6266)."""
    headers = {"Content-Type": content_type}
    if name is not None:
        plain = "".join(c if c.isascii() and c.isprintable() and c not in '"\\' else "_" for c in name)
        headers["Content-Disposition"] = f'attachment; filename="{plain}"'
        if plain != name:
            headers["Content-Disposition"] += f"; filename*=UTF-8''{quote(name, safe='')}"
    return Response(200, path, headers, sha256=sha256)


def requested_wait(headers: Headers, most_s: float) -> float | None:
    """Seconds of Prefer: wait=n (RFC 7240 section 4.3), at most `most_s`; None where it is not asked for."""
    for part in headers.get("prefer", "").split(","):
        match = _WAIT.fullmatch(part.partition(";")[0].strip().lower())
        if match:
            return min(float(match[1]), most_s)
    return None


def dumps(document: Any) -> str:
    """Compact JSON; ValueError for what JSON cannot say."""
    return json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _one_line(text: str) -> str:
    return text.replace("\r", " ").replace("\n", " ").replace("\0", " ")
