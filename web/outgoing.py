"""The sending half of a connection: the head of an answer, and bytes onto a socket, at once or before a deadline.

Of BaseHTTPRequestHandler this half is used (status line, header fields, dates); its reading half is replaced by
wire.py, and its loop by connection.py.
"""

from __future__ import annotations

import io
import socket
import ssl
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler

from web.exchange import Disconnected
from web.rendering import Answer
from web.wire import phrase

_FILE_PIECE = 1 << 18


class Outgoing(BaseHTTPRequestHandler):
    """Writes to `sock`; raises Disconnected when the client is gone or too slow."""

    protocol_version = "HTTP/1.1"
    server_version = "nvc"
    sys_version = ""  # the Server field tells nobody which Python to attack

    def __init__(self, sock: socket.socket, clock: Callable[[], float]) -> None:
        # The base's __init__ would read and answer at once, in the calling thread; it is not called.
        self.sock, self.clock = sock, clock
        self.wfile = self._out = io.BytesIO()
        self.bytes_out = 0
        self.request_version = "HTTP/1.1"
        self.close_connection = False

    def write_head(self, status: int, fields: Mapping[str, str]) -> bytes:
        """Status line and header fields, with the empty line that ends them."""
        self._out.seek(0)
        self._out.truncate()
        close = self.close_connection
        self.send_response_only(status, phrase(status))
        for name, value in fields.items():
            self.send_header(name, value)
        self.end_headers()
        self.close_connection = close  # send_header changes it when it sees a Connection field
        return self._out.getvalue()

    def chunk(self, piece: bytes) -> bytes:
        """One chunk (RFC 9112 section 7.1); b"" makes the last."""
        if self.request_version == "HTTP/1.0":
            return piece
        return b"%x\r\n%b\r\n" % (len(piece), piece)

    def send_now(self, data: bytes) -> int:
        """Send what fits without waiting; -> bytes sent."""
        try:
            self.sock.settimeout(0)
            count = self.sock.send(data)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return 0
        except OSError:
            raise Disconnected from None
        self.bytes_out += count
        return count

    def send_all(self, data: bytes | memoryview, deadline: float) -> None:
        """Send everything before the deadline, or raise Disconnected."""
        view = memoryview(data)
        while view:
            left = deadline - self.clock()
            if left <= 0:
                raise Disconnected
            try:
                self.sock.settimeout(left)
                count = self.sock.send(view)
            except OSError:  # TimeoutError is one
                raise Disconnected from None
            self.bytes_out += count
            view = view[count:]

    def send_file(self, answer: Answer, deadline: float) -> None:
        """Send the answer's part of its file before the deadline; OSError when the file has become shorter."""
        assert answer.file is not None
        answer.file.seek(answer.start)
        left = answer.size
        while left:
            piece = answer.file.read(min(left, _FILE_PIECE))
            if not piece:
                raise OSError("the file became shorter while it was sent")
            self.send_all(piece, deadline)
            left -= len(piece)

