"""Clients in numbers, and slow, silent, greedy ones: what they cost, and that others do not notice them."""

from __future__ import annotations

import json
import resource
import socket
import ssl
import threading
from collections.abc import Iterable
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from service_rig import Rig, Wire, get, post, running, wait_until

from service.http.exchange import Event, Request, Response, event_stream
from service.http.listening import ServerSettings
from service.http.routes import Routes, upload
from service.http.server import Server
from service.runtime.settings import SettingsError

BIG = 1 << 25  # more than the buffers of a loopback connection take
CERTIFICATES = Path(__file__).with_name("tls")


def add_more(routes: Routes, rig: Rig) -> None:
    """Routes that wait, upload and download."""

    def events(request: Request) -> Response:
        def wait(timeout_s: float) -> Iterable[Event] | None:
            rig.entered.release()
            return None if rig.gate.wait(timeout_s) else []

        return event_stream(request, wait, beat_s=0.02)

    def flood(request: Request) -> Response:
        def wait(timeout_s: float) -> Iterable[Event]:
            return [Event("noise", "x" * 100_000)]

        return event_stream(request, wait)

    def status(request: Request) -> Response:
        if request.wait_s is None:
            return Response(200, {"waited": None})
        rig.entered.release()
        while not rig.gate.wait(0.02):
            if request.disconnected() or request.stopping.is_set():
                rig.seen.append(("left", "", b""))
                break
        return Response(200, {"waited": request.wait_s})

    def save(request: Request) -> Response:
        with open("/dev/null", "wb") as out:
            length, sha256 = request.save(out)
        return Response(201, {"bytes": length, "sha256": sha256})

    def leave(request: Request) -> Response:
        raise SystemExit(3)

    routes.add("GET", "/events", events, waits=True, produces="text/event-stream")
    routes.add("GET", "/flood", flood, waits=True, produces="text/event-stream")
    routes.add("GET", "/status", status, waits="prefer")
    routes.add("GET", "/big", lambda request: Response(200, {"x": "y" * BIG}))
    routes.add("GET", "/leave", leave)
    routes.add("PUT", "/upload", save, body=upload(4 << 30))


def gauge(rig: Rig, sample: str) -> float:
    """The value of one sample in the metrics."""
    return next(float(line.rsplit(" ", 1)[1]) for line in rig.metrics.render().splitlines()
                if line.startswith(sample + " "))


# --- slow and silent clients ----------------------------------------------------------------------------------------


def test_a_thousand_silent_clients_cost_bounded_memory_and_keep_nobody_out() -> None:
    with running(http_threads=2, **tls()) as rig, ExitStack() as stack:
        before = resident_bytes()
        for number in range(1000):  # half of them have begun a TLS handshake
            sock = stack.enter_context(socket.create_connection(rig.server.address))
            if number % 2:
                sock.sendall(b"\x16\x03\x01\x02\x00\x01")
        wait_until(lambda: gauge(rig, "nvc_http_connections") == 1000)
        with secure(rig) as wire:
            wire.send(get("/echo"))
            assert wire.answer() is not None
        assert resident_bytes() - before < 128 << 20


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "tls"])
def test_three_hundred_clients_that_send_byte_by_byte_keep_nobody_out(encrypted: bool) -> None:
    with running(http_threads=2, http_queue=300, **(tls() if encrypted else {})) as rig, ExitStack() as stack:
        wires = [stack.enter_context(secure(rig) if encrypted else rig.wire()) for _ in range(300)]
        for byte in get("/echo")[:3]:
            for wire in wires:
                wire.send(bytes([byte]))
            with secure(rig) if encrypted else rig.wire() as other:  # served between any two of their bytes
                other.send(get("/livez"))
                assert other.answer() is not None
        for wire in wires:
            wire.send(get("/echo")[3:])
        assert {answer.status for wire in wires if (answer := wire.answer())} == {200}


def test_no_load_takes_more_threads_than_the_settings_say() -> None:
    with running(add_more, http_connections=40, http_threads=3, http_queue=60, http_waits=5,
                 http_transfers=2) as rig, ExitStack() as stack:
        before = threading.active_count()
        wires = [stack.enter_context(rig.wire()) for _ in range(30)]
        for number, wire in enumerate(wires):
            wire.send((get("/events"), get("/status", "Prefer: wait=30"), get("/big"),
                       post("/upload", b"12", method="PUT")[:-1], b"GET /echo")[number % 5])
        for _ in range(30):  # silent: they make room for each other
            stack.enter_context(rig.wire())
        wait_until(lambda: gauge(rig, 'nvc_http_apart{kind="waits"}') == 5)
        wait_until(lambda: gauge(rig, 'nvc_http_apart{kind="transfers"}') == 2)
        wait_until(lambda: threading.active_count() <= before + 40)
        assert rig.ask(get("/livez")).status == 200
        rig.gate.set()


@pytest.mark.parametrize("raw", [get("/echo")[:-2], post("/echo", b"12345")[:-1],
                                 post("/upload", b"12345", method="PUT")[:-1]], ids=["head", "body", "upload"])
def test_the_deadline_for_receiving_is_absolute(raw: bytes) -> None:  # RFC 9110 15.5.9
    with running(add_more, http_receive_s=0.3) as rig, rig.wire() as wire:
        stop = threading.Event()

        def trickle() -> None:  # each byte would start a time-out between bytes anew
            for byte in raw:
                if stop.wait(0.01):
                    return
                try:
                    wire.send(bytes([byte]))
                except OSError:
                    return

        sender = threading.Thread(target=trickle)
        sender.start()
        answer = wire.answer()
        stop.set()
        sender.join()
        assert answer is not None
        assert (answer.status, answer.headers["connection"]) == (408, "close")


def test_an_idle_connection_is_closed() -> None:
    with running(http_idle_s=0.1) as rig, rig.wire() as wire, rig.wire() as never:
        wire.send(get("/echo"))
        assert wire.answer() is not None
        assert wire.closed()
        assert never.closed()


def test_the_longest_idle_connection_makes_room() -> None:
    with running(http_connections=8) as rig, ExitStack() as stack:
        wires: list[Wire] = []
        for _ in range(8):
            wires.append(stack.enter_context(rig.wire()))
            wires[-1].send(get("/echo"))
            assert wires[-1].answer() is not None
            wait_until(lambda: len(rig.server.context.connections._idle) == len(wires))
        assert rig.ask(get("/echo")).status == 200
        assert wires[0].closed()


def test_no_room_when_none_is_idle() -> None:
    with running(http_connections=8, http_threads=8) as rig, ExitStack() as stack:
        wires = [stack.enter_context(rig.wire()) for _ in range(8)]
        for wire in wires:
            wire.send(get("/slow"))
            rig.entered.acquire(timeout=10)
        answer = rig.ask(b"")
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")


def test_a_client_that_takes_its_answer_slowly_is_no_running_handler() -> None:
    with running(add_more, http_threads=1) as rig, rig.wire() as slow:
        slow.send(get("/big"))
        wait_until(lambda: gauge(rig, 'nvc_http_apart{kind="transfers"}') == 1)
        assert rig.ask(get("/echo")).status == 200
        answer = slow.answer()
        assert answer is not None
        assert len(answer.body) == BIG + 9


def test_a_client_that_never_takes_its_answer_is_dropped() -> None:
    with running(add_more, http_send_s=0.1, http_min_rate=1 << 30) as rig, rig.wire() as wire:
        wire.send(get("/big"))
        wait_until(lambda: any(line.get("outcome") == "client-closed" for line in rig.lines()))
        wait_until(lambda: gauge(rig, 'nvc_http_apart{kind="transfers"}') == 0)


# --- more than can be served ----------------------------------------------------------------------------------------


def test_when_the_queue_is_full_the_rest_is_503_and_livez_is_served() -> None:
    with running(http_threads=2, http_queue=1) as rig, ExitStack() as stack:
        wires = [stack.enter_context(rig.wire()) for _ in range(3)]
        for wire in wires[:2]:
            wire.send(get("/slow"))
            assert rig.entered.acquire(timeout=10)
        wires[2].send(get("/echo"))
        wait_until(lambda: gauge(rig, "nvc_http_queue") == 1)
        refused = rig.ask(post("/echo", b"{}"))
        assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        assert refused.document["type"] == "/problems/overloaded"
        assert rig.ask(get("/livez")).status == 200
        rig.server.self_check()
        rig.gate.set()
        assert [answer.status for wire in wires if (answer := wire.answer())] == [200, 200, 200]


def test_a_refused_connection_can_be_used_again() -> None:
    with running(http_threads=1, http_queue=1) as rig, rig.wire() as slow, rig.wire() as queued, rig.wire() as wire:
        slow.send(get("/slow"))
        assert rig.entered.acquire(timeout=10)
        queued.send(get("/echo"))
        wait_until(lambda: gauge(rig, "nvc_http_queue") == 1)
        wire.send(post("/echo", b"{}"))
        first = wire.answer()
        rig.gate.set()
        assert queued.answer() is not None
        wire.send(post("/echo", b"{}"))
        second = wire.answer()
        assert first is not None
        assert second is not None
        assert (first.status, second.status) == (503, 200)


def test_bodies_being_received_share_bounded_memory() -> None:
    with running(http_buffer_bytes=1 << 20) as rig, rig.wire() as first:
        first.send(post("/echo", b" " * 900_000)[:-1])
        wait_until(lambda: rig.server.context.body_memory.used == 900_000)
        refused = rig.ask(post("/echo", b" " * 900_000))
        assert refused.status == 503
        first.send(b"1")
        answer = first.answer()
        assert answer is not None
        assert answer.document == {"got": 1}
        wait_until(lambda: rig.server.context.body_memory.used == 0)


def test_a_handler_that_ends_its_thread_takes_no_place_with_it() -> None:
    with running(add_more, http_threads=1) as rig:
        with rig.wire() as wire:
            wire.send(get("/leave"))
            assert wire.closed()
        assert rig.ask(get("/echo")).status == 200


# --- waiting --------------------------------------------------------------------------------------------------------


def test_waiting_clients_are_not_counted_as_running_handlers() -> None:
    with running(add_more, http_threads=1, http_waits=2) as rig, rig.wire() as stream, rig.wire() as waiter:
        stream.send(get("/events"))
        waiter.send(get("/status", "Prefer: wait=30"))
        for _ in range(2):
            assert rig.entered.acquire(timeout=10)
        assert rig.ask(get("/echo")).status == 200
        third = rig.ask(get("/events"))
        assert (third.status, third.headers["retry-after"]) == (503, "5")
        assert rig.ask(get("/status", "Prefer: wait=30")).document == {"waited": None}  # RFC 7240 2
        rig.gate.set()
        answer = waiter.answer()
        assert answer is not None
        assert answer.document == {"waited": 30.0}


@pytest.mark.parametrize(("prefer", "wait_s"), [("wait=9999", 5.0), ('respond-async, wait = "3"', 3.0),
                                                ("WAIT=2;x=1", 2.0), ("wait=0", None), ("wait=x", None),
                                                ("waiting=3", None)])
def test_how_prefer_is_read(prefer: str, wait_s: float | None) -> None:  # RFC 7240 4.3
    with running(add_more, http_max_wait_s=5) as rig:
        rig.gate.set()
        waited = rig.ask(get("/status", f"Prefer: {prefer}")).document["waited"]
        assert (waited or None) == wait_s


def test_a_waiting_handler_learns_that_its_client_left() -> None:
    with running(add_more) as rig:
        with rig.wire() as wire:
            wire.send(get("/status", "Prefer: wait=30"))
            assert rig.entered.acquire(timeout=10)
        wait_until(lambda: ("left", "", b"") in rig.seen)


def test_an_event_stream() -> None:  # HTML standard 9.2.6
    sent = [[Event("state", {"state": "running"}, id="1")], [], [Event("log", "a\nb")], None]

    def add(routes: Routes, rig: Rig) -> None:
        routes.add("GET", "/events", lambda request: event_stream(request, lambda timeout_s: sent.pop(0)),
                   waits=True, produces="text/event-stream")

    with running(add) as rig:
        answer = rig.ask(get("/events", "Accept: text/event-stream"))
        assert answer.headers["content-type"] == "text/event-stream"
        assert answer.body == (b'retry: 1000\n\nid: 1\nevent: state\ndata: {"state":"running"}\n\n'
                               b"event: log\ndata: a\ndata: b\n\n")


def test_a_quiet_event_stream_beats() -> None:
    with running(add_more) as rig, rig.wire() as wire:
        wire.send(get("/events"))
        while wire.file.readline() != b": beat\n":
            pass


def test_an_event_stream_ends_when_its_client_leaves() -> None:
    with running(add_more) as rig:
        with rig.wire() as wire:
            wire.send(get("/events"))
            assert rig.entered.acquire(timeout=10)
        wait_until(lambda: gauge(rig, 'nvc_http_apart{kind="waits"}') == 0)


def test_an_event_stream_that_nobody_reads_is_dropped() -> None:
    with running(add_more, http_send_s=0.1) as rig, rig.wire() as wire:
        wire.send(get("/flood"))
        wait_until(lambda: gauge(rig, "nvc_http_connections") == 0)
        assert gauge(rig, 'nvc_http_apart{kind="waits"}') == 0


# --- large uploads --------------------------------------------------------------------------------------------------


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def test_an_upload_of_two_gigabytes_does_not_grow_the_process(tmp_path: Path) -> None:
    size, step = 2 << 30, 64 << 20
    with (tmp_path / "sparse").open("wb") as made:
        made.truncate(size)  # takes no room on the disk
    with running(add_more) as rig, rig.wire() as wire, (tmp_path / "sparse").open("rb") as file:
        wire.sock.settimeout(120)
        before = resident_bytes()
        wire.send(b"PUT /upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % size)
        grown = 0
        for at in range(0, size, step):
            wire.sock.sendfile(file, at, step)
            grown = max(grown, resident_bytes() - before)
        answer = wire.answer()
        assert answer is not None
        assert answer.document["bytes"] == size
        assert grown < 16 << 20


def test_an_upload_cut_short_is_not_answered() -> None:
    with running(add_more) as rig:
        with rig.wire() as wire:
            wire.send(post("/upload", b"x" * 1000, method="PUT")[:-1])
            wire.sock.shutdown(socket.SHUT_WR)
            assert wire.answers() == []
        wait_until(lambda: any(line.get("status") == 499 for line in rig.lines()))


# --- drain and stop -------------------------------------------------------------------------------------------------


def test_stopping_waits_for_answers_in_progress() -> None:
    with running() as rig, rig.wire() as busy, rig.wire() as idle:
        idle.send(get("/echo"))
        assert idle.answer() is not None
        busy.send(get("/slow"))
        assert rig.entered.acquire(timeout=10)
        finished: list[bool] = []
        stopper = threading.Thread(target=lambda: finished.append(rig.server.stop(grace_s=10)))
        stopper.start()
        assert idle.closed()
        rig.gate.set()
        answer = busy.answer()
        assert answer is not None
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        busy.close()
        stopper.join()
        assert finished == [True]
        with pytest.raises(ConnectionRefusedError):
            rig.wire()


def test_stopping_gives_up_after_the_grace() -> None:
    with running() as rig, rig.wire() as busy:
        busy.send(get("/slow"))
        assert rig.entered.acquire(timeout=10)
        assert rig.server.stop(grace_s=0.05) is False
        assert busy.closed()


def test_a_request_on_its_way_when_stopping_is_answered() -> None:
    with running() as rig, rig.wire() as busy, rig.wire() as fresh:
        wait_until(lambda: gauge(rig, "nvc_http_connections") == 2)
        busy.send(get("/slow"))
        assert rig.entered.acquire(timeout=10)
        stopper = threading.Thread(target=rig.server.stop)
        stopper.start()
        assert rig.server.draining.wait(10)
        fresh.send(get("/echo"))
        answer = fresh.answer()
        rig.gate.set()
        assert answer is not None
        assert answer.status == 200
        assert busy.answer() is not None
        for wire in (busy, fresh):
            wire.close()
        stopper.join()


def test_draining_ends_event_streams_and_waits() -> None:
    with running(add_more) as rig, rig.wire() as stream, rig.wire() as waiter:
        stream.send(get("/events"))
        waiter.send(get("/status", "Prefer: wait=30"))
        for _ in range(2):
            assert rig.entered.acquire(timeout=10)
        rig.server.drain()
        first, second = stream.answer(), waiter.answer()
        assert first is not None
        assert second is not None
        assert (first.status, second.status) == (200, 200)
        assert rig.ask(get("/livez")).headers["connection"] == "close"


def test_a_socket_that_was_passed_outlives_the_server() -> None:  # sd_listen_fds(3): a restart refuses no connection
    with closing(socket.create_server(("127.0.0.1", 0))) as ours:
        for _ in range(2):
            with Wire(ours.getsockname()) as wire:  # connects before anyone serves
                wire.send(get("/livez"))
                routes = Routes()
                routes.add("GET", "/livez", lambda request: Response(200, {}), always=True)
                server = Server(routes, ServerSettings(), sockets=[ours.dup()])
                server.start()
                answer = wire.answer()
                server.stop()
                assert answer is not None
                assert answer.status == 200


# --- TLS ------------------------------------------------------------------------------------------------------------


def tls(name: str = "server", **more: Path) -> dict[str, Path]:
    return {"tls_cert": CERTIFICATES / f"{name}.pem", "tls_key": CERTIFICATES / f"{name}.key", **more}


def trusting() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=CERTIFICATES / "ca.pem")


def secure(rig: Rig, context: ssl.SSLContext | None = None) -> Wire:
    context = context or trusting()
    return Wire(rig.server.address, lambda sock: context.wrap_socket(sock, server_hostname="localhost"))


def test_tls_serves_and_keeps_the_connection() -> None:
    with running(**tls()) as rig, secure(rig) as wire:
        assert rig.server.url.startswith("https://127.0.0.1:")
        for body in (b"1", b'"' + b"x" * 200_000 + b'"'):
            wire.send(post("/echo", body))
            answer = wire.answer()
            assert answer is not None
            assert answer.document == {"got": json.loads(body)}
        rig.server.self_check()


def test_tls_requests_in_one_record_are_all_answered() -> None:
    with running(add_more, **tls()) as rig, secure(rig) as wire:
        wire.send(post("/echo", b"1") + post("/nowhere", b"x" * 5000) + post("/upload", b"abc", method="PUT")
                  + get("/livez"))
        assert [answer.status for _ in range(4) if (answer := wire.answer())] == [200, 404, 201, 200]


def test_tls_ends_with_close_notify() -> None:  # RFC 8446 6.1
    with running(**tls()) as rig, secure(rig) as wire:
        wire.send(get("/livez", "Connection: close"))
        assert [answer.status for answer in wire.answers()] == [200]  # without it, reading the end would raise


def test_a_handshake_that_does_not_end_is_ended() -> None:
    with running(http_receive_s=0.1, **tls()) as rig, rig.wire() as wire:
        wire.send(b"\x16\x03\x01\x02\x00\x01")
        assert wire.closed()


def test_plain_http_on_a_tls_port_is_closed() -> None:
    with running(**tls()) as rig, rig.wire() as wire:
        wire.send(get("/livez"))
        wait_until(lambda: gauge(rig, "nvc_http_connections") == 0)


def test_certificates_are_read_again(tmp_path: Path) -> None:
    def use(name: str) -> None:
        for kind in ("pem", "key"):
            (tmp_path / f"used.{kind}").write_bytes((CERTIFICATES / f"{name}.{kind}").read_bytes())

    def serial(rig: Rig) -> object:
        with secure(rig) as wire:
            assert isinstance(wire.sock, ssl.SSLSocket)
            certificate = wire.sock.getpeercert()
            assert certificate is not None
            return certificate["subject"]

    use("server")
    with running(tls_cert=tmp_path / "used.pem", tls_key=tmp_path / "used.key") as rig:
        assert serial(rig) == ((("commonName", "test server"),),)
        use("renewed")
        rig.server.reload_tls()
        assert serial(rig) == ((("commonName", "test renewed"),),)
        (tmp_path / "used.pem").write_text("nonsense")
        with pytest.raises(SettingsError, match="tls_cert"):
            rig.server.reload_tls()
        assert serial(rig) == ((("commonName", "test renewed"),),)


def test_client_certificates_can_be_required() -> None:
    with running(tls_client_ca=CERTIFICATES / "ca.pem", **tls()) as rig:
        context = trusting()
        context.load_cert_chain(CERTIFICATES / "client.pem", CERTIFICATES / "client.key")
        with secure(rig, context) as wire:
            wire.send(get("/livez"))
            assert wire.answer() is not None
        with secure(rig) as wire, pytest.raises(OSError):  # noqa: PT011, PT012  TLS 1.3 refuses after the handshake
            wire.send(get("/livez"))
            wire.answer()
        rig.server.self_check()


@pytest.mark.parametrize("settings", [{"tls_cert": CERTIFICATES / "server.pem"},
                                      {"tls_cert": CERTIFICATES / "ca.pem", "tls_key": CERTIFICATES / "server.key"},
                                      {"tls_cert": Path("nowhere.pem"), "tls_key": Path("nowhere.key")}])
def test_certificates_that_cannot_be_used_are_named(settings: dict[str, Path]) -> None:
    server = Server(Routes(), ServerSettings(**settings))  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="tls_cert"):
        server.start()
