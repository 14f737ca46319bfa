"""What an attacker tries first, tried on a deployment whose owner has agreed: each try, what is right, what was seen.

Nothing here harms data: what is submitted is cancelled, what is uploaded is deleted. It does cost the service some
work, and fills its log with refusals.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
import ssl
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import requests

TRICKLES = 32       # uploads at a byte a second, at once
STREAMS = 64        # event streams that are never read, at once
LOOKS = 20          # calls of others meanwhile
ANSWER_S = 2.0      # for each of these
PATIENCE_S = 60.0


def consent(url: str) -> str:
    """The words by which the owner agrees."""
    return f"I may attack {url}"


@dataclass(frozen=True)
class Try:
    """One thing that was tried. `seen` is what came of it."""

    what: str
    right: str
    seen: str
    held: bool

    def line(self) -> str:
        return f"held    {self.what}: {self.seen}" if self.held else f"FAILED  {self.what}: {self.seen}; {self.right}"


class Attack:
    """See above. `key`: of role client, None where the service has no keys."""

    def __init__(self, url: str, key: str | None, verify: bool | str = True) -> None:
        self.url, self.key = url.rstrip("/"), key
        self._session = requests.Session()
        self._session.trust_env, self._session.verify = False, verify
        self._verify = verify

    def run(self) -> Iterator[Try]:
        """Everything, a try after the other. Raises requests.RequestException where the service is not there."""
        self._call("GET", "/livez")
        for part in (self._without_key, self._beyond_its_role, self._others_results, self._paths, self._addresses,
                     self._raw, self._large, self._small_and_large, self._slow):
            yield from part()

    # --- rights

    def _without_key(self) -> Iterator[Try]:
        if self.key is None:
            yield Try("no key", "", "the service has no keys: anyone who reaches it may use it", True)
            return
        for name, given in (("no key", None), ("a made-up key", "nck_0123456789_" + secrets.token_hex(16)),
                            ("an unsigned token", "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIiwicm9sZSI6ImFkbWluIn0.")):
            status = self._call("POST", "/experiment", json={}, key=given).status_code
            yield Try(f"{name} submits", "401 was expected", str(status), status == 401)

    def _beyond_its_role(self) -> Iterator[Try]:
        if self.key is None:
            return
        for method, path, document in (
                ("POST", "/workers", {"name": "attacker", "url": "http://127.0.0.1:1", "slots": 1}),
                ("POST", "/experiment_result", {"run": "exp_1_abcdef", "attempt": 1, "state": "failed"}),
                ("PUT", f"/artifacts/{'ab' * 32}", None), ("POST", "/workers/x/drain", {})):
            status = self._call(method, path, json=document).status_code
            yield Try(f"a client's key at {method} {path[:20]}", "403 was expected", str(status), status == 403)

    def _others_results(self) -> Iterator[Try]:
        name = self._call("POST", "/experiment", json={"frames": 1, "tags": {"check": "attack"}}).json().get(
            "experiment_id")
        if name is None:
            yield Try("a result is forged", "", "nothing could be submitted to try it on", True)
            return
        for attempt in (1, 2, 2**40):
            end = {"run": name, "attempt": attempt, "state": "completed", "secret": "x" * 40,
                   "result": {"metrics": {"psnr_db": 99.9}}}
            status = self._call("POST", "/experiment_result", json=end).status_code
            yield Try(f"a result of attempt {attempt} is forged", "403, 404 or 409 was expected", str(status),
                      status in (401, 403, 404, 409))
        self._call("POST", f"/experiment/{name}/cancel", json={})

    # --- what a request may say

    def _paths(self) -> Iterator[Try]:
        up = "..%2f" * 8
        for method, path in (("GET", f"/experiment/x/artifacts/{up}etc%2fpasswd"), ("GET", f"/page/{up}etc%2fpasswd"),
                             ("GET", f"/clips/{up}etc%2fpasswd/data"), ("PUT", f"/clips/{up}tmp%2fx")):
            answer = self._call(method, path, data=b"x" if method == "PUT" else None)
            held = 400 <= answer.status_code < 500 and b"root:" not in answer.content
            yield Try(f"{method} of a path that leads out", "a 4xx was expected", str(answer.status_code), held)

    def _addresses(self) -> Iterator[Try]:
        for address in ("https://169.254.169.254/latest/meta-data/", "https://127.0.0.1:8081/metrics", "https://[::1]/",
                        "https://user:secret@example.org/a.mkv", "s3://id:secret@bucket/key", "file:///etc/passwd"):
            answer = self._call("POST", "/experiment", json={"clip": address})
            yield Try(f"a clip at {address}", "422 was expected", str(answer.status_code), answer.status_code == 422)

    def _raw(self) -> Iterator[Try]:
        host = urlsplit(self.url).netloc
        head = f"POST /experiment HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        for what, request in {
            "two lengths": f"{head}Content-Length: 2\r\nContent-Length: 20\r\n\r\n{{}}",
            "a length and chunks": f"{head}Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "a broken chunk": f"{head}Transfer-Encoding: chunked\r\n\r\nzz\r\n",
            "a line feed in a field": f"{head}X: a\nY: b\r\nContent-Length: 2\r\n\r\n{{}}",
            "a megabyte of fields": f"{head}X: {'a' * (1 << 20)}\r\n\r\n",
            "ten gigabytes of JSON, announced": f"{head}Content-Length: 10000000000\r\n\r\n",
        }.items():
            first = self._send(request.encode())
            held = first == b"" or first.split(b" ")[1:2] in ([b"400"], [b"401"], [b"413"], [b"431"], [b"411"])
            yield Try(what, "a 4xx, or no answer, was expected", first[:40].decode("latin-1") or "closed", held)

    def _large(self) -> Iterator[Try]:
        digits = b'{"frames": ' + b"9" * 10**6
        for what, body in (("arrays in arrays", b"[" * 100_000), ("a number of a million digits", digits),
                           ("a name that is no text", b'{"clip": "\\ud800"}')):
            status = self._call("POST", "/experiment", data=body,
                                headers={"Content-Type": "application/json"}).status_code
            yield Try(what, "400, 413 or 422 was expected", str(status), status in (400, 413, 422))

    # --- what costs the service more than the attacker

    def _small_and_large(self) -> Iterator[Try]:
        """A picture of a few kilobytes that says it is 8192×4288, several at a time."""
        name = f"attack-{secrets.token_hex(4)}.png"
        began = time.monotonic()
        status = self._call("PUT", f"/clips/{name}", data=flat_png(8192, 4288)).status_code
        took = time.monotonic() - began
        yield Try("a small file of a large picture", f"an answer within {PATIENCE_S:g} s was expected",
                  f"{status} after {took:.1f} s", status < 600 and took < PATIENCE_S)
        if status in (200, 201):
            self._call("DELETE", f"/clips/{name}")

    def _slow(self) -> Iterator[Try]:
        """Uploads that trickle and streams that nobody reads, while others go on."""
        name = self._call("POST", "/experiment", json={"frames": 1, "tags": {"check": "attack"}}).json().get(
            "experiment_id", "x")
        host, key = urlsplit(self.url).netloc, f"Authorization: Bearer {self.key}\r\n" if self.key else ""
        with contextlib.ExitStack() as stack:
            held = 0
            for number in range(TRICKLES + STREAMS):
                fields = f" HTTP/1.1\r\nHost: {host}\r\n{key}"
                request = (f"PUT /clips/attack-{number}{fields}Content-Length: 1000000\r\n\r\nx" if number < TRICKLES
                           else f"GET /experiment/{name}/events{fields}\r\n")
                with contextlib.suppress(OSError):
                    stack.enter_context(self._connect()).sendall(request.encode())
                    held += 1
            worst = 0.0
            for _ in range(LOOKS):
                worst = max(worst, self._seconds(lambda: self._call("GET", "/experiments?limit=1")))
        yield Try(f"{held} slow connections, and others go on", f"each within {ANSWER_S:g} s was expected",
                  f"the slowest of {LOOKS} answers took {worst:.2f} s", worst <= ANSWER_S)
        if name != "x":
            self._call("POST", f"/experiment/{name}/cancel", json={})

    # --- small parts

    def _seconds(self, call: Callable[[], object]) -> float:
        began = time.monotonic()
        call()
        return time.monotonic() - began

    def _call(self, method: str, path: str, *, key: str | None = "", headers: dict[str, str] | None = None,
              **more: Any) -> requests.Response:
        """`key`: "" for the own one, None for none."""
        shown = self.key if key == "" else key
        fields = {**(headers or {}), **({"Authorization": f"Bearer {shown}"} if shown else {})}
        # prepared by hand: requests would take dots out of the path
        request = self._session.prepare_request(requests.Request(method, self.url, headers=fields, **more))
        request.url = self.url + path
        return self._session.send(request, timeout=PATIENCE_S, allow_redirects=False)

    def _connect(self) -> socket.socket:
        parts = urlsplit(self.url)
        plain = socket.create_connection((parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)),
                                         timeout=10.0)
        if parts.scheme != "https":
            return plain
        context = ssl.create_default_context(cafile=self._verify if isinstance(self._verify, str) else None)
        return context.wrap_socket(plain, server_hostname=parts.hostname)

    def _send(self, request: bytes) -> bytes:
        """The first line of the answer to raw bytes; b"" where the connection was closed, or nothing came."""
        with contextlib.suppress(OSError), self._connect() as connection:
            with contextlib.suppress(OSError):      # refused before all of it was sent: the answer is there
                connection.sendall(request)
            return connection.makefile("rb").readline()
        return b""


def flat_png(width: int, height: int) -> bytes:
    """A PNG of one bit a pixel, all of them black."""
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    lines = zlib.compress(bytes(1 + -(-width // 8)) * height, 9)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
            + chunk(b"IDAT", lines) + chunk(b"IEND", b""))


def attack(url: str, key: str | None, verify: bool | str, say: Callable[[str], object]) -> bool:
    """Try everything; whether all of it held. Raises requests.RequestException."""
    tries = []
    for one in Attack(url, key, verify).run():
        say(one.line())
        tries.append(one)
    failed = sum(not one.held for one in tries)
    say(json.dumps({"tried": len(tries), "failed": failed}))
    return not failed
