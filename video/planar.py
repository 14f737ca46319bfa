"""Planar video as it lies in the file: Y4M (YUV4MPEG2) and headerless ``.yuv``, read and written with NumPy alone.

Y4M is one text line ``YUV4MPEG2 W352 H288 F30000:1001 Ip A1:1 C420mpeg2 XCOLORRANGE=LIMITED``, then for every picture
a line ``FRAME`` and the planes y, u, v.  (mjpegtools, yuv4mpeg(5); ``X…`` fields are free, and this writer adds
``XCOLORMATRIX=BT709`` and the like, which others skip.)  Samples over 8 bits are little-endian 16-bit words.

A headerless file is the planes alone, so size, rate and depth come from a :class:`RawFormat` or from the file's name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from video.picture import (
    DEFAULT_FPS,
    MATRICES,
    RANGES,
    ClipInfo,
    DamagedVideo,
    EmptyVideo,
    Limits,
    NotAVideo,
    Picture,
    VideoError,
    check_picture,
    check_rate,
    check_size,
    default_matrix,
    notes_of_fields,
)
from video.pixels import to_420

Y4M_MAGIC = b"YUV4MPEG2"
Y4M_FIELDS = {"t": "tff", "b": "bff", "m": "interlaced"}
Y4M_CHROMA = {"420jpeg": "center", "420paldv": "topleft"}  # 420mpeg2 is what is assumed anyway
MAX_LINE = 1024  # bytes of a Y4M header line; real ones have under 100

# Sizes that names of the standard sequences stand for; those are at 30 pictures a second unless the name says other.
NAMED_SIZES = {"qcif": (176, 144), "cif": (352, 288), "sif": (352, 240), "4cif": (704, 576)}
# Rates that people write rounded, and what they mean.
NTSC_RATES = {"23.976": (24000, 1001), "23.98": (24000, 1001), "29.97": (30000, 1001), "59.94": (60000, 1001),
              "14.985": (15000, 1001), "47.952": (48000, 1001), "47.95": (48000, 1001), "119.88": (120000, 1001)}


@dataclass(frozen=True)
class RawFormat:
    """What a headerless file does not say of itself. Raises VideoError naming the field that is wrong."""

    width: int
    height: int
    fps: Fraction
    depth: int = 8  # 8…16; over 8 as little-endian 16-bit words, value in the low bits
    chroma: str = "420"  # "400", "420", "422" or "444"
    matrix: str | None = None  # None: by the height, see ClipInfo
    range: str = "limited"

    def __post_init__(self) -> None:
        check_rate("raw video", self.fps)
        if not 8 <= self.depth <= 16:
            raise VideoError(f"depth: expected 8 to 16 bits, got {self.depth}")
        if self.chroma not in ("400", "420", "422", "444"):
            raise VideoError(f"chroma: expected 400, 420, 422 or 444, got {self.chroma!r}")
        if self.matrix is not None and self.matrix not in MATRICES:
            raise VideoError(f"matrix: expected one of {', '.join(MATRICES)}, got {self.matrix!r}")
        if self.range not in RANGES:
            raise VideoError(f"range: expected limited or full, got {self.range!r}")

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """(rows, columns) of each plane in the file."""
        w, h = self.width, self.height
        columns = w if self.chroma == "444" else (w + 1) // 2
        rows = (h + 1) // 2 if self.chroma == "420" else h
        return [(h, w)] if self.chroma == "400" else [(h, w), (rows, columns), (rows, columns)]

    @property
    def sample_bytes(self) -> int:
        return 1 if self.depth == 8 else 2

    @property
    def picture_bytes(self) -> int:
        """Bytes of one picture in the file."""
        return sum(rows * columns for rows, columns in self.shapes) * self.sample_bytes

    @property
    def name(self) -> str:
        """The sample format by the name that FFmpeg gives it, e.g. yuv422p10le."""
        base = "gray" if self.chroma == "400" else f"yuv{self.chroma}p"
        return base if self.depth == 8 else f"{base}{self.depth}le"

    def target(self, most_bits: int) -> int:
        """The depth of its pictures."""
        return min(self.depth, max(8, most_bits))

    def info(self, frames: int | None, most_bits: int = 8) -> ClipInfo:
        bits = self.target(most_bits)
        form = "yuv420p" if bits == 8 else f"yuv420p{bits}le"
        return ClipInfo(
            width=self.width,
            height=self.height,
            fps=self.fps,
            frames=frames,
            matrix=self.matrix or default_matrix(self.height),
            range=self.range,
            converted="" if self.name == form else f"{self.name} to {form}",
            bits=bits,
            chroma_location="center" if self.chroma == "444" else "",  # of the mean of four samples
        )

    def picture(self, data: bytes, bits: int = 8) -> Picture:
        """One picture of ``bits`` from its bytes in the file."""
        samples = np.frombuffer(bytearray(data), np.uint8 if self.depth == 8 else "<u2")  # bytearray: writable
        planes, start = [], 0
        for rows, columns in self.shapes:
            planes.append(samples[start : start + rows * columns].reshape(rows, columns))
            start += rows * columns
        if self.name == "yuv420p":
            return Picture(*planes)
        return to_420(planes, self.depth, self.range == "full", bits)


def raw_format_from_name(path: Path) -> RawFormat:
    """Read ``foo_352x288_30fps_8bit.yuv``, ``foo_1920x1080_50_10bit_422.yuv``, ``foo_cif.yuv`` and their like.

    Raises VideoError when the name gives no size or no rate.
    """
    name = path.stem.lower()
    words = re.split(r"[_\-\s]+", name)
    size = re.search(r"(?<!\d)(\d{1,5})x(\d{1,5})(?!\d)", name)
    named = next((word for word in words if word in NAMED_SIZES), None)
    rate = re.search(r"(?<![\d.])(\d{1,3}(?:\.\d{1,3})?)_?(?:fps|hz)", name)
    if rate is None and size is not None:  # the rate right behind the size: foo_1920x1080_50_10bit
        rate = re.match(r"[_\-p]+(\d{1,3}(?:\.\d{1,3})?)(?=[_\-]|$)", name[size.end() :])
    expected = f"{path.name}: a .yuv file has no header: expected %s in its name, as in foo_352x288_30fps_8bit.yuv"
    if size is None and named is None:
        raise VideoError(expected % "a size")
    if rate is None and named is None:
        raise VideoError(expected % "a frame rate")
    width, height = (int(size[1]), int(size[2])) if size else NAMED_SIZES[named or ""]
    depth = re.search(r"(?<!\d)(\d{1,2})_?b(?:its?)?(?![a-z])|p(10|12|14|16)(?:le)?(?![\da-z])", name)
    chroma = re.search(r"(?<!\d)(4(?:00|20|22|44))(?=p|_|-|$|\d\db)", name)
    return RawFormat(
        width=width,
        height=height,
        fps=rate_of(rate[1], path.name) if rate else Fraction(30),
        depth=int(depth[1] or depth[2]) if depth else 8,
        chroma=chroma[1] if chroma else "420",
    )


def read_raw(stream: BinaryIO, name: str, form: RawFormat, limits: Limits, most_bits: int = 8
             ) -> tuple[ClipInfo, Iterator[Picture]]:
    """Open a headerless file. A regular file must hold a whole number of pictures (else: is the size right?)."""
    check_size(name, form.width, form.height, limits)
    frames, size = None, _bytes_left(stream)
    if size is not None:
        frames, rest = divmod(size, form.picture_bytes)
        if size == 0:
            raise EmptyVideo(f"{name}: holds no picture (0 bytes)")
        if rest:
            raise DamagedVideo(
                f"{name}: {size} bytes are not a whole number of {form.name} pictures of {form.width}x{form.height} "
                f"({form.picture_bytes} bytes each): picture {frames} is cut short, or the size is not right",
                frames,
            )
    return form.info(frames, most_bits), _raw_pictures(stream, name, form, form.target(most_bits))


def _raw_pictures(stream: BinaryIO, name: str, form: RawFormat, bits: int) -> Iterator[Picture]:
    index = 0
    while data := stream.read(form.picture_bytes):
        if len(data) < form.picture_bytes:
            raise DamagedVideo(f"{name}: picture {index} is cut short", index)
        yield form.picture(data, bits)
        index += 1


def read_y4m(stream: BinaryIO, name: str, limits: Limits, most_bits: int = 8) -> tuple[ClipInfo, Iterator[Picture]]:
    """Open a Y4M stream that stands at its first byte. ``frames`` is known for regular files of plain frame lines."""
    line = stream.readline(MAX_LINE)
    if not line.startswith(Y4M_MAGIC + b" ") or not line.endswith(b"\n"):
        raise NotAVideo(f"{name}: no Y4M header line (expected {Y4M_MAGIC.decode()} and at most {MAX_LINE} bytes)")
    fields = line.decode("latin-1").split()[1:]
    form = _parse_y4m_header(name, fields)
    check_size(name, form.width, form.height, limits)
    info = replace(form.info(_y4m_frames(stream, form), most_bits), **_y4m_marks(fields, form))
    return replace(info, warnings=notes_of_fields(info.field_order)), _y4m_pictures(stream, name, form, info.bits)


def _y4m_marks(fields: list[str], form: RawFormat) -> dict[str, Any]:
    """What a Y4M header says for players: order of fields, shape of samples, place of chroma."""
    values = {field[0]: field[1:] for field in fields if field[0] != "X"}
    aspect = re.fullmatch(r"([1-9]\d{0,5}):([1-9]\d{0,5})", values.get("A", ""))  # 0:0 means unknown
    place = Y4M_CHROMA.get(values.get("C", ""), "center" if form.chroma == "444" else "")
    return {"field_order": Y4M_FIELDS.get(values.get("I", "p"), "progressive"), "chroma_location": place,
            "sample_aspect": Fraction(int(aspect[1]), int(aspect[2])) if aspect else Fraction(1)}


def _y4m_pictures(stream: BinaryIO, name: str, form: RawFormat, bits: int) -> Iterator[Picture]:
    index = 0
    while line := stream.readline(MAX_LINE):
        if not (line == b"FRAME\n" or (line.startswith(b"FRAME ") and line.endswith(b"\n"))):
            raise DamagedVideo(f"{name}: picture {index}: expected a FRAME line", index)
        data = stream.read(form.picture_bytes)
        if len(data) < form.picture_bytes:
            raise DamagedVideo(f"{name}: picture {index} is cut short", index)
        yield form.picture(data, bits)
        index += 1


def _parse_y4m_header(name: str, fields: list[str]) -> RawFormat:
    values = {field[0]: field[1:] for field in fields if field[0] != "X"}
    extra = dict(field[1:].split("=", 1) for field in fields if field[0] == "X" and "=" in field)
    try:
        width, height = int(values["W"]), int(values["H"])
        numerator, denominator = (int(part) for part in values.get("F", "0:0").split(":"))
        fps = Fraction(numerator, denominator) if numerator and denominator else DEFAULT_FPS  # 0:0 means unknown
    except (KeyError, ValueError) as error:
        raise NotAVideo(f"{name}: Y4M header: expected W, H and F with integers: {' '.join(fields)}") from error
    pattern = r"(?:(420)(?:jpeg|mpeg2|paldv)?|(420|422|444)(?:p(\d\d))?|mono(\d\d)?)"
    colour = values.get("C") or extra.get("YSCSS", "420").lower()
    if (space := re.fullmatch(pattern, colour)) is None:
        raise VideoError(f"{name}: Y4M colour space C{colour} is not read: expected 420, 422, 444 or mono")
    matrix, chroma = extra.get("COLORMATRIX", "").lower(), space[1] or space[2] or "400"
    span = extra.get("COLORRANGE", "").lower()
    return RawFormat(
        width=width,
        height=height,
        fps=fps,
        depth=int(space[3] or space[4] or 8),
        chroma=chroma,
        matrix=matrix if matrix in MATRICES else None,
        range=span if span in RANGES else "full" if chroma == "400" else "limited",  # grey: as FFmpeg has it
    )


def _y4m_frames(stream: BinaryIO, form: RawFormat) -> int | None:
    """How many pictures a regular file holds, if all frame lines are plain: its size says so, and its last line."""
    size, step = _bytes_left(stream), len(b"FRAME\n") + form.picture_bytes
    if not size or size % step:
        return None
    here = stream.tell()
    stream.seek(here + size - step)
    plain = stream.readline(MAX_LINE) == b"FRAME\n"
    stream.seek(here)
    return size // step if plain else None


def _bytes_left(stream: BinaryIO) -> int | None:
    """Bytes from here to the end, or None where the stream cannot seek (a pipe)."""
    if not stream.seekable():
        return None
    here = stream.tell()
    size = stream.seek(0, os.SEEK_END) - here
    stream.seek(here)
    return size


def rate_of(text: str, where: str) -> Fraction:
    """A rate as people write it: 25, 29.97, 30000/1001. Raises VideoError; ``where`` is for its message."""
    if text.rstrip("0") in NTSC_RATES:
        return Fraction(*NTSC_RATES[text.rstrip("0")])
    if not re.fullmatch(r"\d{1,10}(\.\d{1,6}|/[1-9]\d{0,9})?", text):
        raise VideoError(f"{where}: fps: expected a number or a fraction such as 30000/1001, got {text[:40]!r}")
    rate = Fraction(text)
    check_rate(where, rate)
    return rate


class Y4MWriter:
    """Pictures to a Y4M stream, which may be a pipe. Writes the header at once; never closes ``out``."""

    def __init__(self, out: BinaryIO, info: ClipInfo) -> None:
        self.info = info
        self._out = out
        fps, aspect = info.fps, info.sample_aspect
        fields = next((letter for letter, order in Y4M_FIELDS.items() if order == info.field_order), "p")
        chroma = next((space for space, place in Y4M_CHROMA.items() if place == info.chroma_location), "420mpeg2")
        chroma = chroma if info.bits == 8 else f"420p{info.bits}"
        out.write(
            f"YUV4MPEG2 W{info.width} H{info.height} F{fps.numerator}:{fps.denominator} I{fields} "
            f"A{aspect.numerator}:{aspect.denominator} C{chroma} "
            f"XCOLORRANGE={info.range.upper()} XCOLORMATRIX={info.matrix.upper()}\n".encode()
        )

    def write(self, picture: Picture) -> None:
        """Append one picture. Raises VideoError when its size is not the clip's."""
        check_picture(picture, self.info)
        self._out.write(b"FRAME\n")
        for plane in picture:
            self._out.write(np.ascontiguousarray(plane).data)
