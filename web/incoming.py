"""The receiving half of a connection: bytes from a socket without waiting, TLS or not, and streamed bodies.

`receive` and `handshake` return at once and, when there is nothing to read, have parked the connection with the
doorman; whoever called them then lets go of it.  `read_body` waits, and runs only in a thread of its own.
"""

from __future__ import annotations

import select
import selectors
import socket
import ssl
from typing import TYPE_CHECKING

from web.exchange import Disconnected
from web.outgoing import Outgoing
from web.wire import BadMessage, Head

if TYPE_CHECKING:
    from web.server import Server

PIECE = 1 << 16  # bytes asked of a socket at once
_GONE = select.POLLHUP | select.POLLERR | getattr(select, "POLLRDHUP", 0)


class Incoming(Outgoing):
    """Reads from `sock` into `buffer`, or past it."""

    def __init__(self, house: Server, sock: socket.socket, peer: str, tls: ssl.SSLContext | None) -> None:
        super().__init__(sock, house.clock)
        self.house, self.peer, self.tls = house, peer, tls
        self.deadline = self.clock() + (house.settings.http_idle_s if tls is None else house.settings.http_receive_s)
        self.want = selectors.EVENT_READ
        self.buffer = bytearray()  # received and not yet understood
        self.head: Head | None = None
        self.unread = 0  # bytes of the body still to come
        self.continued = False  # 100 Continue was sent, or is not needed any more
        self.received_at: float | None = None  # the request's first byte

    def park(self, want: int = selectors.EVENT_READ) -> None:
        """Give the connection to the doorman; the caller lets go of it."""
        raise NotImplementedError

    def receive(self, most: int) -> bytes | None:
        """What has arrived, at most `most` bytes; None when nothing has (parked then).  Raises Disconnected."""
        try:
            data = self.sock.recv(most)
        except (BlockingIOError, ssl.SSLWantReadError):
            self.park()
            return None
        except ssl.SSLWantWriteError:
            self.park(selectors.EVENT_WRITE)
            return None
        except OSError:
            raise Disconnected from None
        if not data:
            raise Disconnected
        if self.received_at is None:  # a request begins
            self.received_at = self.clock()
            self.deadline = self.received_at + self.house.settings.http_receive_s
        return data

    def handshake(self) -> bool:
        """Go on with the TLS handshake; False while it is incomplete (parked then).  Raises Disconnected."""
        try:
            if not isinstance(self.sock, ssl.SSLSocket):
                assert self.tls is not None  # the phase says so
                self.sock = self.tls.wrap_socket(self.sock, server_side=True, do_handshake_on_connect=False)
            self.sock.do_handshake()
        except ssl.SSLWantReadError:
            self.park()
            return False
        except ssl.SSLWantWriteError:
            self.park(selectors.EVENT_WRITE)
            return False
        except OSError as error:
            self.house.count_refusal("handshake")
            self.house.log.debug("handshake-failed", peer=self.peer, reason=str(error))
            raise Disconnected from None
        self.deadline = self.clock() + self.house.settings.http_idle_s
        return True

    def read_body(self, view: memoryview) -> int:
        """The next bytes of a streamed body (exchange.BodySource)."""
        assert self.head is not None  # there is no body before its head
        head, settings = self.head, self.house.settings
        if not self.continued:
            self.continued = True
            self.deadline = self.clock() + settings.http_receive_s + head.length / settings.http_min_rate
            if head.expects_continue and not self.buffer:
                self.send_all(b"HTTP/1.1 100 Continue\r\n\r\n", self.deadline)
        if self.buffer and self.unread:
            count = min(len(self.buffer), len(view), self.unread)
            view[:count] = self.buffer[:count]
            del self.buffer[:count]
        elif self.unread:
            left = self.deadline - self.clock()
            try:
                self.sock.settimeout(max(left, 0.001))
                count = self.sock.recv_into(view[:min(self.unread, len(view))])
            except TimeoutError:
                raise self.too_slow() from None
            except OSError:
                raise Disconnected from None
            if count == 0:
                raise Disconnected
            if left <= 0:
                raise self.too_slow()
        else:
            count = 0
        self.unread -= count
        return count

    def gone(self) -> bool:
        """Whether the client has closed (exchange.BodySource)."""
        poll = select.poll()
        try:
            poll.register(self.sock.fileno(), _GONE)
            return bool(poll.poll(0))
        except (OSError, ValueError):
            return True

    def too_slow(self) -> BadMessage:
        """The problem of a request that missed its deadline."""
        self.house.count_refusal("too-slow")
        return BadMessage(408, "request-timeout", "the request did not arrive in time (RFC 9110 section 15.5.9)")
