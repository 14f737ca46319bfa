"""The server: who waits where, and how many of each there may be.

    doorman     one thread (doorman.py).  Accepts, and watches every connection that nobody works for.
    pool        http_threads threads.  Take connections with bytes to read from a queue of at most http_queue, go on as
                far as the bytes allow, run the handler, send what the socket takes at once.  They wait for no client.
    reserve     one thread, used only when the queue is full: it still receives, answers the routes marked `always`
                (/livez), and everything else with 503 and Retry-After.
    waits       up to http_waits threads, one for each event stream or Prefer: wait client.
    transfers   up to http_transfers threads, one for each upload, file, or answer that a client takes slowly; each has
                an absolute deadline that grows with the size, so the slowest client is at least http_min_rate fast.

A connection belongs to one of these at a time; connection.py is its state machine.
"""

from __future__ import annotations

import contextlib
import queue
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence

from web.access import Authenticator, is_loopback
from web.answering import Answering
from web.doorman import Doorman
from web.listening import ServerSettings, listen, raise_file_limit, tls_context
from web.observe import Log, Metrics
from web.routes import Routes
from web.wire import METHODS, HeadLimits

_RESERVE_QUEUE = 1024  # connections; beyond it they are closed unanswered


class Server:
    """Listens, reads requests strictly, runs handlers in a bounded pool."""

    def __init__(self, routes: Routes, settings: ServerSettings, *, log: Log | None = None,
                 metrics: Metrics | None = None, authenticator: Authenticator | None = None,
                 sockets: Sequence[socket.socket] = (), clock: Callable[[], float] = time.monotonic) -> None:
        """sockets: already listening (listen_sockets()), used instead of host and port."""
        self.routes, self.settings, self.authenticator, self.clock = routes, settings, authenticator, clock
        self.log = log or Log(level="warning")
        self.draining = threading.Event()
        self.head_limits = HeadLimits(settings.http_line_bytes, settings.http_head_bytes, settings.http_fields)
        self._sockets = list(sockets)
        self._inherited = bool(sockets)
        self.tls: ssl.SSLContext | None = None
        self.doorman = Doorman(self)
        self._queue: queue.SimpleQueue[Answering | None] = queue.SimpleQueue()
        self._reserve: queue.SimpleQueue[Answering | None] = queue.SimpleQueue()
        self._slots = {"waits": settings.http_waits, "transfers": settings.http_transfers}
        self._free = dict(self._slots)
        self._memory = settings.http_buffer_bytes
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._open: set[Answering] = set()
        self._threads: list[threading.Thread] = []
        self._stopping = False
        self._busy = 0
        self.hosts: set[str] | None = None  # that Host may name, besides loopback; None: any
        self._measure(metrics or Metrics())

    def _measure(self, metrics: Metrics) -> None:
        self._requests = metrics.counter("nvc_http_requests_total", "Requests answered.", ("method", "route", "status"))
        self._seconds = metrics.histogram("nvc_http_request_seconds", "From a request's first byte to the answer's "
                                          "last.", ("route",))
        self._failures = metrics.counter("nvc_http_failures_total", "Requests answered with 500.")
        self._refused = metrics.counter("nvc_http_refused_total", "Requests and connections turned away by the HTTP "
                                        "layer.", ("reason",))
        metrics.gauge("nvc_http_connections", "Connections open.").track(lambda: len(self._open))
        metrics.gauge("nvc_http_queue", "Connections waiting for a pool thread.").track(self._queue.qsize)
        metrics.gauge("nvc_http_busy", "Pool threads at work.").track(lambda: self._busy)
        metrics.gauge("nvc_http_apart", "Threads of waiting clients and transfers.", ("kind",)).track(
            lambda: [({"kind": kind}, self._slots[kind] - free) for kind, free in self._free.items()])

    # --- life -------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Bind (OSError), load certificates (SettingsError), start the threads.  Returns once connections are
        accepted."""
        if self.settings.tls_cert is not None or self.settings.tls_key is not None:
            self.tls = tls_context(self.settings)
        if not self._sockets:
            self._sockets = [listen(self.settings.host, self.settings.port)]
        host, port = self._sockets[0].getsockname()[:2]
        self._address: tuple[str, int] = (host, port)
        names = {name.strip().lower() for name in self.settings.http_hosts.split(",") if name.strip()}
        if names or (self.authenticator is None and is_loopback(host)):
            self.hosts = names
        raise_file_limit(self.settings.http_connections + 256)
        self.doorman.open_door(self._sockets, self._inherited)
        self._threads = [threading.Thread(target=self.doorman.run, name="http-doorman", daemon=True),
                         threading.Thread(target=self._work, args=(self._reserve, True), name="http-reserve",
                                          daemon=True)]
        self._threads += [threading.Thread(target=self._work, args=(self._queue, False), name=f"http-{i}", daemon=True)
                          for i in range(self.settings.http_threads)]
        for thread in self._threads:
            thread.start()

    @property
    def address(self) -> tuple[str, int]:
        """(host, port) bound."""
        return self._address

    @property
    def url(self) -> str:
        """http://host:port or https://host:port; an address that means "any" is given as loopback."""
        host, port = self.address
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        scheme = "https" if self.settings.tls_cert is not None else "http"
        return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"

    def reload_tls(self) -> None:
        """Read the certificate files again (SIGHUP); new connections use them.  SettingsError leaves the old ones."""
        if self.tls is not None:
            self.tls = tls_context(self.settings)

    def self_check(self, timeout_s: float = 2.0) -> None:
        """Connect to itself and fetch /livez; raises OSError.  For the watchdog."""
        host, port = self.address
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        with socket.create_connection((host, port), timeout=timeout_s) as sock:
            if self.tls is not None:
                context = ssl.create_default_context()
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # it is ourselves
                try:
                    sock = context.wrap_socket(sock)
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
        self.draining.set()
        self._stopping = True
        self.doorman.close_door()
        if self._threads:  # a connection accepted in this moment must be among those that are waited for
            self.doorman.left.wait(grace_s)
        with self._changed:
            finished = self._changed.wait_for(lambda: not self._open, timeout=grace_s) if self._threads else True
            left = list(self._open)
        self.doorman.end()
        for connection in left:  # whoever waits on one of these sockets comes back with an error
            with contextlib.suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)
        for _ in range(self.settings.http_threads):
            self._queue.put(None)
        self._reserve.put(None)
        until = time.monotonic() + 1.0  # a handler that does not end is left behind; its thread ends with the process
        for thread in self._threads:
            thread.join(timeout=max(until - time.monotonic(), 0.0))
        self.doorman.close()
        for connection in left:
            with contextlib.suppress(OSError):
                connection.sock.close()
        return finished

    # --- called by connections, from any thread -----------------------------------------------------------------------

    def count_open(self) -> int:
        """How many connections are open."""
        return len(self._open)

    def remember(self, connection: Answering) -> None:
        """A connection was accepted."""
        with self._lock:
            self._open.add(connection)

    def park(self, connection: Answering) -> None:
        """Give a connection to the doorman until it has something to read (or can be written to)."""
        self.doorman.park(connection)

    def enqueue(self, connection: Answering) -> None:
        """Hand a connection with something to read to the pool; when the queue is full, to the reserve."""
        if self.queue_again(connection):
            return
        if self._reserve.qsize() < _RESERVE_QUEUE:
            self._reserve.put(connection)
        else:
            self.count_refusal("reserve-full")
            connection.close()

    def queue_again(self, connection: Answering) -> bool:
        """Queue for the pool; False when the queue is full."""
        if self._queue.qsize() >= self.settings.http_queue:
            return False
        self._queue.put(connection)
        return True

    def _work(self, line: queue.SimpleQueue[Answering | None], reserve: bool) -> None:
        while (connection := line.get()) is not None:
            with self._lock:
                self._busy += not reserve
            try:
                connection.step(reserve=reserve)
            except (Exception, SystemExit) as error:  # no job can take a thread of the pool with it
                self.log.error("connection-failed", error=error, peer=connection.peer)
                connection.close()
            with self._lock:
                self._busy -= not reserve

    def spawn(self, kind: str, function: Callable[[], None], connection: Answering) -> bool:
        """Run `function` in a thread of its own if one of that kind is free; the connection is then that thread's."""
        with self._lock:
            if not self._free[kind]:
                return False
            self._free[kind] -= 1

        def run() -> None:
            try:
                function()
            except (Exception, SystemExit) as error:
                self.log.error("connection-failed", error=error, peer=connection.peer)
                connection.close()
            finally:
                with self._lock:
                    self._free[kind] += 1

        try:
            threading.Thread(target=run, name=f"http-{kind}", daemon=True).start()
        except RuntimeError:  # the system has no thread left
            with self._lock:
                self._free[kind] += 1
            return False
        return True

    def take_memory(self, count: int) -> bool:
        """Reserve memory for a body; False when too much is reserved."""
        with self._lock:
            if self._memory < count:
                return False
            self._memory -= count
            return True

    def give_memory(self, count: int) -> None:
        """Return what take_memory granted."""
        with self._lock:
            self._memory += count

    def forget(self, connection: Answering) -> None:
        """A connection was closed."""
        with self._changed:
            self._open.discard(connection)
            if self._stopping:
                self._changed.notify_all()

    def count_refusal(self, reason: str) -> None:
        """Count something turned away."""
        self._refused.inc(reason=reason)

    def record(self, connection: Answering, status: int, outcome: str) -> None:
        """One line a request, and its metrics."""
        seconds = self.clock() - (connection.received_at or self.clock())
        head = connection.head
        method = head.method if head is not None and head.method in METHODS else "other"
        pattern = connection.route.pattern if connection.route is not None else "none"
        if status == 500:
            self._failures.inc()
        self._requests.inc(method=method, route=pattern, status=str(status))
        self._seconds.observe(seconds, route=pattern)
        trace = connection.trace
        fields = {"method": method, "path": head.path if head is not None else "", "route": pattern, "status": status,
                  "bytes_in": (head.length - connection.unread) if head is not None else 0,
                  "bytes_out": connection.bytes_out, "duration_ms": round(seconds * 1000, 3), "peer": connection.peer,
                  "key": connection.principal.key, "trace_id": trace.trace_id if trace is not None else "",
                  "request_id": trace.span_id if trace is not None else ""}
        if outcome:
            fields["outcome"] = outcome
        self.log.info("request", **fields)
        self.log.emf({"RequestTime": (seconds * 1000, "Milliseconds")}, Route=pattern, Status=f"{status // 100}xx")
