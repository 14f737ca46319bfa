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

from web.answering import Answering, Phase
from web.exchange import Disconnected, Principal, Request, new_trace, requested_wait
from web.incoming import PIECE
from web.rendering import Answer, render
from web.routes import MethodNotAllowed, check_accept, check_body, check_query, check_role, check_site
from web.wire import Problem, find_head, read_head, read_query


class Connection(Answering):
    """See above.  At any time it belongs either to the doorman (parked) or to exactly one other thread."""

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

    def _linger(self) -> None:
        self.received_at = 0.0  # keeps the deadline where it is
        while self.unread > 0:
            data = self.receive(PIECE)
            if data is None:
                return
            self.unread -= len(data)
        self.close()
