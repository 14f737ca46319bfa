"""The server: `http.server.ThreadingHTTPServer`, a thread for each connection, within limits.

    connections  at most http_connections; the one that has been idle longest makes room for another
    handlers     at most http_threads at once; http_queue more requests wait, others get 503 and Retry-After
    waits        at most http_waits event streams and Prefer: wait clients
    transfers    at most http_transfers uploads, files, and answers that a client takes slowly; each has an absolute
                 deadline that grows with the size, so the slowest client is at least http_min_rate fast

Routes marked `always` (/livez) are answered whatever the other limits say.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Sequence
from http.server import ThreadingHTTPServer
from typing import Any

from service.http.authentication import Authenticator, is_loopback
from service.http.connection import Connection
from service.http.context import ServerContext
from service.http.listening import ServerSettings, listen, raise_file_limit, tls_context
from service.http.routes import Routes
from service.runtime.logs import Log
from service.runtime.prometheus import Metrics

_STACK_BYTES = 1 << 20  # of a connection's thread; matplotlib draws in some
_POLL_S = 0.05  # how soon the accepting thread sees that it shall end
_NEW_CONNECTION_S = 1.0  # at a stop: for the first request of a connection that was just opened
_NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_FULL_BODY = (b'{"type":"/problems/overloaded","title":"Overloaded","status":503,"detail":"too many connections '
              b'are open; try again soon","instance":"/","request_id":""}\n')
_FULL = (b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\nRetry-After: 1\r\n"
         b"Connection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(_FULL_BODY), _FULL_BODY))


class Listener(ThreadingHTTPServer):
    """Accepts on one socket that listens already, and gives each connection its thread."""

    daemon_threads = True

    def __init__(self, sock: socket.socket, context: ServerContext) -> None:
        super().__init__(sock.getsockname(), functools.partial(Connection, context), bind_and_activate=False)
        self.socket.close()  # the base class makes one of its own
        self.socket = sock
        sock.setblocking(False)  # a client that left before accept() must not block the others
        self.context = context

    def get_request(self) -> tuple[socket.socket, Any]:
        """The next connection.  OSError when there is none after all."""
        try:
            sock, address = self.socket.accept()
        except OSError as error:
            if error.errno in _NO_DESCRIPTOR:
                self.context.count_refusal("no-file-descriptor")
                self.context.connections.end_longest_idle()
                time.sleep(0.1)  # the listener stays readable, so trying again at once would only burn time
            raise
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return sock, address

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start the connection's thread, or refuse it when too many are open and none is idle."""
        connections = self.context.connections
        while not connections.reserve():
            if not connections.end_longest_idle():
                self.context.count_refusal("connections")
                with contextlib.suppress(OSError):
                    if self.context.tls is None:
                        request.setblocking(False)
                        request.send(_FULL)
                self.shutdown_request(request)
                return
            self.context.count_refusal("idle-made-room")
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # the system has no thread left
            connections.unreserve()
            self.context.count_refusal("no-thread")
            self.shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A fault of ours outside of any handler: the connection is closed, the log says why."""
        self.context.log.error("connection-failed", error=sys.exception(), peer=str(client_address))

    def accept_waiting(self) -> None:
        """Take what the kernel has accepted already; the accepting thread must have ended."""
        for _ in range(self.context.settings.http_connections):
            try:
                request, address = self.get_request()
            except OSError:
                return
            self.process_request(request, address)


class Server:
    """Listens, reads requests strictly, runs handlers, within the limits of its settings."""

    def __init__(self, routes: Routes, settings: ServerSettings, *, log: Log | None = None,
                 metrics: Metrics | None = None, authenticator: Authenticator | None = None,
                 sockets: Sequence[socket.socket] = (), clock: Callable[[], float] = time.monotonic) -> None:
        """sockets: already listening (listen_sockets()), used instead of host and port."""
        self.settings = settings
        self.context = ServerContext(routes, settings, log or Log(level="warning"), metrics or Metrics(),
                                     authenticator, clock)
        self.draining = self.context.draining
        self._sockets = list(sockets)
        self._inherited = bool(sockets)
        self._listeners: list[Listener] = []

    @property
    def authenticator(self) -> Authenticator | None:
        """Who checks keys; None while there are none."""
        return self.context.authenticator

    @authenticator.setter
    def authenticator(self, authenticator: Authenticator | None) -> None:
        self.context.authenticator = authenticator
        self._allow_hosts()

    def start(self) -> None:
        """Bind (OSError), load certificates (SettingsError), accept.  Returns once connections are accepted."""
        if self.settings.tls_cert is not None or self.settings.tls_key is not None:
            self.context.tls = tls_context(self.settings)
        if not self._sockets:
            self._sockets = [listen(self.settings.host, self.settings.port)]
        self._address: tuple[str, int] = self._sockets[0].getsockname()[:2]
        self._allow_hosts()
        raise_file_limit(self.settings.http_connections + 256)
        threading.stack_size(_STACK_BYTES)
        self._listeners = [Listener(sock, self.context) for sock in self._sockets]
        for listener in self._listeners:
            threading.Thread(target=listener.serve_forever, args=(_POLL_S,), name="http-accept", daemon=True).start()

    def _allow_hosts(self) -> None:
        """Without keys, and on loopback, only loopback names: no web page reaches the service under its own name."""
        names = {name.strip().lower() for name in self.settings.http_hosts.split(",") if name.strip()}
        open_to_this_machine = self.authenticator is None and is_loopback(getattr(self, "_address", ("", 0))[0])
        self.context.hosts = names if names or open_to_this_machine else None

    @property
    def address(self) -> tuple[str, int]:
        """(host, port) bound."""
        return self._address

    @property
    def _reachable(self) -> tuple[str, int]:
        """The address as this machine reaches it: one that means "any" is loopback."""
        host, port = self.address
        return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port

    @property
    def url(self) -> str:
        """http://host:port or https://host:port; an address that means "any" is given as loopback."""
        host, port = self._reachable
        scheme = "https" if self.settings.tls_cert is not None else "http"
        return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"

    def reload_tls(self) -> None:
        """Read the certificate files again (SIGHUP); new connections use them.  SettingsError leaves the old ones."""
        if self.context.tls is not None:
            self.context.tls = tls_context(self.settings)

    def self_check(self, timeout_s: float = 2.0) -> None:
        """Connect to itself and fetch /livez; raises OSError.  For the watchdog."""
        host, port = self._reachable
        with socket.create_connection((host, port), timeout=timeout_s) as sock:
            if self.context.tls is not None:
                client = ssl.create_default_context()
                client.check_hostname, client.verify_mode = False, ssl.CERT_NONE  # it is ourselves
                try:
                    sock = client.wrap_socket(sock)
                except ssl.SSLError:
                    if self.settings.tls_client_ca is None:
                        raise
                    return  # it answered, by asking for a client certificate
                if self.settings.tls_client_ca is not None:
                    return
            sock.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            answer = sock.recv(1024)
        if not answer.startswith(b"HTTP/1.1 200 "):
            raise OSError(f"/livez answered {answer[:40]!r}")

    def drain(self) -> None:
        """Set `draining`: waiters and event streams end, connections close after their answer.  Still listens."""
        self.draining.set()

    def stop(self, grace_s: float = 10.0) -> bool:
        """Stop listening, finish requests in progress for up to grace_s, close everything.  True if all finished."""
        until = time.monotonic() + grace_s
        self.draining.set()
        for listener in self._listeners:
            listener.shutdown()
            if not self._inherited:  # otherwise who is not accepted waits for the next process
                listener.accept_waiting()
            listener.server_close()
        connections, began = self.context.connections, time.monotonic()
        while True:  # again and again: answers that are in progress end meanwhile
            now = time.monotonic()
            connections.end_idle(never_asked=now - began >= _NEW_CONNECTION_S)
            finished = connections.wait_until_none(min(0.05, max(until - now, 0.0)))
            if finished or now >= until:
                break
        connections.end_all()
        return finished
