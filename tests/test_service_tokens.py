"""JSON Web Tokens beside keys: what a token must have to be let in."""

from __future__ import annotations

import base64
import importlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
import requests
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from orchestrator_rig import PATIENCE_S, Orchestrator
from service_rig import get, running

from service.http.authentication import Authenticator
from service.http.exchange import Principal, Response
from service.http.routes import Routes
from service.http.tokens import Tokens
from service.runtime.settings import SettingsError

OURS, NEXT, FOREIGN = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
RSA = rsa.generate_private_key(65537, 2048)
SECRET = b"0123456789abcdef0123456789abcdef"


def public(key: Any, name: str, **more: str) -> dict[str, Any]:
    """A key's public half, as an entry of a JWK Set."""
    algorithm = jwt.algorithms.ECAlgorithm if isinstance(key, ec.EllipticCurvePrivateKey) else \
        jwt.algorithms.RSAAlgorithm
    return {**algorithm.to_jwk(key.public_key(), as_dict=True), "kid": name, **more}


def write(path: Path, *entries: dict[str, Any]) -> Path:
    path.write_text(json.dumps({"keys": entries}))
    return path


def token(key: Any = OURS, kid: str | None = "one", algorithm: str = "ES256", **claims: Any) -> str:
    said = {"sub": "ann", "aud": "nvc", "iss": "https://login.example", "exp": time.time() + 60, "roles": ["client"],
            **claims}
    return jwt.encode({name: value for name, value in said.items() if value is not None}, key, algorithm,
                      headers={} if kid is None else {"kid": kid})


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return write(tmp_path / "jwks.json", public(OURS, "one"), public(NEXT, "two", use="sig", alg="ES256"),
                 public(RSA, "other", alg="RS256"), public(FOREIGN, "closed", use="enc"))


@pytest.fixture
def tokens(keys: Path) -> Tokens:
    return Tokens(keys=keys, algorithm="ES256", audience="nvc", issuer="https://login.example")


def test_a_valid_token_says_who_asks(tokens: Tokens) -> None:
    assert tokens.check(token()) == Principal("jwt:ann", "client")
    assert tokens.check(token(NEXT, "two", roles="read", sub=None)) == Principal("jwt:two", "read")
    assert tokens.check(token(aud=["other", "nvc"])) == Principal("jwt:ann", "client")


@pytest.mark.parametrize(("roles", "role"), [
    (["read", "client"], "client"), ("read worker", "worker"), (["admin"], "admin"), (["root"], "nobody"),
    ([], "nobody"), (None, "nobody"), ({"admin": True}, "nobody"), ("administrator", "nobody"), (7, "nobody")])
def test_the_strongest_known_role_counts(tokens: Tokens, roles: Any, role: str) -> None:
    assert tokens.check(token(roles=roles)) == Principal("jwt:ann", role)


def unsigned(algorithm: str) -> str:
    """A token without a signature, or with one made with what everybody knows: the public key."""
    _, body, _ = token().split(".")
    said = base64.urlsafe_b64encode(json.dumps({"alg": algorithm, "kid": "one"}).encode()).decode().rstrip("=")
    return f"{said}.{body}."


@pytest.mark.parametrize(("what", "made"), [
    ("another key under a known id", lambda: token(FOREIGN)), ("an unknown key id", lambda: token(FOREIGN, "three")),
    ("no key id", lambda: token(kid=None)), ("a key that is not for signing", lambda: token(FOREIGN, "closed")),
    ("the id of another known key", lambda: token(OURS, "two")),
    ("another algorithm, with its own key", lambda: token(RSA, "other", "RS256")),
    ("HMAC with a secret", lambda: token(SECRET, "one", "HS256")),
    ("no signature: RFC 8725 2.1", lambda: unsigned("none")), ("a signature left out", lambda: unsigned("ES256")),
    ("expired", lambda: token(exp=time.time() - 60)), ("no expiry", lambda: token(exp=None)),
    ("not valid yet", lambda: token(nbf=time.time() + 3600)), ("another audience", lambda: token(aud="other")),
    ("no audience", lambda: token(aud=None)), ("another issuer", lambda: token(iss="https://evil.example")),
    ("no issuer", lambda: token(iss=None)), ("a changed body", lambda: token().replace(".", ".A", 1)),
    ("nothing", lambda: ""), ("dots", lambda: ".."), ("text", lambda: "a.b.c"), ("a long text", lambda: "a." * 9000),
    ("a deep head", lambda: base64.urlsafe_b64encode(b"[" * 20_001).decode() + ".e30.AAAA"),
], ids=lambda value: value if isinstance(value, str) else "")
def test_what_is_not_valid_is_nobodys(tokens: Tokens, what: str, made: Any) -> None:
    assert tokens.check(made()) is None


def test_keys_are_read_again(tokens: Tokens, keys: Path) -> None:
    write(keys, public(FOREIGN, "three"))
    tokens.reload()
    assert tokens.check(token()) is None
    assert tokens.check(token(FOREIGN, "three")) == Principal("jwt:ann", "client")
    keys.write_text("nonsense")
    with pytest.raises(SettingsError, match="jwt_keys"):
        tokens.reload()
    assert tokens.check(token(FOREIGN, "three")) == Principal("jwt:ann", "client")


@pytest.mark.parametrize("text", ["", "{}", '{"keys": []}', '{"keys": [{"kty": "EC"}]}', '{"keys": [7]}', "[]",
                                  '{"keys": [{"kid": "a", "kty": "oct", "k": "AAAA"}]}'])
def test_keys_that_cannot_be_used_are_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "jwks.json").write_text(text)
    with pytest.raises(SettingsError, match="jwt_keys"):
        Tokens(keys=tmp_path / "jwks.json", algorithm="ES256", audience="nvc")


def test_a_key_id_is_given_once(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="'one' is given twice"):
        Tokens(keys=write(tmp_path / "k", public(OURS, "one"), public(NEXT, "one")), algorithm="ES256",
                       audience="nvc")


def test_an_audience_is_needed(keys: Path) -> None:
    with pytest.raises(SettingsError, match="jwt_audience"):
        Tokens(keys=keys, algorithm="ES256", audience="")


def test_without_the_library_it_says_what_to_install(keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(SettingsError, match="pip install"):
        Tokens(keys=keys, algorithm="ES256", audience="nvc")


# --- over the wire --------------------------------------------------------------------------------------------------


def test_wrong_tokens_are_limited_like_wrong_keys(tokens: Tokens) -> None:
    def add(routes: Routes, rig: object) -> None:
        routes.add("GET", "/who", lambda request: Response(200, {"key": request.principal.key}), roles={"read"})

    with running(add, authenticator=Authenticator(dict, tokens=tokens.check, failures=2)) as rig:
        wrong, right, weak = (f"Authorization: Bearer {made}" for made in (
            token(FOREIGN), token(roles=["read"]), token(roles=[])))
        answers = [rig.ask(get("/who", wrong)) for _ in range(3)]
        assert [answer.status for answer in answers] == [401, 401, 429]
        assert 0 < int(answers[2].headers["retry-after"]) <= 60
        assert rig.ask(get("/who", right)).document == {"key": "jwt:ann"}  # who is right is let in all the same
        assert rig.ask(get("/who", weak)).status == 403


@pytest.fixture
def orchestrator(keys: Path, tmp_path: Path) -> Iterator[Orchestrator]:
    made = Orchestrator(tmp_path, "--jwt-keys", str(keys), "--jwt-audience", "nvc")
    yield made
    made.stop()


def test_an_orchestrator_with_tokens_is_closed_to_others(orchestrator: Orchestrator) -> None:
    asked = [requests.post(f"{orchestrator.url}/experiment", json={}, timeout=PATIENCE_S,
                           headers={"Authorization": f"Bearer {shown}"} if shown else {}).status_code
             for shown in ("", token(FOREIGN), token(roles=["read"]), token(iss=None))]
    assert asked == [401, 401, 403, 202]
