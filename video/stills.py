"""Picture files as clips: one PNG, JPEG or WebP, or many of one size, which are the pictures of one clip."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from video.containers import Opened, picture_demuxer, read_container, size_change
from video.picture import (
    DEFAULT_FPS,
    ClipInfo,
    DamagedVideo,
    EmptyVideo,
    Limits,
    NotAVideo,
    Picture,
    TooLarge,
    VideoError,
    check_size,
    default_matrix,
)
from video.pixels import change_range, rgb_to_420
from video.timing import notes_of, timing_of

MAX_FILE_BYTES = 256 << 20  # 8192x4320 in 16-bit RGB, stored without compression
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


def read_folder(folder: Path, limits: Limits) -> Opened:
    """Open a folder of PNG, JPEG or WebP pictures of one size, taken by name with numbers by value, at 25 a second."""
    paths = sorted((p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES), key=by_number)
    if not paths:
        raise EmptyVideo(f"{folder}: a folder without pictures (expected {', '.join(SUFFIXES)})")
    info, pictures = read_pictures([(str(path), _bytes_of(path)) for path in paths], limits)
    return replace(info, warnings=info.warnings + gaps([path.name for path in paths])), pictures, lambda: None


def gaps(names: Sequence[str]) -> tuple[str, ...]:
    """What to say of numbered names that leave numbers out; () where none do, or the names are not numbered alike."""
    found = [re.fullmatch(r"(.*?)(\d+)(\D*)", name) for name in names]
    if len(names) < 2 or not all(found) or len({(m[1], m[3]) for m in found if m}) > 1:
        return ()
    numbers = [int(m[2]) for m in found if m]
    missing = sorted(set(range(numbers[0], numbers[-1] + 1)) - set(numbers)) if numbers[-1] - numbers[0] < 10**6 else []
    if not missing:
        return ()
    some = ", ".join(str(number) for number in missing[:5]) + (", …" if len(missing) > 5 else "")
    return (f"the numbers of its pictures have gaps: {some} {'is' if len(missing) == 1 else 'are'} not there",)


def read_pictures(files: Sequence[tuple[str, Callable[[], bytes]]], limits: Limits
                  ) -> tuple[ClipInfo, Iterator[Picture]]:
    """Files, each by its name and a function that reads it, as one clip. Raises what `read_picture` raises."""
    name, read = files[0]
    first = read_picture(read(), name, limits)
    info = replace(first[0], frames=len(files))

    def pictures() -> Iterator[Picture]:
        yield first[1]
        for index, (name, read) in enumerate(files[1:], start=1):
            other, picture = read_picture(read(), name, limits, index)
            if (other.width, other.height) != (info.width, info.height):
                raise size_change(name, index, other, info)
            yield picture if other.range == info.range else change_range(picture, other.range == "full")

    return info, pictures()


def read_picture(data: bytes, name: str, limits: Limits, index: int = 0) -> tuple[ClipInfo, Picture]:
    """The bytes of a PNG, JPEG or WebP file as a clip of one picture. ``index`` is its place, for messages."""
    if len(data) > MAX_FILE_BYTES:
        raise TooLarge(f"{name}: picture {index} is a file of more than {MAX_FILE_BYTES} bytes")
    demuxer = picture_demuxer(data[:12])
    if demuxer is None:
        raise DamagedVideo(f"{name}: picture {index}: neither PNG, JPEG nor WebP", index)
    try:
        with Image.open(io.BytesIO(data)) as image:  # the header alone: FFmpeg would decode before it tells the size
            check_size(name, *image.size, limits)
    except Image.DecompressionBombError as error:  # the same from Pillow, at 180 million pixels
        raise TooLarge(f"{name}: {error}") from error
    except OSError as error:
        raise DamagedVideo(f"{name}: picture {index} is damaged", index) from error
    try:
        info, pictures, close = read_container(io.BytesIO(data), name, limits, demuxer)
    except (NotAVideo, EmptyVideo, DamagedVideo) as error:
        raise DamagedVideo(f"{name}: picture {index} is damaged", index) from error
    try:
        return replace(info, fps=DEFAULT_FPS, frames=1), next(pictures)
    finally:
        close()


def is_animated_webp(file: BinaryIO) -> bool:
    """Whether an open file, left at its first byte, is a WebP animation (RFC 9649, 2.7: VP8X with its flag)."""
    head = file.read(21)
    file.seek(0)
    return head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X" and len(head) == 21 and bool(head[20] & 2)


def read_animated_webp(file: BinaryIO, name: str, limits: Limits) -> Opened:
    """Open a WebP animation; the file is the clip's from here on.  Pillow composes its pictures; FFmpeg reads none."""
    try:
        image = Image.open(file)
        check_size(name, *image.size, limits)
        count, starts = getattr(image, "n_frames", 1), [0]
        if count > limits.max_frames:
            raise TooLarge(f"{name}: {count} pictures are over the limit of {limits.max_frames}")
        for index in range(count):
            image.seek(index)
            image.load()
            starts.append(starts[-1] + int(image.info.get("duration") or 0))
    except (OSError, EOFError, SyntaxError, ValueError) as error:
        raise DamagedVideo(f"{name}: is damaged: {error}") from error
    timing = timing_of(starts[:-1], Fraction(1, 1000), starts[-1] - starts[-2])
    matrix = default_matrix(image.height)

    def pictures() -> Iterator[Picture]:
        for index in range(count):
            try:
                image.seek(index)
                yield rgb_to_420(np.asarray(image.convert("RGB")), 8, matrix)
            except (OSError, EOFError, SyntaxError, ValueError) as error:
                raise DamagedVideo(f"{name}: picture {index} is damaged", index) from error

    info = ClipInfo(image.width, image.height, timing.fps if timing else DEFAULT_FPS, count, matrix,
                    converted="rgb24 to yuv420p", chroma_location="center")
    if timing is not None and timing.intervals_s is not None:
        info = replace(info, duration_s=timing.duration_s, intervals_s=timing.intervals_s, warnings=notes_of(timing))
    return info, pictures(), file.close


def by_number(path: Path) -> list[tuple[int, str]]:
    """Sort key: frame2 before frame10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", str(path))]


def _bytes_of(path: Path) -> Callable[[], bytes]:
    def read() -> bytes:
        try:
            with path.open("rb") as file:
                return file.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            raise VideoError(f"{path}: cannot be read: {error.strerror}") from error

    return read
