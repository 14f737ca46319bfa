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

from version import VERSION
from web import openapi
from web.access import ROLES, Authenticator, Key, check_exposure, is_loopback, new_key
from web.client import Ambiguous, Client, ClientError, Refused, Reply, Unreachable
from web.cloudwatch import Reporter
from web.exchange import (
    Disconnected,
    Event,
    Principal,
    Request,
    Response,
    Trace,
    event_stream,
    file_response,
    new_trace,
)
from web.fetching import Fetcher, FetchError
from web.listening import ServerSettings, client_certificate
from web.observe import (
    METRICS_TYPE,
    Counter,
    Gauge,
    Histogram,
    Log,
    Metrics,
    Notifier,
    Watchdog,
    listen_sockets,
    wait_for_signal,
)
from web.routes import JSON, Body, Handler, Route, Routes, json_body, upload
from web.server import Server
from web.settings import Row, SettingsError, add_flags, from_args, load, markdown, row, rows, show
from web.tokens import ALGORITHMS, Tokens
from web.wire import Headers, Problem, read_json

__all__ = [
    "ALGORITHMS", "JSON", "METRICS_TYPE", "ROLES", "VERSION", "Ambiguous", "Authenticator", "Body", "Client",
    "ClientError", "Counter", "Disconnected", "Event", "FetchError", "Fetcher", "Gauge", "Handler", "Headers",
    "Histogram", "Key", "Log", "Metrics", "Notifier", "Principal", "Problem", "Refused", "Reply", "Reporter",
    "Request", "Response", "Route", "Routes", "Row", "Server", "ServerSettings", "SettingsError", "Tokens", "Trace",
    "Unreachable", "Watchdog", "add_flags", "check_exposure", "client_certificate", "event_stream", "file_response",
    "from_args", "is_loopback", "json_body", "listen_sockets", "load", "markdown", "new_key", "new_trace",
    "openapi", "read_json", "row", "rows", "show", "upload", "wait_for_signal",
]
