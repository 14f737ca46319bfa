"""Answers as they are sent: bodies in bytes, conditional requests (RFC 9110 section 13), ranges (section 14), digests
(RFC 9530), problems (RFC 9457)."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from service.http.exchange import Request, Response, dumps
from service.http.parsing import Problem

PROBLEM_TYPE = "application/problem+json"
_ETAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')
_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_OURS = ("content-length", "transfer-encoding", "connection", "date", "server", "x-request-id")


class Fields(dict[str, str]):
    """Header fields of an answer; setdefault compares names without case."""

    def setdefault(self, name: str, value: str = "") -> str:
        """Add the field where it is not given in any spelling."""
        for known in self:
            if known.lower() == name.lower():
                return self[known]
        self[name] = value
        return value


@dataclass
class Answer:
    """What is sent: status and header fields, then one of body, `size` bytes of `file` from `start`, or pieces.
    For HEAD the fields describe a body that is not sent."""

    status: int
    headers: dict[str, str]
    body: bytes = b""
    file: BinaryIO | None = None
    start: int = 0
    size: int = 0
    pieces: Iterator[bytes] | None = None
    slug: str = ""

    def close(self) -> None:
        """Let go of the file or generator."""
        if self.file is not None:
            self.file.close()
        close = getattr(self.pieces, "close", None)
        if close is not None:
            close()


def render(request: Request, response: Response) -> Answer:
    """The answer to send; raises Problem (412, 416), ValueError for a header that would break the framing."""
    headers = Fields(response.headers)
    answer = Answer(response.status, headers)
    body = response.body
    if isinstance(body, dict | list):
        answer.body = dumps(body).encode("utf-8") + b"\n"
        headers.setdefault("Content-Type", "application/json")
    elif isinstance(body, str):
        answer.body = body.encode("utf-8")
        headers.setdefault("Content-Type", "text/plain; charset=utf-8")
    elif isinstance(body, Path):
        answer.file, answer.size = _open(body)
        headers.setdefault("Content-Type", "application/octet-stream")
    elif isinstance(body, bytes):
        answer.body = body
        headers.setdefault("Content-Type", "application/octet-stream")
    elif body is not None:
        answer.pieces = iter(body)
        headers.setdefault("Content-Type", "application/octet-stream")
    try:
        _validate(headers)
        if request.method == "GET" and response.status == 200 and answer.pieces is None:
            _conditions(request, response, answer)
    except (Problem, ValueError):
        answer.close()
        raise
    headers.setdefault("Cache-Control", "no-cache" if "ETag" in headers else "no-store")
    return answer


def render_problem(problem: Problem, *, instance: str, request_id: str) -> Answer:
    """A problem as an answer."""
    document = problem.document(instance=instance, request_id=request_id)
    headers = Fields({"Content-Type": PROBLEM_TYPE, "Cache-Control": "no-store"} | problem.headers)
    _validate(headers)
    return Answer(problem.status, headers, dumps(document).encode("utf-8", "replace") + b"\n", slug=problem.slug)


def _conditions(request: Request, response: Response, answer: Answer) -> None:
    """ETag, Repr-Digest, If-Match, If-None-Match, Range and If-Range, in the order of RFC 9110 section 13.2.2."""
    headers, tag = answer.headers, None
    if response.sha256 is not None:
        tag = f'"{response.sha256}"'
        digest = base64.b64encode(bytes.fromhex(response.sha256)).decode()
        headers["Repr-Digest"] = f"sha-256=:{digest}:"
    elif response.etag is True:
        tag = f'"{hashlib.sha256(answer.body).hexdigest()[:32]}"'
    elif response.etag:
        tag = f'"{response.etag}"'
    if tag is not None:
        headers["ETag"] = tag
    wanted = request.headers.get("if-match")
    if wanted is not None and wanted.strip() != "*" and tag not in _ETAG.findall(wanted):
        raise Problem(412, "precondition-failed", "If-Match names another version (RFC 9110 section 13.1.1)",
                      field="if-match", headers={} if tag is None else {"ETag": tag})
    known = request.headers.get("if-none-match")
    if known is not None and tag is not None and (
            known.strip() == "*" or tag in (t.removeprefix("W/") for t in _ETAG.findall(known))):
        answer.close()
        for name in ("Content-Type", "Content-Disposition", "Repr-Digest"):
            headers.pop(name, None)
        answer.status, answer.body, answer.file, answer.size = 304, b"", None, 0
        return
    if answer.file is not None:
        headers["Accept-Ranges"] = "bytes"
        asked = request.headers.get("range")
        if asked is not None and not request.head and request.headers.get("if-range", tag) == tag:
            _range(asked, answer)


def _range(asked: str, answer: Answer) -> None:
    """One byte range (RFC 9110 section 14.1.2); several, or malformed ones, are ignored as section 14.2 allows."""
    match = _RANGE.fullmatch(asked.replace(" ", ""))
    if match is None or (match[1] == "" == match[2]) or (match[1] and match[2] and int(match[2]) < int(match[1])):
        return
    size = answer.size
    if match[1]:
        first, last = int(match[1]), min(int(match[2] or size - 1), size - 1)
    else:
        first, last = max(size - int(match[2]), 0), size - 1  # the last n bytes
        if match[2].strip("0") == "":
            first = size
    if first >= size:
        raise Problem(416, "range-not-satisfiable", f"the range {asked[:60]} lies outside of {size} bytes",
                      field="range", headers={"Content-Range": f"bytes */{size}"})
    answer.status = 206
    answer.headers["Content-Range"] = f"bytes {first}-{last}/{size}"
    answer.start, answer.size = first, last - first + 1


def _open(path: Path) -> tuple[BinaryIO, int]:
    try:
        file = open(path, "rb", buffering=0)  # noqa: SIM115  closed by Answer.close
    except FileNotFoundError:
        raise Problem(404, "not-found", "the file is not there any more") from None
    about = os.fstat(file.fileno())
    if not stat.S_ISREG(about.st_mode):
        file.close()
        raise Problem(404, "not-found", "there is no such file")
    return file, about.st_size


def _validate(headers: dict[str, str]) -> None:
    """ValueError for a field that the server writes itself, or that would end early and begin another (RFC 9112 section
    11.1, response splitting)."""
    for name, value in headers.items():
        if name.lower() in _OURS:
            raise ValueError(f"header {name!r} is written by the server")
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise ValueError(f"header {name!r} cannot be sent: {value!r}")
