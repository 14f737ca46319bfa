"""The stream NVC1: literal bytes, round trips, and what damage, truncation and malice do to a reader."""

from __future__ import annotations

import hashlib
import pickle
import random
import re
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coding import interface
from nvc.encoder.sources.structure import Planner, gops, schedule
from nvc.motion.weighting import Weight
from nvc.stream import syntax
from nvc.stream.coding_order import CodedOrder
from nvc.stream.crc32c import crc32c
from nvc.stream.errors import BitstreamError
from nvc.stream.fields import Cursor, Field, varint
from nvc.stream.reading import Stream, locate, parse, recover
from nvc.stream.syntax import Header, Packet
from nvc.stream.writing import GopWriter, Writer
from video import picture

HEADER = Header(model=b"\x01\x02\x03\x04\x05\x06\x07\x08", width=176, height=144, fps=Fraction(30000, 1001))


def order_of(frames: int, structure: str = "random_access", period: int = 64, **options: int) -> list[Packet]:
    """Packets without payloads, in the order that encoders use."""
    units = []
    for first, pictures in gops(((n, False) for n in range(frames)), structure, period):
        units += [u for batch in schedule(pictures, Planner(structure, first, **options)) for u, _ in batch]
    return [Packet(u.number, u.type, u.references, 40) for u in units]


def stream_of(packets: list[Packet], header: Header = HEADER) -> bytes:
    writer = Writer(header)
    for packet in packets:
        writer.add(packet)
    return writer.finish()


def small_stream() -> bytes:
    """Two GOPs, 4 and 2 pictures, payloads of a few bytes."""
    header = replace(HEADER, intra_period=4)
    packets = order_of(6, period=4)
    return stream_of([replace(p, payload=b"LAT") for p in packets], header)


def sign_again(stream: Stream, data: bytearray) -> bytes:
    """Give changed bytes checks and a hash that fit, as an attacker would."""
    end = stream.gops[0].offset - 4
    data[end : end + 4] = crc32c(data[:end]).to_bytes(4, "little")
    for gop in stream.gops:
        end = gop.offset + gop.size - 4
        data[end : end + 4] = crc32c(data[gop.offset : end]).to_bytes(4, "little")
    return bytes(data[:-32]) + hashlib.sha256(data[:-32]).digest()


def content(packets: list[Packet]) -> list[tuple[int, str, tuple[int, ...], int, bytes, tuple[Weight, ...]]]:
    return [(p.number, p.type, p.references, p.q, bytes(p.payload), p.weights) for p in packets]


def all_packets(stream: Stream) -> list[Packet]:
    return [packet for gop in stream.gops for packet in stream.packets(gop)]


# --- The check --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "check"),
    [
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
        (
            bytes.fromhex(
                "01c00000000000000000000000000000140000000000040000000014000000182800000000000000"
                "0200000000000000"
            ),
            0xD9963A56,
        ),
    ],
)
def test_crc32c_gives_the_values_of_rfc_3720_b_4(data: bytes, check: int) -> None:
    assert crc32c(data) == check


@given(st.binary(max_size=200))
def test_crc32c_is_polynomial_division(data: bytes) -> None:
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ 0x82F63B78 * (register & 1)
    assert crc32c(data) == register ^ 0xFFFFFFFF


# --- Bytes ------------------------------------------------------------------------------------------------------------


def test_the_smallest_stream_is_these_bytes() -> None:
    packet = Packet(0, "I", (), q=40, payload=b"\xaa\xbb")
    assert stream_of([packet]).hex(" ") == (
        "4e 56 43 31 06 01 02 03 04 05 06 07 08"  # magic, version, model
        " b0 01 90 01 b0 ea 01 e9 07"  # 176, 144, 30000, 1001
        " 00 00 01 02 40 00"  # bt601, limited, 1 picture, random_access, period 64, shown as usual
        " 8d 3e 44 dc"  # CRC-32C
        " 47 4f 50 00 28 02 aa bb"  # GOP, first 0, q 40, 2 bytes of payload
        " 45 27 5f c8 f3"  # E, CRC-32C
        " 58 01 01 0d 04 00 00 00"  # X, 1 GOP, 1 picture, 13 bytes; the index has 4 bytes
        " aa 03 e7 24 b3 26 ca e1 4f 5c b5 4f f7 ee c0 1f 01 f8 1b e1 b5 33 22 31 0c 3a 70 72 dd 2a 65 41"  # SHA-256
    )


def test_weights_follow_the_references() -> None:
    packets = [Packet(0, "I", (), 40), Packet(1, "P", (0,), 40, weights=(Weight(160, -3),))]
    data = stream_of(packets)
    gop = parse(data).gops[0]
    assert data[gop.offset : gop.offset + gop.size - 4].hex(" ") == (
        "47 4f 50 00 28 00"  # GOP, first 0, q 40, no payload
        " a5 01 02 a0 7d 28 00"  # P 1 in full, with weights: one before it; gain 160, offset 125 - 128; q 40
        " 45"
    )


def test_a_mini_gop_takes_one_head_byte_a_picture() -> None:
    data = stream_of(order_of(9))
    gop = parse(data).gops[0]
    assert data[gop.offset : gop.offset + gop.size - 4].hex(" ") == (
        "47 4f 50 00 28 00"  # GOP, first 0, q 40, no payload
        " 8e 28 00"  # P, 8 further on
        " c6 28 00"  # B between 0 and 8
        " c2 28 00 c2 28 00"  # 2, 6
        " c0 28 00 c0 28 00 c0 28 00 c0 28 00"  # 1, 3, 5, 7
        " 45"
    )


def test_a_picture_that_codes_nothing_takes_3_bytes() -> None:
    stream = parse(stream_of(order_of(64)))
    assert {packet.size for packet in all_packets(stream) if packet.type != "I"} == {3}


def test_overhead_is_3_percent_at_130_bytes_a_picture() -> None:
    packets = [replace(p, payload=bytes({"I": 1500, "P": 340, "B": 65}[p.type])) for p in order_of(96)]
    payload = sum(len(p.payload) for p in packets)
    assert (payload, len(stream_of(packets))) == (12410, 12804)  # 129 bytes a picture, 3.2 %


def test_the_hash_is_that_of_all_bytes_before_it() -> None:
    data = small_stream()
    assert data[-32:] == hashlib.sha256(data[:-32]).digest()


# --- The specification ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", syntax.HEADER_FIELDS, ids=lambda field: field.name)
def test_the_specification_states_each_header_field_with_its_range(field: Field) -> None:
    (row,) = re.findall(rf"^    \| {field.name} .*$", syntax.__doc__ or "", re.MULTILINE)
    if field.kind == "name":
        expected = [f"0…{len(field.names) - 1}", ", ".join(field.names)]
    elif field.kind == "bytes":
        expected = [f"{field.high} bytes"]
    elif field.low == field.high:
        expected = [f" {field.low} "]
    else:
        expected = [f"{field.low}…{field.high}"]
    assert [text for text in expected if text not in row] == []


def test_the_stream_can_carry_every_matrix_range_and_structure_that_clips_and_settings_have() -> None:
    assert set(syntax.MATRIX_NAMES) == set(picture.MATRICES)
    assert set(syntax.RANGE_NAMES) == set(picture.RANGES)
    assert set(syntax.STRUCTURE_NAMES) == set(interface.STRUCTURES)


# --- Round trips ------------------------------------------------------------------------------------------------------

payloads = st.binary(max_size=300)


@given(
    st.sampled_from(["intra", "low_delay", "random_access"]),
    st.integers(1, 40),
    st.integers(1, 20),
    st.sampled_from([1, 2, 4, 8, 16]),
    st.integers(1, 2),
    st.data(),
)
def test_what_was_written_is_read(
    structure: str, frames: int, period: int, mini_gop: int, references: int, data: st.DataObject
) -> None:
    header = replace(HEADER, structure=structure, intra_period=period)
    packets = [
        replace(
            packet,
            q=data.draw(st.integers(0, 127)),
            payload=data.draw(payloads),
        )
        for packet in order_of(frames, structure, period, mini_gop=mini_gop, past_references=references)
    ]
    stream = parse(stream_of(packets, header))
    assert content(all_packets(stream)) == content(packets)
    assert stream.header == replace(header, frames=frames)
    assert stream.missing == []


a_weight = st.builds(Weight, st.integers(0, 255), st.integers(-128, 127))


@given(st.permutations(range(1, 12)), st.data())
def test_any_order_with_any_references_is_read_as_it_was_written(order: list[int], data: st.DataObject) -> None:
    packets, coded = [Packet(0, "I", (), 0)], [0]
    for number in order:
        references = data.draw(st.lists(st.sampled_from(coded), min_size=1, max_size=2, unique=True))
        weights = data.draw(st.just(()) | st.tuples(*[a_weight] * len(references)))
        packets.append(Packet(number, data.draw(st.sampled_from("PB")), tuple(references), 7, weights=weights))
        coded.append(number)
    assert content(all_packets(parse(stream_of(packets)))) == content(packets)


@given(
    st.builds(
        Header,
        model=st.binary(min_size=8, max_size=8),
        width=st.integers(1, 8192),
        height=st.integers(1, 4096),
        fps=st.builds(Fraction, st.integers(1, 2**32 - 1), st.integers(1, 2**32 - 1)),
        matrix=st.sampled_from(syntax.MATRIX_NAMES),
        range=st.sampled_from(syntax.RANGE_NAMES),
        structure=st.sampled_from(syntax.STRUCTURE_NAMES),
        intra_period=st.integers(1, 65535),
    )
)
def test_every_header_is_read_as_it_was_written(header: Header) -> None:
    assert parse(stream_of([Packet(0, "I", (), 0)], header)).header == header


@given(st.integers(0, 2**32 - 1))
def test_every_varint_is_read_as_it_was_written(value: int) -> None:
    cursor = Cursor(memoryview(varint(value)))
    assert (cursor.varint("value"), cursor.position) == (value, len(cursor.data))


def test_gops_written_apart_make_the_same_stream() -> None:
    header = replace(HEADER, intra_period=8)
    packets = order_of(20, period=8)
    whole = Writer(header)
    for start in range(0, 20, 8):
        part = GopWriter(header)
        for packet in packets[start : start + 8]:
            part.add(packet)
        whole.add_gop(part.first, part.pictures, part.finish())
    assert whole.finish() == stream_of(packets, header)


def test_the_writer_says_how_many_bytes_a_picture_took() -> None:
    writer = Writer(HEADER)
    sizes = [writer.add(packet) for packet in order_of(9)]
    assert sizes == [packet.size for packet in all_packets(parse(writer.finish()))] == [6, 3, 3, 3, 3, 3, 3, 3, 3]


def test_the_reader_says_after_which_picture_a_reference_is_needed_no_more() -> None:
    packets = all_packets(parse(stream_of(order_of(5, mini_gop=4))))
    assert [(p.number, p.references, p.drop) for p in packets] == [
        (0, (), ()),
        (4, (0,), ()),
        (2, (0, 4), ()),
        (1, (0, 2), (0, 1)),
        (3, (2, 4), (2, 4, 3)),
    ]


def test_the_index_alone_tells_where_gops_are() -> None:
    data = small_stream()
    assert locate(data) == parse(data)
    assert [(gop.first, gop.pictures) for gop in locate(data).gops] == [(0, 4), (4, 2)]


# --- Damage -----------------------------------------------------------------------------------------------------------


def test_every_changed_byte_is_found() -> None:
    data = small_stream()
    for position in range(len(data)):
        changed = bytearray(data)
        for value in range(256):
            changed[position] = value
            if value != data[position]:
                with pytest.raises(BitstreamError) as caught:
                    parse(changed)
                assert 0 <= caught.value.offset <= len(data)


def test_every_truncation_is_found() -> None:
    data = small_stream()
    for length in range(len(data)):
        with pytest.raises(BitstreamError):
            parse(data[:length])
        with pytest.raises(BitstreamError):
            locate(data[:length])


def test_bytes_after_the_end_are_refused() -> None:
    data = small_stream()
    with pytest.raises(BitstreamError, match="3 bytes after the end") as caught:
        parse(data + b"abc")
    assert caught.value.offset == len(data)


@pytest.mark.parametrize("data", [b"", b"NVC", b"RIFF....AVI ", b"\x00" * 1000, b"NVC2" + bytes(100)])
def test_foreign_bytes_are_refused_at_byte_0(data: bytes) -> None:
    with pytest.raises(BitstreamError, match="not an NVC1 stream") as caught:
        parse(data)
    assert caught.value.offset == 0


def test_another_version_is_named() -> None:
    data = bytearray(small_stream())
    data[4] = 7
    with pytest.raises(BitstreamError, match="version is 7, expected 4…6 ") as caught:
        parse(data)
    assert caught.value.offset == 4


def test_damage_in_a_gop_is_told_with_the_gop() -> None:
    data = bytearray(small_stream())
    gop = parse(data).gops[1]
    data[gop.offset + gop.size - 6] ^= 1  # the last payload's last byte
    with pytest.raises(BitstreamError, match=f"the GOP from byte {gop.offset} on does not match its check"):
        parse(data)


def test_a_gop_that_was_only_located_is_checked_when_it_is_opened() -> None:
    data = bytearray(small_stream())
    gop = parse(data).gops[1]
    data[gop.offset + gop.size - 6] ^= 1
    stream = locate(data)
    assert len(stream.packets(stream.gops[0])) == 4
    with pytest.raises(BitstreamError, match="does not match its check"):
        stream.packets(stream.gops[1])


def test_the_error_crosses_a_process_border_whole() -> None:
    error = pickle.loads(pickle.dumps(BitstreamError("damaged", 7)))
    assert (str(error), error.offset) == ("damaged (at byte 7)", 7)
    assert isinstance(error, interface.BitstreamError)


# --- Malice -----------------------------------------------------------------------------------------------------------


def read_everything(data: bytes) -> int:
    """Pictures read; BitstreamError and nothing else may come out."""
    try:
        return len(all_packets(parse(data)))
    except BitstreamError:
        return 0


def test_every_changed_byte_with_checks_made_to_fit_is_read_or_refused() -> None:
    data = small_stream()
    stream = parse(data)
    read = 0
    for position in range(len(data) - 32):
        for value in {0, 1, 2, 0x45, 0x47, 0x7F, 0x80, 0xA1, 0xA2, 0xE2, 0xFF, data[position] ^ 1, data[position] ^ 64}:
            changed = bytearray(data)
            changed[position] = value
            read += read_everything(sign_again(stream, changed)) > 0
    assert read > 100  # some changes, such as of q, mean something else and are right


@given(st.integers(0, 2**64 - 1))
def test_many_changes_at_once_are_read_or_refused(seed: int) -> None:
    source = random.Random(seed)
    packets = [
        replace(p, payload=source.randbytes(source.randrange(40)))
        for p in order_of(40, period=16)
    ]
    data = stream_of(packets, replace(HEADER, intra_period=16))
    stream = parse(data)
    for _ in range(30):
        changed = bytearray(data)
        for _ in range(source.randrange(1, 6)):
            changed[source.randrange(4, len(data))] = source.randrange(256)
        read_everything(sign_again(stream, changed))
        for lenient in (recover, locate):
            try:
                all_packets(lenient(changed))
            except BitstreamError:
                continue


@given(st.binary(max_size=300))
def test_random_bytes_after_a_good_header_are_refused(tail: bytes) -> None:
    start = HEADER.write()
    for reader in (parse, locate, recover):
        with pytest.raises(BitstreamError):
            reader(start + tail)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 60000, "height": 60000}, "width is 60000, the limit in force is 8192"),
        ({"width": 8192, "height": 8192}, "pixels is 67108864, the limit in force is"),
        ({"frames": 2_000_000}, "frames is 2000000, the limit in force is 1000000"),
    ],
)
def test_a_header_that_asks_for_too_much_is_refused_before_anything_else_is_read(
    changes: dict[str, int], message: str
) -> None:
    with pytest.raises(BitstreamError, match=message):
        parse(replace(HEADER, **changes).write())


def test_limits_are_the_callers() -> None:
    with pytest.raises(BitstreamError, match="frames is 6, the limit in force is 5"):
        parse(small_stream(), picture.Limits(max_frames=5))


def test_a_length_beyond_the_end_is_refused() -> None:
    data = HEADER.write() + b"GOP\x00\x28" + varint(2**32 - 1)
    with pytest.raises(BitstreamError, match="truncated: payload takes 4294967295 bytes, 0 are left"):
        parse(data)


@pytest.mark.parametrize("data", [b"\x80\x00", b"\xff\xff\xff\xff\x10", b"\x80\x80\x80\x80\x80\x01"])
def test_a_varint_has_one_form_and_32_bits(data: bytes) -> None:
    with pytest.raises(BitstreamError, match="shortest form"):
        Cursor(memoryview(data)).varint("value")


@pytest.mark.parametrize(
    ("packet", "message"),
    [
        ("80 00 00 00", "picture 1 at this place does not go with structure intra"),
        ("9e 00 00 00", "picture 16 at this place does not go with structure intra"),
    ],
)
def test_structure_intra_has_i_pictures_only(packet: str, message: str) -> None:
    header = replace(HEADER, frames=20, structure="intra")
    with pytest.raises(BitstreamError, match=message):
        parse(header.write() + b"GOP\x00\x00\x00" + bytes.fromhex(packet))


@pytest.mark.parametrize(
    ("packets", "message"),
    [
        ("81 00 00", "picture 1 refers to -1, which is not coded before it in this GOP"),
        ("c0 00 00", "the head 0xc0 fits no picture of this GOP"),
        ("a1 00 02 00 00", "picture 0 is coded twice or is before its GOP"),
        ("a2 01 02 02 00 00", "picture 1 refers to 0 twice"),
        ("a0 01 02", "the number of references is 0, expected 1…2"),
        ("a3 01 02", "the number of references is 3, expected 1…2"),
        ("a4 01 02", "the number of references is 0, expected 1…2"),
        ("a9 01 02", "the number of references is 9, expected 1…2"),
        ("a1 01 00 00 00", "picture 1 refers to 1, which is not coded"),
        ("80 80 00", "q is 128, expected 0…127"),
        ("82 00 00 45", "picture 1 is missing from its GOP"),
        ("9e 00 00 9e 00 00 45", "picture 32 of a stream of 20"),
        ("20 00 00", "0x20 starts no packet"),
        ("80 00 00 80 00 00 80 00 00 80 00 00", "a GOP of more than 4 pictures"),
    ],
)
def test_a_packet_out_of_order_is_refused(packets: str, message: str) -> None:
    header = replace(HEADER, frames=20, intra_period=4)
    with pytest.raises(BitstreamError, match=message):
        parse(header.write() + b"GOP\x00\x00\x00" + bytes.fromhex(packets))


def test_a_gop_that_keeps_over_18_pictures_alive_is_refused() -> None:
    def backwards(pictures: int) -> list[Packet]:  # all wait to be shown until picture 1 comes, as the last
        return [Packet(0, "I", (), 0)] + [Packet(n, "P", (0,), 0) for n in range(pictures, 0, -1)]

    assert len(all_packets(parse(stream_of(backwards(17))))) == 18
    with pytest.raises(ValueError, match="19 pictures are alive at once, expected at most 18"):
        stream_of(backwards(18))


def test_the_deepest_mini_gop_keeps_10_pictures_alive() -> None:
    order = CodedOrder(0, "random_access")
    for packet in order_of(33, mini_gop=16, past_references=2)[1:]:
        assert order.admit(packet.number, packet.references) == ""
    assert order.alive == 10


# --- What can be saved ------------------------------------------------------------------------------------------------


def test_the_gops_beside_a_damaged_one_are_recovered() -> None:
    header = replace(HEADER, intra_period=8)
    data = bytearray(stream_of([replace(p, payload=b"x" * 50) for p in order_of(30, period=8)], header))
    damaged = parse(data).gops[1]
    data[damaged.offset + 6] ^= 0xFF
    stream = recover(data)
    assert [(gop.first, gop.pictures) for gop in stream.gops] == [(0, 8), (16, 8), (24, 6)]
    assert stream.missing == [range(8, 16)]
    assert len(all_packets(stream)) == 22


def test_the_start_of_a_truncated_stream_is_recovered() -> None:
    header = replace(HEADER, intra_period=8)
    data = stream_of(order_of(30, period=8), header)
    cut = parse(data).gops[2].offset + 10
    stream = recover(data[:cut])
    assert [gop.first for gop in stream.gops] == [0, 8]
    assert stream.missing == [range(16, 30)]


def test_a_whole_stream_is_recovered_whole() -> None:
    assert recover(small_stream()) == parse(small_stream())


def test_without_a_header_nothing_is_recovered() -> None:
    data = bytearray(small_stream())
    data[20] ^= 1
    with pytest.raises(BitstreamError):
        recover(data)


def test_recovery_ends_on_a_stream_made_of_marks() -> None:
    with pytest.raises(BitstreamError, match="no GOP is whole"):
        recover(replace(HEADER, frames=1_000_000).write() + b"GOP\x00\x00\x00" * 50_000)


# --- Encoders' mistakes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("packets", "message"),
    [
        ([Packet(0, "P", (), 0)], "type: a GOP begins with an I picture"),
        ([Packet(0, "I", (), 128)], "q is 128, expected 0…127"),
        ([Packet(0, "I", (1,), 0)], "without references"),
        ([Packet(0, "I", (), 0), Packet(1, "B", (), 0)], "type: 'B', expected P or B with 1 or 2 references"),
        ([Packet(0, "I", (), 0), Packet(1, "P", (2,), 0)], "number: picture 1 refers to 2"),
        ([Packet(0, "I", (), 0), Packet(2, "P", (0,), 0)], "number: picture 1 is missing"),
        ([Packet(0, "I", (), 0), Packet(1, "P", (0,), 0, weights=(Weight(), Weight()))], "weights: 2 for 1 references"),
        ([Packet(0, "I", (), 0), Packet(1, "P", (0,), 0, weights=(Weight(256, 0),))], "weights: gain 256 and"),
        ([Packet(1, "I", (), 0)], "first: a GOP of picture 1, expected 0"),
        ([], "frames: a stream has at least one picture"),
    ],
)
def test_the_writer_names_what_the_format_does_not_allow(packets: list[Packet], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        stream_of(packets)


SHOWN = {"sample_aspect": Fraction(40, 33), "rotation": -90, "field_order": "tff", "primaries": "bt2020",
         "transfer": "smpte2084", "chroma_location": "topleft"}


def test_how_pictures_are_shown_is_kept() -> None:
    data = stream_of([Packet(0, "I", (), 0)], replace(HEADER, **SHOWN))
    assert parse(data).header == replace(HEADER, **SHOWN)
    assert {name: getattr(parse(data).header.info, name) for name in SHOWN} == SHOWN
    # 28 a 40:33, 8e 02 270 degrees, 01 top field first, 09 BT.2020, 10 PQ, 03 topleft
    assert bytes.fromhex("40 08 28 21 8e 02 01 09 10 03") in data


@pytest.mark.parametrize("name", SHOWN)
def test_each_mark_is_kept_alone(name: str) -> None:
    header = replace(HEADER, **{name: SHOWN[name]})
    assert parse(stream_of([Packet(0, "I", (), 0)], header)).header == header


def test_an_aspect_that_no_field_holds_is_left_out() -> None:
    info = picture.ClipInfo(16, 16, Fraction(25), sample_aspect=Fraction(2**40, 3))
    assert Header.of(info, b"\x01" * 8, "intra", 1).sample_aspect == 1


def with_display(display: bytes, version: int = 6) -> bytes:
    """The smallest stream with other bytes for the display, and checks that fit."""
    data = stream_of([Packet(0, "I", (), 0)])
    header = data[:27].replace(b"\x06", bytes([version]), 1) + bytes([len(display)]) + display
    assert data[27] == 0
    body = header + crc32c(header).to_bytes(4, "little") + data[32:-32]
    return body + hashlib.sha256(body).digest()


@pytest.mark.parametrize(("display", "version", "message"), [
    (b"\x02\x01\0\0\0\0\0", 5, "display is not empty: version 5 has none"),
    (b"\x01\x01\0\0\0\0\0", 6, "display: expected its fields, the aspect in lowest terms, or nothing if all are"),
    (b"\x02\x02\0\x01\0\0\0", 6, "display: expected its fields, the aspect in lowest terms"),
    (b"\x02\x01\0\0\0\0\0\0", 6, "display: expected its fields"),
    (b"\x02\x01", 6, "truncated: rotation takes 1 bytes, 0 are left"),
    (b"\0\x01\0\0\0\0\0", 6, "aspect_width is 0, expected 1…4294967295"),
    (b"\x01\x01\xe8\x02\0\0\0\0", 6, "rotation is 360, expected 0…359"),
    (b"\x01\x01\0\x04\0\0\0", 6, "field_order is 4, expected 0…3"),
    (b"\x01\x01\0\0\x02\0\0", 6, "primaries is 2, which H.273 leaves open"),
    (b"\x01\x01\0\0\x0d\0\0", 6, "primaries is 13, expected 0…12"),
    (b"\x01\x01\0\0\0\0\x04", 6, "chroma_location is 4, expected 0…3"),
])
def test_a_display_that_says_nothing_or_too_much_is_refused(display: bytes, version: int, message: str) -> None:
    with pytest.raises(BitstreamError, match=message):
        parse(with_display(display, version))


def test_a_display_is_read_where_it_belongs() -> None:
    assert parse(with_display(b"\x02\x01\0\0\0\0\0")).header.sample_aspect == 2


def test_an_order_that_keeps_too_many_pictures_alive_is_given_up_at_the_first_too_many() -> None:
    order = CodedOrder(0, "random_access")
    for number in range(2, 20_000):  # picture 1 comes last: no other can be shown before it
        assert order.admit(number, (0,)) == ""
    assert order.admit(1, (0,)) == ""
    assert order.complaint() == "19 pictures are alive at once, expected at most 18"
