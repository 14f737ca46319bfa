"""One connection: a state machine that never waits in a pool thread.

    HANDSHAKE ──► HEAD ──► ADMIT ──► BODY ──► READY ──► (answer) ──► HEAD again, or LINGER and closed
                   ▲                                        │
                   └────────────── DISCARD ◄────────────────┘  a short body nobody read is thrown away

`step` goes on as far as the bytes at hand allow and then hands the socket back to the doorman (server.py), who watches
it without a thread.  So a slow or silent client, in TLS or not, costs a socket and a buffer, and no thread.  What must
wait (event streams, Prefer: wait, files in or out, answers that the client takes slowly) runs in a thread of its own,
of which there is a bounded number.
"""

from __future__ import annotations

import contextlib
import enum
import selectors
import socket
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING

from web.exchange import (
    Answer,
    Disconnected,
    Principal,
    Request,
    Trace,
    new_trace,
    render,
    render_problem,
    requested_wait,
)
from web.incoming import PIECE, Incoming
from web.routes import MethodNotAllowed, Route, check_accept, check_body, check_query, check_role, check_site
from web.wire import BadMessage, Head, Problem, find_head, read_head, read_query

if TYPE_CHECKING:
    from web.server import Server

_LINGER_BYTES = 1 << 22  # thrown away after an answer that ends the connection, so that the client can read it


class Phase(enum.Enum):
    """What the connection is waiting for, or busy with."""

    HANDSHAKE = "handshake"
    HEAD = "head"
    ADMIT = "admit"
    BODY = "body"
    READY = "ready"
    DISCARD = "discard"
    LINGER = "linger"


class Connection(Incoming):
    """See above.  At any time it belongs either to the doorman (parked) or to exactly one other thread."""

    def __init__(self, house: Server, sock: socket.socket, peer: str, *, tls: ssl.SSLContext | None) -> None:
        super().__init__(house, sock, peer, tls)
        self.phase = Phase.HEAD if tls is None else Phase.HANDSHAKE
        self.timer: float | None = None  # the doorman's: when it looks at the deadline next
        self.watched = False  # the doorman's: in its selector
        self.closed = False
        self.served = 0
        self.body = bytearray()
        self._reset()

    def _reset(self) -> None:
        """Forget the request that was answered."""
        self.head: Head | None = None
        self.route: Route | None = None
        self.exchange: Request | None = None
        self.trace: Trace | None = None
        self.principal = Principal(role="nobody")
        self.params: dict[str, str] = {}
        self.unread = 0
        self.reserved = 0
        self.continued = False
        self.long = False
        self.close_connection = False
        self.received_at: float | None = None
        self.bytes_out = 0
        self.request_version = "HTTP/1.1"

    @property
    def idle(self) -> bool:
        """Nothing was asked that is not answered."""
        return (self.phase is Phase.HEAD and not self.buffer) or self.phase is Phase.HANDSHAKE

    @property
    def spare(self) -> bool:
        """May be closed to make room for another."""
        return self.idle or self.phase is Phase.LINGER

    # --- going on -----------------------------------------------------------------------------------------------

    def step(self, *, reserve: bool) -> None:
        """Go on without waiting.  `reserve`: the pool is full; only receive, refuse, and answer `always` routes."""
        try:
            if self.phase is Phase.LINGER:
                return self._linger()
            if self.phase is Phase.HANDSHAKE:
                if not self.handshake():
                    return
                self.phase = Phase.HEAD
            if self.phase is Phase.DISCARD and not self._discard():
                return
            if self.phase is Phase.HEAD and not self._receive_head():
                return
            if self.phase is Phase.ADMIT and not self._admit(reserve):
                return
            if self.phase is Phase.BODY and not self._receive_body():
                return
            if reserve and self.route is not None and not self.route.always:
                if not self.house.queue_again(self):
                    self.house.count_refusal("queue-full")
                    raise Problem(503, "overloaded", "too many requests are waiting; try again soon",
                                  headers={"Retry-After": "1"})
                return
            self._start()
        except Problem as problem:
            self._answer(self._problem(problem))
        except Disconnected:
            self.close()
        except Exception as error:  # a fault of ours: keys that cannot be read, an answer that cannot be written
            if self.bytes_out:
                raise  # half an answer is out; the pool closes the connection
            self._answer(self._failure(error))

    def _receive_head(self) -> bool:
        limits = self.house.head_limits
        size = find_head(self.buffer, limits) if self.buffer else 0
        while not size:
            data = self.receive(PIECE)
            if data is None:
                return False
            self.buffer += data
            size = find_head(self.buffer, limits)
        if self.received_at is None:  # the whole head came with the request before it
            self.received_at = self.clock()
            self.deadline = self.received_at + self.house.settings.http_receive_s
        data = bytes(self.buffer[:size])
        del self.buffer[:size]
        self.head = read_head(data, limits)
        self.unread = self.head.length
        self.command, self.path = self.head.method, self.head.path
        self.request_version = f"HTTP/1.{self.head.version[1]}"
        self.trace = new_trace(self.head.headers.get("traceparent"))
        self.phase = Phase.ADMIT
        return True

    def _admit(self, reserve: bool) -> bool:
        """Every check that needs no body; routes.py gives their order."""
        head, house = self._the_head(), self.house
        try:
            self.route, self.params = house.routes.find(head.method, head.path)
        except MethodNotAllowed as problem:
            if head.method != "OPTIONS":
                raise
            self._answer(Answer(204, {"Allow": problem.allow}))
            return False
        if reserve and not self.route.always:  # what follows may be slow: it is for the pool
            return True
        check_site(head, house.hosts)
        if house.authenticator is None:
            self.principal = Principal()
        elif self.route.roles is not None:
            try:
                self.principal = house.authenticator.authenticate(head.headers, self.peer)
            except Problem:
                house.count_refusal("key")
                raise
        check_role(self.route, self.principal)
        check_accept(self.route, head.headers)
        check_body(self.route, head, spare=house.settings.http_drain_bytes)
        self.phase = Phase.READY
        if self.unread and not (self.route.body is not None and self.route.body.stream):
            if not house.take_memory(self.unread):
                house.count_refusal("memory")
                raise Problem(503, "overloaded", "too many bodies are being received; try again soon",
                              headers={"Retry-After": "1"})
            self.reserved = self.unread
            self.phase = Phase.BODY
            self.deadline += self.unread / house.settings.http_min_rate
            if head.expects_continue and not self.buffer:
                self.send_now(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.continued = True
        return True

    def _receive_body(self) -> bool:
        self._take_buffered()
        while self.unread:
            data = self.receive(min(self.unread, PIECE))
            if data is None:
                return False
            self.body += data
            self.unread -= len(data)
        self.phase = Phase.READY
        return True

    def _take_buffered(self) -> None:
        count = min(self.unread, len(self.buffer))
        self.body += self.buffer[:count]
        del self.buffer[:count]
        self.unread -= count

    def park(self, want: int = selectors.EVENT_READ) -> None:
        """Give the connection to the doorman; the caller lets go of it."""
        self.want = want
        if want == selectors.EVENT_READ and isinstance(self.sock, ssl.SSLSocket) and self._decrypted():
            self.house.enqueue(self)  # bytes that TLS has read already are not seen by a selector
        else:
            self.house.park(self)

    def _decrypted(self) -> int:
        try:
            return self.sock.pending()  # type: ignore[attr-defined]
        except (OSError, ValueError):
            return 0

    # --- the handler --------------------------------------------------------------------------------------------

    def _start(self) -> None:
        """Run the handler, here or in a thread for those who wait."""
        head, route = self._the_head(), self._the_route()
        is_head = head.method == "HEAD"
        query = read_query(head.query)
        check_query(route, query)
        wait_s = None
        if route.waits == "prefer" and not is_head:
            wait_s = requested_wait(head.headers, self.house.settings.http_max_wait_s)
        self.exchange = Request(
            method="GET" if is_head else head.method, path=head.path, route=route.pattern, params=self.params,
            query={name: values[0] for name, values in query.items()}, query_all=query, headers=head.headers,
            peer=self.peer, principal=self.principal, trace=self._the_trace(), wait_s=wait_s,
            body=bytes(self.body) if route.body is not None else b"", head=is_head, content_length=head.length,
            stopping=self.house.draining, source=self)
        if (route.waits is True and not is_head) or wait_s:
            if self._apart("waits"):
                return
            if route.waits is True:
                raise Problem(503, "overloaded", "too many clients are waiting; try again later",
                              headers={"Retry-After": "5"})
            self.exchange.wait_s = None  # a preference may be passed over (RFC 7240 section 2)
        elif (route.body is not None and route.body.stream) or (route.apart is not None and route.apart(self.exchange)):
            if self._apart("transfers"):
                return
            raise Problem(503, "overloaded", "too many transfers at once; try again soon", headers={"Retry-After": "2"})
        self._handle()

    def _apart(self, kind: str) -> bool:
        """Go on with the handler in a thread of its own, if there is room."""
        if self._spawn(kind, self._handle):
            return True
        self.house.count_refusal(kind)
        return False

    def _spawn(self, kind: str, function: Callable[[], None]) -> bool:
        self.long = True  # before: afterwards the connection is that thread's
        if self.house.spawn(kind, function, self):
            return True
        self.long = False
        return False

    def _handle(self) -> None:
        request, route = self._the_request(), self._the_route()
        try:
            answer = render(request, route.handler(request))
        except Problem as problem:
            answer = self._problem(problem)
        except Disconnected:
            self._record(499, "client-closed")
            self.close()
            return
        except Exception as error:  # a fault of ours must not reach the client, nor end the thread
            answer = self._failure(error)
        self._answer(answer)

    def _failure(self, error: Exception) -> Answer:
        trace = self._the_trace()
        self.house.log.error("handler-failed", error=error, route=self.route.pattern if self.route else "none",
                             request_id=trace.span_id, trace_id=trace.trace_id)
        return self._problem(Problem(500, "internal", "the service failed; its log says more under this request_id"))

    # --- answering ----------------------------------------------------------------------------------------------

    def _problem(self, problem: Problem) -> Answer:
        if isinstance(problem, BadMessage):
            self.close_connection = True
        trace = self.trace = self.trace or new_trace(None)
        try:
            return render_problem(problem, instance=getattr(self, "path", "/") if self.head else "/",
                                  request_id=trace.span_id)
        except ValueError as error:  # a handler's header or member that cannot be sent
            self.house.log.error("problem-not-sendable", error=error, request_id=trace.span_id)
            return Answer(500, {})

    def _answer(self, answer: Answer) -> None:
        """Send, without waiting where a pool thread does it; then go on with the connection."""
        try:
            plain = answer.file is None and answer.pieces is None
            silent = self.head is not None and self.head.method == "HEAD"
            if not plain and not silent and not self.long:
                if self._spawn("transfers", lambda: self._answer(answer)):
                    return
                answer.close()
                self.house.count_refusal("transfers")
                answer = self._problem(Problem(503, "overloaded", "too many transfers at once; try again soon",
                                               headers={"Retry-After": "2"}))
                plain = True
            data = self._head_of(answer, silent)
            if plain and not silent:
                data += answer.body
            rest = memoryview(data)[self.send_now(data):]
            if plain and rest and not self.long:
                # The client takes it slowly: that is for another thread.
                if not self._spawn("transfers", lambda: self._send_rest(answer, rest, silent)):
                    self.house.count_refusal("transfers")
                    self._record(answer.status, "cut")
                    self.close()
                return
            self._send_rest(answer, rest, silent)
        except Disconnected:
            answer.close()
            self._record(answer.status, "client-closed")
            self.close()

    def _send_rest(self, answer: Answer, rest: memoryview, silent: bool) -> None:
        """What the first send left, then the file or the pieces; then the connection goes on or is closed."""
        settings, clock = self.house.settings, self.clock
        outcome = ""
        try:
            if rest:
                self.send_all(rest, clock() + settings.http_send_s + len(rest) / settings.http_min_rate)
            if answer.file is not None and not silent:
                self.send_file(answer, clock() + settings.http_send_s + answer.size / settings.http_min_rate)
            elif answer.pieces is not None and not silent:
                for piece in answer.pieces:
                    if piece:  # an empty chunk would end the answer
                        self.send_all(self.chunk(piece), clock() + settings.http_send_s)
                self.send_all(self.chunk(b""), clock() + settings.http_send_s)
        except Disconnected:
            outcome = "client-closed"
        except Exception as error:  # of the generator, or the file: the answer is cut short, and seen to be
            self.house.log.error("answer-failed", error=error, request_id=self._the_trace().span_id)
            outcome = "cut"
        finally:
            answer.close()
        self._record(answer.status, outcome or answer.slug)
        if outcome:
            self.close()
        else:
            self._next()

    def _head_of(self, answer: Answer, silent: bool) -> bytes:
        """Status line and header fields; decides whether the connection stays."""
        settings, head = self.house.settings, self.head
        self._take_unread()
        waiting = head is not None and head.expects_continue and not self.continued
        if head is None or not head.keep_alive or self.house.draining.is_set() or (
                self.unread > settings.http_drain_bytes or (waiting and self.unread)):
            self.close_connection = True
        fields = {"Server": self.server_version, "Date": self.date_time_string(), **answer.headers}
        if answer.pieces is not None:
            if self.request_version == "HTTP/1.1":
                fields["Transfer-Encoding"] = "chunked"
            else:
                self.close_connection = True  # its end is the end of the answer (RFC 9112 section 6.3)
        elif answer.status not in (204, 304):
            fields["Content-Length"] = str(answer.size if answer.file is not None else len(answer.body))
        fields["X-Content-Type-Options"] = "nosniff"
        fields["X-Request-Id"] = self._the_trace().span_id
        if self.close_connection:
            fields["Connection"] = "close"
        elif self.request_version == "HTTP/1.0":
            fields["Connection"] = "keep-alive"
        return self.write_head(answer.status, fields)

    def _record(self, status: int, outcome: str) -> None:
        """The request's line in the log, and its metrics."""
        self.house.record(self, status, outcome)

    # --- after the answer ---------------------------------------------------------------------------------------

    def _next(self) -> None:
        self.served += 1
        if self.close_connection:
            return self._hang_up()
        self.sock.settimeout(0)
        unread = self.unread
        self._release()
        self._reset()
        now = self.clock()
        if unread:
            self.unread, self.phase = unread, Phase.DISCARD
            self.deadline = now + self.house.settings.http_receive_s
            self.park()
        else:
            self.phase, self.deadline = Phase.HEAD, now + self.house.settings.http_idle_s
            if self.buffer:  # the next request is here already
                self.received_at, self.deadline = now, now + self.house.settings.http_receive_s
                self.house.enqueue(self)
            else:
                self.park()

    def _take_unread(self) -> None:
        """Throw away what has arrived of a body that nobody will read."""
        count = min(self.unread, len(self.buffer))
        del self.buffer[:count]
        self.unread -= count

    def _discard(self) -> bool:
        while self.unread:
            self.received_at = self.received_at or self.clock()  # keeps the deadline where it is
            data = self.receive(min(self.unread, PIECE))
            if data is None:
                return False
            self.unread -= len(data)
        self._reset()
        self.phase, self.deadline = Phase.HEAD, self.clock() + self.house.settings.http_idle_s
        return True

    def _hang_up(self) -> None:
        """Close after an answer: our side first, and the socket only once the client has had time to read; closing
        at once with bytes unread would reset the connection and take the answer away (RFC 9112 section 9.6)."""
        try:
            self.sock.settimeout(0)
            if isinstance(self.sock, ssl.SSLSocket):
                with contextlib.suppress(OSError, ValueError):
                    self.sock.unwrap()  # sends close_notify; the client's own is not waited for
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            return self.close()
        self.phase, self.unread = Phase.LINGER, _LINGER_BYTES
        self._release()
        self.buffer.clear()
        self.deadline = self.clock() + self.house.settings.http_linger_s
        self.park()

    def _linger(self) -> None:
        self.received_at = 0.0  # keeps the deadline where it is
        while self.unread > 0:
            data = self.receive(PIECE)
            if data is None:
                return
            self.unread -= len(data)
        self.close()

    def expire(self) -> None:
        """The deadline passed while parked (the doorman's thread: nothing here waits)."""
        if (self.phase is Phase.HEAD and self.buffer) or self.phase is Phase.BODY:
            answer = self._problem(self.too_slow())
            with contextlib.suppress(Disconnected):
                self.send_now(self._head_of(answer, False) + answer.body)
                self._record(408, answer.slug)
                return self._hang_up()
        self.close()

    def _release(self) -> None:
        """Give the memory of the body back."""
        self.body = bytearray()
        if self.reserved:
            self.house.give_memory(self.reserved)
            self.reserved = 0

    def close(self) -> None:
        """Close the socket, now."""
        if not self.closed:
            self.closed = True
            self._release()
            with contextlib.suppress(OSError):
                self.sock.close()
            self.house.forget(self)

    # --- parts that exist from some phase on ----------------------------------------------------------------------

    def _the_head(self) -> Head:
        assert self.head is not None
        return self.head

    def _the_route(self) -> Route:
        assert self.route is not None
        return self.route

    def _the_trace(self) -> Trace:
        self.trace = self.trace or new_trace(None)
        return self.trace

    def _the_request(self) -> Request:
        assert self.exchange is not None
        return self.exchange
