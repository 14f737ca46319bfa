"""Reading what comes over the wire, strictly: the head of a request, the framing of its body, and JSON.

Nothing here touches a socket.  Python's http.server accepts what a proxy in front of it may read differently, and two
readings of one request are how requests are smuggled; so whatever RFC 9112 lets a server refuse is refused here.  Each
check names its clause.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, unquote_to_bytes

MAX_DEPTH = 32  # nesting of JSON; ours needs 5
MAX_INTEGER = 2**53 - 1  # RFC 7493 section 2.2: beyond it, readers of JSON disagree
# Methods that are recognised: 405 where a resource does not have them, others are 501 (RFC 9110 section 15.6.2).  Those
# of RFC 9110 section 9, PATCH (RFC 5789), and QUERY.
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "QUERY")

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]"  # tchar, RFC 9110 section 5.6.2
_START = re.compile(_TOKEN)
_LONG_METHOD = re.compile(_TOKEN + rb"{33}")
_LINE = re.compile(rb"(" + _TOKEN + rb"+) ([\x21-\x7e]+) HTTP/([0-9])\.([0-9])")
_FIELD = re.compile(rb"(" + _TOKEN + rb"+):[ \t]*([\t\x20-\x7e\x80-\xff]*)")
_FORBIDDEN = re.compile(rb"\x00|(?<!\r)\n|\r(?=[^\n])")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]+)(:[0-9]{0,5})?")
_ABSOLUTE = re.compile(r"[Hh][Tt][Tt][Pp][Ss]?://([^/?]*)(.*)")
_LENGTH = re.compile(r"[0-9]{1,12}")
_BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)  # possessive: linear time whatever is sent
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_ONE_KIND = bytes.maketrans(b"{}", b"[]")
_SINGLE = ("host", "content-length", "content-type", "authorization", "expect", "range", "if-range", "origin",
           "idempotency-key")  # fields that two readers would understand differently when sent twice


class Problem(Exception):
    """An answer of 4xx or 5xx, raised anywhere in a handler; becomes application/problem+json (RFC 9457).

    status   400..599
    slug     names the kind, lower case with dashes ("unknown-clip"); `type` becomes "/problems/<slug>"
    detail   one sentence for the caller: what was wrong and what was expected
    field    name of the wrong field of the request document, header or query, where there is one
    headers  extra header fields of the answer, as {"Retry-After": "2"}
    extra    further members of the document
    """

    def __init__(self, status: int, slug: str, detail: str, *, field: str | None = None,
                 headers: Mapping[str, str] | None = None, **extra: Any) -> None:
        super().__init__(f"{status} {slug}: {detail}")
        self.status = status
        self.slug = slug
        self.detail = detail
        self.field = field
        self.headers = dict(headers or {})
        self.extra = extra

    def document(self, *, instance: str, request_id: str) -> dict[str, Any]:
        """The members of RFC 9457 section 3.1, with request_id and, where known, field."""
        document = {"type": f"/problems/{self.slug}", "title": self.slug.replace("-", " ").capitalize(),
                    "status": self.status, "detail": self.detail, "instance": instance, "request_id": request_id}
        if self.field is not None:
            document["field"] = self.field
        return document | self.extra


class BadMessage(Problem):
    """A message whose end is not known for sure: answered, and then the connection is closed (RFC 9112 section 6.3)."""


class Headers(Mapping[str, str]):
    """Header fields, names compared without case.  Repeated fields are joined with ", " (RFC 9110 section 5.3)."""

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in pairs:
            self._values.setdefault(name.lower(), []).append(value)

    def all(self, name: str) -> list[str]:
        """Every value of the field in the order received."""
        return self._values.get(name.lower(), [])

    def __getitem__(self, name: str) -> str:
        return ", ".join(self._values[name.lower()])

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Headers({', '.join(self._values)})"  # names only: values may hold keys


@dataclass(frozen=True)
class HeadLimits:
    """line: bytes of the request line (414); total: bytes of the whole head, fields: number of fields (431)."""

    line: int = 8192  # RFC 9112 section 3 recommends at least 8000
    total: int = 32768
    fields: int = 100


@dataclass(frozen=True)
class Head:
    """The head of a request that passed every check.

    path      as sent, percent-encoded, begins with "/" (or is "*" for OPTIONS); query: as sent, without "?"
    version   (1, 0) or (1, 1); host: of the target or the Host field; length: bytes of body that follow
    """

    method: str
    path: str
    query: str
    version: tuple[int, int]
    headers: Headers
    host: str
    length: int
    expects_continue: bool
    keep_alive: bool


def find_head(buffer: bytearray, limits: HeadLimits) -> int:
    """Bytes of the head at the start of `buffer`, with its empty line; 0 while it is incomplete.

    Raises BadMessage as soon as it is certain that no valid head can come of it, so that a client that waits for its
    answer gets one.  Removes one empty line before the request (RFC 9112 section 2.2).
    """
    if buffer.startswith(b"\r\n"):
        del buffer[:2]
    if not buffer:
        return 0
    found = buffer.find(b"\r\n\r\n")
    size = found + 4 if found >= 0 else len(buffer)
    if not _START.match(buffer) and bytes(buffer) != b"\r":
        raise _bad("the request does not begin with a method (RFC 9112 section 3)")
    bad = _FORBIDDEN.search(buffer, 0, size)
    if bad:
        what = {b"\x00": "a NUL byte", b"\n": "a bare line feed"}.get(bad[0], "a bare carriage return")
        raise _bad(f"{what} in the head; lines end in CR LF (RFC 9112 section 2.2)")
    first = buffer.find(b"\r\n", 0, size)
    if (first if first >= 0 else size) > limits.line:
        if _LONG_METHOD.match(buffer):
            raise BadMessage(501, "unknown-method", "the method is longer than any known (RFC 9112 section 3)")
        raise BadMessage(414, "uri-too-long", f"the request line is longer than {limits.line} bytes")
    if size > limits.total:
        raise BadMessage(431, "head-too-large", f"the head is larger than {limits.total} bytes")
    if found >= 0:
        return size
    if first >= 0:
        _read_line(bytes(buffer[:first]))  # HTTP/0.9 sends nothing more: refuse now, not at the deadline
    return 0


def read_head(data: bytes, limits: HeadLimits) -> Head:
    """Parse a head that find_head has delimited; raises BadMessage (or Problem where the framing is still sound)."""
    line, *lines = data[:-4].split(b"\r\n")
    method, target, version = _read_line(line)
    if len(lines) > limits.fields:
        raise BadMessage(431, "too-many-headers", f"more than {limits.fields} header fields")
    headers = Headers(_read_field(text) for text in lines)
    for name in _SINGLE:
        if len(headers.all(name)) > 1:
            raise _bad(f"{name} is given more than once (RFC 9110 section 5.3)", field=name)
    length = _body_length(headers, version)
    path, query, authority = _read_target(method, target)
    host = _read_host(headers, version, authority)
    expect = headers.get("expect", "").lower()
    if expect not in ("", "100-continue"):
        raise BadMessage(417, "unknown-expectation", "only Expect: 100-continue is known (RFC 9110 section 10.1.1)")
    options = {option.strip().lower() for option in headers.get("connection", "").split(",")}
    keep_alive = "close" not in options and (version >= (1, 1) or "keep-alive" in options)  # RFC 9112 section 9.3
    expects = expect != "" and version >= (1, 1) and length > 0  # an HTTP/1.0 client does not wait for it
    return Head(method, path, query, version, headers, host, length, expects, keep_alive)


def _bad(detail: str, *, field: str | None = None) -> BadMessage:
    return BadMessage(400, "bad-request", detail, field=field)


def _read_line(line: bytes) -> tuple[str, str, tuple[int, int]]:
    match = _LINE.fullmatch(line)
    if match is None:
        raise _bad("the request line is not `METHOD target HTTP/1.1` with single spaces (RFC 9112 section 3)")
    if match[3] != b"1":
        raise BadMessage(505, "http-version", "only HTTP/1.1 and HTTP/1.0 are spoken here (RFC 9110 section 15.6.6)")
    return match[1].decode("ascii"), match[2].decode("ascii"), (1, min(int(match[4]), 1))


def _read_field(line: bytes) -> tuple[str, str]:
    if line[:1] in (b" ", b"\t"):
        raise _bad("a header line begins with white space: line folding is obsolete (RFC 9112 section 5.2)")
    match = _FIELD.fullmatch(line)
    if match is None:
        raise _bad("a header line is not `Name: value`, or holds a control character (RFC 9112 section 5.1)")
    return match[1].decode("ascii"), match[2].decode("latin-1").rstrip(" \t")


def _body_length(headers: Headers, version: tuple[int, int]) -> int:
    """RFC 9112 section 6: bytes of body, from exactly one well-formed Content-Length; 0 without one."""
    coding, length = headers.get("transfer-encoding"), headers.get("content-length")
    if coding is not None and (length is not None or version < (1, 1)):
        raise _bad("Transfer-Encoding beside Content-Length, or in HTTP/1.0 (RFC 9112 section 6.1)",
                   field="transfer-encoding")
    if coding is not None:
        if coding.lower() == "chunked":
            raise BadMessage(411, "length-required", "chunked bodies are not taken; send a Content-Length "
                             "(RFC 9112 section 6.3)", field="content-length")
        raise BadMessage(501, "unknown-transfer-coding", "Transfer-Encoding is not taken (RFC 9112 section 6.1)",
                         field="transfer-encoding")
    if length is None:
        return 0
    if not _LENGTH.fullmatch(length):
        raise _bad("Content-Length is not one number of up to 12 digits (RFC 9112 section 6.3)",
                   field="content-length")
    return int(length)


def _read_target(method: str, target: str) -> tuple[str, str, str | None]:
    """-> (path, query, authority of an absolute target)  RFC 9112 section 3.2"""
    if method == "CONNECT":
        raise BadMessage(501, "not-a-proxy", "CONNECT is for proxies (RFC 9110 section 9.3.6)")
    if "#" in target:
        raise _bad("a request target has no fragment (RFC 9112 section 3.2)")
    authority = None
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute:
        authority, target = absolute[1], absolute[2] or "/"
        if target.startswith("?"):
            target = "/" + target
    if not target.startswith("/") and (target, method) != ("*", "OPTIONS"):
        raise _bad("the request target does not begin with / (RFC 9112 section 3.2)")
    path, _, query = target.partition("?")
    return path, query, authority


def _read_host(headers: Headers, version: tuple[int, int], authority: str | None) -> str:
    host = headers.get("host")
    if host is None and version >= (1, 1):
        raise _bad("Host is missing (RFC 9112 section 3.2)", field="host")
    for value in (host, authority):
        if value is not None and not _HOST.fullmatch(value):
            raise _bad("Host is not a host name with an optional port (RFC 9112 section 3.2)", field="host")
    return authority or host or ""  # an absolute target wins over Host (RFC 9112 section 3.2.2)


def decode_segment(raw: str) -> str:
    """One segment of a path, percent-decoded (RFC 3986 section 2.1); Problem 400 if it is not UTF-8 text."""
    if "%" not in raw:
        return raw
    if _BAD_PERCENT.search(raw):
        raise Problem(400, "bad-path", "a % in the path is not followed by two hex digits (RFC 3986 section 2.1)")
    try:
        text = unquote_to_bytes(raw).decode("utf-8")
    except UnicodeDecodeError:
        raise Problem(400, "bad-path", "the path is not UTF-8") from None
    if any(ord(c) < 32 or ord(c) == 127 for c in text):
        raise Problem(400, "bad-path", "the path holds a control character")
    return text


def read_query(raw: str) -> dict[str, list[str]]:
    """name -> values of a query string; Problem 400 when it is not well-formed UTF-8 or has more than 50 parts."""
    if not raw:
        return {}
    if _BAD_PERCENT.search(raw):
        raise Problem(400, "bad-query", "a % in the query is not followed by two hex digits (RFC 3986 section 2.1)")
    values: dict[str, list[str]] = {}
    try:
        for name, value in parse_qsl(raw, keep_blank_values=True, errors="strict", max_num_fields=50):
            values.setdefault(name, []).append(value)
    except ValueError:  # UnicodeDecodeError is one
        raise Problem(400, "bad-query", "the query is not UTF-8, or has more than 50 parts") from None
    return values


def read_json(body: bytes) -> Any:
    """Strict JSON (RFC 8259 within RFC 7493); raises Problem 400 `invalid-json` that says what is wrong.

    Refused: bytes that are not UTF-8, a byte order mark, duplicate keys, NaN and Infinity, numbers that overflow,
    integers beyond 2**53 - 1, lone surrogates, nesting deeper than 32.
    """
    brackets = _STRING.sub(b"", body).translate(_ONE_KIND, _NOT_BRACKETS)
    for _ in range(MAX_DEPTH):  # each turn takes the innermost level away, at the speed of C
        brackets = brackets.replace(b"[]", b"")
    if b"[]" in brackets:
        raise _not_json(f"nested deeper than {MAX_DEPTH}")
    try:
        text = body.decode("utf-8")
        document = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite,
                              parse_int=_small)
        if _SURROGATE.search(body):
            json.dumps(document, ensure_ascii=False).encode("utf-8")  # a lone surrogate has no UTF-8
    except UnicodeDecodeError:
        raise _not_json("not UTF-8") from None
    except UnicodeEncodeError:
        raise _not_json("a lone surrogate (RFC 7493 section 2.1)") from None
    except json.JSONDecodeError as error:
        raise _not_json(f"{error.msg} at line {error.lineno} column {error.colno}") from None
    except RecursionError:
        raise _not_json(f"nested deeper than {MAX_DEPTH}") from None
    return document


def _not_json(why: str, field: str | None = None) -> Problem:
    return Problem(400, "invalid-json", f"the body is not the JSON that was expected: {why}", field=field)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _not_json(f"the key {twice[:40]!r} is given twice", field=twice[:40])
    return document


def _no_constant(text: str) -> Any:
    raise _not_json(f"{text} is not a number of JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise _not_json(f"the number {text[:40]} is too large")
    return value


def _small(text: str) -> int:
    if len(text) > 17 or abs(int(text)) > MAX_INTEGER:
        raise _not_json(f"the integer {text[:40]} is beyond 2**53 - 1")
    return int(text)


def phrase(status: int) -> str:
    """The reason phrase of a status code, "" for one that is not registered."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
