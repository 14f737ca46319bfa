"""One connection, served by one thread: read a request strictly, check it, run its handler, answer, and again.

`BaseHTTPRequestHandler` gives the loop's frame and the head of the answer.  Its parser is replaced by wire.py, which is
strict, and every receive and send here has an absolute deadline, so that a client that sends a byte now and then does
not hold its thread for longer than one that sends nothing.
"""

from __future__ import annotations

import contextlib
import io
import select
import socket
import ssl
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler
from socketserver import BaseServer
from typing import Any

from service.http.context import RequestRecord, ServerContext
from service.http.exchange import Disconnected, Principal, Request, Trace, new_trace, requested_wait
from service.http.limits import Budget
from service.http.parsing import BadMessage, Head, Problem, find_head, phrase, read_head, read_query
from service.http.rendering import Answer, render, render_problem
from service.http.routes import MethodNotAllowed, Route, check_accept, check_body, check_query, check_role, check_site

_PIECE = 1 << 16  # bytes asked of a socket at once
_FILE_PIECE = 1 << 18
_LINGER_BYTES = 1 << 22  # thrown away after the last answer, so that the client can read it
_GONE = select.POLLHUP | select.POLLERR | getattr(select, "POLLRDHUP", 0)


class Connection(BaseHTTPRequestHandler):
    """See above."""

    protocol_version = "HTTP/1.1"
    server_version = "nvc"
    sys_version = ""  # the Server field does not tell which Python this is

    def __init__(self, context: ServerContext, sock: socket.socket, address: Any, server: BaseServer) -> None:
        self.context, self.settings, self.clock = context, context.settings, context.clock
        self.sock = sock
        self.peer = address[0] if isinstance(address, tuple) else ""
        self.buffer = bytearray()  # received and not yet used
        self.answered = 0
        self._forget_request()
        super().__init__(sock, address, server)

    def _forget_request(self) -> None:
        self.head: Head | None = None
        self.route: Route | None = None
        self.trace: Trace | None = None
        self.principal = Principal(role="nobody")
        self.unread = 0  # bytes of the body still to come
        self.continued = False  # 100 Continue was sent, or is not needed any more
        self.held: Budget | None = None  # of waiting clients or transfers, where this request is one
        self.holder = ""  # in whose name
        self.received_at: float | None = None  # when its first byte came
        self.bytes_out = 0
        self.request_version = "HTTP/1.1"

    # --- the loop, as socketserver calls it ------------------------------------------------------------------------

    def setup(self) -> None:
        """Make the connection known."""
        self.close_connection = False
        self.deadline = self.clock() + self.settings.http_idle_s
        self.wfile = self._head_out = io.BytesIO()
        self.context.connections.add(self)

    def handle(self) -> None:
        """Answer requests until one side closes."""
        try:
            if self.context.tls is not None:
                self._shake_hands(self.context.tls)
            while not self.close_connection:
                self.handle_one_request()
            self._linger()
        except Disconnected:
            return
        except SystemExit as error:  # a handler must not end more than its own request
            self.context.log.error("connection-failed", error=error, peer=self.peer)

    def finish(self) -> None:
        """Close the socket."""
        with contextlib.suppress(OSError):
            self.sock.close()
        self.context.connections.remove(self)

    def handle_one_request(self) -> None:
        """Wait for a request and answer it.  Raises Disconnected."""
        try:
            answer = self._respond()
        except Problem as problem:
            answer = self._problem(problem)
        except Disconnected:
            if self.route is not None:
                self._record(499, "client-closed")
            raise
        except Exception as error:  # a fault of ours must not reach the client
            answer = self._failure(error)
        try:
            self._send(answer)
        finally:
            if self.held is not None:
                self.held.give_back(owner=self.holder)
        self.answered += 1
        if not self.close_connection:
            self._drop_unread_body()
        self._forget_request()

    def _shake_hands(self, tls: ssl.SSLContext) -> None:
        self.sock.settimeout(self.settings.http_receive_s)  # for the whole handshake, not for each receive
        try:
            self.sock = tls.wrap_socket(self.sock, server_side=True, do_handshake_on_connect=False)
            self.sock.do_handshake()
        except (OSError, ValueError) as error:
            self.context.count_refusal("handshake")
            self.context.log.debug("handshake-failed", peer=self.peer, reason=str(error))
            raise Disconnected from None

    # --- receiving ----------------------------------------------------------------------------------------------

    def _receive(self, most: int) -> bytes:
        """At least one byte, before the deadline.  Raises BadMessage 408, Disconnected."""
        left = self.deadline - self.clock()
        if left <= 0:
            raise self._too_slow()
        try:
            self.sock.settimeout(left)
            data = self.sock.recv(most)
        except TimeoutError:
            raise self._too_slow() from None
        except (OSError, ValueError):
            raise Disconnected from None
        if not data:
            raise Disconnected
        return data

    def _wait_for_request(self) -> None:
        """The first bytes of a request into the buffer; a client that stays silent is disconnected."""
        self.deadline = self.clock() + self.settings.http_idle_s
        self.context.connections.set_idle(self)
        try:
            self.sock.settimeout(self.settings.http_idle_s)
            data = self.sock.recv(_PIECE)
        except (OSError, ValueError):  # TimeoutError is one
            raise Disconnected from None
        if not data:
            raise Disconnected
        self.buffer += data
        self.context.connections.set_busy(self)

    def _read_head(self) -> Head:
        if not self.buffer:
            self._wait_for_request()
        self.received_at = self.clock()
        self.deadline = self.received_at + self.settings.http_receive_s
        limits = self.context.head_limits
        while not (size := find_head(self.buffer, limits)):
            self.buffer += self._receive(_PIECE)
        data = bytes(self.buffer[:size])
        del self.buffer[:size]
        return read_head(data, limits)

    def _receive_body(self, length: int) -> bytes:
        """A whole body in memory.  Raises Problem 503 where too much memory is in use by bodies."""
        memory = self.context.body_memory
        if not memory.take(length):
            self.context.count_refusal("memory")
            raise Problem(503, "overloaded", "too many bodies are being received; try again soon",
                          headers={"Retry-After": "1"})
        self._body_memory = length
        self.deadline += length / self.settings.http_min_rate
        self._continue()
        body = bytearray(self.buffer[:length])
        del self.buffer[:length]
        self.unread -= len(body)
        while self.unread:
            data = self._receive(min(self.unread, _PIECE))
            body += data
            self.unread -= len(data)
        return bytes(body)

    def read_body(self, view: memoryview) -> int:
        """The next bytes of a streamed body (exchange.BodySource)."""
        if not self.continued:
            length = self.head.length if self.head is not None else 0
            self.deadline = self.clock() + self.settings.http_receive_s + length / self.settings.http_min_rate
            self._continue()
        count = min(len(view), self.unread)
        if count and self.buffer:
            data = bytes(self.buffer[:count])
            del self.buffer[:count]
        else:
            data = self._receive(count) if count else b""
        view[:len(data)] = data
        self.unread -= len(data)
        return len(data)

    def _continue(self) -> None:
        """The body is wanted: say so to a client that waits for it."""
        if self.head is not None and self.head.expects_continue and not self.continued and not self.buffer:
            self._send_all(b"HTTP/1.1 100 Continue\r\n\r\n", self.deadline)
        self.continued = True

    def _drop_unread_body(self) -> None:
        """Throw away a short body that nobody read, to keep the connection."""
        self.deadline = self.clock() + self.settings.http_receive_s
        try:
            while self.unread:
                self.unread -= len(self._receive(min(self.unread, _PIECE)))
        except BadMessage:
            raise Disconnected from None

    def gone(self) -> bool:
        """Whether the client has closed (exchange.BodySource)."""
        poll = select.poll()
        try:
            poll.register(self.sock.fileno(), _GONE)
            return bool(poll.poll(0))
        except (OSError, ValueError):
            return True

    def _too_slow(self) -> BadMessage:
        self.context.count_refusal("too-slow")
        return BadMessage(408, "request-timeout", "the request did not arrive in time (RFC 9110 section 15.5.9)")

    # --- from request to answer ------------------------------------------------------------------------------------

    def _respond(self) -> Answer:
        """Read the next request, check it, run its handler."""
        head = self.head = self._read_head()
        self.unread = head.length
        self.command, self.path, self.request_version = head.method, head.path, f"HTTP/1.{head.version[1]}"
        self.trace = new_trace(head.headers.get("traceparent"))
        self._body_memory = 0
        try:
            route, params = self.context.routes.find(head.method, head.path)
        except MethodNotAllowed as problem:
            if head.method != "OPTIONS":
                raise
            return Answer(204, {"Allow": problem.allow})
        self.route = route
        self._authorize(head, route)
        try:
            streamed = route.body is not None and route.body.stream
            body = self._receive_body(head.length) if head.length and not streamed else b""
            request = self._request(head, route, params, body if route.body is not None else b"")
            with self._admitted(route, request):
                return render(request, route.handler(request))
        finally:
            self.context.body_memory.give_back(self._body_memory)

    def _authorize(self, head: Head, route: Route) -> None:
        """Every check that needs no body, in the order in which a client can repair them (routes.py)."""
        context = self.context
        check_site(head, context.hosts)
        if context.authenticator is None:
            self.principal = Principal()
        elif route.roles is not None:
            try:
                self.principal = context.authenticator.authenticate(head.headers, self.peer)
            except Problem:
                context.count_refusal("key")
                raise
        check_role(route, self.principal)
        check_accept(route, head.headers)
        check_body(route, head, spare=self.settings.http_drain_bytes)

    def _request(self, head: Head, route: Route, params: dict[str, str], body: bytes) -> Request:
        is_head = head.method == "HEAD"
        query = read_query(head.query)
        check_query(route, query)
        wait_s = None
        if route.waits == "prefer" and not is_head:
            wait_s = requested_wait(head.headers, self.settings.http_max_wait_s)
        return Request(
            method="GET" if is_head else head.method, path=head.path, route=route.pattern, params=params,
            query={name: values[0] for name, values in query.items()}, query_all=query, headers=head.headers,
            peer=self.peer, principal=self.principal, trace=self.trace or new_trace(None), wait_s=wait_s, body=body,
            head=is_head, content_length=head.length, stopping=self.context.draining, source=self)

    @contextlib.contextmanager
    def _admitted(self, route: Route, request: Request) -> Iterator[None]:
        """Count the handler as what it is: a waiting client, a transfer, or one of those that end soon.  Raises Problem
        503 where there are too many of its kind."""
        if route.always:
            yield
            return
        if (route.waits is True and not request.head) or request.wait_s:
            if self._hold(self.context.waits, "waits"):
                yield
                return
            if route.waits is True:
                raise Problem(503, "overloaded", "too many clients are waiting; try again later",
                              headers={"Retry-After": "5"})
            request.wait_s = None  # a preference may be passed over (RFC 7240 section 2)
        elif (route.body is not None and route.body.stream) or (route.is_transfer and route.is_transfer(request)):
            if not self._hold(self.context.transfers, "transfers"):
                raise _too_many_transfers()
            yield
            return
        try:
            with self.context.handlers.enter():
                yield
        except Problem as problem:
            if problem.slug == "overloaded":
                self.context.count_refusal("queue-full")
            raise

    def _hold(self, budget: Budget, reason: str) -> bool:
        """Take one of the budget until the answer is sent."""
        if self.held is not None:
            return True
        if self.context.authenticator is not None:
            owner, worker = self.principal.key or self.peer, self.principal.role == "worker"
        else:   # callers cannot be distinguished: workers are known by what only they call, where there is such a thing
            route = self.route
            owner, worker = "", not self.context.serves_workers or (route is not None and route.only_workers)
        if budget.take(owner=owner, worker=worker):
            self.held, self.holder = budget, owner
            return True
        self.context.count_refusal(reason)
        return False

    def _problem(self, problem: Problem) -> Answer:
        if isinstance(problem, BadMessage):
            self.close_connection = True
        trace = self.trace = self.trace or new_trace(None)
        try:
            return render_problem(problem, instance=self.path if self.head else "/", request_id=trace.span_id)
        except ValueError as error:  # a handler's header or member that cannot be sent
            self.context.log.error("problem-not-sendable", error=error, request_id=trace.span_id)
            return Answer(500, {})

    def _failure(self, error: Exception) -> Answer:
        trace = self.trace = self.trace or new_trace(None)
        self.context.log.error("handler-failed", error=error, route=self.route.pattern if self.route else "none",
                               request_id=trace.span_id, trace_id=trace.trace_id)
        return self._problem(Problem(500, "internal", "the service failed; its log says more under this request_id"))

    # --- sending ------------------------------------------------------------------------------------------------

    def _send(self, answer: Answer) -> None:
        """Send the answer and record it.  Raises Disconnected when the client is gone or too slow."""
        outcome = answer.slug
        silent = self.head is not None and self.head.method == "HEAD"
        try:
            if (answer.file is not None or answer.pieces is not None) and not silent and not self._hold(
                    self.context.transfers, "transfers"):
                answer.close()
                answer = self._problem(_too_many_transfers())
                outcome = answer.slug
            data = self._head_of(answer)
            if not silent:
                data += answer.body
            rest = memoryview(data)[self._send_at_once(data):]
            if rest and not self._hold(self.context.transfers, "transfers"):  # a client that takes it slowly
                outcome = "cut"
                raise Disconnected
            self._send_rest(answer, rest, silent)
        except Disconnected:
            outcome = "client-closed" if outcome != "cut" else outcome
            raise
        except Exception as error:  # of the generator, or the file: the answer is cut short, and seen to be
            self.context.log.error("answer-failed", error=error, request_id=self.trace.span_id if self.trace else "")
            outcome = "cut"
            raise Disconnected from None
        finally:
            answer.close()
            self._record(answer.status, outcome)

    def _send_rest(self, answer: Answer, rest: memoryview, silent: bool) -> None:
        """What the first send left, then the file or the pieces."""
        settings = self.settings
        if rest:
            self._send_all(rest, self.clock() + settings.http_send_s + len(rest) / settings.http_min_rate)
        if silent:
            return
        if answer.file is not None:
            deadline = self.clock() + settings.http_send_s + answer.size / settings.http_min_rate
            answer.file.seek(answer.start)
            left = answer.size
            while left:
                piece = answer.file.read(min(left, _FILE_PIECE))
                if not piece:
                    raise OSError("the file became shorter while it was sent")
                self._send_all(piece, deadline)
                left -= len(piece)
        elif answer.pieces is not None:
            for piece in answer.pieces:
                if piece:  # an empty chunk would end the answer
                    self._send_all(self._chunk(piece), self.clock() + settings.http_send_s)
            self._send_all(self._chunk(b""), self.clock() + settings.http_send_s)

    def _chunk(self, piece: bytes) -> bytes:
        """One chunk (RFC 9112 section 7.1); b"" makes the last."""
        return piece if self.request_version == "HTTP/1.0" else b"%x\r\n%b\r\n" % (len(piece), piece)

    def _send_at_once(self, data: bytes) -> int:
        """Send what the socket takes without waiting; -> bytes sent."""
        try:
            self.sock.settimeout(0)
            count = self.sock.send(data)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return 0
        except (OSError, ValueError):
            raise Disconnected from None
        self.bytes_out += count
        return count

    def _send_all(self, data: bytes | memoryview, deadline: float) -> None:
        """Send everything before the deadline, or raise Disconnected."""
        view = memoryview(data)
        while view:
            left = deadline - self.clock()
            if left <= 0:
                raise Disconnected
            try:
                self.sock.settimeout(left)
                count = self.sock.send(view)
            except (OSError, ValueError):  # TimeoutError is one
                raise Disconnected from None
            self.bytes_out += count
            view = view[count:]

    def _head_of(self, answer: Answer) -> bytes:
        """Status line and header fields; decides whether the connection stays."""
        head = self.head
        used = min(self.unread, len(self.buffer))  # what has arrived of a body that nobody will read
        del self.buffer[:used]
        self.unread -= used
        waiting = head is not None and head.expects_continue and not self.continued
        if head is None or not head.keep_alive or self.context.draining.is_set() or (
                self.unread > self.settings.http_drain_bytes or (waiting and self.unread)):
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
        fields["X-Request-Id"] = self.trace.span_id if self.trace else ""
        if self.close_connection:
            fields["Connection"] = "close"
        elif self.request_version == "HTTP/1.0":
            fields["Connection"] = "keep-alive"
        return self._write_head(answer.status, fields)

    def _write_head(self, status: int, fields: Mapping[str, str]) -> bytes:
        out = self._head_out
        out.seek(0)
        out.truncate()
        close = self.close_connection
        self.send_response_only(status, phrase(status))
        for name, value in fields.items():
            self.send_header(name, value)
        self.end_headers()
        self.close_connection = close  # send_header changes it when it sees a Connection field
        return out.getvalue()

    def _linger(self) -> None:
        """Close our side first, and the socket only once the client has had time to read: closing at once with bytes
        unread would reset the connection and take the answer away (RFC 9112 section 9.6)."""
        self.context.connections.set_idle(self)
        self.deadline = self.clock() + self.settings.http_linger_s
        try:
            if isinstance(self.sock, ssl.SSLSocket):
                self.sock.settimeout(0)
                with contextlib.suppress(OSError, ValueError):
                    self.sock.unwrap()  # sends close_notify; the client's own is not waited for
            socket.socket.shutdown(self.sock, socket.SHUT_WR)
            left = _LINGER_BYTES
            while left > 0 and (wait_s := self.deadline - self.clock()) > 0:
                self.sock.settimeout(wait_s)
                data = socket.socket.recv(self.sock, _PIECE)
                if not data:
                    return
                left -= len(data)
        except (OSError, ValueError):
            return

    def _record(self, status: int, outcome: str) -> None:
        """The request's line in the log, and its metrics."""
        head, trace, now = self.head, self.trace, self.clock()
        self.context.record(RequestRecord(
            method=head.method if head is not None else "", path=head.path if head is not None else "",
            route=self.route.pattern if self.route is not None else "none", status=status,
            bytes_in=head.length - self.unread if head is not None else 0, bytes_out=self.bytes_out,
            duration_s=now - (self.received_at or now), peer=self.peer, key=self.principal.key,
            trace_id=trace.trace_id if trace is not None else "",
            request_id=trace.span_id if trace is not None else "", outcome=outcome))


def _too_many_transfers() -> Problem:
    return Problem(503, "overloaded", "too many transfers at once; try again soon", headers={"Retry-After": "2"})
