"""What the server accepts as HTTP/1.1, and what it refuses: raw bytes over a socket, the clause beside each."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from service_rig import Rig, get, post, running

from service.http.exchange import Request, Response
from service.http.parsing import BadMessage, HeadLimits, find_head, read_head, read_json
from service.http.routes import JSON, Routes, upload


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    def add(routes: Routes, rig: Rig) -> None:
        def save(request: Request) -> Response:
            with open("/dev/null", "wb") as out:
                length, sha256 = request.save(out)
            return Response(200, {"bytes": length, "sha256": sha256})

        routes.add("PUT", "/upload", save, body=upload(1 << 20))
        routes.add("POST", "/unread", lambda request: Response(200, {}), body=upload(1 << 30))
        routes.add("POST", "/private", lambda request: Response(200, {}), body=JSON, roles={"client"})

    with running(add, http_drain_bytes=1000) as rig:
        yield rig


SMUGGLED = b"GET /echo?smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"

# (what, raw bytes, status).  Each gets exactly one answer, a problem, and then the connection is closed: what follows
# on it must not be read as a request.
REFUSED = [
    ("RFC 9112 2.2: bare LF ends a line", b"GET /echo HTTP/1.1\nHost: localhost\n\n", 400),
    ("RFC 9112 2.2: bare LF inside a head", b"GET /echo HTTP/1.1\r\nHost: localhost\nX: 1\r\n\r\n", 400),
    ("RFC 9112 2.2: bare CR", b"GET /echo HTTP/1.1\r\nHost: localhost\r\nX: a\rb\r\n\r\n", 400),
    ("RFC 9112 2.2: white space before the first field", b"GET /echo HTTP/1.1\r\n Host: localhost\r\n\r\n", 400),
    ("RFC 9110 5.5: NUL in a value", b"GET /echo HTTP/1.1\r\nHost: localhost\r\nX: a\0b\r\n\r\n", 400),
    ("RFC 9110 5.5: control character in a value", b"GET /echo HTTP/1.1\r\nHost: localhost\r\nX: a\x01b\r\n\r\n", 400),
    ("RFC 9112 5.2: obs-fold", b"GET /echo HTTP/1.1\r\nHost: localhost\r\nX: a\r\n b\r\n\r\n", 400),
    ("RFC 9112 5.1: space before the colon", b"GET /echo HTTP/1.1\r\nHost : localhost\r\n\r\n", 400),
    ("RFC 9112 5.1: no colon", b"GET /echo HTTP/1.1\r\nHost: localhost\r\nnonsense\r\n\r\n", 400),
    ("RFC 9112 5.1: empty name", b"GET /echo HTTP/1.1\r\nHost: localhost\r\n: x\r\n\r\n", 400),
    ("RFC 9112 3: HTTP/0.9", b"GET /echo\r\n", 400),
    ("RFC 9112 3: two spaces", b"GET  /echo HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    ("RFC 9112 3: a tab", b"GET\t/echo HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    ("RFC 9112 3: space at the end", b"GET /echo HTTP/1.1 \r\nHost: localhost\r\n\r\n", 400),
    ("RFC 9112 2.3: version in lower case", b"GET /echo http/1.1\r\nHost: localhost\r\n\r\n", 400),
    ("RFC 9112 2.3: version of two digits", b"GET /echo HTTP/1.10\r\nHost: localhost\r\n\r\n", 400),
    ("RFC 9110 15.6.6: HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    ("RFC 9112 3: TLS on a plain port", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    ("RFC 9112 2.2: two empty lines before", b"\r\n\r\n" + get("/echo"), 400),
    ("RFC 9112 3.2: no Host", b"GET /echo HTTP/1.1\r\n\r\n", 400),
    ("RFC 9112 3.2: two Hosts", b"GET /echo HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n", 400),
    ("RFC 9112 3.2: Host that is no host", b"GET /echo HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
    ("RFC 9110 4.2.1: empty Host", b"GET /echo HTTP/1.1\r\nHost:\r\n\r\n", 400),
    ("RFC 9112 3.2: user information in the authority", b"GET http://a@localhost/ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("RFC 9112 3.2: fragment", get("/echo#x"), 400),
    ("RFC 9112 3.2: target without slash", get("echo"), 400),
    ("RFC 9112 3.2.4: asterisk with GET", get("*"), 400),
    ("RFC 9112 3.2: raw UTF-8", "GET /é HTTP/1.1\r\nHost: localhost\r\n\r\n".encode(), 400),
    ("RFC 9110 9.3.6: CONNECT", b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n", 501),
    ("RFC 9112 6.3: two Content-Lengths", post("/echo", b"{}", "Content-Length: 2"), 400),
    ("RFC 9112 6.3: differing Content-Lengths", post("/echo", b"{}", "Content-Length: 0"), 400),
    ("RFC 9112 6.3: list of lengths", b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2, 2\r\n\r\n{}", 400),
    ("RFC 9112 6.3: signed", b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: +2\r\n\r\n{}", 400),
    ("RFC 9112 6.3: negative", b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n{}", 400),
    ("RFC 9112 6.3: hexadecimal", b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0x2\r\n\r\n{}", 400),
    ("RFC 9112 6.3: underscore", b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1_0\r\n\r\n{}", 400),
    ("RFC 9112 6.3: empty", b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length:\r\n\r\n{}", 400),
    ("RFC 9112 6.3: thirteen digits",
     b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000000\r\n\r\n", 400),
    ("RFC 9112 6.3: other digits", b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: \xb2\r\n\r\n{}", 400),
    ("RFC 9112 6.1: Transfer-Encoding and Content-Length",
     post("/echo", b"0\r\n\r\n", "Transfer-Encoding: chunked"), 400),
    ("RFC 9112 6.1: the same, the other way round", b"POST /echo HTTP/1.1\r\nHost: localhost\r\n"
     b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400),
    ("RFC 9112 6.1: Transfer-Encoding in HTTP/1.0",
     b"POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ("RFC 9112 6.3: chunked",
     b"POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411),
    ("RFC 9112 6.1: unknown coding",
     b"POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
    ("RFC 9112 6.1: chunked twice",
     b"POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked, chunked\r\n\r\n", 501),
    ("RFC 9112 6.1: hidden chunked",
     b"POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: xchunked\r\n\r\n", 501),
    ("RFC 9112 6.1: two Transfer-Encodings", b"POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
     b"Transfer-Encoding: identity\r\n\r\n0\r\n\r\n", 501),
    ("RFC 9110 10.1.1: unknown expectation", post("/echo", b"{}", "Expect: tea"), 417),
    ("RFC 9110 5.3: two Content-Types", post("/echo", b"{}", "Content-Type: text/plain",
                                             "Content-Type: application/json"), 400),
    ("RFC 9110 15.5.15: line too long", get("/" + "a" * 8200), 414),
    ("RFC 9112 3: method too long", b"A" * 9000 + b" / HTTP/1.1\r\nHost: localhost\r\n\r\n", 501),
    ("RFC 6585 5: too many fields", get("/echo", *(f"X-{i}: 1" for i in range(101))), 431),
    ("RFC 6585 5: head too large", get("/echo", *(f"X-{i}: {'y' * 1000}" for i in range(40))), 431),
    ("RFC 9110 15.5.12: upload without a length", b"PUT /upload HTTP/1.1\r\nHost: localhost\r\n\r\n", 411),
]


@pytest.mark.parametrize(("raw", "status"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_malformed_is_refused_and_closed(rig: Rig, raw: bytes, status: int) -> None:
    seen = len(rig.seen)
    with rig.wire() as wire:
        wire.send(raw + SMUGGLED)
        answers = wire.answers()
    assert [answer.status for answer in answers] == [status]
    assert answers[0].headers["connection"] == "close"
    assert answers[0].headers["content-type"] == "application/problem+json"
    assert len(rig.seen) == seen


# Heads that can no longer become valid are refused at once, although their end has not come.
@pytest.mark.parametrize("raw", [b"GET /echo\r\n", b"GET /echo HTTP/1.1\n", b"\x16\x03\x01",
                                 b"GET /echo HTTP/1.1\r\nX: \0"], ids=["HTTP/0.9", "bare LF", "TLS", "NUL"])
def test_hopeless_head_is_not_waited_for(rig: Rig, raw: bytes) -> None:
    assert rig.ask(raw).status == 400


ACCEPTED = [
    ("RFC 9112 2.2: one empty line before", b"\r\n" + get("/echo")),
    ("RFC 9112 3.2.2: absolute target", get("http://localhost/echo")),
    ("RFC 9112 3.2.2: absolute target wins over Host", b"GET http://localhost/echo HTTP/1.1\r\nHost: evil\r\n\r\n"),
    ("RFC 9112 5.1: no space after the colon", b"GET /echo HTTP/1.1\r\nHost:localhost\r\n\r\n"),
    ("RFC 9112 5.1: white space around the value", b"GET /echo HTTP/1.1\r\nHost: \t localhost \t\r\n\r\n"),
    ("RFC 9110 5.1: names without case", b"GET /echo HTTP/1.1\r\nhOsT: localhost\r\n\r\n"),
    ("RFC 9110 5.5: obs-text in a value", get("/echo", "X: é")),
    ("RFC 9110 2.5: a later minor version", b"GET /echo HTTP/1.7\r\nHost: localhost\r\n\r\n"),
    ("RFC 9112 3.2: Host with port", b"GET /echo HTTP/1.1\r\nHost: 127.0.0.1:8081\r\n\r\n"),
    ("RFC 9112 3.2: Host as IPv6", b"GET /echo HTTP/1.1\r\nHost: [::1]:8081\r\n\r\n"),
    ("a short body on GET", b"GET /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello"),
    ("RFC 3986 2.1: percent-encoded", get("/ech%6F")),
]


@pytest.mark.parametrize("raw", [row[1] for row in ACCEPTED], ids=[row[0] for row in ACCEPTED])
def test_valid_is_accepted_and_the_connection_stays(rig: Rig, raw: bytes) -> None:
    with rig.wire() as wire:
        for _ in range(2):
            wire.send(raw)
            answer = wire.answer()
            assert answer is not None
            assert answer.status == 200
            assert "connection" not in answer.headers


def test_pipelined_requests_are_answered_in_order(rig: Rig) -> None:  # RFC 9112 9.3.2
    with rig.wire() as wire:
        wire.send(b"".join(post("/echo", b"%d" % i) for i in range(20)))
        got = [wire.answer() for _ in range(20)]
    assert [answer.document["got"] for answer in got if answer] == list(range(20))


def test_a_head_in_single_bytes_is_read(rig: Rig) -> None:
    with rig.wire() as wire:
        for byte in post("/echo", b'{"a": 1}'):
            wire.send(bytes([byte]))
        answer = wire.answer()
    assert answer is not None
    assert answer.document == {"got": {"a": 1}}


def test_connection_close_is_honoured(rig: Rig) -> None:  # RFC 9112 9.6
    with rig.wire() as wire:
        wire.send(get("/echo", "Connection: x, Close") + SMUGGLED)
        assert [answer.status for answer in wire.answers()] == [200]


def test_http_1_0_closes_unless_asked(rig: Rig) -> None:  # RFC 9112 9.3
    with rig.wire() as wire:
        wire.send(b"GET /echo HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        first = wire.answer()
        wire.send(b"GET /echo HTTP/1.0\r\n\r\n")
        rest = wire.answers()
    assert first is not None
    assert (first.status, first.headers["connection"]) == (200, "keep-alive")
    assert [answer.headers["connection"] for answer in rest] == ["close"]


def test_a_half_closed_client_is_answered(rig: Rig) -> None:
    with rig.wire() as wire:
        wire.send(get("/echo"))
        wire.sock.shutdown(1)
        assert [answer.status for answer in wire.answers()] == [200]


# --- bodies that nobody reads ---------------------------------------------------------------------------------------


def test_a_short_unread_body_is_drained(rig: Rig) -> None:  # RFC 9112 9.3: the rest must not be the next request
    with rig.wire() as wire:
        wire.send(post("/nowhere", SMUGGLED) + get("/livez"))
        first, second = wire.answer(), wire.answer()
    assert first is not None
    assert second is not None
    assert (first.status, second.status) == (404, 200)


def test_a_short_unread_body_that_comes_later_is_drained(rig: Rig) -> None:
    with rig.wire() as wire:
        data = post("/nowhere", SMUGGLED)
        wire.send(data[:-20])
        first = wire.answer()
        wire.send(data[-20:] + get("/livez"))
        second = wire.answer()
    assert first is not None
    assert second is not None
    assert (first.status, second.status) == (404, 200)


def test_a_long_unread_body_closes_the_connection(rig: Rig) -> None:
    seen = len(rig.seen)
    with rig.wire() as wire:
        wire.send(post("/nowhere", SMUGGLED * 10_000))
        answers = wire.answers()
    assert [answer.status for answer in answers] == [404]
    assert answers[0].headers["connection"] == "close"
    assert len(rig.seen) == seen


def test_an_upload_the_handler_leaves_unread_closes_the_connection(rig: Rig) -> None:
    with rig.wire() as wire:
        wire.send(post("/unread", b"x" * 200_000))
        assert [(a.status, a.headers["connection"]) for a in wire.answers()] == [(200, "close")]


def test_the_answer_to_a_refused_body_is_readable_while_the_client_still_sends(rig: Rig) -> None:  # RFC 9112 9.6
    with rig.wire() as wire:
        wire.send(b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3000000\r\n\r\n" + b"x" * 3_000_000)
        assert [answer.status for answer in wire.answers()] == [413]


# --- Expect: 100-continue, RFC 9110 10.1.1 --------------------------------------------------------------------------

EXPECT = "POST {} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\nExpect: 100-continue\r\n{}\r\n"


def test_continue_is_said_when_the_checks_have_passed(rig: Rig) -> None:
    with rig.wire() as wire:
        wire.send(EXPECT.format("/echo", 2, "").encode())
        interim = wire.answer()
        wire.send(b"{}")
        final = wire.answer()
    assert interim is not None
    assert final is not None
    assert (interim.status, final.status) == (100, 200)


def test_continue_is_said_when_an_upload_is_read(rig: Rig) -> None:
    with rig.wire() as wire:
        wire.send(EXPECT.format("/upload", 3, "").replace("POST", "PUT").encode())
        interim = wire.answer()
        wire.send(b"abc")
        final = wire.answer()
    assert interim is not None
    assert final is not None
    assert (interim.status, final.document["bytes"]) == (100, 3)


@pytest.mark.parametrize(("path", "length", "extra", "status"), [
    ("/nowhere", 2, "", 404), ("/echo", 2_000_000, "", 413), ("/echo", 2, "Content-Type: text/csv\r\n", 415)])
def test_continue_is_not_said_to_what_is_refused(rig: Rig, path: str, length: int, extra: str, status: int) -> None:
    with rig.wire() as wire:
        wire.send(EXPECT.format(path, length, extra).encode())
        assert [answer.status for answer in wire.answers()] == [status]


def test_continue_is_not_said_when_the_body_came_along(rig: Rig) -> None:
    with rig.wire() as wire:
        wire.send(EXPECT.format("/echo", 2, "").encode() + b"{}")
        answer = wire.answer()
    assert answer is not None
    assert answer.status == 200


# --- answers of the HTTP layer --------------------------------------------------------------------------------------


def test_a_problem_of_the_http_layer_is_a_whole_problem(rig: Rig) -> None:  # RFC 9457 3.1
    answer = rig.ask(get("/nowhere"))
    assert set(answer.document) == {"type", "title", "status", "detail", "instance", "request_id"}
    assert answer.document["type"] == "/problems/not-found"
    assert answer.document["title"] == "Not found"
    assert answer.document["status"] == 404
    assert answer.document["instance"] == "/nowhere"
    assert answer.document["request_id"] == answer.headers["x-request-id"]


def test_the_server_field_names_no_version(rig: Rig) -> None:
    assert rig.ask(get("/livez")).headers["server"] == "nvc"


# --- the parser by itself -------------------------------------------------------------------------------------------


@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_are_read_or_refused(noise: bytes, valid_start: bool) -> None:
    buffer = bytearray((b"GET / HTTP/1.1\r\nHost: x\r\n" if valid_start else b"") + noise + b"\r\n\r\n")
    with contextlib.suppress(BadMessage):
        size = find_head(buffer, HeadLimits())
        if size:
            assert read_head(bytes(buffer[:size]), HeadLimits()).length >= 0


@given(st.integers(min_value=1, max_value=60))
def test_where_the_bytes_are_cut_makes_no_difference(step: int) -> None:
    whole = post("/echo", b"", "X: 1")
    buffer, sizes = bytearray(), []
    for i in range(0, len(whole), step):
        buffer += whole[i:i + step]
        sizes.append(find_head(buffer, HeadLimits()))
    assert sizes[-1] == len(whole)
    assert not any(sizes[:-1])


# --- JSON -----------------------------------------------------------------------------------------------------------

NOT_JSON = [
    ("RFC 8259 4: duplicate keys", b'{"a": 1, "a": 1}'),
    ("duplicate keys, deeper", b'{"x": [{"a": 1, "a": 2}]}'),
    ("RFC 8259 6: NaN", b'{"a": NaN}'),
    ("RFC 8259 6: Infinity", b"[-Infinity]"),
    ("a float that overflows", b"[1e999]"),
    ("RFC 7493 2.2: a huge integer", b"[9007199254740992]"),
    ("an integer of a million digits", b"[" + b"9" * 900_000 + b"]"),
    ("nested 33 deep", b"[" * 33 + b"]" * 33),
    ("nested 33 deep, mixed", b'{"a":[' * 17 + b"]}" * 17),
    ("nested 400,000 deep", b"[" * 400_000 + b"]" * 400_000),
    ("400,000 opened and none closed", b"[" * 400_000),
    ("a million quotes", b'"\\' * 300_000),
    ("RFC 8259 8.1: not UTF-8", b'"\xff"'),
    ("RFC 8259 8.1: byte order mark", b"\xef\xbb\xbf{}"),
    ("UTF-16", '{"a": 1}'.encode("utf-16")),
    ("RFC 7493 2.1: a lone surrogate", b'"\\ud800"'),
    ("a comment", b"{} // no"),
    ("two documents", b"{} {}"),
    ("a trailing comma", b"[1,]"),
    ("single quotes", b"{'a': 1}"),
    ("a control character", b'"\n"'),
]


@pytest.mark.parametrize("body", [row[1] for row in NOT_JSON], ids=[row[0] for row in NOT_JSON])
def test_what_is_not_strict_json_is_refused(rig: Rig, body: bytes) -> None:
    answer = rig.ask(post("/echo", body))
    assert answer.status == 400
    assert answer.document["type"] == "/problems/invalid-json"


def test_the_duplicate_key_is_named(rig: Rig) -> None:
    assert rig.ask(post("/echo", b'{"clip": 1, "clip": 2}')).document["field"] == "clip"


@pytest.mark.parametrize(("body", "value"), [
    (b"[" * 32 + b"]" * 32, json.loads("[" * 32 + "]" * 32)),
    (b'"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["', "[" * 41),
    (b'"\\ud83d\\ude00"', "😀"), (b"[9007199254740991]", [2**53 - 1]), (b'"\\"[\\\\"', '"[\\')])
def test_strict_json_is_read(body: bytes, value: object) -> None:
    assert read_json(body) == value


@settings(max_examples=50)
@given(st.recursive(st.none() | st.booleans() | st.integers(-2**53 + 1, 2**53 - 1) | st.text()
                    | st.floats(allow_nan=False, allow_infinity=False),
                    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8))
def test_json_comes_back_as_it_was(value: object) -> None:
    assert read_json(json.dumps(value).encode()) == value
