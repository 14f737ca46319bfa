"""Headerless video gets a header when it arrives: a ``.yuv`` becomes a Y4M of the same samples.

What a headerless file leaves out, its uploader says once, by the file's name or by ``FIELDS``; from then on the bytes
say it themselves, wherever they are read.  Nothing but lines of text is added, so no sample changes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from video.picture import DamagedVideo, EmptyVideo, Limits, VideoError, check_size
from video.planar import RawFormat, rate_of, raw_format_from_name

FIELDS = ("width", "height", "fps", "pixel_format", "matrix", "range")
NEEDED = FIELDS[:3]
PIECE_BYTES = 1 << 20


def raw_format(name: str, said: Mapping[str, str]) -> RawFormat | None:
    """The format of an upload called ``name`` of which these ``FIELDS`` are said; None where it is not headerless: it
    is so where a field is said, or where its name ends in .yuv. Raises VideoError naming the field."""
    if not said:
        return raw_format_from_name(Path(name)) if name.lower().endswith(".yuv") else None
    missing = [field for field in NEEDED if field not in said]
    if missing:
        raise VideoError(f"{missing[0]}: headerless video needs {', '.join(NEEDED)}")
    for field in ("width", "height"):
        if not re.fullmatch(r"[1-9]\d{0,4}", said[field]):
            raise VideoError(f"{field}: expected a number of samples, got {said[field][:40]!r}")
    form = re.fullmatch(r"(?:yuv(420|422|444)p|(gray))(?:(10|12|14|16)(?:le)?)?", said.get("pixel_format", "yuv420p"))
    if form is None:
        raise VideoError("pixel_format: expected yuv420p, yuv422p, yuv444p or gray, then nothing or 10le, 12le, 14le, "
                         f"16le, got {said['pixel_format'][:40]!r}")
    return RawFormat(int(said["width"]), int(said["height"]), rate_of(said["fps"], name), int(form[3] or 8),
                     form[1] or "400", said.get("matrix"), said.get("range", "limited"))


def wrap(source: BinaryIO, size: int, out: BinaryIO, name: str, form: RawFormat, limits: Limits) -> None:
    """Write ``size`` bytes of pictures as Y4M. Raises TooLarge, EmptyVideo, DamagedVideo (no whole number of pictures),
    OSError."""
    check_size(name, form.width, form.height, limits)
    frames, rest = divmod(size, form.picture_bytes)
    if size == 0:
        raise EmptyVideo(f"{name}: holds no picture (0 bytes)")
    if rest:
        raise DamagedVideo(f"{name}: {size} bytes are not a whole number of {form.name} pictures of {form.width}x"
                           f"{form.height} ({form.picture_bytes} bytes each); is the size right?", frames)
    base = "mono" if form.chroma == "400" else form.chroma
    depth = "" if form.depth == 8 else str(form.depth) if base == "mono" else f"p{form.depth}"
    matrix = f" XCOLORMATRIX={form.matrix.upper()}" if form.matrix else ""
    out.write(f"YUV4MPEG2 W{form.width} H{form.height} F{form.fps.numerator}:{form.fps.denominator} Ip A1:1 "
              f"C{base}{depth} XCOLORRANGE={form.range.upper()}{matrix}\n".encode())
    for _ in range(frames):
        out.write(b"FRAME\n")
        left = form.picture_bytes
        while left:
            piece = source.read(min(left, PIECE_BYTES))
            if not piece:
                raise DamagedVideo(f"{name}: is shorter than it was")
            out.write(piece)
            left -= len(piece)
