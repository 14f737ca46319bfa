"""Calls to the other service: what is tried again, and whose fault a failure is."""

from __future__ import annotations

import hashlib
import io
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from service_rig import Rig, running

from service.http.client import Ambiguous, Client, Refused, Unreachable
from service.http.exchange import Request, Response, Trace
from service.http.fetching import parse_networks
from service.http.routes import JSON, Routes, upload

CERTIFICATES = Path(__file__).with_name("tls")
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
RESET = b"reset"


@contextmanager
def scripted(*answers: bytes | None) -> Iterator[tuple[str, list[bytes]]]:
    """A server that reads one request a connection and gives the next of `answers`: bytes, then closes; RESET; None:
    stays silent.  -> (its URL, the requests it got)"""
    got: list[bytes] = []
    done = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        for answer in answers:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            with sock:
                request = b""
                while b"\r\n\r\n" not in request:
                    piece = sock.recv(65536)
                    if not piece:
                        break
                    request += piece
                got.append(request)
                if answer is None:
                    done.wait(10)
                elif answer == RESET:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # close sends RST
                else:
                    sock.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", got
    finally:
        done.set()
        listener.shutdown(socket.SHUT_RDWR)  # wakes accept
        listener.close()
        thread.join(timeout=1)


def client(url: str, **more: object) -> Client:
    return Client(url, sleep=lambda seconds: None, **more)  # type: ignore[arg-type]


def status(code: int, *fields: str, body: bytes = b"") -> bytes:
    lines = "".join(f"{field}\r\n" for field in fields)
    return f"HTTP/1.1 {code} X\r\nContent-Length: {len(body)}\r\nConnection: close\r\n{lines}\r\n".encode() + body


def unused_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as sock:
        port: int = sock.getsockname()[1]
        return port


# --- whose fault ----------------------------------------------------------------------------------------------------

CALLS: list[Callable[[Client], object]] = [lambda c: c.get("/x"), lambda c: c.post("/x", {"a": 1})]


@pytest.mark.parametrize("call", CALLS, ids=["GET", "POST"])
def test_nobody_listens_is_unreachable(call: Callable[[Client], object]) -> None:
    with pytest.raises(Unreachable):
        call(client(f"http://127.0.0.1:{unused_port()}"))


def test_no_such_name_is_unreachable() -> None:
    with pytest.raises(Unreachable):
        client("http://no-such-host.invalid").get("/x")


def test_a_certificate_of_a_stranger_is_unreachable() -> None:
    with running(tls_cert=CERTIFICATES / "server.pem", tls_key=CERTIFICATES / "server.key") as rig, \
            pytest.raises(Unreachable):
        client(rig.server.url).get("/livez")


def test_plain_http_where_tls_was_expected_is_unreachable() -> None:
    with running() as rig, pytest.raises(Unreachable):
        client(rig.server.url.replace("http:", "https:")).get("/livez")


@pytest.mark.parametrize("answer", [RESET, b"", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
                                    b"nonsense\r\n\r\n"], ids=["reset", "closed", "cut short", "nonsense"])
def test_a_break_after_the_request_is_ambiguous(answer: bytes) -> None:
    with scripted(answer) as (url, _), pytest.raises(Ambiguous):
        client(url).post("/x", {})


def test_no_answer_in_time_is_ambiguous() -> None:
    with scripted(None) as (url, _), pytest.raises(Ambiguous):
        client(url, read_s=0.1).post("/x", {})


def test_an_answer_that_is_not_the_json_it_claims_is_ambiguous() -> None:
    with scripted(OK.replace(b"{}", b"{x")) as (url, _), pytest.raises(Ambiguous):
        client(url).post("/x", {})


def test_a_problem_is_refused_with_its_parts() -> None:
    body = b'{"type": "/problems/stale-attempt", "status": 409, "detail": "attempt 2 is granted"}'
    with scripted(status(409, "Retry-After: 7", body=body)) as (url, _), pytest.raises(Refused) as caught:
        client(url).post("/x", {})
    assert (caught.value.status, caught.value.slug, caught.value.retry_after_s) == (409, "stale-attempt", 7.0)
    assert str(caught.value) == "409 /problems/stale-attempt: attempt 2 is granted"


@pytest.mark.parametrize("answer", [status(502, body=b"<html>"), status(302, "Location: http://127.0.0.1:1/"),
                                    status(500, body=b"[]")])
def test_other_answers_are_refused_too(answer: bytes) -> None:
    with scripted(answer, answer, answer) as (url, _), pytest.raises(Refused) as caught:
        client(url).post("/x", {})
    assert caught.value.slug == ""


# --- what is tried again --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [RESET, b"", status(503), status(503, "Retry-After: 1"), status(429)])
def test_get_is_tried_again(first: bytes) -> None:
    with scripted(first, first, OK) as (url, got):
        assert client(url).get("/x").document == {}
    assert len(got) == 3


def test_tries_are_bounded() -> None:
    with scripted(RESET, RESET, RESET, OK) as (url, got), pytest.raises(Ambiguous):
        client(url).get("/x")
    assert len(got) == 3


@pytest.mark.parametrize("first", [RESET, status(503)])
def test_post_is_not_tried_again(first: bytes) -> None:
    with scripted(first, OK) as (url, got), pytest.raises((Ambiguous, Refused)):
        client(url).post("/x", {})
    assert len(got) == 1


@pytest.mark.parametrize("first", [RESET, status(503)])
def test_post_that_is_idempotent_is_tried_again(first: bytes) -> None:
    with scripted(first, OK) as (url, got):
        assert client(url).post("/x", {}, idempotent=True).document == {}
    assert len(got) == 2


@pytest.mark.parametrize("answer", [status(400), status(409), status(500), status(503, "Retry-After: 60")])
def test_answers_that_would_not_change_are_not_asked_for_again(answer: bytes) -> None:
    with scripted(answer, OK) as (url, got), pytest.raises(Refused):
        client(url).get("/x")
    assert len(got) == 1


def test_retry_after_is_waited_for() -> None:
    waits: list[float] = []
    with scripted(status(503, "Retry-After: 3"), OK) as (url, _):
        Client(url, sleep=waits.append).get("/x")
    assert 3.0 <= waits[0] <= 3.1


# --- the two together -----------------------------------------------------------------------------------------------


def add(routes: Routes, rig: Rig) -> None:
    def save(request: Request) -> Response:
        out = io.BytesIO()
        length, sha256 = request.save(out)
        rig.seen.append(("PUT", request.path, out.getvalue()))
        return Response(201, {"bytes": length, "sha256": sha256})

    def tell(request: Request) -> Response:
        return Response(200, {"traceparent": request.headers.get("traceparent"), "got": request.document(),
                                      "key": request.headers.get("authorization"), "x": request.headers.get("x-a")})

    routes.add("PUT", "/artifacts/{sha256}", save, body=upload(1 << 24))
    routes.add("POST", "/tell", tell, body=JSON)
    routes.add("GET", "/data", lambda request: Response(200, b"data" * 1000), produces="*/*")
    routes.add("GET", "/list", lambda request: Response(200, request.query, etag="1"))


def test_what_a_call_carries() -> None:
    trace = Trace("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")
    with running(add) as rig:
        reply = Client(rig.server.url, key="nck_x").post("/tell", {"a": "é"}, trace=trace, headers={"X-A": "1"})
    assert reply.document == {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
                              "got": {"a": "é"}, "key": "Bearer nck_x", "x": "1"}


def test_query_and_conditions() -> None:
    with running(add) as rig:
        caller = Client(rig.server.url)
        assert caller.get("/list", params={"a": "1 2"}).document == {"a": "1 2"}
        assert caller.get("/list", headers={"If-None-Match": '"1"'}).status == 304


def test_calls_of_one_thread_share_a_connection() -> None:
    with running(add) as rig:
        caller = Client(rig.server.url)
        for _ in range(3):
            caller.get("/list")
            caller.post("/tell", {})
        assert len(rig.server.context.connections) == 1
        caller.close()


@pytest.mark.parametrize("data", [b"", b"stream" * 100_000])
def test_a_file_is_uploaded_and_checked(data: bytes, tmp_path: Path) -> None:
    source, sha256 = tmp_path / "stream.nvc", hashlib.sha256(data).hexdigest()
    source.write_bytes(data)
    with running(add) as rig:
        reply = Client(rig.server.url).put_file(f"/artifacts/{sha256}", source, sha256=sha256)
        assert (reply.status, reply.document) == (201, {"bytes": len(data), "sha256": sha256})
        assert rig.seen[-1][2] == data
        with pytest.raises(Refused) as caught:
            Client(rig.server.url).put_file("/artifacts/x", source, sha256="0" * 64)
        assert caught.value.slug == "digest-mismatch"


def test_a_file_is_downloaded_and_checked() -> None:
    with running(add) as rig:
        out, sha256 = io.BytesIO(), hashlib.sha256(b"data" * 1000).hexdigest()
        caller = Client(rig.server.url)
        assert caller.download("/data", out, sha256=sha256) == (4000, sha256)
        assert out.getvalue() == b"data" * 1000
        with pytest.raises(Ambiguous, match="expected"):
            caller.download("/data", io.BytesIO(), sha256="0" * 64)
        with pytest.raises(Ambiguous, match="larger"):
            caller.download("/data", io.BytesIO(), limit=3999)
        with pytest.raises(Refused):
            caller.download("/nowhere", io.BytesIO())


def test_tls_with_a_client_certificate() -> None:
    with running(add, tls_cert=CERTIFICATES / "server.pem", tls_key=CERTIFICATES / "server.key",
                 tls_client_ca=CERTIFICATES / "ca.pem") as rig:
        caller = Client(rig.server.url, verify=str(CERTIFICATES / "ca.pem"),
                                cert=(str(CERTIFICATES / "client.pem"), str(CERTIFICATES / "client.key")))
        assert caller.get("/livez").document == {"status": "alive"}


def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{unused_port()}")
    with running() as rig:
        assert Client(rig.server.url).get("/livez").status == 200


def test_an_address_that_is_none() -> None:
    with pytest.raises(ValueError, match="base_url"):
        Client("127.0.0.1:8081")


def test_a_body_that_drips_is_given_up_after_the_time_for_a_body() -> None:
    given_up = threading.Event()
    sent: list[int] = []
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        def serve() -> None:
            sock, _ = listener.accept()
            with sock:
                sock.recv(65536)
                sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
                while len(sent) < 1000 and not given_up.wait(0.05):
                    try:
                        sock.sendall(b"x")
                    except OSError:
                        return
                    sent.append(1)

        threading.Thread(target=serve, daemon=True).start()
        with pytest.raises(Ambiguous, match="too slow"):
            Client(f"http://127.0.0.1:{listener.getsockname()[1]}", read_s=0.5, retries=0).get("/")
        given_up.set()
    assert len(sent) < 1000


@pytest.mark.parametrize(("networks", "reached"), [("127.0.0.0/8", True), ("10.0.0.0/8, 127.0.0.1/32", True),
                                                   ("10.0.0.0/8", False), ("::1/128", False)])
def test_an_address_outside_of_the_networks_gets_no_request(networks: str, reached: bool) -> None:
    with scripted(OK) as (url, got):
        caller = client(url.replace("127.0.0.1", "localhost"), networks=parse_networks(networks), retries=0)
        if reached:
            assert caller.get("/x").status == 200
        else:
            with pytest.raises(Unreachable, match=r"127\.0\.0\.1, which is not in"):
                caller.post("/x", {"secret": 1})
        assert bool(b"".join(got)) == reached       # a connection without a request is none


@pytest.mark.parametrize(("networks", "reached"), [("127.0.0.0/8", True), ("10.0.0.0/8", False)])
def test_networks_hold_with_tls_too(networks: str, reached: bool) -> None:
    with running(add, tls_cert=CERTIFICATES / "server.pem", tls_key=CERTIFICATES / "server.key") as rig:
        caller = client(rig.server.url, verify=str(CERTIFICATES / "ca.pem"), networks=parse_networks(networks))
        if reached:
            assert caller.get("/livez").status == 200
        else:
            with pytest.raises(Unreachable, match=r"127\.0\.0\.1, which is not in 10\.0\.0\.0/8"):
                caller.get("/livez")
