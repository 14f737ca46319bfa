"""The doorman: one thread that accepts, and watches every connection that nobody works for.

It has one selector for all of them, new, idle, or with half a request, and closes those whose deadline has passed.  It
never parses and never waits for a client, so 10 or 1,000 silent ones are the same to it.
"""

from __future__ import annotations

import contextlib
import errno
import heapq
import itertools
import selectors
import socket
import threading
import weakref
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from web.answering import Answering
from web.connection import Connection

if TYPE_CHECKING:
    from web.server import Server

_FULL = (b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\nRetry-After: 1\r\n"
         b"Connection: close\r\nContent-Length: %d\r\n\r\n%b")
_FULL_BODY = (b'{"type":"/problems/overloaded","title":"Overloaded","status":503,"detail":"too many connections '
              b'are open; try again soon","instance":"/","request_id":""}\n')
_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Doorman:
    """Accepts for a server and watches its parked connections; everything but `park`, `wake`, `close_door` and `end` is
    its own thread's."""

    def __init__(self, house: Server) -> None:
        self.house, self.clock = house, house.clock
        self.spare: dict[Answering, None] = {}  # who may be closed to make room, the longest first
        self._sockets: Sequence[socket.socket] = ()
        self._inherited = False
        self._selector = selectors.DefaultSelector()
        self._waker, self._wake_end = socket.socketpair()
        self._awake = False
        self._parked: deque[Answering] = deque()  # on their way here
        # By weak reference: a closed connection must not be kept in memory until its deadline would have been.
        self._timers: list[tuple[float, int, weakref.ref[Answering]]] = []
        self._serial = itertools.count()
        self._accept_again = 0.0
        self._stopping = False
        self.left = threading.Event()  # nothing is accepted any more
        self._closed = False

    def open_door(self, sockets: Sequence[socket.socket], inherited: bool) -> None:
        """Listen on these; `inherited`: they were passed, and go on without us."""
        self._sockets, self._inherited = sockets, inherited
        for sock in sockets:
            sock.setblocking(False)
            self._selector.register(sock, selectors.EVENT_READ)
        self._waker.setblocking(False)
        self._wake_end.setblocking(False)
        self._selector.register(self._waker, selectors.EVENT_READ)

    def close_door(self) -> None:
        """From any thread: accept no more, let go of who has asked nothing."""
        self._stopping = True
        self.wake()

    def end(self) -> None:
        """From any thread: end `run`."""
        self._closed = True
        self.wake()

    def close(self) -> None:
        """After `run`: the last sockets."""
        for sock in (*self._sockets, self._waker, self._wake_end):
            with contextlib.suppress(OSError):
                sock.close()

    def run(self) -> None:
        """The thread."""
        while not self._closed:
            try:
                self._watch()
            except Exception as error:  # one connection's fault must not end the watch over all others
                self.house.log.error("doorman-failed", error=error)
        self._selector.close()

    def _watch(self) -> None:
        now = self.clock()
        next_look = min((self._timers[0][0] if self._timers else now + 60.0), now + 60.0)
        if self._accept_again:
            next_look = min(next_look, self._accept_again)
        for key, _ in self._selector.select(max(next_look - now, 0.0)):
            if key.fileobj is self._waker:
                with contextlib.suppress(BlockingIOError):
                    self._waker.recv(4096)
            elif isinstance(key.data, Answering):
                self._let_go(key.data)
                self.house.enqueue(key.data)
            else:
                self._accept(key.fileobj)  # type: ignore[arg-type]
        self._awake = False  # before looking, so that whoever parks after the look wakes us again
        while self._parked:
            self._watch_over(self._parked.popleft())
        self._expire()
        if self._accept_again and self.clock() >= self._accept_again and not self._stopping:
            self._accept_again = 0.0
            for sock in self._sockets:
                self._selector.register(sock, selectors.EVENT_READ)
        if self._stopping:
            self._leave()

    def _accept(self, listener: socket.socket, most: int = 64) -> None:
        for _ in range(most):  # then look after the others again
            try:
                sock, address = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _NO_ROOM:
                    self.house.count_refusal("no-file-descriptor")
                    self._make_room()
                    self._pause_accepting()
                    return
                continue  # the client left before it was accepted
            sock.setblocking(False)
            if sock.family in (socket.AF_INET, socket.AF_INET6):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if self.house.count_open() >= self.house.settings.http_connections and not self._make_room():
                self.house.count_refusal("connections")
                with contextlib.suppress(OSError):
                    if self.house.tls is None:
                        sock.send(_FULL % (len(_FULL_BODY), _FULL_BODY))
                sock.close()
                continue
            peer = address[0] if isinstance(address, tuple) else ""
            connection = Connection(self.house, sock, peer, tls=self.house.tls)
            self.house.remember(connection)
            self._watch_over(connection)

    def _make_room(self) -> bool:
        """Close the connection that has been idle longest; False when none is."""
        if not self.spare:
            return False
        connection = next(iter(self.spare))
        self._let_go(connection)
        connection.close()
        self.house.count_refusal("idle-made-room")
        return True

    def _pause_accepting(self) -> None:
        for sock in self._sockets:
            with contextlib.suppress(KeyError):
                self._selector.unregister(sock)
        self._accept_again = self.clock() + 0.1  # without it the selector would report the same listener for ever

    def _watch_over(self, connection: Answering) -> None:
        if connection.closed:
            return
        try:
            self._selector.register(connection.sock, connection.want, connection)
        except (OSError, ValueError, KeyError):
            connection.close()
            return
        connection.watched = True
        if connection.spare:
            self.spare[connection] = None
        if connection.timer is None or connection.deadline < connection.timer:
            self._set_timer(connection)

    def _set_timer(self, connection: Answering) -> None:
        connection.timer = connection.deadline
        heapq.heappush(self._timers, (connection.deadline, next(self._serial), weakref.ref(connection)))

    def _let_go(self, connection: Answering) -> None:
        self._selector.unregister(connection.sock)
        connection.watched = False
        self.spare.pop(connection, None)

    def _expire(self) -> None:
        now = self.clock()
        while self._timers and self._timers[0][0] <= now:
            due, _, reference = heapq.heappop(self._timers)
            connection = reference()
            if connection is None or connection.closed or due != connection.timer:
                continue  # superseded by an earlier one
            connection.timer = None
            if not connection.watched:
                continue  # someone works for it; the timer is set again when it is parked
            if connection.deadline > now:
                self._set_timer(connection)
                continue
            self._let_go(connection)
            connection.expire()

    def _leave(self) -> None:
        """Stop accepting; close who has nothing in progress.  A connection so new that its request may be on its way
        has one more second."""
        if self._sockets[0].fileno() >= 0:
            for sock in self._sockets:
                if not self._inherited:  # otherwise who is not accepted waits for the next process
                    self._accept(sock, most=self.house.settings.http_connections)
                with contextlib.suppress(KeyError):
                    self._selector.unregister(sock)
                sock.close()
        self.left.set()
        now = self.clock()
        for connection in [c for c in self.spare if c.idle]:
            if connection.served or connection.deadline <= now:
                self._let_go(connection)
                connection.close()
            elif connection.deadline > now + 1.0:
                self._let_go(connection)
                connection.deadline = now + 1.0
                self._watch_over(connection)

    def park(self, connection: Answering) -> None:
        """Give a connection to the doorman until it has something to read (or can be written to)."""
        self._parked.append(connection)
        self.wake()

    def wake(self) -> None:
        """From any thread: look again."""
        if not self._awake:
            self._awake = True
            with contextlib.suppress(OSError):
                self._wake_end.send(b"\0")
