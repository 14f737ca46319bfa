"""JSON Web Tokens (RFC 7519) beside keys, for services that sit behind a company's own sign-in.

    tokens = Tokens(keys=Path("jwks.json"), algorithm="ES256", audience="nvc", issuer="https://login.example.org")
    authenticator = Authenticator(keys, tokens=tokens.check)

What RFC 8725 asks for: the algorithm is pinned here, and the token's own word for it only has to agree; each key is one
of the file (a JWK Set, RFC 7517), chosen by its id, which the token must give; audience and expiry must be there and
fit, and so must the issuer where one is set.  The role is the strongest known one in the claim `roles`; a token without
any is let in as nobody, and may do what is open to everyone.

Needs PyJWT, and the package cryptography for the algorithms with a public key; neither is needed without tokens.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

from service.http.exchange import Principal
from service.runtime.settings import SettingsError

ALGORITHMS = ("ES256", "EdDSA", "RS256", "PS256", "HS256")
LEEWAY_S = 10  # clocks of two machines differ by less
STRONGEST_FIRST = ("admin", "client", "worker", "read")


class Tokens:
    """Checks tokens.  Safe from any thread; `reload` reads the keys again."""

    def __init__(self, *, keys: Path, algorithm: str, audience: str, issuer: str = "", claim: str = "roles") -> None:
        """Raises SettingsError when PyJWT is missing, the keys cannot be read, or no audience is given."""
        try:
            self._jwt: Any = importlib.import_module("jwt")
        except ImportError as error:
            raise SettingsError("jwt_keys: tokens need PyJWT: pip install 'PyJWT[crypto]'") from error
        if not audience:
            raise SettingsError("jwt_audience: the audience that tokens are for was expected beside jwt_keys")
        self._path, self._algorithm, self._claim = keys, algorithm, claim
        self._audience, self._issuer = audience, issuer or None
        self._keys = self._read()

    def reload(self) -> None:
        """Read the keys again.  SettingsError leaves the old ones."""
        self._keys = self._read()

    def check(self, token: str) -> Principal | None:
        """Whose token it is; None when it is not valid, for whatever reason."""
        try:
            head = self._jwt.get_unverified_header(token)
            key = self._keys.get(str(head.get("kid")))
            if key is None or head.get("alg") != self._algorithm:
                return None
            claims = self._jwt.decode(token, key, algorithms=[self._algorithm], audience=self._audience,
                                      issuer=self._issuer, leeway=LEEWAY_S, options={"require": ["exp", "aud"]})
        except (self._jwt.PyJWTError, ValueError, RecursionError):
            return None
        said = claims.get(self._claim)
        roles = said if isinstance(said, list) else str(said or "").split()
        role = next((role for role in STRONGEST_FIRST if role in roles), "nobody")
        return Principal(f"jwt:{str(claims.get('sub') or head['kid'])[:200]}", role)

    def _read(self) -> dict[str, Any]:
        """Key id -> key."""
        found: dict[str, Any] = {}
        try:
            listed = json.loads(self._path.read_text(encoding="utf-8"))["keys"]
            for entry in listed:
                if entry.get("alg", self._algorithm) != self._algorithm or entry.get("use", "sig") != "sig":
                    continue  # of other uses, which such files hold too
                name = entry["kid"]
                if name in found:
                    raise SettingsError(f"jwt_keys {self._path}: the key id {name!r} is given twice")
                found[name] = self._jwt.PyJWK(entry, algorithm=self._algorithm).key
        except (OSError, ValueError, KeyError, TypeError, AttributeError, self._jwt.PyJWTError) as error:
            raise SettingsError(f"jwt_keys {self._path}: a JWK Set with a kid in each {self._algorithm} key was "
                                f"expected: {type(error).__name__}: {error}") from error
        if not found:
            raise SettingsError(f"jwt_keys {self._path}: holds no {self._algorithm} key")
        return found
