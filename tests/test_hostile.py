"""Payloads that no encoder wrote, under checks that hold: the decoder gives pictures or BitstreamError, in any case."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import codec
from coding.interface import BitstreamError
from nvc.stream.reading import parse
from nvc.stream.syntax import Packet
from nvc.stream.writing import Writer

STREAM = (Path(__file__).resolve().parent / "streams/scene-cut.nvc").read_bytes()
NVC = codec.get("nvc")


def rewritten(change) -> bytes:
    """The stream with each packet passed through `change`; index, checks and hash made anew."""
    stream = parse(STREAM)
    writer = Writer(stream.header)
    for gop in stream.gops:
        for packet in stream.packets(gop):
            writer.add(change(packet))
    return writer.finish()


def outcome(data: bytes) -> int | str:
    """Number of pictures decoded, or the refusal."""
    try:
        return sum(1 for _ in NVC.decode(data))
    except BitstreamError as error:
        return str(error)


def test_the_stream_itself_survives_being_rewritten() -> None:
    assert rewritten(lambda packet: packet) == STREAM


@settings(max_examples=40)
@given(st.data())
def test_damaged_payloads_give_pictures_or_a_refusal(data: st.DataObject) -> None:
    victim = data.draw(st.integers(0, 11), label="picture")
    noise = data.draw(st.binary(min_size=0, max_size=300), label="bytes")
    start = data.draw(st.integers(0, 80), label="kept bytes")

    def change(packet: Packet) -> Packet:
        return replace(packet, payload=bytes(packet.payload[:start]) + noise) if packet.number == victim else packet

    answer = outcome(rewritten(change))
    assert answer == 12 or "longer than its bytes" in str(answer)


@pytest.mark.parametrize("q", [0, 127])
def test_any_step_gives_pictures_or_a_refusal(q: int) -> None:
    answer = outcome(rewritten(lambda packet: replace(packet, q=q)))
    assert answer == 12 or "longer than its bytes" in str(answer)


def test_empty_payloads_are_refused_or_decode_to_grey() -> None:
    answer = outcome(rewritten(lambda packet: replace(packet, payload=b"")))
    assert answer == 12 or "longer than its bytes" in str(answer)
