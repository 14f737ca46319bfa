"""Calling the other service: one requests.Session a thread, every wait bounded, errors split by whose fault.

    worker = Client("http://127.0.0.1:8080", key=None)
    try:
        reply = worker.post("/experiment", {"run": run, "attempt": 1, ...}, trace=request.trace)
    except Unreachable:      # surely not delivered: safe to place elsewhere
    except Refused as e:     # answered 3xx, 4xx or 5xx: e.status, e.slug ("stale-attempt"), e.problem, e.retry_after_s
    except Ambiguous:        # may have been delivered: ask GET /experiment/{run} before anything else
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import json
import random
import ssl
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError

from service.http.exchange import Trace
from service.http.fetching import Network
from service.http.parsing import Headers

MAX_ANSWER_BYTES = 64 << 20  # of an answer that is kept in memory; a status with 100,000 frames has 10 MB
_HONOURED_S = 5.0  # longest Retry-After that is waited for here; beyond it the caller decides
_PIECE = 1 << 18
# The other side spoke TLS (or did not) and broke off before any request; other faults of TLS may come later.
_HANDSHAKE = ("CERTIFICATE", "WRONG_VERSION_NUMBER", "HANDSHAKE_FAILURE", "UNSUPPORTED_PROTOCOL", "UNKNOWN_CA",
              "ALERT_PROTOCOL_VERSION", "HTTP_REQUEST")


class ClientError(Exception):
    """A call that did not succeed; one of the three below."""


class Unreachable(ClientError):
    """Surely not delivered: no address, refused, connect time-out, TLS handshake failed."""


class Ambiguous(ClientError):
    """May have been delivered: time-out or reset after the request may have left, or an answer cut short."""


class Refused(ClientError):
    """Delivered and answered with 3xx, 4xx or 5xx."""

    def __init__(self, status: int, problem: dict[str, Any], retry_after_s: float | None = None) -> None:
        super().__init__(f"{status} {problem.get('type', '')}: {problem.get('detail', '')}")
        self.status = status
        self.problem = problem
        self.retry_after_s = retry_after_s

    @property
    def slug(self) -> str:
        """Last part of the problem's type: "stale-attempt"; "" when the answer was not a problem document."""
        return str(self.problem.get("type", "")).rsplit("/", 1)[-1]


@dataclass(frozen=True)
class Reply:
    """A 2xx answer (or 304). `document` is the parsed JSON, None where the body is empty or not JSON."""

    status: int
    headers: Headers
    document: Any
    content: bytes = b""


class _InNetworks(HTTPAdapter):
    """Connects to addresses in some networks only; another one is Unreachable."""

    def __init__(self, networks: Sequence[Network]) -> None:
        self._networks = networks
        super().__init__()

    def init_poolmanager(self, *args: Any, **more: Any) -> None:
        super().init_poolmanager(*args, **more)
        networks = self._networks

        def check(connection: HTTPConnection) -> None:
            address = ipaddress.ip_address(connection.sock.getpeername()[0])
            if not any(address in network for network in networks):
                connection.close()
                raise NewConnectionError(connection, f"{connection.host} is {address}, which is not in "
                                         f"{', '.join(map(str, networks))}")

        class Plain(HTTPConnection):
            def connect(self) -> None:
                super().connect()
                check(self)

        class Secure(HTTPSConnection):
            def connect(self) -> None:
                super().connect()
                check(self)

        plain = type("PlainPool", (HTTPConnectionPool,), {"ConnectionCls": Plain})
        secure = type("SecurePool", (HTTPSConnectionPool,), {"ConnectionCls": Secure})
        self.poolmanager.pool_classes_by_scheme = {"http": plain, "https": secure}


class Client:
    """Calls to one service.  Safe from any thread.

    connect_s, read_s   time-outs; read_s bounds the wait for the answer, and then again for its body
    retries             further tries, with full-jitter back-off, for idempotent calls only: GET and PUT, and POST with
                        idempotent=True.  A POST that was surely not delivered is tried again too.  Retry-After is
                        honoured up to 5 s.
    verify              True, or the path of a CA file; cert: (certificate, key) paths for client certificates
    networks            that the other side's address must be in, looked at on every connection before a request leaves:
                        a name may mean another machine than it did; none: any
    """

    def __init__(self, base_url: str, *, key: str | None = None, connect_s: float = 2.0, read_s: float = 10.0,
                 retries: int = 2, verify: bool | str = True, cert: tuple[str, str] | None = None,
                 networks: Sequence[Network] = (), sleep: Callable[[float], None] = time.sleep) -> None:
        """ValueError when base_url is not http:// or https://."""
        if not base_url.startswith(("http://", "https://")):
            raise ValueError(f"base_url {base_url!r}: http:// or https:// was expected")
        self.base_url = base_url.rstrip("/")
        self._key, self._verify, self._cert = key, verify, cert
        self._connect_s, self._read_s, self._retries, self._sleep = connect_s, read_s, retries, sleep
        self._networks = tuple(networks)
        self._local = threading.local()
        self._sessions: weakref.WeakSet[requests.Session] = weakref.WeakSet()
        self._lock = threading.Lock()

    def get(self, path: str, *, params: Mapping[str, str] | None = None, trace: Trace | None = None,
            headers: Mapping[str, str] | None = None, read_s: float | None = None) -> Reply:
        """GET, tried again when it failed on the way.  Raises ClientError."""
        return self._again(True, lambda: self._call("GET", path, _fields(headers, trace), read_s, params=params))

    def post(self, path: str, document: Any = None, *, idempotent: bool = False, trace: Trace | None = None,
             headers: Mapping[str, str] | None = None, read_s: float | None = None) -> Reply:
        """POST of a JSON document (None: no body).  `idempotent`: the same call twice does what it does once (it has
        an Idempotency-Key, or is fenced), so it may be tried again after Ambiguous and 503.  Raises ClientError."""
        return self._with_json("POST", path, document, idempotent, _fields(headers, trace), read_s)

    def patch(self, path: str, document: Any, *, trace: Trace | None = None) -> Reply:
        """PATCH with a JSON document that says what is to be in the end, so it may be tried again.  Raises
        ClientError."""
        return self._with_json("PATCH", path, document, True, _fields(None, trace), None)

    def _with_json(self, method: str, path: str, document: Any, idempotent: bool, fields: dict[str, str],
                   read_s: float | None) -> Reply:
        body = b""
        if document is not None:
            fields["Content-Type"] = "application/json"
            body = json.dumps(document, ensure_ascii=False, allow_nan=False).encode("utf-8")
        return self._again(idempotent, lambda: self._call(method, path, fields, read_s, data=body))

    def delete(self, path: str, *, trace: Trace | None = None) -> Reply:
        """DELETE, tried again when it failed on the way: a second one finds nothing and is refused with 404, which is
        then no failure.  Raises ClientError."""
        tries = 0

        def once() -> Reply:
            nonlocal tries
            tries += 1
            try:
                return self._call("DELETE", path, _fields(None, trace), None)
            except Refused as error:
                if error.status == 404 and tries > 1:
                    return Reply(204, Headers({}), None)
                raise

        return self._again(True, once)

    def put_file(self, path: str, source: Path, *, sha256: str | None = None, trace: Trace | None = None,
                 headers: Mapping[str, str] | None = None, read_s: float | None = None) -> Reply:
        """Upload a file, streamed; `sha256` (hex) travels as Repr-Digest and is checked by the server."""
        fields = _fields({"Content-Type": "application/octet-stream", **(headers or {})}, trace)
        if sha256 is not None:
            fields["Repr-Digest"] = f"sha-256=:{base64.b64encode(bytes.fromhex(sha256)).decode()}:"

        def once() -> Reply:
            with open(source, "rb") as file:
                # requests sends an empty file chunked; the length is then given by an empty body instead.
                data = file if source.stat().st_size else b""
                return self._call("PUT", path, fields, read_s, data=data)

        return self._again(True, once)

    def download(self, path: str, out: BinaryIO, *, sha256: str | None = None, limit: int = 1 << 40,
                 trace: Trace | None = None, read_s: float | None = None) -> tuple[int, str]:
        """Stream an answer into `out`; -> (bytes, SHA-256 in hex).  Ambiguous when cut short, larger than `limit`, or
        when `sha256` does not match; the caller then discards `out`.  Each wait for bytes is bounded by read_s."""
        digest, length = hashlib.sha256(), 0
        with _faults(), self._send("GET", path, _fields({"Accept": "*/*"}, trace), read_s) as answer:
            if answer.status_code != 200:
                raise _refused(answer, answer.content)
            for piece in answer.iter_content(_PIECE):
                length += len(piece)
                if length > limit:
                    raise Ambiguous(f"GET {path}: the answer is larger than {limit} bytes")
                digest.update(piece)
                out.write(piece)
        if sha256 is not None and digest.hexdigest() != sha256:
            raise Ambiguous(f"GET {path}: SHA-256 is {digest.hexdigest()}, {sha256} was expected")
        return length, digest.hexdigest()

    def close(self) -> None:
        """Close the sessions of every thread."""
        with self._lock:
            for session in list(self._sessions):
                session.close()

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = requests.Session()
            session.trust_env = False  # no proxy and no .netrc of whoever started the service
            session.headers["User-Agent"] = "nvc"
            session.headers["Accept"] = "application/json, application/problem+json, */*;q=0.1"
            session.headers["Accept-Encoding"] = "identity"
            session.verify, session.cert = self._verify, self._cert
            if self._key is not None:
                session.headers["Authorization"] = f"Bearer {self._key}"
            if self._networks:
                session.mount(self.base_url, _InNetworks(self._networks))
            with self._lock:
                self._sessions.add(session)
        return session

    def _send(self, method: str, path: str, headers: Mapping[str, str], read_s: float | None,
              **more: Any) -> requests.Response:
        timeout = (self._connect_s, self._read_s if read_s is None else read_s)
        return self._session().request(method, self.base_url + path, headers=dict(headers), timeout=timeout,
                                       allow_redirects=False, stream=True, **more)

    def _call(self, method: str, path: str, headers: Mapping[str, str], read_s: float | None, **more: Any) -> Reply:
        with _faults(), self._send(method, path, headers, read_s, **more) as answer:
            content = bytearray()
            deadline = time.monotonic() + (self._read_s if read_s is None else read_s)
            # read1 gives what has arrived; to wait for a whole piece would let a body drip for hours
            while piece := answer.raw.read1(_PIECE):
                content += piece
                if len(content) > MAX_ANSWER_BYTES or time.monotonic() > deadline:
                    raise Ambiguous(f"{method} {path}: the answer is larger than {MAX_ANSWER_BYTES} bytes or too slow")
        if not 200 <= answer.status_code < 300 and answer.status_code != 304:
            raise _refused(answer, bytes(content))
        document = None
        if content and "json" in answer.headers.get("Content-Type", ""):
            try:
                document = json.loads(content)
            except ValueError as error:
                raise Ambiguous(f"{method} {path}: the answer is not the JSON it says it is") from error
        return Reply(answer.status_code, Headers(answer.headers.items()), document, bytes(content))

    def _again(self, idempotent: bool, call: Callable[[], Reply]) -> Reply:
        """Try again where that is safe."""
        for attempt in range(self._retries + 1):
            wait_s = random.uniform(0, 0.1 * 2**attempt)  # full jitter: clients that failed together come back apart
            try:
                return call()
            except Unreachable:
                if attempt == self._retries:
                    raise
            except Ambiguous:
                if attempt == self._retries or not idempotent:
                    raise
            except Refused as refused:
                asked_s = refused.retry_after_s or 0.0
                if attempt == self._retries or not idempotent or refused.status not in (429, 502, 503, 504) \
                        or asked_s > _HONOURED_S:
                    raise
                wait_s += asked_s
            self._sleep(wait_s)
        raise AssertionError("the last try returns or raises")


def _fields(headers: Mapping[str, str] | None, trace: Trace | None) -> dict[str, str]:
    fields = dict(headers or {})
    if trace is not None:
        fields["traceparent"] = trace.traceparent
    return fields


def _refused(answer: requests.Response, content: bytes) -> Refused:
    try:
        problem = json.loads(content)
    except ValueError:
        problem = None
    if not isinstance(problem, dict):
        problem = {"status": answer.status_code, "detail": answer.reason or ""}
    after = answer.headers.get("Retry-After", "")
    return Refused(answer.status_code, problem, float(after) if after.isdigit() else None)


@contextmanager
def _faults() -> Iterator[None]:
    """Turn what requests raises into Unreachable or Ambiguous."""
    try:
        yield
    except (requests.RequestException, HTTPError) as error:
        causes = list(_causes(error))
        what = f"{type(error).__name__}: {error}"
        undelivered = any(isinstance(cause, NewConnectionError | ConnectTimeoutError) for cause in causes)
        handshake = any(isinstance(cause, ssl.SSLError) and any(word in str(cause.reason or "") for word in _HANDSHAKE)
                        for cause in causes)
        raise (Unreachable if undelivered or handshake else Ambiguous)(what) from error


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The exception and everything it wraps: __cause__, __context__, urllib3's `reason`, exceptions in args."""
    seen: set[int] = set()
    queue: list[object] = [error]
    while queue:
        item = queue.pop()
        if isinstance(item, BaseException) and id(item) not in seen:
            seen.add(id(item))
            yield item
            queue += [item.__cause__, item.__context__, getattr(item, "reason", None), *item.args]
