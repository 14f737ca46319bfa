"""From a well-formed request to the right handler, and from its answer to the right bytes."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from service_rig import Rig, get, post, running

from service.http.exchange import Request, Response, file_response, new_trace
from service.http.parsing import Problem
from service.http.routes import Handler, Routes, upload

DATA = bytes(range(256)) * 4000  # 1,024,000 bytes
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    path: Path = tmp_path_factory.mktemp("files") / "stream.nvc"
    path.write_bytes(DATA)

    def add(routes: Routes, rig: Rig) -> None:
        def answer(body: object, **more: object) -> Handler:
            return lambda request: Response(200, body, **more)  # type: ignore[arg-type]

        def show(request: Request) -> Response:
            return Response(200, {"params": request.params, "query": request.query_all,
                                          "route": request.route, "traceparent": request.trace.traceparent})

        def save(request: Request) -> Response:
            with open("/dev/null", "wb") as out:
                length, sha256 = request.save(out)
            return Response(201, {"bytes": length, "sha256": sha256})

        def full_disk(request: Request) -> Response:
            with open("/dev/full", "wb", buffering=0) as out:
                request.save(out)
            return Response(201)

        def broken(request: Request) -> Response:
            raise RuntimeError("the secret reason")

        def problem(request: Request) -> Response:
            raise Problem(422, "unknown-clip", "clip 'x' is not known; expected one of a, b", field="clip",
                                  headers={"Retry-After": "3"}, known=["a", "b"])

        routes.add("GET", "/items/{id}/parts/{part}", show)
        routes.add("GET", "/items/special/parts/{part}", answer({"special": True}))
        routes.add("DELETE", "/items/{id}/parts/{part}", show)
        routes.add("GET", "/list", show, query=("limit", "tag*"))
        routes.add("GET", "/tagged", answer({"a": 1}, etag=True))
        routes.add("GET", "/versioned", answer({"a": 1}, etag="7"))
        routes.add("GET", "/file", lambda request: file_response(path, SHA256, name="näme.nvc"),
                   produces="*/*")
        routes.add("GET", "/gone", lambda request: file_response(path.with_name("gone"), SHA256))
        routes.add("GET", "/pieces", lambda request: Response(200, iter([b"one", b"", b"two"])),
                   produces="text/plain")
        routes.add("GET", "/text", answer("plain"), produces="text/plain")
        routes.add("GET", "/nan", answer({"psnr": float("nan")}))
        routes.add("GET", "/split", answer({}, headers={"Location": "/a\r\nX: y"}))
        routes.add("GET", "/broken", broken)
        routes.add("GET", "/problem", problem)
        routes.add("PUT", "/upload", save, body=upload(1 << 21))
        routes.add("PUT", "/full", full_disk, body=upload(1 << 21))

    with running(add) as rig:
        yield rig


# --- addresses and methods ------------------------------------------------------------------------------------------


def test_variables_are_decoded(rig: Rig) -> None:
    assert rig.ask(get("/items/a%20b/parts/%C3%A9")).document["params"] == {"id": "a b", "part": "é"}


def test_a_literal_wins_over_a_variable(rig: Rig) -> None:
    assert rig.ask(get("/items/special/parts/1")).document == {"special": True}


def test_another_method_of_the_variable_is_still_found(rig: Rig) -> None:
    assert rig.ask(post("/items/special/parts/1", b"", method="DELETE")).status == 200


@pytest.mark.parametrize("path", [
    "/items", "/items/1/parts/", "/items//parts/1", "/items/../parts/1", "/items/./parts/1", "/items/%2e%2e/parts/1",
    "/items/a%2Fb/parts/1", "/items/a%5Cb/parts/1", "//livez", "/livez/"])
def test_no_such_address(rig: Rig, path: str) -> None:
    assert rig.ask(get(path)).status == 404


@pytest.mark.parametrize("path", ["/items/%/parts/1", "/items/%zz/parts/1", "/items/%ff/parts/1", "/items/%00/parts/1",
                                  "/items/a%0D%0Ab/parts/1", "/list?tag=%ff", "/list?tag=%4",
                                  "/list?" + "&".join("tag=1" for _ in range(60))])
def test_an_address_that_is_no_text(rig: Rig, path: str) -> None:
    assert rig.ask(get(path)).status == 400


def test_wrong_method_names_the_right_ones(rig: Rig) -> None:  # RFC 9110 15.5.6
    answer = rig.ask(post("/items/1/parts/1", b""))
    assert (answer.status, answer.headers["allow"]) == (405, "DELETE, GET, HEAD, OPTIONS")


def test_options_names_them_too(rig: Rig) -> None:  # RFC 9110 9.3.7
    answer = rig.ask(post("/items/1/parts/1", b"", method="OPTIONS"))
    assert (answer.status, answer.headers["allow"]) == (204, "DELETE, GET, HEAD, OPTIONS")


@pytest.mark.parametrize(("method", "status"), [("TRACE", 405), ("QUERY", 405), ("BREW", 501), ("get", 501)])
def test_other_methods(rig: Rig, method: str, status: int) -> None:  # RFC 9110 15.5.6 and 15.6.2
    assert rig.ask(post("/livez", b"", method=method)).status == status


def test_unknown_query_parameter_is_named(rig: Rig) -> None:
    answer = rig.ask(get("/list?limt=3"))
    assert (answer.status, answer.document["field"]) == (400, "limt")


def test_query_parameter_given_twice_is_refused(rig: Rig) -> None:
    assert rig.ask(get("/list?limit=3&limit=4")).status == 400


def test_query_parameter_that_may_repeat(rig: Rig) -> None:
    assert rig.ask(get("/list?tag=a&tag=b+c&limit=")).document["query"] == {"tag": ["a", "b c"], "limit": [""]}


@pytest.mark.parametrize("path", ["/tagged", "/file", "/pieces", "/problem", "/nowhere"])
def test_head_has_the_fields_of_get_and_no_body(rig: Rig, path: str) -> None:  # RFC 9110 9.3.2
    with rig.wire() as wire:
        wire.send(get(path))
        whole = wire.answer()
        wire.send(get(path).replace(b"GET", b"HEAD", 1))
        head = wire.answer(to_head=True)
        wire.send(get("/livez"))
        after = wire.answer()
    assert whole is not None
    assert head is not None
    assert after is not None
    for answer in (whole, head):
        del answer.headers["x-request-id"], answer.headers["date"]
    assert (head.status, head.headers, after.status) == (whole.status, whole.headers, 200)


# --- what may be sent and taken -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=UTF-8", "application/problem+json",
                                  "application/x-www-form-urlencoded", "APPLICATION/JSON"])
def test_json_under_names_that_are_taken(rig: Rig, kind: str) -> None:
    assert rig.ask(post("/echo", b"1", f"Content-Type: {kind}")).document == {"got": 1}


@pytest.mark.parametrize("field", ["Content-Type: text/plain", "Content-Type: multipart/form-data; boundary=x",
                                   "Content-Type: application/json; charset=latin-1", "Content-Type: json",
                                   "Content-Encoding: gzip"])
def test_other_media_types_are_415(rig: Rig, field: str) -> None:  # RFC 9110 15.5.16
    assert rig.ask(post("/echo", b"{}", field)).status == 415


@pytest.mark.parametrize("accept", ["", "*/*", "application/*", "application/json", "text/html, */*;q=0.1",
                                    "text/html;q=1, application/json;q=0.001", "application/json;q=x"])
def test_accept_that_allows_json(rig: Rig, accept: str) -> None:
    assert rig.ask(get("/tagged", f"Accept: {accept}")).status == 200


@pytest.mark.parametrize("accept", ["text/html", "application/json;q=0, */*", "image/*", "application/xml"])
def test_accept_that_does_not_is_406(rig: Rig, accept: str) -> None:  # RFC 9110 15.5.7
    answer = rig.ask(get("/tagged", f"Accept: {accept}"))
    assert (answer.status, answer.headers["content-type"]) == (406, "application/problem+json")


def test_body_beyond_the_routes_limit_is_413(rig: Rig) -> None:  # RFC 9110 15.5.14
    answer = rig.ask(b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1048577\r\n\r\n")
    assert (answer.status, answer.document["limit"]) == (413, 1048576)


def test_body_where_none_is_taken_is_413(rig: Rig) -> None:
    assert rig.ask(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1048577\r\n\r\n").status == 413


@pytest.mark.parametrize("host", ["localhost:9", "127.0.0.1", "[::1]", "LOCALHOST", "x.localhost", "127.9.9.9:80"])
def test_names_of_this_machine(rig: Rig, host: str) -> None:
    assert rig.ask(f"GET /livez HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()).status == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8081", "10.0.0.1"])
def test_a_name_bound_to_loopback_by_a_stranger_is_421(rig: Rig, host: str) -> None:  # RFC 9110 15.5.20
    assert rig.ask(f"GET /livez HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()).status == 421


def test_names_that_are_allowed() -> None:
    with running(http_hosts="codec.example, other") as rig:
        assert rig.ask(b"GET /livez HTTP/1.1\r\nHost: Codec.example:80\r\n\r\n").status == 200
        assert rig.ask(b"GET /livez HTTP/1.1\r\nHost: evil.example\r\n\r\n").status == 421


@pytest.mark.parametrize(("origin", "status"), [("http://evil.example", 403), ("null", 403), ("http://localhost", 200),
                                                ("http://[", 403)])
def test_a_page_of_another_origin_may_not_post(rig: Rig, origin: str, status: int) -> None:
    assert rig.ask(post("/echo", b"1", f"Origin: {origin}")).status == status


# --- problems -------------------------------------------------------------------------------------------------------


def test_a_handlers_problem(rig: Rig) -> None:
    answer = rig.ask(get("/problem"))
    assert answer.status == 422
    assert answer.headers["retry-after"] == "3"
    assert answer.document["type"] == "/problems/unknown-clip"
    assert answer.document["field"] == "clip"
    assert answer.document["known"] == ["a", "b"]
    assert answer.document["instance"] == "/problem"


@pytest.mark.parametrize("path", ["/broken", "/nan", "/split"])
def test_a_fault_of_ours_is_500_without_its_reason(rig: Rig, path: str) -> None:
    answer = rig.ask(get(path))
    assert answer.status == 500
    assert answer.document["type"] == "/problems/internal"
    assert b"secret" not in answer.body
    errors = [line for line in rig.lines() if line["event"] == "handler-failed"]
    assert errors[-1]["request_id"] == answer.document["request_id"]
    assert "Traceback" in errors[-1]["traceback"]


def test_a_file_that_is_gone_is_404(rig: Rig) -> None:
    assert rig.ask(get("/gone")).status == 404


# --- conditions, ranges, digests ------------------------------------------------------------------------------------


def test_the_etag_of_json_is_strong_and_follows_its_bytes(rig: Rig) -> None:
    answer = rig.ask(get("/tagged"))
    assert answer.headers["etag"] == f'"{hashlib.sha256(answer.body).hexdigest()[:32]}"'
    assert answer.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("known", ['"7"', 'W/"7"', '"1", "7"', "*", '"a,b" , W/"7"'])
def test_a_known_etag_is_304(rig: Rig, known: str) -> None:  # RFC 9110 13.1.2
    answer = rig.ask(get("/versioned", f"If-None-Match: {known}"))
    assert (answer.status, answer.body, answer.headers["etag"]) == (304, b"", '"7"')
    assert "content-length" not in answer.headers


@pytest.mark.parametrize("known", ['"8"', "7", '"77"', ""])
def test_another_etag_is_200(rig: Rig, known: str) -> None:
    assert rig.ask(get("/versioned", f"If-None-Match: {known}")).status == 200


@pytest.mark.parametrize(("wanted", "status"), [('"7"', 200), ("*", 200), ('"8"', 412), ('W/"7"', 412)])
def test_if_match(rig: Rig, wanted: str, status: int) -> None:  # RFC 9110 13.1.1
    assert rig.ask(get("/versioned", f"If-Match: {wanted}")).status == status


def test_a_file_whole(rig: Rig) -> None:
    answer = rig.ask(get("/file"))
    digest = base64.b64encode(hashlib.sha256(DATA).digest()).decode()
    assert (answer.status, answer.body == DATA) == (200, True)
    assert answer.headers["etag"] == f'"{SHA256}"'
    assert answer.headers["repr-digest"] == f"sha-256=:{digest}:"  # RFC 9530 3
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["content-disposition"] == \
        'attachment; filename="n_me.nvc"; filename*=UTF-8\'\'n%C3%A4me.nvc'  # RFC 6266 4.3


@pytest.mark.parametrize(("asked", "first", "last"), [
    ("bytes=0-0", 0, 0), ("bytes=10-19", 10, 19), ("bytes=1023999-", 1023999, 1023999), ("bytes=-5", 1023995, 1023999),
    ("bytes=1000000-9999999", 1000000, 1023999), ("bytes=-9999999", 0, 1023999)])
def test_one_range(rig: Rig, asked: str, first: int, last: int) -> None:  # RFC 9110 14.1.2
    answer = rig.ask(get("/file", f"Range: {asked}"))
    assert answer.status == 206
    assert answer.headers["content-range"] == f"bytes {first}-{last}/1024000"
    assert answer.body == DATA[first:last + 1]


@pytest.mark.parametrize("asked", ["bytes=0-1,5-6", "bytes=5-4", "bytes=-", "bytes=x-y", "items=0-1", "bytes 0-1"])
def test_ranges_that_are_passed_over(rig: Rig, asked: str) -> None:  # RFC 9110 14.2
    assert rig.ask(get("/file", f"Range: {asked}")).status == 200


@pytest.mark.parametrize("asked", ["bytes=1024000-", "bytes=99999999-", "bytes=-0"])
def test_ranges_outside_are_416(rig: Rig, asked: str) -> None:  # RFC 9110 15.5.17
    answer = rig.ask(get("/file", f"Range: {asked}"))
    assert (answer.status, answer.headers["content-range"]) == (416, "bytes */1024000")


@pytest.mark.parametrize(("tag", "status"), [(f'"{SHA256}"', 206), ('"old"', 200), (f'W/"{SHA256}"', 200)])
def test_if_range(rig: Rig, tag: str, status: int) -> None:  # RFC 9110 13.1.5
    assert rig.ask(get("/file", "Range: bytes=0-0", f"If-Range: {tag}")).status == status


def test_pieces_are_chunked(rig: Rig) -> None:  # RFC 9112 7.1
    answer = rig.ask(get("/pieces"))
    assert (answer.headers["transfer-encoding"], answer.body) == ("chunked", b"onetwo")


def test_pieces_to_http_1_0_end_with_the_connection(rig: Rig) -> None:
    with rig.wire() as wire:
        wire.send(b"GET /pieces HTTP/1.0\r\n\r\n")
        assert wire.file.read().endswith(b"\r\n\r\nonetwo")


# --- uploads --------------------------------------------------------------------------------------------------------


def test_an_upload_is_hashed_as_it_is_read(rig: Rig) -> None:
    assert rig.ask(post("/upload", DATA, method="PUT")).document == {"bytes": 1024000, "sha256": SHA256}


def test_an_empty_upload(rig: Rig) -> None:
    assert rig.ask(post("/upload", b"", method="PUT")).document["bytes"] == 0


@pytest.mark.parametrize(("body", "status"), [(DATA, 201), (DATA[:-1] + b"?", 400)])
def test_the_digest_a_client_sends_is_checked(rig: Rig, body: bytes, status: int) -> None:  # RFC 9530 2
    digest = base64.b64encode(hashlib.sha256(DATA).digest()).decode()
    assert rig.ask(post("/upload", body, f"Content-Digest: sha-256=:{digest}:", method="PUT")).status == status


def test_a_full_disk_is_507(rig: Rig) -> None:  # RFC 4918 11.5
    answer = rig.ask(post("/full", DATA, method="PUT"))
    assert (answer.status, answer.document["type"]) == (507, "/problems/disk-full")


# --- tracing and the log --------------------------------------------------------------------------------------------

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_a_trace_is_carried_on(rig: Rig) -> None:  # W3C Trace Context 3.2
    answer = rig.ask(get("/list", f"traceparent: {PARENT}"))
    version, trace_id, span_id, flags = answer.document["traceparent"].split("-")
    assert (version, trace_id, flags) == ("00", "0af7651916cd43dd8448eb211c80319c", "01")
    assert span_id == answer.headers["x-request-id"]
    assert rig.lines_of(span_id)[0]["trace_id"] == trace_id


@pytest.mark.parametrize("parent", ["", "x", PARENT.replace("00-", "ff-", 1), PARENT + "-x", PARENT.upper(),
                                    "00-" + "0" * 32 + "-b7ad6b7169203331-01",
                                    "00-0af7651916cd43dd8448eb211c80319c-" + "0" * 16 + "-01"])
def test_an_invalid_trace_is_begun_anew(parent: str) -> None:
    trace = new_trace(parent)
    assert len(trace.trace_id) == 32
    assert (trace.trace_id != "0af7651916cd43dd8448eb211c80319c", trace.parent_id) == (True, None)


def test_a_later_version_of_the_trace_is_understood() -> None:  # W3C Trace Context 3.2.4
    assert new_trace(PARENT.replace("00-", "01-", 1) + "-more").parent_id == "b7ad6b7169203331"


def test_one_line_a_request(rig: Rig) -> None:
    answer = rig.ask(post("/echo", b'{"a":1}'))
    lines = rig.lines_of(answer.headers["x-request-id"])
    assert len(lines) == 1
    expected = {"event": "request", "method": "POST", "path": "/echo", "route": "/echo", "status": 200, "bytes_in": 7,
                "peer": "127.0.0.1", "key": ""}
    assert {name: lines[0][name] for name in expected} == expected


# --- the table ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [
    {"method": "HEAD"}, {"method": "BREW"}, {"pattern": "x"}, {"roles": {"king"}}])
def test_a_route_that_makes_no_sense_is_a_mistake_of_the_program(arguments: dict[str, object]) -> None:
    routes = Routes()
    whole = {"method": "GET", "pattern": "/x", "handler": lambda request: Response()} | arguments
    with pytest.raises(ValueError, match="route"):
        routes.add(**whole)  # type: ignore[arg-type]


def test_a_route_is_added_once() -> None:
    routes = Routes()
    routes.add("GET", "/x", lambda request: Response())
    with pytest.raises(ValueError, match="twice"):
        routes.add("GET", "/x", lambda request: Response())
