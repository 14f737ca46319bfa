"""The stream `NVC1`, version 6: this text is its specification, and the tables below it read and write every field.

    stream   header  gop  gop  ...  index  hash

Fixed-size integers are little-endian. A *varint* is 1 to 5 bytes of 7 bits, low bits first, the top bit set in all but
the last; it is below 2³² and has no superfluous bytes. A *blob* is a varint length and that many bytes. A picture's
*number* is its place in display order, from 0. Whatever stands outside the ranges given here is no NVC1 stream.

Header
    .- field -------- as ------- range --------- meaning -----------------------------------------------------.
    | magic           4 bytes    "NVC1"                                                                        |
    | version         1 byte     4…6             of this text, 6; any change of what bytes mean raises it     |
    | model           8 bytes    any             names the weights and the loop filter: nvc/network/model.py   |
    | width           varint     1…65535         luma pixels; chroma has half, rounded up                      |
    | height          varint     1…65535                                                                       |
    | fps_numerator   varint     1…4294967295    pictures a second, a fraction in lowest terms                 |
    | fps_denominator varint     1…4294967295                                                                  |
    | matrix          1 byte     0…5             bt601, bt709, bt2020, smpte240m, fcc, ycgco                   |
    | range           1 byte     0…1             limited, full                                                 |
    | frames          varint     1…4294967295    pictures in the stream                                        |
    | structure       1 byte     0…2             intra, low_delay, random_access                               |
    | intra_period    varint     1…65535         no GOP has more pictures than this                            |
    | display         blob       0…65535 bytes   how pictures are shown, below; empty: all as in its first row |
    | crc             4 bytes                    CRC-32C (RFC 3720, B.4) of the header up to here              |
    '----------------------------------------------------------------------------------------------------------'

Display: nothing that is decoded depends on it. Versions 4 and 5 have it empty.
    .- field -------- as ------- range --------- meaning -----------------------------------------------------.
    | aspect_width    varint     1…4294967295    width of a sample over its height, 1/1, a fraction in         |
    | aspect_height   varint     1…4294967295    lowest terms                                                  |
    | rotation        varint     0…359           degrees counter-clockwise, 0                                  |
    | field_order     1 byte     0…3             progressive, top field first, bottom field first, interlaced  |
    | primaries       1 byte     0, or as in     ITU-T H.273, ColourPrimaries; 0: not said                     |
    | transfer        1 byte       H.273         TransferCharacteristics; 0: not said                          |
    | chroma_location 1 byte     0…3             not said, left, center, topleft                               |
    '----------------------------------------------------------------------------------------------------------'

GOP: pictures that need no others. They fill the numbers from ``first`` on without a gap, in any order.
    .- bytes ------------ meaning -----------------------------------------------------------------------------.
    | "GOP"               starts a GOP and its I packet; also found by searching, after damage                 |
    | first     varint    number of the I picture, the lowest of this GOP                                      |
    | q         1 byte    0…127, step index: the quantiser's step is 2^(q/16)                                  |
    | payload   blob      the picture, below                                                                   |
    | P and B packets     0 or more, below                                                                     |
    | "E"                 ends the GOP                                                                         |
    | crc       4 bytes   CRC-32C of the GOP up to here, "GOP" and "E" included                                |
    '----------------------------------------------------------------------------------------------------------'

P and B packets. ``type`` is what the networks get; a P picture is further from its references than a B picture.
    .- bytes ------------ meaning -----------------------------------------------------------------------------.
    | head      1 byte    below                                                                                |
    | (number, references, weights)  only where the head says so                                               |
    | q         1 byte    0…127                                                                                |
    | payload   blob      the picture, below                                                                   |
    '----------------------------------------------------------------------------------------------------------'
     7 6 5 4 3 2 1 0
    |1 0|0| s - 1 |r|   P, number = top + s (s: 1…16; top: the highest number in this GOP so far)
                        references: top if r = 0; top and top - s if r = 1
    |1 1|0| b - 1 |f|   B, references number - b and number + b + f (b: 1…16)
                        number: the lowest that is not yet coded and has both of these coded, sought among the 64
                        from the lowest number not yet coded on
    |1 t|1|0 0|w| n |   t = 0: P, t = 1: B, with n = 1…2 references
                        number - first as a varint, then n varints 2 d + s: d = 1… is how far away the reference is,
                        s = 0 if it is an earlier picture, s = 1 if a later one
                        if w = 1 then n times, for each reference: its gain in 1/128 as a byte, and its offset + 128 as
                        a byte, which nvc/motion/weighting.py applies before anything is predicted from it

    A payload is the bytes of one range coder (nvc/entropy/range_coder.py): motion as in nvc/motion/vectors.py, none in
    an I picture; what each tile is, as in nvc/tiles/kinds.py; the samples of those tiles that have them, as in
    nvc/tiles/samples.py; then, for each region that the networks code (`nvc.tiles.kinds.regions_of`), its hyper-latent
    as in nvc/network/hyper_latent.py and its latents in the steps of `nvc.network.network.STEPS`, those of other
    tiles left out; then, if there is such a region and the model has a loop filter, what that filters, as in
    nvc/loop_filter/filter.py. No model of versions 4 and 5 has one. Version 4 has no tiles: the networks code all of
    each picture.

    References are different pictures of the same GOP, coded before. A hierarchical GOP fits the short heads: a P
    picture ends each mini-GOP, and a B picture halves a gap. So a picture that codes nothing takes 3 bytes in all.

    While a picture is decoded, at most 18 are alive: itself, those that it or later ones refer to, and those decoded
    that wait for an earlier number to be shown.

    In structure intra every picture is a GOP; in low_delay numbers only rise; random_access may do all of the above.

Index: where each GOP starts, without reading all of them.
    .- bytes ------------ meaning -----------------------------------------------------------------------------.
    | "X"                 starts the index                                                                     |
    | count     varint    GOPs                                                                                 |
    | count times:                                                                                             |
    |   pictures varint   in the GOP                                                                           |
    |   size    varint    bytes of the GOP, from "GOP" to its crc                                              |
    | length    4 bytes   of the index, from "X" to before this field                                          |
    '----------------------------------------------------------------------------------------------------------'

Hash: the SHA-256 of all bytes before it, 32 bytes; the stream ends there. ``head -c -32 x.nvc | sha256sum`` prints it.

Every byte is under the hash, so no change goes unseen; the checks of header and GOPs say where it is, and which GOPs
are still good. docs/decisions/0002-one-check-per-gop.md says why packets have none of their own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from math import gcd
from typing import Any

from nvc.motion.weighting import GAIN_MAX, OFFSET_MAX, Weight
from nvc.stream.coding_order import B_BIT, EXPLICIT_BIT, PICTURE_BIT, WEIGHTS_BIT, CodedOrder
from nvc.stream.crc32c import crc32c
from nvc.stream.errors import BitstreamError
from nvc.stream.fields import U32_MAX, Cursor, Field, varint, write_fields
from video.picture import CHROMA_LOCATIONS, FIELD_ORDERS, PRIMARIES, TRANSFERS, ClipInfo, Limits

VERSION, FIRST_VERSION = 6, 4          # that is written; the first that is read
FIRST_WITH_TILES = 5
FIRST_WITH_DISPLAY = 6
MODEL_BYTES, CRC_BYTES, LENGTH_BYTES, HASH_BYTES = 8, 4, 4, 32

GOP_MARK, END_MARK, INDEX_MARK = b"GOP", b"E", b"X"


# --- The field tables -------------------------------------------------------------------------------------------------

MATRIX_NAMES = ("bt601", "bt709", "bt2020", "smpte240m", "fcc", "ycgco")
RANGE_NAMES = ("limited", "full")
STRUCTURE_NAMES = ("intra", "low_delay", "random_access")

HEADER_FIELDS = (
    Field("magic", "bytes", high=4),
    Field("version", "byte", FIRST_VERSION, VERSION),
    Field("model", "bytes", high=MODEL_BYTES),
    Field("width", "varint", 1, 65535),
    Field("height", "varint", 1, 65535),
    Field("fps_numerator", "varint", 1, U32_MAX),
    Field("fps_denominator", "varint", 1, U32_MAX),
    Field("matrix", "name", names=MATRIX_NAMES),
    Field("range", "name", names=RANGE_NAMES),
    Field("frames", "varint", 1, U32_MAX),
    Field("structure", "name", names=STRUCTURE_NAMES),
    Field("intra_period", "varint", 1, 65535),
    Field("display", "blob", 0, 65535),
)
CODES = {"primaries": {0: ""} | PRIMARIES, "transfer": {0: ""} | TRANSFERS}
DISPLAY_FIELDS = (
    Field("aspect_width", "varint", 1, U32_MAX),
    Field("aspect_height", "varint", 1, U32_MAX),
    Field("rotation", "varint", 0, 359),
    Field("field_order", "name", names=FIELD_ORDERS),
    Field("primaries", "byte", 0, max(PRIMARIES)),
    Field("transfer", "byte", 0, max(TRANSFERS)),
    Field("chroma_location", "name", names=("", *CHROMA_LOCATIONS)),
)
NOTHING_SAID = bytes([1, 1, 0, 0, 0, 0, 0])        # of the display
MAGIC = b"NVC1"
I_FIELDS = (
    Field("number", "varint", 0, U32_MAX),
    Field("q", "byte", 0, 127),
    Field("payload", "blob", 0, U32_MAX),
)
P_AND_B_FIELDS = (
    Field("q", "byte", 0, 127),
    Field("payload", "blob", 0, U32_MAX),
)


# --- Header -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Header:
    """What holds for the whole stream; ranges in the module's docstring. A writer fills in ``frames`` by itself."""

    model: bytes  # MODEL_BYTES of the weights' SHA-256
    width: int  # luma pixels
    height: int
    fps: Fraction
    matrix: str = "bt601"
    range: str = "limited"
    structure: str = "random_access"
    intra_period: int = 64  # pictures
    frames: int = 1
    sample_aspect: Fraction = Fraction(1)
    rotation: int = 0  # degrees counter-clockwise, -179…180
    field_order: str = "progressive"
    primaries: str = ""
    transfer: str = ""
    chroma_location: str = ""
    version: int = VERSION

    @classmethod
    def of(cls, info: ClipInfo, model: bytes, structure: str, intra_period: int) -> Header:
        """For a clip. An aspect that no field holds is taken for that of square samples."""
        aspect = info.sample_aspect if max(info.sample_aspect.as_integer_ratio()) <= U32_MAX else Fraction(1)
        return cls(model, info.width, info.height, info.fps, info.matrix, info.range, structure, intra_period,
                   sample_aspect=aspect, rotation=info.rotation, field_order=info.field_order,
                   primaries=info.primaries, transfer=info.transfer, chroma_location=info.chroma_location)

    @property
    def info(self) -> ClipInfo:
        """The same for readers of clips."""
        return ClipInfo(self.width, self.height, self.fps, self.frames, self.matrix, self.range,
                        sample_aspect=self.sample_aspect, rotation=self.rotation, field_order=self.field_order,
                        primaries=self.primaries, transfer=self.transfer, chroma_location=self.chroma_location)

    def write(self) -> bytes:
        """The header's bytes, with its check. ValueError names a field out of its range."""
        rate = {"fps_numerator": self.fps.numerator, "fps_denominator": self.fps.denominator}
        data = write_fields(HEADER_FIELDS, vars(self) | rate | {"magic": MAGIC, "display": self._display()})
        return data + crc_of(data)

    def _display(self) -> bytes:
        shape = {"aspect_width": self.sample_aspect.numerator, "aspect_height": self.sample_aspect.denominator}
        codes = {name: next((code for code, said in names.items() if said == getattr(self, name)), -1)
                 for name, names in CODES.items()}
        data = write_fields(DISPLAY_FIELDS, vars(self) | shape | codes | {"rotation": self.rotation % 360})
        return b"" if data == NOTHING_SAID else data


def crc_of(data: bytes | bytearray | memoryview) -> bytes:
    """The CRC-32C of data, as it stands in a stream."""
    return crc32c(data).to_bytes(CRC_BYTES, "little")


def _read_crc(cursor: Cursor, start: int, name: str) -> None:
    """Check the CRC that follows what was read since ``start``."""
    computed, at = crc_of(cursor.data[start : cursor.position]), cursor.position
    if cursor.take(CRC_BYTES, f"the check of {name}") != computed:
        raise BitstreamError(f"damaged: {name} from byte {start} on does not match its check", at)


def read_header(cursor: Cursor, limits: Limits) -> Header:
    """The header at the begin of a stream; BitstreamError if it is damaged, or asks for more than the limits allow."""
    if cursor.data[: len(MAGIC)] != MAGIC:
        raise BitstreamError(f"not an NVC1 stream: it does not start with {MAGIC.decode()}", 0)
    values = cursor.fields(HEADER_FIELDS)
    _read_crc(cursor, 0, "the header")
    numerator, denominator = values.pop("fps_numerator"), values.pop("fps_denominator")
    if gcd(numerator, denominator) != 1:
        raise BitstreamError(f"fps is {numerator}/{denominator}, expected a fraction in lowest terms", 0)
    del values["magic"]
    shown = _read_display(values.pop("display"), values["version"])
    header = Header(fps=Fraction(numerator, denominator), **values, **shown)
    for name, value, most in (
        ("width", header.width, limits.max_width),
        ("height", header.height, limits.max_height),
        ("pixels", header.width * header.height, limits.max_pixels),
        ("frames", header.frames, limits.max_frames),
    ):
        if value > most:
            raise BitstreamError(f"too large: {name} is {value}, the limit in force is {most}", 0)
    return header


def _read_display(data: memoryview, version: int) -> dict[str, Any]:
    """The fields of Header that a display stands for."""
    if not data:
        return {}
    if version < FIRST_WITH_DISPLAY:
        raise BitstreamError(f"display is not empty: version {version} has none", 0)
    cursor = Cursor(data)
    values = cursor.fields(DISPLAY_FIELDS)
    width, height = values.pop("aspect_width"), values.pop("aspect_height")
    if cursor.position < len(data) or gcd(width, height) != 1 or data == NOTHING_SAID:
        raise BitstreamError("display: expected its fields, the aspect in lowest terms, or nothing if all are usual", 0)
    for name, names in CODES.items():
        if values[name] not in names:
            raise BitstreamError(f"display: {name} is {values[name]}, which H.273 leaves open", 0)
        values[name] = names[values[name]]
    values["sample_aspect"] = Fraction(width, height)
    values["rotation"] -= 360 if values["rotation"] > 180 else 0
    return values


# --- Packets ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Packet:
    """One coded picture. Payloads of a packet that was read are views into the stream, not copies."""

    number: int  # place in display order, from 0
    type: str  # "I", "P", "B"
    references: tuple[int, ...]  # numbers: none for I, else 1 or 2
    q: int  # step index, 0…127
    payload: bytes | memoryview = b""
    drop: tuple[int, ...] = ()  # filled by the reader: no later picture refers to these; may hold its own number
    size: int = 0  # filled by the reader: bytes that the packet takes in the stream
    weights: tuple[Weight, ...] = ()  # of the references, where they have any


@dataclass(frozen=True)
class Gop:
    """Where a GOP stands: pictures ``first``…``first + pictures - 1``, bytes ``offset``…``offset + size - 1``."""

    first: int
    pictures: int
    offset: int
    size: int


def write_head(coded: CodedOrder, packet: Packet) -> bytes:
    """The head of a P or B packet, in the short form where it fits. coded: the GOP before it."""
    head = None if packet.weights else coded.short_head(packet.type, packet.number, packet.references)
    if head is not None:
        return bytes([head])
    head = PICTURE_BIT | B_BIT * (packet.type == "B") | EXPLICIT_BIT | len(packet.references)
    data = bytes([head | WEIGHTS_BIT * bool(packet.weights)]) + varint(packet.number - coded.first)
    for reference in packet.references:
        data += varint(2 * abs(packet.number - reference) + (reference > packet.number))
    for gain, offset in packet.weights:
        if not (0 <= gain <= GAIN_MAX and -OFFSET_MAX - 1 <= offset <= OFFSET_MAX):
            raise ValueError(f"weights: gain {gain} and offset {offset}, expected 0…{GAIN_MAX} and "
                             f"{-OFFSET_MAX - 1}…{OFFSET_MAX}")
        data += bytes([gain, offset + OFFSET_MAX + 1])
    return data


def _read_head(cursor: Cursor, coded: CodedOrder, head: int) -> tuple[int, tuple[int, ...], tuple[Weight, ...]]:
    start = cursor.position - 1
    if not head & EXPLICIT_BIT:
        found = coded.implied(head)
        if found is None:
            raise BitstreamError(f"the head 0x{head:02x} fits no picture of this GOP", start)
        return *found, ()
    count = head & 31 & ~WEIGHTS_BIT
    if count not in (1, 2):
        raise BitstreamError(f"the number of references is {count}, expected 1…2", start)
    number = coded.first + cursor.varint("number")
    steps = [cursor.varint("reference") for _ in range(count)]
    weights = []
    for _ in range(count if head & WEIGHTS_BIT else 0):
        weights.append(Weight(cursor.byte("gain"), cursor.byte("offset") - OFFSET_MAX - 1))
    return number, tuple(number + (step >> 1 if step & 1 else -(step >> 1)) for step in steps), tuple(weights)


def read_gop(cursor: Cursor, header: Header) -> tuple[Gop, CodedOrder, list[dict[str, Any]]]:
    """Read one GOP, all but the payloads' meaning; the cursor stands at its "GOP"."""
    start = cursor.position
    if cursor.take(len(GOP_MARK), "the start of a GOP") != GOP_MARK:
        raise BitstreamError(f"expected {GOP_MARK.decode()!r} or the index", start)
    values = [cursor.fields(I_FIELDS) | {"type": "I", "references": ()}]
    values[0]["size"] = cursor.position - start
    coded = CodedOrder(values[0]["number"], header.structure)
    at, complaint = start, ""
    while not complaint:
        if coded.top >= header.frames:
            complaint = f"picture {coded.top} of a stream of {header.frames}"
        elif len(coded.order) > header.intra_period:
            complaint = f"a GOP of more than {header.intra_period} pictures"
        else:
            at = cursor.position
            head = cursor.byte("the head of a packet")
            if head == END_MARK[0]:
                complaint = coded.complaint()
                break
            if not head & PICTURE_BIT:
                raise BitstreamError(f"0x{head:02x} starts no packet", at)
            number, references, weights = _read_head(cursor, coded, head)
            complaint = coded.admit(number, references)
            fields = {"number": number, "type": "PB"[head >> 6 & 1], "references": references, "weights": weights}
            values.append(fields | cursor.fields(P_AND_B_FIELDS))
            values[-1]["size"] = cursor.position - at
    if complaint:
        raise BitstreamError(complaint, at)
    _read_crc(cursor, start, "the GOP")
    return Gop(coded.first, len(values), start, cursor.position - start), coded, values


def write_index(gops: Iterable[Gop]) -> bytes:
    """The index of a stream's GOPs, in display order."""
    entries = [varint(gop.pictures) + varint(gop.size) for gop in gops]
    index = INDEX_MARK + varint(len(entries)) + b"".join(entries)
    return index + len(index).to_bytes(LENGTH_BYTES, "little")
