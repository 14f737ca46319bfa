"""The answering half of a connection: an answer onto the socket, in whichever thread may wait for it, and what follows.

An answer that the socket takes at once is sent where it was made; a file, pieces, or what the client takes slowly go on
in a thread for transfers.  Then the connection waits for its next request, throws a short unread body away, or lingers
and is closed.
"""

from __future__ import annotations

import contextlib
import enum
import selectors
import socket
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING

from web.exchange import Disconnected, Principal, Request, Trace, new_trace
from web.incoming import Incoming
from web.rendering import Answer, render_problem
from web.routes import Route
from web.wire import BadMessage, Head, Problem

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


class Answering(Incoming):
    """What a connection knows of its request, and how it answers."""

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

    def step(self, *, reserve: bool) -> None:
        """Go on without waiting (connection.py)."""
        raise NotImplementedError

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

    def _failure(self, error: Exception) -> Answer:
        trace = self._the_trace()
        self.house.log.error("handler-failed", error=error, route=self.route.pattern if self.route else "none",
                             request_id=trace.span_id, trace_id=trace.trace_id)
        return self._problem(Problem(500, "internal", "the service failed; its log says more under this request_id"))

    def _spawn(self, kind: str, function: Callable[[], None]) -> bool:
        self.long = True  # before: afterwards the connection is that thread's
        if self.house.spawn(kind, function, self):
            return True
        self.long = False
        return False

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
