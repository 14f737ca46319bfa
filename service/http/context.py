"""What all connections of a server share: its routes, limits, log and counters."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from service.http.authentication import Authenticator
from service.http.connections import Connections
from service.http.limits import Budget, HandlerGate
from service.http.listening import ServerSettings
from service.http.parsing import METHODS, HeadLimits
from service.http.routes import Routes
from service.runtime.logs import Log
from service.runtime.prometheus import Metrics


@dataclass(frozen=True)
class RequestRecord:
    """One answered request, for the log and the metrics; durations in seconds, sizes in bytes."""

    method: str
    path: str
    route: str
    status: int
    bytes_in: int
    bytes_out: int
    duration_s: float
    peer: str
    key: str
    trace_id: str
    request_id: str
    outcome: str = ""


class ServerContext:
    """Shared by a server and its connections.

    draining  set when the server drains: waiters return, connections close after their answer
    hosts     names that Host may have besides loopback; None: any
    """

    def __init__(self, routes: Routes, settings: ServerSettings, log: Log, metrics: Metrics,
                 authenticator: Authenticator | None, clock: Callable[[], float] = time.monotonic) -> None:
        self.routes, self.settings, self.log, self.authenticator, self.clock = (
            routes, settings, log, authenticator, clock)
        self.draining = threading.Event()
        self.hosts: set[str] | None = None
        self.tls: ssl.SSLContext | None = None
        self.head_limits = HeadLimits(settings.http_line_bytes, settings.http_head_bytes, settings.http_fields)
        self.connections = Connections(settings.http_connections)
        self.handlers = HandlerGate(settings.http_threads, settings.http_queue)
        self.waits = Budget(settings.http_waits)
        self.transfers = Budget(settings.http_transfers)
        self.body_memory = Budget(settings.http_buffer_bytes)

        self._requests = metrics.counter("nvc_http_requests_total", "Requests answered.", ("method", "route", "status"))
        self._seconds = metrics.histogram("nvc_http_request_seconds", "From a request's first byte to the answer's "
                                          "last.", ("route",))
        self._failures = metrics.counter("nvc_http_failures_total", "Requests answered with 500.")
        self._refused = metrics.counter("nvc_http_refused_total", "Requests and connections turned away by the HTTP "
                                        "layer.", ("reason",))
        metrics.gauge("nvc_http_connections", "Connections open.").track(lambda: len(self.connections))
        metrics.gauge("nvc_http_queue", "Requests waiting for a handler to end.").track(lambda: self.handlers.waiting)
        metrics.gauge("nvc_http_busy", "Handlers running.").track(lambda: self.handlers.running)
        for name, about in (("nvc_http_long_requests", "Waiting clients and transfers."),
                            ("nvc_http_apart", "The same as nvc_http_long_requests; its earlier name.")):
            metrics.gauge(name, about, ("kind",)).track(
                lambda: [({"kind": "waits"}, self.waits.used), ({"kind": "transfers"}, self.transfers.used)])

    @property
    def serves_workers(self) -> bool:
        """Whether some routes are for workers alone."""
        return any(route.only_workers for route in self.routes.table)

    def count_refusal(self, reason: str) -> None:
        """Count something turned away."""
        self._refused.inc(reason=reason)

    def record(self, request: RequestRecord) -> None:
        """One line in the log for each request, and its metrics."""
        method = request.method if request.method in METHODS else "other"
        if request.status == 500:
            self._failures.inc()
        self._requests.inc(method=method, route=request.route, status=str(request.status))
        self._seconds.observe(request.duration_s, route=request.route)
        fields = {"method": method, "path": request.path, "route": request.route, "status": request.status,
                  "bytes_in": request.bytes_in, "bytes_out": request.bytes_out,
                  "duration_ms": round(request.duration_s * 1000, 3), "peer": request.peer, "key": request.key,
                  "trace_id": request.trace_id, "request_id": request.request_id}
        if request.outcome:
            fields["outcome"] = request.outcome
        self.log.info("request", **fields)
        self.log.emf({"RequestTime": (request.duration_s * 1000, "Milliseconds")}, Route=request.route,
                     Status=f"{request.status // 100}xx")
