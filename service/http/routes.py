"""Which handler answers a request, and what is checked before it runs.

The order of the checks is the order in which a client can repair them: is there such an address (404), does it know
the method (405, 501), may this site ask (403, 421), who asks (401, 403), can the answer be taken (406), is the body
acceptable (411, 413, 415).  Only then is a body received.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from service.http.authentication import ROLES, is_loopback
from service.http.exchange import Principal, Request, Response
from service.http.parsing import METHODS, BadMessage, Head, Headers, Problem, decode_segment

Handler = Callable[[Request], Response]


@dataclass(frozen=True)
class Body:
    """What a route takes as its body: at most `limit` bytes (413 beyond), of one of the media types (415 otherwise);
    `stream`: read by the handler with Request.save instead of beforehand."""

    limit: int
    media: tuple[str, ...]
    stream: bool = False


# `curl -d` without a header calls its body application/x-www-form-urlencoded; it is read as JSON all the same.
JSON = Body(256 << 10, ("application/json", "application/x-www-form-urlencoded"))


def json_body(limit: int) -> Body:
    """JSON of up to `limit` bytes."""
    return Body(limit, JSON.media)


def upload(limit: int) -> Body:
    """A body of any type, up to `limit` bytes, streamed to the handler; its Content-Length is required (411)."""
    return Body(limit, ("*/*",), stream=True)


@dataclass(frozen=True)
class Route:
    """One row of the table; see Routes.add."""

    method: str
    pattern: str
    segments: tuple[str, ...]
    handler: Handler
    body: Body | None
    roles: frozenset[str] | None
    waits: bool | Literal["prefer"]
    produces: str
    query: frozenset[str] | None
    always: bool
    is_transfer: Callable[[Request], bool] | None

    @property
    def only_workers(self) -> bool:
        """Whether none but workers have a use for it."""
        return self.roles == {"worker", "admin"}


class Routes:
    """Methods and path patterns -> handlers."""

    def __init__(self) -> None:
        self.table: list[Route] = []

    def add(self, method: str, pattern: str, handler: Handler, *, body: Body | None = None,
            roles: Collection[str] | None = None, waits: bool | Literal["prefer"] = False,
            produces: str = "application/json", query: Collection[str] | None = None, always: bool = False,
            is_transfer: Callable[[Request], bool] | None = None) -> None:
        """Add a route; ValueError for one that makes no sense.

        method    GET, POST, PUT, PATCH or DELETE; HEAD and OPTIONS come by themselves
        pattern   "/experiment/{id}/status": a variable is one whole segment; a literal segment wins over a variable
        body      None: no body; JSON (up to 256 KiB), json_body(limit), or Body(limit, media); upload(limit)
        roles     who may call it, besides admin; None: everyone, without a key
        waits     True: counts as a waiting client, always (event streams); "prefer": only when asked with Prefer: wait
        produces  media type of the answer, for Accept (406); "*/*" for any
        query     names of its query parameters, others are refused (400); a name ending in "*" may be repeated
                  (request.query_all); None: not checked
        always    answered even when the queue is full; without key, at once, touching nothing slow
        is_transfer  says of a request whether its handler waits for something slow: it then counts as a transfer
        """
        if method not in METHODS or method in ("HEAD", "OPTIONS", "CONNECT", "TRACE", "QUERY"):
            raise ValueError(f"route {method} {pattern}: the method is answered by itself, or never")
        if not pattern.startswith("/") or (roles and set(roles) - set(ROLES)):
            raise ValueError(f"route {method} {pattern}: a pattern begins with / and roles are of {ROLES}")
        if any((r.method, r.pattern) == (method, pattern) for r in self.table):
            raise ValueError(f"route {method} {pattern}: added twice")
        self.table.append(Route(method, pattern, tuple(pattern[1:].split("/")), handler, body,
                                None if roles is None else frozenset(roles) | {"admin"}, waits, produces,
                                None if query is None else frozenset(query), always, is_transfer))
        self.table.sort(key=lambda r: [s.startswith("{") for s in r.segments])  # literals before variables

    def find(self, method: str, path: str) -> tuple[Route, dict[str, str]]:
        """-> (route, path variables).  HEAD finds GET.  Raises Problem 404, 405 (with Allow), 501."""
        if method not in METHODS:
            raise Problem(501, "unknown-method", f"the method {method[:20]} is not known (RFC 9110 section 9.1)")
        segments = path[1:].split("/")
        allowed: set[str] = set()
        for route in self.table:
            params = _match(route.segments, segments)
            if params is None:
                continue
            if route.method == method or (route.method == "GET" and method == "HEAD"):
                return route, params
            allowed |= {route.method, "HEAD"} if route.method == "GET" else {route.method}
        if not allowed:
            raise Problem(404, "not-found", f"there is nothing at {path[:200]}")
        raise MethodNotAllowed(method, allowed)


class MethodNotAllowed(Problem):
    """405 with Allow (RFC 9110 section 15.5.6); for OPTIONS the server answers 204 with the same field."""

    def __init__(self, method: str, allowed: Collection[str]) -> None:
        self.allow = ", ".join(sorted({*allowed, "OPTIONS"}))
        super().__init__(405, "method-not-allowed", f"{method} is not possible here; {self.allow} are",
                         headers={"Allow": self.allow})


def _match(pattern: tuple[str, ...], segments: list[str]) -> dict[str, str] | None:
    if len(pattern) != len(segments):
        return None
    params = {}
    for name, raw in zip(pattern, segments, strict=True):
        value = decode_segment(raw)
        if not name.startswith("{"):
            if name != value:
                return None
            continue
        if value in ("", ".", "..") or "/" in value or "\\" in value:  # would name another place once joined to a path
            return None
        params[name[1:-1]] = value
    return params


def check_site(head: Head, hosts: Collection[str] | None) -> None:
    """Refuse what a browser sends on behalf of some other site (the services have no cookies, but may be open to all
    of this machine): 421 for a Host that is not one of `hosts` (a name bound to this address by someone else; RFC 9110
    section 15.5.20), 403 for a change asked for by a page of another origin."""
    name = head.host.rsplit(":", 1)[0] if not head.host.endswith("]") else head.host
    if hosts is not None and name and not is_loopback(name) and name.lower() not in hosts:  # HTTP/1.0 may lack it
        raise Problem(421, "misdirected", f"this service is not {name[:100]}; call it localhost, or allow the name "
                      "with --http-hosts", field="host")
    origin = head.headers.get("origin")
    if origin is not None and head.method not in ("GET", "HEAD", "OPTIONS"):
        try:
            same = urlsplit(origin).netloc.lower() == head.host.lower()
        except ValueError:
            same = False
        if not same:
            raise Problem(403, "cross-origin", "a page of another origin may not change anything here", field="origin")


def check_role(route: Route, principal: Principal) -> None:
    """Problem 403 when the holder's role is not among the route's."""
    if route.roles is not None and principal.role not in route.roles:
        raise Problem(403, "forbidden", f"the role {principal.role!r} may not do this; "
                      f"{' or '.join(sorted(route.roles))} may")


def check_body(route: Route, head: Head, *, spare: int) -> None:
    """411, 413 and 415 for the body that is announced; `spare`: bytes tolerated where none is expected."""
    if route.body is None:
        if head.length > spare:
            raise Problem(413, "body-too-large", f"{route.method} {route.pattern} takes no body; {head.length} bytes "
                          "were announced", field="content-length")
        return
    if route.body.stream and "content-length" not in head.headers:
        raise BadMessage(411, "length-required", "an upload needs a Content-Length (RFC 9110 section 15.5.12)",
                         field="content-length")
    if head.length > route.body.limit:
        raise Problem(413, "body-too-large", f"the body of {head.length} bytes is larger than {route.body.limit}",
                      field="content-length", limit=route.body.limit)
    if head.headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem(415, "unsupported-media-type", "bodies with a Content-Encoding are not taken "
                      "(RFC 9110 section 8.4)", field="content-encoding", headers={"Accept-Encoding": "identity"})
    if head.length:
        _check_media(route.body, head.headers)


def _check_media(body: Body, headers: Headers) -> None:
    kind, _, parameters = headers.get("content-type", "").partition(";")
    kind = kind.strip().lower()
    if kind and "*/*" not in body.media and kind not in body.media and not (
            "application/json" in body.media and kind.startswith("application/") and kind.endswith("+json")):
        raise Problem(415, "unsupported-media-type", f"Content-Type {kind[:80]!r} is not taken; "
                      f"{body.media[0]} was expected (RFC 9110 section 15.5.16)", field="content-type",
                      headers={"Accept": body.media[0]})
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset" and value.strip().strip('"').lower() not in ("utf-8", "utf8", "us-ascii") \
                and "*/*" not in body.media:
            raise Problem(415, "unsupported-media-type", "only UTF-8 is read here", field="content-type")


def check_accept(route: Route, headers: Mapping[str, str]) -> None:
    """406 when the client's Accept leaves the route's media type no chance (RFC 9110 section 12.5.1)."""
    accept = headers.get("accept", "")
    if not accept.strip() or route.produces == "*/*":
        return
    kind = route.produces.split("/")[0] + "/*"
    best: tuple[int, float] = (-1, 0.0)  # the most specific range that matches decides
    for part in accept.split(","):
        name, *parameters = (text.strip().lower() for text in part.split(";"))
        rank = {"*/*": 0, kind: 1, route.produces: 2}.get(name, -1)
        if rank >= best[0] and rank >= 0:
            best = max(best, (rank, _weight(parameters)))
    if best[1] <= 0:
        raise Problem(406, "not-acceptable", f"the answer is {route.produces}, which Accept does not allow",
                      field="accept")


def _weight(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return float(value)
            except ValueError:
                return 1.0
    return 1.0


def check_query(route: Route, query: Mapping[str, list[str]]) -> None:
    """400 for a query parameter that the route does not know, or that is given twice."""
    if route.query is None:
        return
    for name, values in query.items():
        if f"{name}*" in route.query:
            continue
        if name not in route.query:
            known = ", ".join(sorted(n.rstrip("*") for n in route.query)) or "none"
            raise Problem(400, "unknown-parameter", f"the query parameter {name[:60]!r} is not known; known: {known}",
                          field=name[:60])
        if len(values) > 1:
            raise Problem(400, "repeated-parameter", f"the query parameter {name[:60]!r} is given twice",
                          field=name[:60])
