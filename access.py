"""Who may ask: API keys, roles, and the rule that nothing is open to the network without one.

A key reads `nck_<id>_<32 random bytes in base64url>` and travels as `Authorization: Bearer nck_...` (RFC 6750).
Only its SHA-256 is kept, and the comparison takes the same time for any wrong key.  Several keys of one holder may be
valid at once, which is how they are rotated.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from settings import SettingsError
from wire import Headers, Principal

ROLES = ("client", "worker", "read", "admin")


@dataclass(frozen=True)
class Key:
    """A key as stored: `id` (8 to 16 letters and digits), `sha256` of the whole token in hex, `role`,
    `expires` in seconds since 1970 (None: never)."""

    id: str
    sha256: str
    role: str
    expires: float | None = None


def new_key(role: str) -> tuple[str, Key]:
    """-> (the token, shown once; the Key to store).  ValueError for an unknown role."""
    raise NotImplementedError


class Authenticator:
    """Checks the Authorization field of a request.

    keys     gives the keys in force, by id; called at each request, so it should be quick (a dict in memory)
    tokens   tried for bearer tokens that are not keys (JWT): -> Principal, or None when it is not valid
    clock    seconds since 1970 (expiry); `ticks`: monotonic seconds (failure limit)

    Raises Problem 401 `unauthenticated` (with WWW-Authenticate), or 429 `too-many-failures` with Retry-After once an
    address has failed `failures` times within `window_s`.  A valid key is let in even then: one broken script behind
    an address must not lock out the workers behind the same address.
    """

    def __init__(self, keys: Callable[[], Mapping[str, Key]], *, tokens: Callable[[str], Principal | None] | None = None,
                 clock: Callable[[], float] = time.time, ticks: Callable[[], float] = time.monotonic,
                 failures: int = 10, window_s: float = 60.0) -> None: ...

    def authenticate(self, headers: Headers, peer: str) -> Principal:
        raise NotImplementedError


def is_loopback(host: str) -> bool:
    """Whether `host` names only this machine (127.0.0.0/8, ::1, localhost)."""
    raise NotImplementedError


def check_exposure(host: str, *, has_keys: bool, insecure_bind: bool) -> None:
    """Raises SettingsError when `host` is reachable from outside and neither a key nor --insecure-bind is given."""
    raise SettingsError("not yet")
