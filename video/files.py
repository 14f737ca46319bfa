"""Clips in and out: the one door to every video file.

Y4M and headerless ``.yuv`` are read with NumPy (video/planar.py), every other container through PyAV
(video/containers.py), picture files alone, in folders (video/stills.py) and in archives (video/archives.py) too.
Everything becomes 4:2:0 on the way in, of 8 bits unless more are asked for (video/pixels.py), and
``ClipInfo.converted`` says so where it was something else.  Pictures are read and written one at a time: a clip is
never in memory whole.

    with open_clip("carphone.mp4") as clip:
        print(clip.info.fps)
        for picture in clip:
            print(picture.y.mean())
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, cast

from video.archives import is_archive, read_archive
from video.containers import VideoWriter, is_animated_png, picture_demuxer, read_container
from video.picture import (
    DEFAULT_LIMITS,
    ClipInfo,
    DamagedVideo,
    EmptyVideo,
    Limits,
    NotAVideo,
    NoVideoStream,
    Picture,
    TooLarge,
    VideoError,
)
from video.planar import Y4M_MAGIC, RawFormat, Y4MWriter, raw_format_from_name, read_raw, read_y4m
from video.stills import MAX_FILE_BYTES, is_animated_webp, read_animated_webp, read_folder, read_picture

__all__ = [
    "DEFAULT_LIMITS",
    "Clip",
    "ClipInfo",
    "DamagedVideo",
    "EmptyVideo",
    "Limits",
    "NoVideoStream",
    "NotAVideo",
    "Picture",
    "RawFormat",
    "TooLarge",
    "VideoError",
    "VideoWriter",
    "Y4MWriter",
    "open_clip",
    "read_info",
]


class Clip:
    """An open clip: ``info``, and the pictures by iterating, once. A context manager."""

    def __init__(
        self, name: str, info: ClipInfo, pictures: Iterator[Picture], close: Callable[[], None], limits: Limits
    ) -> None:
        self.info = info
        self._name = name
        self._pictures = pictures
        self._close = close
        self._limits = limits
        self._check_count(info.frames or 0)

    def __iter__(self) -> Iterator[Picture]:
        """The pictures in display order.

        Raises DamagedVideo with the number of the first picture that cannot be had, EmptyVideo when there is none,
        TooLarge when there are more than the limits allow.
        """
        count = 0
        for picture in self._pictures:
            count += 1
            self._check_count(count)
            yield picture
        if count == 0:
            raise EmptyVideo(f"{self._name}: holds no picture (or they have all been read: open it again)")

    def _check_count(self, count: int) -> None:
        if count > self._limits.max_frames:
            raise TooLarge(f"{self._name}: more than the limit of {self._limits.max_frames} pictures")

    def close(self) -> None:
        self._close()

    def __enter__(self) -> Clip:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_clip(
    source: str | Path | BinaryIO, *, raw: RawFormat | None = None, limits: Limits = DEFAULT_LIMITS,
    most_bits: int = 8,
) -> Clip:  # fmt: skip
    """Open a clip and read what is known of it.

    ``source`` is a file (video, PNG, JPEG, WebP, a ZIP or TAR of these, or ``.yuv`` whose name tells its format), a
    folder of pictures, ``-`` for standard input, or an open binary stream.  A stream that cannot seek must be Y4M, or
    headerless with ``raw``.
    ``raw`` makes any source headerless video of that format.
    ``most_bits``, 8…12: pictures of more bits than that are converted to so many, others keep their own depth.

    Raises VideoError (no such file, no format in the name), NotAVideo, NoVideoStream, EmptyVideo, DamagedVideo
    (first picture), TooLarge.
    """
    if source == "-":
        return _open_stream(sys.stdin.buffer, "standard input", raw, limits, most_bits)
    if not isinstance(source, str | Path):
        return _open_stream(source, str(getattr(source, "name", "stream")), raw, limits, most_bits)
    path = Path(source)
    if path.is_dir():
        return Clip(str(path), *read_folder(path, limits), limits)
    if raw is None and path.suffix.lower() == ".yuv":
        raw = raw_format_from_name(path)
    try:
        file = path.open("rb")
    except OSError as error:
        raise VideoError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        head = file.read(12)
        file.seek(0)
        if raw is not None or head.startswith(Y4M_MAGIC):
            info, pictures = (read_raw(file, str(path), raw, limits, most_bits) if raw else
                              read_y4m(file, str(path), limits, most_bits))
            return Clip(str(path), info, pictures, file.close, limits)
        if not head:
            raise EmptyVideo(f"{path}: is empty (0 bytes)")
        if picture_demuxer(head) == "png_pipe" and is_animated_png(file):
            return Clip(str(path), *read_container(file, str(path), limits, "apng"), limits)
        if is_animated_webp(file):
            return Clip(str(path), *read_animated_webp(file, str(path), limits), limits)
        if picture_demuxer(head):
            info, picture = read_picture(file.read(MAX_FILE_BYTES + 1), str(path), limits)
            file.close()
            return Clip(str(path), info, iter([picture]), lambda: None, limits)
        if is_archive(file, str(path)):
            return Clip(str(path), *read_archive(file, str(path), limits), limits)
    except BaseException:
        file.close()
        raise
    file.close()
    return Clip(str(path), *read_container(path, str(path), limits, None, most_bits), limits)


def _open_stream(stream: BinaryIO, name: str, raw: RawFormat | None, limits: Limits, most_bits: int) -> Clip:
    """A stream is the caller's: closing the clip leaves it open."""
    if isinstance(stream, io.RawIOBase):  # its reads may stop short; a buffer's do not
        stream = cast(BinaryIO, io.BufferedReader(stream))
    if raw is not None:
        return Clip(name, *read_raw(stream, name, raw, limits, most_bits), lambda: None, limits)
    if not stream.seekable():
        return Clip(name, *read_y4m(stream, name, limits, most_bits), lambda: None, limits)
    start = stream.tell()
    head = stream.read(12)
    stream.seek(start)
    if head.startswith(Y4M_MAGIC):
        return Clip(name, *read_y4m(stream, name, limits, most_bits), lambda: None, limits)
    return Clip(name, *read_container(stream, name, limits, picture_demuxer(head), most_bits), limits)


def read_info(path: str | Path, *, raw: RawFormat | None = None, limits: Limits = DEFAULT_LIMITS, most_bits: int = 8
              ) -> ClipInfo:
    """What :func:`open_clip` says, with ``frames`` counted by reading where the file does not tell it. Raises alike,
    and DamagedVideo of a file that is known to be cut off."""
    with open_clip(path, raw=raw, limits=limits, most_bits=most_bits) as clip:
        if clip.info.cut:
            raise DamagedVideo(f"{path}: is cut off: {clip.info.cut}")
        if clip.info.frames is not None:
            return clip.info
        return replace(clip.info, frames=sum(1 for _ in clip))
