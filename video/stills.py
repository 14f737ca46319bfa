"""Picture files as clips: one PNG, JPEG or WebP, or many of one size, which are the pictures of one clip."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

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
)

MAX_FILE_BYTES = 256 << 20  # 8192x4320 in 16-bit RGB, stored without compression
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


def read_folder(folder: Path, limits: Limits) -> Opened:
    """Open a folder of PNG, JPEG or WebP pictures of one size, taken by name with numbers by value, at 25 a second."""
    paths = sorted((p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES), key=by_number)
    if not paths:
        raise EmptyVideo(f"{folder}: a folder without pictures (expected {', '.join(SUFFIXES)})")
    info, pictures = read_pictures([(str(path), _bytes_of(path)) for path in paths], limits)
    return info, pictures, lambda: None


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
            yield picture

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
