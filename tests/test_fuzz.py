"""The parsers that read foreign bytes, fed with what is nearly right: files of tests/corpora/, changed at random.

Whatever comes, a parser gives its result or its own error, and the same one each time. In the suite each sees a few
hundred cases, the same ones every time; `make fuzz` tries new ones for as long as one likes. A case that ever broke a
parser goes into the corpus.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_syntax import sign_again

from coding.interface import BitstreamError
from nvc.stream.reading import parse, recover
from service.http.exchange import Event, requested_wait
from service.http.parsing import HeadLimits, Problem, decode_segment, find_head, read_head, read_json, read_query
from video.files import open_clip
from video.picture import Limits, VideoError

HERE = Path(__file__).resolve().parent
CASES = max(300, settings.default.max_examples if settings.default else 0)  # `make fuzz` sets more
LIMITS = Limits(max_width=4096, max_height=4096, max_pixels=1 << 20, max_frames=1000)
TOKENS = [b"\r\n", b"\n", b"\0", b"\xff" * 4, b"0", b"-1", b"4294967296", b"9" * 20, b" ", b"\t", b":", b",", b"W65535",
          b"F0:0", b"FRAME\n", b"NVC1", b"Content-Length: 1\r\n", b"Transfer-Encoding: chunked\r\n", b"[", b"{", b'"',
          b"\\u", b"%", b"%00", b"/../", b"\xc3\x28"]


def seeds(*patterns: str) -> list[bytes]:
    found = [path.read_bytes() for pattern in patterns for path in sorted(HERE.glob(pattern))]
    assert found
    return found


@st.composite
def changed(draw: st.DrawFn, corpus: list[bytes]) -> bytes:
    """A file of the corpus after up to six small changes."""
    data = bytearray(draw(st.sampled_from(corpus)))
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, len(data)))
        end = min(len(data), at + draw(st.integers(0, 12)))
        kind = draw(st.sampled_from(["set", "insert", "remove", "repeat", "splice", "cut"]))
        if kind == "set":
            data[at:end] = draw(st.binary(min_size=end - at, max_size=end - at))
        elif kind == "insert":
            data[at:at] = draw(st.sampled_from(TOKENS))
        elif kind == "remove":
            del data[at:end]
        elif kind == "repeat":
            data[at:end] = data[at:end] * draw(st.integers(2, 40))
        elif kind == "splice":
            other = draw(st.sampled_from(corpus))
            data[at:] = other[min(at, len(other)):]
        else:
            del data[at:]
    return bytes(data)


STREAMS = seeds("corpora/stream/*.nvc", "streams/*.nvc")
CLIPS = seeds("corpora/y4m/*.seed")
HEADS = seeds("corpora/http/*")
DOCUMENTS = seeds("corpora/json/*.json")


def outcome(read: Callable[[bytes], Any], data: bytes, *errors: type[Exception]) -> Any:
    """What the parser gives, or the words of its own error; anything else breaks the test."""
    try:
        return read(data)
    except errors as error:
        return str(error) or "no words"


def read_stream(data: bytes) -> int:
    stream = parse(data)
    return sum(1 for gop in stream.gops for _ in stream.packets(gop))


def rescue(data: bytes) -> int:
    stream = recover(data)
    return sum(1 for gop in stream.gops for _ in stream.packets(gop))


def read_clip(data: bytes) -> int:
    with open_clip(io.BytesIO(data), limits=LIMITS) as clip:
        return sum(picture.y.size for picture in clip)


def read_request(data: bytes) -> tuple[str, str, int, int]:
    """A head as the server reads it: everything that it takes apart before a handler runs."""
    buffer, limits = bytearray(data), HeadLimits(line=300, total=1000, fields=20)
    size = find_head(buffer, limits)
    if not size:
        return "", "", 0, len(buffer)
    head = read_head(bytes(buffer[:size]), limits)
    for segment in head.path.split("/"):
        decode_segment(segment)
    read_query(head.query)
    wait_s = requested_wait(head.headers, 300.0)
    assert wait_s is None or 0 <= wait_s <= 300
    assert 0 <= head.length < 10**12
    return head.method, head.path, head.length, size


@settings(max_examples=CASES)
@given(changed(STREAMS))
def test_streams(data: bytes) -> None:
    assert outcome(read_stream, data, BitstreamError) == outcome(read_stream, data, BitstreamError)
    outcome(rescue, data, BitstreamError)


@settings(max_examples=CASES)
@given(st.sampled_from(STREAMS), st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(1, 255)), max_size=5))
def test_streams_whose_checks_were_made_to_fit(data: bytes, flips: list[tuple[int, int]]) -> None:
    try:
        whole = parse(data)
    except BitstreamError:
        return
    damaged = bytearray(data)
    for at, bits in flips:
        damaged[at % len(damaged)] ^= bits
    outcome(read_stream, sign_again(whole, damaged), BitstreamError)


@settings(max_examples=CASES)
@given(changed(CLIPS))
def test_clips(data: bytes) -> None:
    if data.startswith(b"YUV4MPEG2 "):  # others go to FFmpeg, whose fuzzing is its own project's
        assert outcome(read_clip, data, VideoError) == outcome(read_clip, data, VideoError)


@settings(max_examples=CASES)
@given(changed(HEADS), st.integers(1, 200))
def test_heads(data: bytes, cut: int) -> None:
    whole = outcome(read_request, data, Problem)
    # In how many pieces it came must not matter: otherwise two readers of one connection would disagree.
    buffer = bytearray()
    for start in range(0, len(data), cut):
        buffer += data[start:start + cut]
        found = outcome(read_request, bytes(buffer), Problem)
        if isinstance(found, str) or found[0]:
            assert isinstance(found, str) == isinstance(whole, str)
            assert isinstance(found, str) or found == whole
            break
    else:
        assert not isinstance(whole, str)
        assert whole[0] == ""


@settings(max_examples=CASES)
@given(changed(DOCUMENTS))
def test_documents(data: bytes) -> None:
    try:
        value = read_json(data)
    except Problem:
        return
    assert value == json.loads(data)  # strict is a part of what the usual reader takes
    assert read_json(json.dumps(value).encode()) == value


@settings(max_examples=100)
@given(st.text(), st.text(), st.text())
def test_events_cannot_be_broken_out_of(name: str, data: str, identity: str) -> None:  # HTML standard, section 9.2.6
    lines = Event(name, data, identity).encode().decode("utf-8", "surrogatepass").split("\n")
    assert lines[-2:] == ["", ""]
    assert [line.partition(":")[0] for line in lines[:2]] == ["id", "event"]
    assert {line.partition(":")[0] for line in lines[2:-2]} == {"data"}


@pytest.mark.parametrize("name", ["stream", "y4m", "http", "json"])
def test_a_corpus_is_small(name: str) -> None:
    files = list((HERE / "corpora" / name).iterdir())
    assert 5 <= len(files) <= 200
    assert sum(path.stat().st_size for path in files) < 1 << 17


def test_headers_of_the_corpus_have_both_ends() -> None:
    read, refused = [], []
    for head in HEADS:
        with contextlib.suppress(Problem):
            read.append(read_request(head))
            continue
        refused.append(head)
    assert (len(read), len(refused)) == (6, 5)
