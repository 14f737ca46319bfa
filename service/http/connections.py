"""The open connections: how many there are, which are idle and since when, and how they are ended from outside."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from typing import Protocol


class OpenConnection(Protocol):
    """What is known of a connection here."""

    sock: socket.socket
    answered: int  # requests answered on it


class Connections:
    """Safe from any thread.  Idle means: no request has begun that is not answered."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._reserved = 0  # accepted, and not yet added by their threads
        self._open: set[OpenConnection] = set()
        self._idle: dict[OpenConnection, None] = {}  # the longest idle first
        self._changed = threading.Condition()

    def __len__(self) -> int:
        return len(self._open) + self._reserved

    def reserve(self) -> bool:
        """Count a connection that was accepted; False where there are too many and none is idle long enough to end."""
        with self._changed:
            if len(self) >= self._most:
                return False
            self._reserved += 1
            return True

    def add(self, connection: OpenConnection) -> None:
        """The reserved connection has its thread."""
        with self._changed:
            self._reserved -= 1
            self._open.add(connection)
            self._idle[connection] = None

    def unreserve(self) -> None:
        """The reserved connection got no thread."""
        with self._changed:
            self._reserved -= 1
            self._changed.notify_all()

    def remove(self, connection: OpenConnection) -> None:
        """The connection is closed."""
        with self._changed:
            self._open.discard(connection)
            self._idle.pop(connection, None)
            self._changed.notify_all()

    def set_idle(self, connection: OpenConnection) -> None:
        """Nothing is asked of the connection any more."""
        with self._changed:
            if connection in self._open:
                self._idle[connection] = None

    def set_busy(self, connection: OpenConnection) -> None:
        """A request has begun."""
        with self._changed:
            self._idle.pop(connection, None)

    def end_longest_idle(self) -> bool:
        """End the connection that has been idle longest to make room for another; False when none is.

        Only its receiving side is shut down, so that a request that arrives at the same moment is still read and
        answered.
        """
        with self._changed:
            victim = next((connection for connection in self._idle if not _readable(connection.sock)), None)
            if victim is None:
                return False
            del self._idle[victim]
            self._open.discard(victim)
            _shut(victim.sock, socket.SHUT_RD)
            return True

    def end_idle(self, *, never_asked: bool) -> None:
        """End idle connections; those that have never sent a request only where `never_asked`."""
        with self._changed:
            for connection in self._idle:
                if connection.answered or never_asked:
                    _shut(connection.sock, socket.SHUT_RD)

    def end_all(self) -> None:
        """End every connection; whoever reads or writes there comes back with an error."""
        with self._changed:
            for connection in self._open:
                _shut(connection.sock, socket.SHUT_RDWR)

    def wait_until_none(self, timeout_s: float) -> bool:
        """Wait until all are closed; False when the time is over."""
        with self._changed:
            return self._changed.wait_for(lambda: not len(self), timeout=timeout_s)


def _shut(sock: socket.socket, how: int) -> None:
    """shutdown(2) that leaves the state of TLS to the connection's own thread."""
    with contextlib.suppress(OSError):
        socket.socket.shutdown(sock, how)


def _readable(sock: socket.socket) -> bool:
    poll = select.poll()
    try:
        poll.register(sock.fileno(), select.POLLIN)
        return bool(poll.poll(0))
    except (OSError, ValueError):
        return False
