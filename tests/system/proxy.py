"""A TCP proxy of our own that breaks connections on purpose, between any client and any service of a test.

One thread a connection; it reads requests as bytes and knows nothing of HTTP but that a request begins with its first
line. What it can do to a request, by name:

    drop-request   break the connection off (reset) before a byte of it goes on
    drop-answer    pass it on, and break the connection off when the answer comes
    delay          hold it back for `value` seconds
    reset-after    pass `value` bytes of it on, then break both connections off
    black-hole     hold it, and all that comes after it, until `heal`: then it arrives, late
    half-open      close the side of the service, and leave the client's open, without a word, until `heal`
    repeat         pass it on and remember it; `send_again` sends what was remembered on new connections
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from dataclasses import dataclass
from urllib.parse import urlsplit

PIECE = 1 << 16
TICK_S = 0.2        # how soon a waiting connection notices that the proxy is closed
FAULTS = ("drop-request", "drop-answer", "delay", "reset-after", "black-hole", "half-open", "repeat")


@dataclass
class Fault:
    """What is done to requests whose bytes hold `match`; `left` more times, None: until `heal`."""

    kind: str
    match: bytes = b""
    value: float = 0.0
    left: int | None = None
    hits: int = 0


class FaultProxy:
    """See above. `url` is where clients connect; the target's address is given by `target`."""

    def __init__(self, target: str = "") -> None:
        self.target = target
        self.remembered: list[bytes] = []
        self._lock = threading.Condition()
        self._fault: Fault | None = None
        self._closed = False
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()

    # --- for tests

    def fault(self, kind: str, match: bytes = b"", *, value: float = 0.0, times: int | None = None) -> Fault:
        """From now on do this, in place of what was done before. The fault counts its hits."""
        if kind not in FAULTS:
            raise ValueError(f"kind: expected one of {', '.join(FAULTS)}, got {kind!r}")
        with self._lock:
            self._fault = Fault(kind, match, value, times)
            self._lock.notify_all()
            return self._fault

    def heal(self) -> None:
        """Pass everything; what was held goes on."""
        with self._lock:
            self._fault = None
            self._lock.notify_all()

    def wait_hit(self, fault: Fault, timeout_s: float = 30.0) -> None:
        """Until the fault has been met once."""
        with self._lock:
            assert self._lock.wait_for(lambda: fault.hits > 0, timeout_s), f"no request met {fault}"

    def send_again(self) -> int:
        """Send every remembered request once more; how many."""
        with self._lock:
            requests, self.remembered = self.remembered, []
        for data in requests:
            with contextlib.suppress(OSError), self._connect() as connection:
                connection.sendall(data)
                connection.recv(PIECE)
        return len(requests)

    def close(self) -> None:
        with self._lock:
            self._closed, self._fault = True, None
            self._lock.notify_all()
        self._listener.close()

    # --- connections

    def _connect(self) -> socket.socket:
        parts = urlsplit(self.target)
        return socket.create_connection((parts.hostname or "", parts.port or 0), 5.0)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._carry, args=(client,), name="proxied", daemon=True).start()

    def _take(self, data: bytes) -> Fault | None:
        """The fault that these bytes of a client meet."""
        with self._lock:
            fault = self._fault
            if fault is None or fault.match not in data or fault.left == 0:
                return None
            fault.hits += 1
            fault.left = None if fault.left is None else fault.left - 1
            self._lock.notify_all()
            return fault

    def _held(self, fault: Fault) -> None:
        with self._lock:
            self._lock.wait_for(lambda: self._fault is not fault)

    def _carry(self, client: socket.socket) -> None:
        try:
            service = self._connect()
        except OSError:
            reset(client)
            return
        for connection in (client, service):    # a request comes in pieces; holding one back would cost 40 ms
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        cut, memory = False, b""
        with selectors.DefaultSelector() as selector:
            selector.register(client, selectors.EVENT_READ)
            selector.register(service, selectors.EVENT_READ)
            try:
                while not self._closed:
                    for key, _ in selector.select(TICK_S):
                        data = key.fileobj.recv(PIECE)  # type: ignore[union-attr]
                        if key.fileobj is service:
                            if not data or cut:
                                (reset if cut else end)(client)
                                end(service)
                                return
                            if memory:
                                with self._lock:
                                    self.remembered.append(memory)
                                memory = b""
                            client.sendall(data)
                            continue
                        if not data:
                            end(client)
                            end(service)
                            return
                        fault = self._take(data)
                        kind = fault.kind if fault else ""
                        if fault is None:
                            if memory:
                                memory += data
                        elif kind == "drop-request":
                            reset(client)
                            end(service)
                            return
                        elif kind == "drop-answer":
                            cut = True
                        elif kind == "delay":
                            with self._lock:
                                self._lock.wait_for(lambda: self._closed, fault.value)
                        elif kind == "reset-after":
                            service.sendall(data[:int(fault.value)])
                            reset(client)
                            reset(service)
                            return
                        elif kind == "black-hole":
                            self._held(fault)
                        elif kind == "half-open":
                            end(service)
                            self._held(fault)
                            end(client)
                            return
                        elif kind == "repeat":
                            memory += data
                        service.sendall(data)
            except OSError:
                pass
        end(client)
        end(service)


def end(connection: socket.socket) -> None:
    """Close in order."""
    with contextlib.suppress(OSError):
        connection.close()


def reset(connection: socket.socket) -> None:
    """Break off: the other side is met by RST."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    end(connection)
