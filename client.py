"""Calling the other service: one requests.Session a thread, every wait bounded, errors split by whose fault.

    worker = Client("http://127.0.0.1:8080", key=None)
    try:
        reply = worker.post("/experiment", {"run": run, "attempt": 1, ...}, trace=request.trace)
    except Unreachable:      # surely not delivered: safe to place elsewhere
    except Refused as e:     # answered 4xx or 5xx: e.status, e.slug ("stale-attempt"), e.problem, e.retry_after_s
    except Ambiguous:        # may have been delivered: ask GET /experiment/{run} before anything else
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from wire import Headers, Trace


class ClientError(Exception):
    """A call that did not succeed; one of the three below."""


class Unreachable(ClientError):
    """Surely not delivered: no address, refused, connect time-out, TLS handshake failed."""


class Ambiguous(ClientError):
    """May have been delivered: time-out or reset after the request may have left, or an answer cut short."""


class Refused(ClientError):
    """Delivered and answered with 3xx, 4xx or 5xx."""

    def __init__(self, status: int, problem: dict[str, Any], retry_after_s: float | None = None) -> None:
        super().__init__(f"{status} {problem.get('type', '')}: {problem.get('detail', '')}")
        self.status = status
        self.problem = problem
        self.retry_after_s = retry_after_s

    @property
    def slug(self) -> str:
        """Last part of the problem's type: "stale-attempt"; "" when the answer was not a problem document."""
        return str(self.problem.get("type", "")).rsplit("/", 1)[-1]


@dataclass(frozen=True)
class Reply:
    """A 2xx answer (or 304). `document` is the parsed JSON, None where the body is empty or not JSON."""

    status: int
    headers: Headers
    document: Any
    content: bytes = b""


class Client:
    """Calls to one service.  Safe from any thread.

    connect_s, read_s   time-outs; read_s bounds the whole answer, not each piece of it
    retries             further tries, with full-jitter back-off, for idempotent calls only: GET and PUT, and POST with
                        idempotent=True.  A POST that was surely not delivered is tried again too.  Retry-After is
                        honoured up to 5 s.
    verify              True, or the path of a CA file; cert: (certificate, key) paths for client certificates
    """

    def __init__(self, base_url: str, *, key: str | None = None, connect_s: float = 2.0, read_s: float = 10.0,
                 retries: int = 2, verify: bool | str = True, cert: tuple[str, str] | None = None) -> None: ...

    def get(self, path: str, *, params: Mapping[str, str] | None = None, trace: Trace | None = None,
            headers: Mapping[str, str] | None = None, read_s: float | None = None) -> Reply:
        raise NotImplementedError

    def post(self, path: str, document: Any = None, *, idempotent: bool = False, trace: Trace | None = None,
             headers: Mapping[str, str] | None = None, read_s: float | None = None) -> Reply:
        raise NotImplementedError

    def put_file(self, path: str, source: Path, *, sha256: str | None = None, trace: Trace | None = None,
                 read_s: float | None = None) -> Reply:
        """Upload a file, streamed; `sha256` (hex) travels as Repr-Digest and is checked by the server."""
        raise NotImplementedError

    def download(self, path: str, out: BinaryIO, *, sha256: str | None = None, limit: int = 1 << 40,
                 trace: Trace | None = None, read_s: float | None = None) -> tuple[int, str]:
        """Stream an answer into `out`; -> (bytes, SHA-256 in hex).  Ambiguous when cut short or when `sha256` does not
        match; the caller then discards `out`."""
        raise NotImplementedError

    def close(self) -> None:
        """Close the sessions of every thread."""
