"""The HTTP service both programs stand on: routes, server, and, from here, everything else they need of HTTP.

A whole program in a few lines:

    import service

    def submit(request: service.Request) -> service.Response:
        document = request.document()                       # strict JSON object; Problem 400 if it is not
        if "clip" not in document:
            raise service.Problem(422, "missing-field", "clip is missing; a clip name was expected", field="clip")
        return service.Response(202, {"experiment_id": "exp_1"}, {"Location": "/experiment/exp_1/status"})

    def status(request: service.Request) -> service.Response:
        if request.wait_s:                                  # Prefer: wait=n, only on routes added with waits="prefer"
            changed.wait(request.wait_s)
        return service.Response(200, document_of(request.params["id"]), etag=True)

    def upload(request: service.Request) -> service.Response:
        with open(part, "wb") as out:
            length, sha256 = request.save(out)              # streamed, constant memory
        return service.Response(201, {"bytes": length, "sha256": sha256})

    def events(request: service.Request) -> service.Response:
        return service.event_stream(request, lambda timeout_s: new_events(timeout_s))   # None ends the stream

    routes = service.Routes()
    routes.add("POST", "/experiment", submit, body=service.JSON, roles={"client"})
    routes.add("GET", "/experiment/{id}/status", status, roles={"client", "read"}, waits="prefer")
    routes.add("GET", "/experiment/{id}/events", events, roles={"client", "read"}, waits=True,
               produces="text/event-stream")
    routes.add("PUT", "/clips/{name}", upload, body=service.upload(2 << 30), roles={"client"})
    routes.add("GET", "/livez", lambda request: service.Response(200, {"status": "alive"}), always=True)

    server = service.Server(routes, config, log=log, metrics=metrics, authenticator=None)
    server.start()
    print(server.url)                                       # http://127.0.0.1:8081
    ...
    server.drain()                                          # readyz turns 503 (server.draining), waiters return
    server.stop(grace_s=30)                                 # answers in progress are finished

GET routes answer HEAD and every route OPTIONS by themselves; a wrong method is 405 with Allow.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from access import ROLES, Authenticator, Key, check_exposure, is_loopback, new_key
from client import Ambiguous, Client, ClientError, Refused, Reply, Unreachable
from observe import Counter, Gauge, Histogram, Log, Metrics, Notifier, Watchdog, listen_sockets
from settings import Row, SettingsError, add_flags, from_args, load, row, rows, show
from wire import (
    Disconnected,
    Event,
    Headers,
    Principal,
    Problem,
    Request,
    Response,
    Trace,
    event_stream,
    file_response,
    new_trace,
)

__all__ = [
    "JSON", "ROLES", "Ambiguous", "Authenticator", "Body", "Client", "ClientError", "Counter", "Disconnected",
    "Event", "Gauge", "Headers", "Histogram", "Key", "Log", "Metrics", "Notifier", "Principal", "Problem", "Refused",
    "Reply", "Request", "Response", "Routes", "Row", "Server", "ServerSettings", "SettingsError", "Trace",
    "Unreachable", "Watchdog", "add_flags", "check_exposure", "event_stream", "file_response", "from_args",
    "is_loopback", "listen_sockets", "load", "new_key", "new_trace", "row", "rows", "show", "upload",
]

Handler = Callable[[Request], Response]


@dataclass(frozen=True)
class Body:
    """What a route takes as its body: at most `limit` bytes (413 beyond), of one of the media types (415 otherwise);
    `stream`: read by the handler with Request.save instead of beforehand."""

    limit: int
    media: tuple[str, ...]
    stream: bool = False


JSON = Body(1 << 20, ("application/json", "application/x-www-form-urlencoded"))  # the latter: what `curl -d` says


def upload(limit: int) -> Body:
    """A body of any type, up to `limit` bytes, streamed to the handler; its Content-Length is required (411)."""
    return Body(limit, ("*/*",), stream=True)


class Routes:
    """Methods and path patterns -> handlers."""

    def add(self, method: str, pattern: str, handler: Handler, *, body: Body | None = None,
            roles: Collection[str] | None = None, waits: bool | Literal["prefer"] = False,
            produces: str = "application/json", query: Collection[str] | None = None, always: bool = False) -> None:
        """Add a route.

        pattern   "/experiment/{id}/status": a variable is one whole segment; a literal segment wins over a variable
        body      None: no body; JSON, or Body(limit, media); upload(limit)
        roles     who may call it, besides admin; None: everyone, without a key
        waits     True: always runs apart from the pool (event streams); "prefer": only when asked with Prefer: wait
        produces  media type of the answer, for Accept (406); "*/*" for any
        query     names of its query parameters, others are refused (400); a name ending in "*" may be repeated
                  (request.query_all); None: not checked
        always    answered even when the queue is full; without key, at once, touching nothing slow
        """
        raise NotImplementedError


@dataclass(frozen=True)
class ServerSettings:
    """Limits of the HTTP layer; the programs' own settings inherit from it, so each has a flag and a variable."""

    host: str = row("127.0.0.1", "", "address to listen on; others than loopback need a key or --insecure-bind")
    port: int = row(0, "", "port to listen on; 0 picks a free one and prints it", low=0, high=65535)
    insecure_bind: bool = row(False, "", "listen beyond loopback without any key")
    tls_cert: Path | None = row(None, "", "certificate chain (PEM); with tls_key, serves https")
    tls_key: Path | None = row(None, "", "private key (PEM)")
    tls_client_ca: Path | None = row(None, "", "require client certificates signed by this CA (PEM)")
    http_threads: int = row(16, "threads", "handlers at once; short ones, so a few per core are plenty", low=1)
    http_queue: int = row(128, "requests", "waiting for a thread; beyond it 503 at once is kinder than a long wait")
    http_waits: int = row(256, "threads", "event streams and Prefer: wait clients at once", low=1)
    http_transfers: int = row(32, "threads", "uploads and downloads of files at once", low=1)
    http_connections: int = row(2048, "connections", "open at once; the longest idle one makes room", low=8)
    http_idle_s: float = row(60.0, "s", "a connection without a request is closed after this long", low=0.05)
    http_receive_s: float = row(15.0, "s", "from a request's first byte to its last, plus its size at http_min_rate")
    http_send_s: float = row(15.0, "s", "to take an answer, plus its size at http_min_rate; also per event of a stream")
    http_min_rate: int = row(65536, "bytes/s", "slowest transfer of a large body that is borne", low=1)


class Server:
    """Listens, reads requests strictly, runs handlers in a bounded pool.  See docs/http.md for the threads."""

    def __init__(self, routes: Routes, settings: ServerSettings, *, log: Log | None = None,
                 metrics: Metrics | None = None, authenticator: Authenticator | None = None,
                 sockets: Sequence[socket.socket] = (), clock: Callable[[], float] = time.monotonic) -> None:
        """sockets: already listening (listen_sockets()), used instead of host and port."""
        self.draining = threading.Event()

    def start(self) -> None:
        """Bind (OSError), load certificates (SettingsError), start the threads.  Returns once connections are
        accepted."""
        raise NotImplementedError

    @property
    def address(self) -> tuple[str, int]:
        """(host, port) bound."""
        raise NotImplementedError

    @property
    def url(self) -> str:
        """http://host:port or https://host:port."""
        raise NotImplementedError

    def reload_tls(self) -> None:
        """Read the certificate files again (SIGHUP); new connections use them.  SettingsError leaves the old ones."""
        raise NotImplementedError

    def self_check(self, timeout_s: float = 2.0) -> None:
        """Connect to itself and fetch /livez; raises OSError.  For the watchdog."""
        raise NotImplementedError

    def drain(self) -> None:
        """Set `draining`: waiters and event streams end, connections close after their answer.  Still listens."""
        raise NotImplementedError

    def stop(self, grace_s: float = 10.0) -> bool:
        """Stop listening, finish requests in progress for up to grace_s, close everything.  True if all finished."""
        raise NotImplementedError
