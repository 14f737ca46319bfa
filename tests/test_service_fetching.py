"""Clips from addresses that clients name: which addresses are asked, and what a hostile host can do (nothing)."""

from __future__ import annotations

import hashlib
import io
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from orchestrator_rig import PATIENCE_S, FakeWorker, Orchestrator

from service.http.fetching import Fetcher, FetchError, check_address, parse_networks
from service.runtime.settings import SettingsError

CERTIFICATES = Path(__file__).with_name("tls")
HERE = "127.0.0.0/8"
DATA = bytes(range(256)) * 3000
CLIP = b"YUV4MPEG2 W16 H16 F25:1 C420\n" + b"FRAME\n" + bytes([128]) * 384


def whole(body: bytes, *fields: str, status: str = "200 OK") -> bytes:
    lines = (f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *fields, "", "")
    return "\r\n".join(lines).encode() + body


class Site:
    """An https host under "localhost" that sends `pages` as they stand, by path: bytes, or a function of the socket."""

    def __init__(self) -> None:
        self.pages: dict[str, bytes | Callable[[ssl.SSLSocket], None]] = {}
        self.connections = 0
        self.requests: list[str] = []
        self.over = threading.Event()
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(CERTIFICATES / "server.pem", CERTIFICATES / "server.key")
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"https://localhost:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, plain: socket.socket) -> None:
        try:
            with self._context.wrap_socket(plain, server_side=True) as sock:
                head = sock.recv(65536).decode()
                self.requests.append(head)
                page = self.pages[head.split(" ")[1]]
                if isinstance(page, bytes):
                    sock.sendall(page)
                    sock.unwrap()
                else:
                    page(sock)
        except OSError:
            return  # the client has left

    def close(self) -> None:
        self.over.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()
    yield made
    made.close()


def fetcher(site: Site, **more: Any) -> Fetcher:
    settings = {"hosts": f"localhost:{site.port}", "networks": HERE, "limit_bytes": 1 << 20, "limit_s": PATIENCE_S,
                "context": ssl.create_default_context(cafile=CERTIFICATES / "ca.pem")}
    return Fetcher(**{**settings, **more})  # type: ignore[arg-type]


def refusal(site: Site, path: str = "/a", **more: Any) -> str:
    with pytest.raises(FetchError) as caught:
        fetcher(site, **more).fetch(site.url + path, io.BytesIO())
    return str(caught.value)


# --- which addresses ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", [
    "127.0.0.1", "127.9.9.9", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "169.254.169.254",
    "192.0.0.1", "192.0.2.1", "198.18.0.1", "203.0.113.1", "224.0.0.1", "240.0.0.1", "255.255.255.255",
    "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12::1", "ff02::1", "2001:db8::1",
    "::ffff:10.0.0.1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::7f00:1", "64:ff9b::7f00:1", "64:ff9b:1::1",
    "2002:7f00:1::1", "2001:0:7f00:1::1"])
def test_addresses_that_are_not_public_are_refused(address: str) -> None:  # RFC 6890
    with pytest.raises(FetchError, match="not public"):
        check_address(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "172.32.0.1", "::ffff:8.8.8.8", "2606:4700::1"])
def test_public_addresses_are_asked(address: str) -> None:
    check_address(address)


def test_a_network_can_be_allowed_but_never_the_link_local_one() -> None:
    networks = parse_networks("10.0.0.0/8, 169.254.0.0/16, fe80::/10")
    check_address("10.1.2.3", networks)
    check_address("::ffff:10.1.2.3", networks)
    for address in ("192.168.0.1", "169.254.169.254", "fe80::1"):
        with pytest.raises(FetchError):
            check_address(address, networks)


def test_a_network_that_is_none_is_named() -> None:
    with pytest.raises(SettingsError, match=r"fetch_networks.*10\.0\.0\.0/33"):
        parse_networks("10.0.0.0/33")


@pytest.mark.parametrize(("hosts", "url", "allowed"), [
    ("", "https://a.example/", False), ("a.example", "https://a.example/", True),
    ("a.example", "https://A.Example./", True),
    ("a.example", "https://a.example:443/", True), ("a.example", "https://a.example:8443/", False),
    ("a.example:8443", "https://a.example:8443/", True), ("a.example:8443", "https://a.example/", False),
    ("a.example", "https://b.a.example/", False), (".example", "https://b.a.example/", True),
    (".example", "https://example/", False), (".example", "https://badexample/", False),
    ("a.example", "https://a.example.evil.example/", False), ("*", "https://any.example/", True),
    ("*", "https://any.example:22/", False), ("*", "http://any.example/", False), ("*", "file:///etc/passwd", False),
    ("*", "https://user@a.example/", False), ("*", "https://a.example/a b", False),
    ("*", "https://a.example:x/", False),
    ("*", "https://[::1", False), ("*", "https:///path", False), ("*", "//a.example/", False),
    ("*", "https://a.example/\r\nX: y", False)])
def test_which_hosts_are_asked(hosts: str, url: str, allowed: bool) -> None:
    made = Fetcher(hosts=hosts, limit_bytes=1, limit_s=1)
    if allowed:
        made.check(url)
    else:
        with pytest.raises(FetchError):
            made.check(url)


def test_a_host_with_a_private_address_is_not_even_connected_to(site: Site) -> None:
    assert refusal(site, networks="") == "its host has an address that is not public"
    assert site.connections == 0


def test_the_connected_socket_is_checked_too(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_up: list[str] = []

    class Elsewhere(socket.socket):
        def connect(self, address: Any) -> None:  # as after DNS rebinding, or through a port that is forwarded
            looked_up.append(address[0])
            super().connect(("127.0.0.1", site.port))

    monkeypatch.setattr("service.http.fetching.socket.socket", Elsewhere)
    monkeypatch.setattr("service.http.fetching.socket.getaddrinfo",
                        lambda *_, **__: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("8.8.8.8", site.port))])
    assert refusal(site, networks="") == "its host has an address that is not public"
    assert (looked_up, site.requests) == (["8.8.8.8"], [])


def test_the_certificate_is_checked(site: Site) -> None:
    assert refusal(site, context=ssl.create_default_context()).startswith("its certificate is not valid: ")


# --- what comes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [
    whole(DATA), b"HTTP/1.1 200 OK\r\n\r\n" + DATA,
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(DATA), DATA)],
    ids=["length", "until the end", "chunked"])
def test_a_file_comes_with_its_size_and_digest(site: Site, page: bytes) -> None:
    site.pages["/a/b.mkv?x=1"] = page
    out = io.BytesIO()
    found = fetcher(site).fetch(f"{site.url}/a/b.mkv?x=1", out)
    assert found == (len(DATA), hashlib.sha256(DATA).hexdigest())
    assert out.getvalue() == DATA
    assert not [line for line in site.requests[0].lower().splitlines() if line.startswith(("authorization", "cookie"))]


def redirect(where: str) -> bytes:
    return whole(b"", f"Location: {where}", status="302 Found")


def test_a_redirect_is_followed(site: Site) -> None:
    site.pages |= {"/a": redirect("/b"), "/b": redirect(f"{site.url}/c"), "/c": whole(b"found")}
    out = io.BytesIO()
    fetcher(site).fetch(f"{site.url}/a", out)
    assert out.getvalue() == b"found"


@pytest.mark.parametrize(("where", "why"), [
    ("http://localhost/", "only https"), ("https://other.example/", "is not among the hosts"),
    ("/a", "more than 5 times"), ("", "more than 5 times"),
    ("https://169.254.169.254/", "is not among the hosts"), ("ftp://localhost/", "only https")])
def test_a_redirect_is_checked_like_the_address(site: Site, where: str, why: str) -> None:
    site.pages["/a"] = redirect(where)
    assert why in refusal(site)


def test_a_redirect_to_a_private_address_is_refused(site: Site) -> None:
    site.pages["/a"] = redirect("https://169.254.169.254/latest/meta-data")
    assert refusal(site, hosts=f"localhost:{site.port},*") == "its host has an address that is not public"


@pytest.mark.parametrize(("page", "why"), [
    (whole(b"x" * 101), "it has 101 bytes, the limit is 100"),
    (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 101, "it has more than 100 bytes"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n" + b"x" * 255 + b"\r\n0\r\n\r\n",
     "it has more than 100 bytes"),
    (whole(b"x" * 50)[:-1], "it ended 1 bytes too early"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n", "it cannot be fetched: IncompleteRead"),
    (whole(b"", status="404 Not Found"), "it answers 404, 200 was expected"),
    (whole(b"", status="206 Partial Content"), "it answers 206, 200 was expected"),
    (whole(b"x", "Content-Encoding: gzip"), "it is sent with a Content-Encoding, which was not asked for"),
    (b"nonsense\r\n\r\n", "it cannot be fetched: BadStatusLine"),
    (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n", "it cannot be fetched: HTTPException"),
    (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000, "it cannot be fetched: LineTooLong"),
])
def test_what_is_not_whole_or_too_large_is_refused(site: Site, page: bytes, why: str) -> None:
    site.pages["/a"] = page
    assert refusal(site, limit_bytes=100) == why


def test_an_end_that_tls_did_not_announce_is_no_end(site: Site) -> None:  # RFC 8446 6.1
    def cut(sock: ssl.SSLSocket) -> None:
        sock.sendall(b"HTTP/1.1 200 OK\r\n\r\nhalf")
        socket.socket(fileno=sock.detach()).close()

    site.pages["/a"] = cut
    assert refusal(site) in ("it cannot be fetched: SSLEOFError", "it cannot be fetched: SSLError")


@pytest.mark.parametrize("start", [b"", b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"],
                         ids=["silent", "head", "body"])
def test_a_host_that_sends_byte_by_byte_is_left_in_time(site: Site, start: bytes) -> None:
    def trickle(sock: ssl.SSLSocket) -> None:  # each byte would start a time-out of the socket anew
        sock.sendall(start)
        while not site.over.wait(0.02):
            if start:
                sock.sendall(b"y")

    site.pages["/a"] = trickle
    assert refusal(site, limit_s=0.4) == "it took longer than 0.4 s"


def test_a_handshake_that_does_not_end_is_left_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        made = Fetcher(hosts=f"localhost:{port}", networks=HERE, limit_bytes=1, limit_s=0.2)
        with pytest.raises(FetchError, match="it took longer"):
            made.fetch(f"https://localhost:{port}/", io.BytesIO())


# --- in an experiment -----------------------------------------------------------------------------------------------


@pytest.fixture
def orchestrator(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Orchestrator]:
    """One that fetches from the site, and has a single thread for handlers."""
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATES / "ca.pem"))
    made = Orchestrator(tmp_path, "--fetch-hosts", f"localhost:{site.port}", "--fetch-networks", HERE,
                        "--http-threads", "1")
    yield made
    made.stop()


def test_an_experiments_address_is_fetched_and_kept_by_its_digest(orchestrator: Orchestrator, site: Site) -> None:
    site.pages["/clips/grey.y4m?v=2"] = whole(CLIP)
    address, digest = f"{site.url}/clips/grey.y4m?v=2", hashlib.sha256(CLIP).hexdigest()
    worker = FakeWorker(orchestrator, "w1")
    try:
        name = orchestrator.submit(clip=address)
        offer = worker.next_offer()
        assert offer["clip"] == {"name": address, "sha256": digest,
                                 "url": f"{orchestrator.url}/clips/sha256:{digest}/data"}
        assert requests.get(offer["clip"]["url"], timeout=PATIENCE_S).content == CLIP
        listed = next(clip for clip in orchestrator.get("/clips").json()["clips"] if clip["name"] == address)
        assert (listed["source"], listed["frames"], listed["data"]) == ("fetched", 1, f"/clips/sha256:{digest}/data")
        del site.pages["/clips/grey.y4m?v=2"]
        again = orchestrator.post(f"/experiment/{name}/rerun").json()["experiment_id"]  # of the same bytes: not fetched
        assert orchestrator.status(again)["clip"]["sha256"] == digest
    finally:
        worker.stop()


def test_what_was_fetched_is_deleted_by_its_hash(orchestrator: Orchestrator, site: Site) -> None:
    site.pages["/clips/grey.y4m"] = whole(CLIP)
    name = orchestrator.submit(clip=f"{site.url}/clips/grey.y4m")
    path = f"/clips/sha256:{hashlib.sha256(CLIP).hexdigest()}"

    def delete(path: str) -> int:
        return requests.delete(f"{orchestrator.url}{path}", timeout=PATIENCE_S).status_code

    assert delete(path) == 409      # an experiment is of it
    orchestrator.post(f"/experiment/{name}/cancel")
    assert [delete(f"/experiment/{name}"), delete(path), delete(path)] == [204, 204, 404]


def test_what_cannot_be_had_refuses_the_experiment(orchestrator: Orchestrator, site: Site) -> None:
    site.pages["/text"] = whole(b"no video at all")
    answers = [orchestrator.post("/experiment", {"clip": clip}) for clip in (
        f"{site.url}/text", "https://elsewhere.example/a.mkv", [f"{site.url}/{number}" for number in range(9)])]
    assert [(answer.status_code, answer.json()["type"]) for answer in answers] == [
        (422, "/problems/not-a-video"), (422, "/problems/clip-not-fetched"), (422, "/problems/clip-not-fetched")]
    assert "at most 8 addresses" in answers[2].json()["detail"]
    assert orchestrator.conservation()["accepted"] == 0


def test_others_are_served_while_a_clip_is_fetched(orchestrator: Orchestrator, site: Site) -> None:
    asked, go_on = threading.Event(), threading.Event()

    def slow(sock: ssl.SSLSocket) -> None:
        asked.set()
        go_on.wait(PATIENCE_S)
        sock.sendall(whole(CLIP))

    site.pages["/slow"] = slow
    answers: list[requests.Response] = []
    submitting = threading.Thread(target=lambda: answers.append(
        requests.post(f"{orchestrator.url}/experiment", json={"clip": f"{site.url}/slow"}, timeout=PATIENCE_S)))
    submitting.start()
    assert asked.wait(PATIENCE_S)
    assert orchestrator.get("/health").status_code == 200  # by the one thread that there is
    go_on.set()
    submitting.join()
    assert answers[0].status_code == 202
