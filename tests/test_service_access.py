"""Keys: who is let in, who is not, and how often one may be wrong."""

from __future__ import annotations

import hashlib
import re

import pytest
from service_rig import Rig, get, post, running

from service.http.authentication import ROLES, Authenticator, Key, new_key
from service.http.exchange import Principal, Request, Response
from service.http.parsing import Headers, Problem
from service.http.routes import JSON, Routes


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def bearer(token: str) -> Headers:
    return Headers([("Authorization", f"Bearer {token}")])


def refusal(authenticator: Authenticator, headers: Headers, peer: str = "10.0.0.1") -> Problem:
    with pytest.raises(Problem) as caught:
        authenticator.authenticate(headers, peer)
    return caught.value


def test_a_new_key_has_its_form_and_only_its_hash_is_kept() -> None:
    token, key = new_key("worker")
    assert re.fullmatch(r"nck_[a-z0-9]{10}_[A-Za-z0-9_-]{43}", token)  # 43: 32 bytes in base64url
    assert (key.role, key.sha256) == ("worker", hashlib.sha256(token.encode()).hexdigest())
    assert token.split("_")[1] == key.id


def test_an_unknown_role_is_refused() -> None:
    with pytest.raises(ValueError, match="king"):
        new_key("king")


def test_a_valid_key_says_who_asks() -> None:
    token, key = new_key("read")
    authenticator = Authenticator(lambda: {key.id: key})
    assert authenticator.authenticate(bearer(token), "10.0.0.1") == Principal(key.id, "read")


def test_two_keys_are_valid_at_once_and_one_can_go() -> None:
    (old, first), (new, second) = new_key("worker"), new_key("worker")
    keys = {first.id: first, second.id: second}
    authenticator = Authenticator(lambda: keys)
    assert authenticator.authenticate(bearer(old), "").key == first.id
    assert authenticator.authenticate(bearer(new), "").key == second.id
    del keys[first.id]
    assert refusal(authenticator, bearer(old)).status == 401


def test_a_key_expires() -> None:
    clock = Clock()
    token, key = new_key("client")
    key = Key(key.id, key.sha256, key.role, expires=1001.0)
    authenticator = Authenticator(lambda: {key.id: key}, clock=clock)
    assert authenticator.authenticate(bearer(token), "").key == key.id
    clock.now = 1001.0
    assert refusal(authenticator, bearer(token)).status == 401


def test_what_is_not_a_key_is_refused() -> None:
    token, key = new_key("client")
    authenticator = Authenticator(lambda: {key.id: key}, failures=100)
    wrong = token[:-1] + ("A" if token[-1] != "A" else "B")
    for headers in (Headers(), bearer(wrong), bearer(token + "x"), bearer(""), bearer("nck_"), bearer(key.sha256),
                    Headers([("Authorization", token)]), Headers([("Authorization", f"Basic {token}")]),
                    Headers([("Authorization", f"Bearer {token}")] * 2), bearer(token.upper())):
        problem = refusal(authenticator, headers)
        assert (problem.status, problem.slug) == (401, "unauthenticated")
        assert problem.headers["WWW-Authenticate"].startswith('Bearer realm="nvc"')  # RFC 6750 3


def test_other_tokens_have_their_own_check() -> None:
    authenticator = Authenticator(dict, tokens=lambda token: Principal("jwt", "read") if token == "x" else None)
    assert authenticator.authenticate(bearer("x"), "").key == "jwt"
    assert refusal(authenticator, bearer("y")).status == 401


def test_failures_are_limited_by_address_for_a_while() -> None:
    clock = Clock()
    token, key = new_key("client")
    authenticator = Authenticator(lambda: {key.id: key}, ticks=clock, failures=3, window_s=60)
    assert [refusal(authenticator, bearer("wrong")).status for _ in range(4)] == [401, 401, 401, 429]
    assert refusal(authenticator, bearer("wrong")).headers["Retry-After"] == "60"
    assert refusal(authenticator, bearer("wrong"), "10.0.0.2").status == 401
    assert authenticator.authenticate(bearer(token), "10.0.0.1").key == key.id  # a valid key is not locked out
    clock.now += 60
    assert refusal(authenticator, bearer("wrong")).status == 401


def test_an_ipv6_host_is_one_address() -> None:
    authenticator = Authenticator(dict, failures=1)
    assert refusal(authenticator, bearer("wrong"), "2001:db8::1").status == 401
    assert refusal(authenticator, bearer("wrong"), "2001:db8::2").status == 429


def test_a_missing_key_is_no_failure() -> None:
    authenticator = Authenticator(dict, failures=1)
    assert [refusal(authenticator, Headers()).status for _ in range(3)] == [401, 401, 401]


def test_the_table_of_failures_is_bounded() -> None:
    authenticator = Authenticator(dict)
    for i in range(5000):
        refusal(authenticator, bearer("wrong"), f"10.0.{i >> 8}.{i & 255}")
    assert len(authenticator._failed) == 4096


# --- over the wire --------------------------------------------------------------------------------------------------


def add(routes: Routes, rig: Rig) -> None:
    def who(request: Request) -> Response:
        return Response(200, {"key": request.principal.key, "role": request.principal.role})

    routes.add("GET", "/who", who, roles={"client", "read"})
    routes.add("POST", "/who", who, roles={"client"}, body=JSON)
    routes.add("GET", "/open", who)


def test_roles() -> None:
    tokens = {role: new_key(role) for role in ROLES}
    keys = {key.id: key for _, key in tokens.values()}
    with running(add, authenticator=Authenticator(lambda: keys)) as rig:
        held = {role: f"Authorization: Bearer {token}" for role, (token, _) in tokens.items()}
        assert {role: rig.ask(get("/who", field)).status for role, field in held.items()} == \
            {"client": 200, "worker": 403, "read": 200, "admin": 200}
        assert {role: rig.ask(post("/who", b"{}", field)).status for role, field in held.items()} == \
            {"client": 200, "worker": 403, "read": 403, "admin": 200}


def test_without_a_key() -> None:
    with running(add, authenticator=Authenticator(dict)) as rig:
        answer = rig.ask(get("/who"))
        assert (answer.status, answer.headers["www-authenticate"]) == (401, 'Bearer realm="nvc"')
        assert rig.ask(get("/open")).document == {"key": "", "role": "nobody"}
        assert rig.ask(get("/livez")).status == 200
        # The size and type of a body are not even looked at, and 100 Continue is not said, before the key is.
        assert rig.ask(post("/who", b"", "Content-Type: x/y", "Expect: 100-continue")).status == 401


def test_where_keys_are_not_in_use_everyone_is_admin() -> None:
    with running(add) as rig:
        assert rig.ask(get("/who")).document == {"key": "", "role": "admin"}


def test_the_log_names_the_key_and_never_holds_it() -> None:
    token, key = new_key("client")
    with running(add, authenticator=Authenticator(lambda: {key.id: key})) as rig:
        answer = rig.ask(get("/who", f"Authorization: Bearer {token}"))
        assert rig.lines_of(answer.headers["x-request-id"])[0]["key"] == key.id
        assert token not in rig.log.getvalue()


def test_keys_that_cannot_be_read_are_a_fault_of_ours() -> None:
    def keys() -> dict[str, Key]:
        raise OSError("the database is gone")

    token, _ = new_key("client")
    with running(add, authenticator=Authenticator(keys)) as rig:
        assert rig.ask(get("/who", f"Authorization: Bearer {token}")).status == 500


def test_keys_that_are_added_while_it_runs_lift_the_rule_for_services_without_keys() -> None:
    token, key = new_key("client")
    with running() as rig:
        foreign = b"GET /echo HTTP/1.1\r\nHost: codec.example\r\n\r\n"
        assert rig.ask(foreign).status == 421
        rig.server.authenticator = Authenticator(lambda: {key.id: key})
        with rig.wire() as wire:
            wire.send(foreign.replace(b"\r\n\r\n", f"\r\nAuthorization: Bearer {token}\r\n\r\n".encode()))
            answer = wire.answer()
            assert answer is not None
            assert answer.status == 200
