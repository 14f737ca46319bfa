"""What goes over the wire: requests read strictly, answers written, problems as RFC 9457 documents.

Nothing here touches a socket; `service.py` feeds it bytes.  Programs use these names through `service`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO


class Problem(Exception):
    """An answer of 4xx or 5xx, raised anywhere in a handler; becomes application/problem+json (RFC 9457).

    status   400..599
    slug     names the kind, lower case with dashes ("unknown-clip"); `type` becomes "/problems/<slug>"
    detail   one sentence for the caller: what was wrong and what was expected
    field    name of the wrong field of the request document, header or query, where there is one
    headers  extra header fields of the answer, as {"Retry-After": "2"}
    extra    further members of the document
    """

    def __init__(self, status: int, slug: str, detail: str, *, field: str | None = None,
                 headers: Mapping[str, str] | None = None, **extra: Any) -> None:
        super().__init__(f"{status} {slug}: {detail}")
        self.status = status
        self.slug = slug
        self.detail = detail
        self.field = field
        self.headers = dict(headers or {})
        self.extra = extra

    def document(self, *, instance: str, request_id: str) -> dict[str, Any]:
        """The members of RFC 9457 section 3.1, with request_id and, where known, field."""
        raise NotImplementedError


class Headers(Mapping[str, str]):
    """Header fields, names compared without case.  Repeated fields are joined with ", " (RFC 9110 section 5.3)."""

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        self._pairs = [(name.lower(), value) for name, value in pairs]

    def all(self, name: str) -> list[str]:
        """Every value of the field in the order received."""
        name = name.lower()
        return [value for key, value in self._pairs if key == name]

    def __getitem__(self, name: str) -> str:
        values = self.all(name)
        if not values:
            raise KeyError(name)
        return ", ".join(values)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name for name, _ in self._pairs))

    def __len__(self) -> int:
        return len({name for name, _ in self._pairs})


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


@dataclass(frozen=True)
class Principal:
    """Who asks: `key` is the id of the API key ("" where keys are not in use), `role` one of access.ROLES."""

    key: str = ""
    role: str = "admin"


@dataclass
class Request:
    """One request whose head has passed every check of the HTTP layer and of its route.

    method, path   as sent; HEAD arrives as "GET" with `head` set
    route          the pattern that matched, "/experiment/{id}/status"
    params         path variables, percent-decoded, never empty, never holding "/" or control characters
    query          query parameters, each at most once (see Routes.add for repeated ones: query_all)
    peer           address of the client, without port
    wait_s         seconds of `Prefer: wait=n` (RFC 7240), capped at 300; None when not asked for (or when no waiting
                   place is free: then answer at once)
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

    @property
    def request_id(self) -> str:
        """Names this request in the log, in X-Request-Id and in problems."""
        return self.trace.span_id

    def json(self, default: Any = ...) -> Any:
        """The body as JSON (RFC 8259), read strictly.

        Refuses with Problem 400: empty body (unless `default` is given, which is then returned), bytes that are not
        UTF-8, duplicate keys, NaN and Infinity, integers beyond 2**53 - 1, nesting deeper than 32, lone surrogates.
        """
        raise NotImplementedError

    def document(self) -> dict[str, Any]:
        """json() that must be an object; an empty body counts as {}."""
        raise NotImplementedError

    def save(self, out: BinaryIO) -> tuple[int, str]:
        """Stream the body of a route with `body=upload(...)` into `out`; -> (bytes, SHA-256 in hex).

        Memory is constant.  A Content-Digest or Repr-Digest of the client (RFC 9530) is checked.
        Raises Problem: 408 too slow, 400 digest-mismatch, 507 disk full; Disconnected when the client goes away.
        """
        raise NotImplementedError

    def disconnected(self) -> bool:
        """Whether the client has closed its side (for handlers that wait)."""
        raise NotImplementedError


class Disconnected(Exception):
    """The client is gone; nobody is there to answer.  The server catches it."""


@dataclass
class Response:
    """An answer.

    body     dict or list: JSON; str: text/plain (set Content-Type otherwise); bytes: octets; Path: a file, served with
             Range and streamed; iterator of bytes: sent piece by piece as it is made (event streams)
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


def event_stream(request: Request, wait: Callable[[float], Iterable[Event] | None], *,
                 beat_s: float = 15.0) -> Response:
    """An SSE answer for a route added with waits=True.

    `wait(timeout_s)` blocks until there is something to send and returns the new events, an empty list when the time
    is over with nothing new, or None when the stream is complete.  A comment line goes out every `beat_s` seconds
    without an event.  Ends by itself when the server drains; a client that stops reading is dropped.
    """
    raise NotImplementedError


def file_response(path: Path, sha256: str, *, content_type: str = "application/octet-stream",
                  name: str | None = None) -> Response:
    """A file with Range, strong ETag and Repr-Digest; `name` becomes the file name of a download."""
    headers = {"Content-Type": content_type}
    if name is not None:
        headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return Response(200, path, headers, sha256=sha256)


def new_trace(traceparent: str | None) -> Trace:
    """A span for a new request: child of `traceparent` (W3C Trace Context section 3.2) if valid, else a new trace."""
    return Trace("0" * 31 + "1", "0" * 15 + "1")
