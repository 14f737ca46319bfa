"""A running server and a client that speaks raw bytes, for the tests of the HTTP layer."""

from __future__ import annotations

import io
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from service.http.authentication import Authenticator
from service.http.exchange import Request, Response
from service.http.listening import ServerSettings
from service.http.routes import Routes, json_body
from service.http.server import Server
from service.runtime.logs import Log
from service.runtime.prometheus import Metrics

PATIENCE_S = 10.0  # a test that would hang fails instead


@dataclass
class Answer:
    """One answer as it came: names of header fields in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        return json.loads(self.body)


class Wire:
    """A socket to the server, used byte by byte."""

    def __init__(self, address: tuple[str, int], wrap: Callable[[socket.socket], socket.socket] = lambda s: s) -> None:
        self.sock = wrap(socket.create_connection(address, timeout=PATIENCE_S))
        self.file = self.sock.makefile("rb")

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def answer(self, *, to_head: bool = False) -> Answer | None:
        """The next answer; None when the server has closed."""
        line = self.file.readline()
        if not line:
            return None
        version, status, *_ = line.split(b" ", 2)
        assert version == b"HTTP/1.1", line
        headers: dict[str, str] = {}
        while (line := self.file.readline()) not in (b"\r\n", b""):
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        body = b""
        if headers.get("transfer-encoding") == "chunked" and not to_head:
            while size := int(self.file.readline(), 16):
                body += self.file.read(size)
                self.file.readline()
            self.file.readline()
        elif not to_head:
            body = self.file.read(int(headers.get("content-length", "0")))
        return Answer(int(status), headers, body)

    def answers(self) -> list[Answer]:
        """Every answer until the server closes."""
        found = []
        while (answer := self.answer()) is not None:
            found.append(answer)
        return found

    def closed(self) -> bool:
        """Wait until the server closes; False when it sends something instead."""
        try:
            return self.file.read(1) == b""
        except ConnectionResetError:
            return True

    def close(self) -> None:
        self.file.close()
        self.sock.close()

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass
class Rig:
    """A server with a few routes; `seen` has (method, path, body) of every request that reached a handler."""

    server: Server
    seen: list[tuple[str, str, bytes]] = field(default_factory=list)
    log: io.StringIO = field(default_factory=io.StringIO)
    metrics: Metrics = field(default_factory=Metrics)
    gate: threading.Event = field(default_factory=threading.Event)  # /slow answers once it is set
    entered: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))  # one for each /slow begun

    def wire(self) -> Wire:
        return Wire(self.server.address)

    def ask(self, data: bytes) -> Answer:
        """One request on a connection of its own."""
        with self.wire() as wire:
            wire.send(data)
            answer = wire.answer()
            assert answer is not None
            return answer

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.getvalue().splitlines()]

    def lines_of(self, request_id: str) -> list[dict[str, Any]]:
        """The log lines of a request; waits for them, as they are written after the answer."""
        wait_until(lambda: request_id in self.log.getvalue())
        return [line for line in self.lines() if line.get("request_id") == request_id]


@contextmanager
def running(add: Callable[[Routes, Rig], None] = lambda routes, rig: None, *,
            authenticator: Authenticator | None = None, **settings: Any) -> Iterator[Rig]:
    """A server on a free port with /livez, /echo, /slow and whatever `add` adds; stopped at the end."""
    routes = Routes()
    metrics, log = Metrics(), io.StringIO()
    server = Server(routes, ServerSettings(**settings), log=Log(log), metrics=metrics,
                            authenticator=authenticator)
    rig = Rig(server, log=log, metrics=metrics)

    def note(request: Request) -> None:
        rig.seen.append((request.method, request.path, request.body))

    def echo(request: Request) -> Response:
        note(request)
        return Response(200, {"got": request.json(default=None)})

    def slow(request: Request) -> Response:
        rig.entered.release()
        assert rig.gate.wait(PATIENCE_S)
        return Response(200, {"slow": True})

    routes.add("GET", "/livez", lambda request: Response(200, {"status": "alive"}), always=True)
    routes.add("GET", "/echo", echo)
    routes.add("POST", "/echo", echo, body=json_body(1 << 20))
    routes.add("GET", "/slow", slow)
    add(routes, rig)
    server.start()
    try:
        yield rig
    finally:
        rig.gate.set()
        server.stop(grace_s=PATIENCE_S)


def get(path: str, *fields: str) -> bytes:
    """A GET with Host and the header lines given."""
    return "".join(f"{line}\r\n" for line in (f"GET {path} HTTP/1.1", "Host: localhost", *fields, "")).encode("latin-1")


def post(path: str, body: bytes, *fields: str, method: str = "POST") -> bytes:
    """A request with a body, its length and the header lines given."""
    lines = (f"{method} {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}", *fields, "")
    return "".join(f"{line}\r\n" for line in lines).encode("latin-1") + body


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for something that has no event of its own; AssertionError when it does not come."""
    pause = threading.Event()
    for _ in range(int(PATIENCE_S / 0.01)):
        if condition():
            return
        pause.wait(0.01)
    raise AssertionError("it did not happen")
