"""Who may ask: API keys, roles, and the rule that nothing is open to the network without one.

A key reads `nck_<id>_<32 random bytes in base64url>` and travels as `Authorization: Bearer nck_...` (RFC 6750
section 2.1).  Only its SHA-256 is kept, and the comparison takes the same time for any wrong key.  Several keys of one
holder may be valid at once, which is how they are rotated.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import math
import re
import secrets
import socket
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from service.http.exchange import Principal
from service.http.parsing import Headers, Problem
from service.runtime.settings import SettingsError

ROLES = ("client", "worker", "read", "admin")

_TOKEN = re.compile(r"nck_([a-z0-9]{8,16})_[A-Za-z0-9_-]{43}")
_NOBODY = hashlib.sha256(b"compared with where no key has the id").hexdigest()
_ADDRESSES = 4096  # remembered failures; beyond it the address that failed longest ago is forgotten


@dataclass(frozen=True)
class Key:
    """A key as stored: `id` (8 to 16 of a-z0-9), `sha256` of the whole token in hex, `role`, `expires` in seconds since
    1970 (None: never)."""

    id: str
    sha256: str
    role: str
    expires: float | None = None


def new_key(role: str) -> tuple[str, Key]:
    """-> (the token, shown once; the Key to store).  ValueError for an unknown role."""
    if role not in ROLES:
        raise ValueError(f"role {role!r} is not one of {', '.join(ROLES)}")
    name = secrets.token_hex(5)
    token = f"nck_{name}_{secrets.token_urlsafe(32)}"
    return token, Key(name, hashlib.sha256(token.encode()).hexdigest(), role)


class Authenticator:
    """Checks the Authorization field of a request.

    keys     gives the keys in force, by id; called at each request, so it should be quick (a dict in memory)
    tokens   tried for bearer tokens that are not keys (JWT): -> Principal, or None when it is not valid
    clock    seconds since 1970 (expiry); `ticks`: monotonic seconds (failure limit)

    Raises Problem 401 `unauthenticated` (with WWW-Authenticate), or 429 `too-many-failures` with Retry-After once an
    address has failed `failures` times within `window_s`.  A valid key is let in even then: one broken script behind
    an address must not lock out the workers behind the same address, and 256 random bits are not guessed.
    """

    def __init__(self, keys: Callable[[], Mapping[str, Key]], *,
                 tokens: Callable[[str], Principal | None] | None = None,
                 clock: Callable[[], float] = time.time, ticks: Callable[[], float] = time.monotonic,
                 failures: int = 10, window_s: float = 60.0) -> None:
        self._keys = keys
        self._tokens = tokens
        self._clock = clock
        self._ticks = ticks
        self._window_s = window_s
        self._failed: OrderedDict[str, deque[float]] = OrderedDict()
        self._limit = failures
        self._lock = threading.Lock()

    def authenticate(self, headers: Headers, peer: str) -> Principal:
        """The holder of the request's key, from address `peer`."""
        values = headers.all("authorization")
        scheme, _, token = values[0].partition(" ") if len(values) == 1 else ("", "", "")
        if scheme.lower() == "bearer":
            principal = self._check(token.strip())
            if principal is not None:
                return principal
        elif not values:
            # A missing key is no guess: it is refused, not counted.
            raise _unauthenticated("a key was expected: Authorization: Bearer nck_…")
        self._fail(peer)
        raise _unauthenticated("the key is not valid; expected Authorization: Bearer nck_…", ' error="invalid_token"')

    def _check(self, token: str) -> Principal | None:
        match = _TOKEN.fullmatch(token)
        if match is None:
            return self._tokens(token) if self._tokens is not None else None
        key = self._keys().get(match[1])
        digest = hashlib.sha256(token.encode()).hexdigest()
        same = hmac.compare_digest(digest, key.sha256 if key else _NOBODY)
        if key is None or not same or (key.expires is not None and key.expires <= self._clock()):
            return None
        return Principal(key.id, key.role)

    def _fail(self, peer: str) -> None:
        """Count a failure of the address; raises Problem 429 when it has had its share."""
        now, network = self._ticks(), _network(peer)
        with self._lock:
            times = self._failed.setdefault(network, deque(maxlen=self._limit))
            self._failed.move_to_end(network)
            if len(self._failed) > _ADDRESSES:
                self._failed.popitem(last=False)
            while times and times[0] <= now - self._window_s:
                times.popleft()
            if len(times) == self._limit:
                wait_s = math.ceil(times[0] + self._window_s - now)
                raise Problem(429, "too-many-failures", f"too many failed keys from this address; wait {wait_s} s",
                              headers={"Retry-After": str(wait_s)})
            times.append(now)


def _unauthenticated(detail: str, error: str = "") -> Problem:
    challenge = f'Bearer realm="nvc"{"," if error else ""}{error}'
    return Problem(401, "unauthenticated", detail, headers={"WWW-Authenticate": challenge})


def _network(peer: str) -> str:
    """The address failures are counted under: an IPv6 host owns its whole /64."""
    try:
        address = ipaddress.ip_address(peer.partition("%")[0])
    except ValueError:
        return peer
    if address.version == 6:
        if address.ipv4_mapped:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return peer


def is_loopback(host: str) -> bool:
    """Whether `host` names only this machine (127.0.0.0/8, ::1, localhost); no name is looked up."""
    name = host.strip("[]").lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):  # RFC 6761 section 6.3
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def check_exposure(host: str, *, has_keys: bool, insecure_bind: bool, sockets: Sequence[socket.socket] = ()) -> None:
    """Raises SettingsError when `host` is reachable from outside and neither a key nor --insecure-bind is given.
    `sockets`: those that were passed to listen on; their addresses then count in place of `host`."""
    for address in [str(sock.getsockname()[0]) for sock in sockets] or [host]:
        if not is_loopback(address) and not has_keys and not insecure_bind:
            raise SettingsError(f"host: {address} is reachable from other machines and no key exists; add a key first, "
                                "or say --insecure-bind")
