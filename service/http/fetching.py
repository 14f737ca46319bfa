"""Fetching a file from an https address that a client named, without becoming that client's way into the network.

    fetcher = Fetcher(hosts="media.example.org,.clips.example.net", networks="", limit_bytes=2 << 30, limit_s=60)
    with open(part, "wb") as out:
        size, sha256 = fetcher.fetch("https://media.example.org/a.mkv", out)

The rules (OWASP's list against server-side request forgery, with the check moved to where it cannot be raced):

* https only, and only hosts of the allow list; an empty list allows none.  An entry is a name ("a.example.org"), with a
  port where it is not 443 ("a.example.org:8443"), a domain with all below it (".example.org"), or "*" for any.
* No address but public ones.  A name is looked up once, each address found is checked, and the connection is made to
  that very address; then the address at the other end of the *connected* socket is checked again.  A name whose
  addresses change between check and use (DNS rebinding) finds no gap.
* Redirects, at most five, go through all of it again.
* Size and time have caps.  The time is absolute: a server that sends a byte a second does not start it anew.
* The certificate is checked against the name.  No key, no cookie, no proxy, and no .netrc travels with it.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import ipaddress
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from typing import BinaryIO
from urllib.parse import urljoin, urlsplit

from service.runtime.settings import SettingsError

REDIRECTS = 5
_PIECE = 1 << 18
_CONNECT_S = 10.0  # to each address of a name
_ANY = "*"
_PLAIN = re.compile(r"[!-~]{1,2000}")  # what may stand in a request line

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
# IPv6 ranges that carry an IPv4 address inside, to which some gateway would forward: 6to4 (RFC 3056), Teredo (RFC
# 4380), NAT64 (RFC 6052, RFC 8215), and IPv4-compatible ones of old (RFC 4291 section 2.5.5.1).
_CARRIERS = tuple(ipaddress.ip_network(text) for text in (
    "2002::/16", "2001::/32", "64:ff9b::/96", "64:ff9b:1::/48", "::/96"))


class FetchError(Exception):
    """The file cannot be had from there; the text is for the client, and says nothing about this network."""


def parse_networks(text: str, setting: str = "fetch_networks") -> tuple[Network, ...]:
    """Networks in CIDR form, with commas.  Raises SettingsError naming the setting."""
    try:
        return tuple(ipaddress.ip_network(part.strip()) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise SettingsError(f"{setting}: {error}; networks such as 10.1.0.0/16 were expected") from error


def check_address(text: str, networks: tuple[Network, ...] = ()) -> None:
    """Raises FetchError unless the IP address is a public one, or in one of `networks`.

    Link-local addresses (169.254.0.0/16, fe80::/10) are refused in any case: machines in clouds find their own
    credentials there.
    """
    address: Address = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv6Address):
        address = address.ipv4_mapped or address
    if not address.is_link_local:
        if any(address in network for network in networks):
            return
        carried = any(address in network for network in _CARRIERS)
        if address.is_global and not (address.is_multicast or address.is_reserved or carried):
            return
    raise FetchError("its host has an address that is not public")


class _Deadline:
    """An absolute deadline over several connections: a time-out of a socket would begin anew with each byte, so this
    one shuts the socket under whoever reads from it."""

    def __init__(self, limit_s: float) -> None:
        self.until = time.monotonic() + limit_s
        self.over = threading.Event()
        self.problem = FetchError(f"it took longer than {limit_s:g} s")
        self._sock: socket.socket | None = None
        self._timer = threading.Timer(limit_s, self._end)
        self._timer.daemon = True
        self._timer.start()

    @property
    def left_s(self) -> float:
        return max(self.until - time.monotonic(), 0.01)

    def watch(self, sock: socket.socket) -> None:
        """From now on this one.  Raises FetchError when the time is over already."""
        self._sock = sock
        if self.over.is_set():
            raise self.problem

    def stop(self) -> None:
        self._timer.cancel()

    def _end(self) -> None:
        self.over.set()  # before looking for the socket: whoever sets one later looks at this
        if self._sock is not None:
            with contextlib.suppress(OSError):  # it has ended by itself
                self._sock.shutdown(socket.SHUT_RDWR)


class _Connection(http.client.HTTPSConnection):
    """Connects to a checked address, and checks the address that it is connected to."""

    def __init__(self, host: str, port: int, deadline: _Deadline, context: ssl.SSLContext, networks: tuple[Network, ...]
                 ) -> None:
        super().__init__(host, port, context=context)
        self._hurry, self._tls, self._networks = deadline, context, networks

    def connect(self) -> None:
        """As the base's, but to an address that was checked here.  Raises FetchError, OSError."""
        trouble: Exception = FetchError("its host has no address")
        for family, kind, protocol, _, address in socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM):
            sock = socket.socket(family, kind, protocol)
            try:
                check_address(str(address[0]), self._networks)
                sock.settimeout(min(_CONNECT_S, self._hurry.left_s))
                sock.connect(address)
                check_address(sock.getpeername()[0], self._networks)
            except (FetchError, OSError) as error:
                sock.close()
                trouble = error
                continue
            sock.settimeout(self._hurry.left_s)
            # An end without close_notify must show: the last bytes may be missing (RFC 8446 section 6.1).
            self.sock = self._tls.wrap_socket(sock, server_hostname=self.host, suppress_ragged_eofs=False,
                                              do_handshake_on_connect=False)
            self._hurry.watch(self.sock)
            self.sock.do_handshake()
            return
        raise trouble


class Fetcher:
    """Fetches files under the rules above.  Safe from any thread; at most `at_once` fetches run, others wait for one.

    hosts        the allow list; networks: networks that are allowed beside public addresses, such as the one that this
                 machine's own file server is in
    limit_bytes  of one file; limit_s: seconds for one file, redirects included; only the look-up of a name may take as
                 long as the system lets it
    """

    def __init__(self, *, hosts: str, networks: str = "", limit_bytes: int, limit_s: float, at_once: int = 4,
                 context: ssl.SSLContext | None = None) -> None:
        """Raises SettingsError for networks that are none."""
        self._hosts = frozenset(part.strip().lower() for part in hosts.split(",") if part.strip())
        self._networks = parse_networks(networks)
        self._limit_bytes, self._limit_s = limit_bytes, limit_s
        self._context = context or ssl.create_default_context()
        self._places = threading.BoundedSemaphore(at_once)

    def check(self, url: str) -> tuple[str, int]:
        """The host and port of an address that may be asked.  Raises FetchError."""
        try:
            parts = urlsplit(url)
            host, port = (parts.hostname or "").rstrip("."), parts.port or 443
        except ValueError:
            raise FetchError("it is no address") from None
        if parts.scheme != "https" or not host or parts.username is not None or not _PLAIN.fullmatch(url):
            raise FetchError("only https:// addresses without a user are fetched")
        if not self._allowed(host, port):
            raise FetchError(f"{host}{'' if port == 443 else f':{port}'} is not among the hosts that clips are fetched "
                             "from (fetch_hosts)")
        return host, port

    def _allowed(self, host: str, port: int) -> bool:
        domains = {_ANY, host} | {host[place:] for place, letter in enumerate(host) if letter == "."}
        names = domains if port == 443 else {f"{domain}:{port}" for domain in domains}
        return not names.isdisjoint(self._hosts)

    def fetch(self, url: str, out: BinaryIO) -> tuple[int, str]:
        """Write the file at `url` into `out`; (bytes, SHA-256 in hex).  Raises FetchError; OSError only of `out`."""
        self.check(url)  # before waiting for a place
        if not self._places.acquire(timeout=self._limit_s):
            raise FetchError("too many clips are being fetched; try again later")
        deadline = _Deadline(self._limit_s)
        digest, size = hashlib.sha256(), 0
        try:
            for piece in self._pieces(url, deadline):
                size += len(piece)
                if size > self._limit_bytes:
                    raise FetchError(f"it has more than {self._limit_bytes} bytes")
                digest.update(piece)
                out.write(piece)
        finally:
            deadline.stop()
            self._places.release()
        return size, digest.hexdigest()

    def _pieces(self, url: str, deadline: _Deadline) -> Iterator[bytes]:
        """The file, piece by piece; every error becomes a FetchError."""
        try:
            for _ in range(REDIRECTS + 1):
                host, port = self.check(url)
                with contextlib.closing(_Connection(host, port, deadline, self._context, self._networks)) as connection:
                    answer = _ask(connection, url)
                    if answer.status not in (301, 302, 303, 307, 308):
                        yield from self._body(answer)
                        return
                    url = urljoin(url, answer.headers.get("Location", ""))
            raise FetchError(f"it redirects more than {REDIRECTS} times")
        except ssl.SSLCertVerificationError as error:
            raise FetchError(f"its certificate is not valid: {error.verify_message}") from error
        except (FetchError, OSError, http.client.HTTPException, ValueError) as error:
            if deadline.over.is_set() or isinstance(error, TimeoutError):
                raise deadline.problem from error
            if isinstance(error, FetchError):
                raise
            raise FetchError(f"it cannot be fetched: {type(error).__name__}") from error

    def _body(self, answer: http.client.HTTPResponse) -> Iterator[bytes]:
        if answer.status != 200:
            raise FetchError(f"it answers {answer.status}, 200 was expected")
        if answer.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise FetchError("it is sent with a Content-Encoding, which was not asked for")
        left = answer.length  # None where the length is not known beforehand
        if left is not None and left > self._limit_bytes:
            raise FetchError(f"it has {left} bytes, the limit is {self._limit_bytes}")
        while piece := answer.read(_PIECE):
            yield piece
            left = None if left is None else left - len(piece)
        if left:  # http.client says nothing of it
            raise FetchError(f"it ended {left} bytes too early")


def _ask(connection: _Connection, url: str) -> http.client.HTTPResponse:
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    connection.request("GET", target, headers={"User-Agent": "nvc", "Accept": "*/*", "Accept-Encoding": "identity"})
    return connection.getresponse()
