"""Every other video file, and pictures, through PyAV (FFmpeg's libraries): containers in, lossless Matroska out.

Only the demuxers in ``DEMUXERS`` may open a file: FFmpeg would also play a text file as a film of its letters, or
follow a playlist to other files.  A file is read twice: once without decoding, for its time stamps (timing.py), and
then for its pictures.  Rotation, shape of samples and order of fields are kept as marks for players; the samples are
what is measured, and stay as they are coded.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, cast

import av
import av.error
import numpy as np
from av.container import InputContainer, OutputContainer
from av.stream import Disposition

from video.frames import (
    CODE_OF_MATRIX,
    FULL,
    LIMITED,
    MATRIX_OF_CODE,
    REORDERED,
    bits_of,
    frame_of,
    is_full,
    picture_of,
)
from video.picture import (
    DEFAULT_FPS,
    MOST_BITS,
    PRIMARIES,
    TRANSFERS,
    ClipInfo,
    DamagedVideo,
    EmptyVideo,
    Limits,
    NotAVideo,
    NoVideoStream,
    Picture,
    VideoError,
    check_rate,
    check_size,
    default_matrix,
    notes_of_fields,
)
from video.timing import Timing, notes_of, timing_of

DEMUXERS = (
    "mov,matroska,avi,mpegts,mpeg,mpegvideo,m4v,h264,hevc,av1,obu,ivf,flv,ogg,asf,gif,apng,mxf,nut,dv,wav,flac,"
    "png_pipe,jpeg_pipe,webp_pipe"
)
PICTURE_MAGIC = (  # how a picture file begins, and the demuxer that reads it
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "png_pipe"),
    (re.compile(rb"\xff\xd8\xff"), "jpeg_pipe"),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), "webp_pipe"),
)

STILL_DEMUXERS = ("png_pipe", "jpeg_pipe", "webp_pipe")
MAX_PLAIN_FPS = 300  # beyond it a header's rate is likelier that of a clock; believed only where nothing else is said
DISAGREEMENT = 0.03  # of the header's rate with that of the time stamps, from which on it is said

# Every picture is a key picture, so that any can be sought.
LOSSLESS = {"ffv1": {"level": "3", "slicecrc": "1", "g": "1", "coder": "1", "context": "0"}}
# FFmpeg cuts small pictures of odd sizes into one slice only, and codes no slice that is larger than this.
SLICE_WIDTH, SLICE_HEIGHT = 360, 288

# Tags of the files that are written here.
RATE_TAG = "FRAME_RATE"  # Matroska keeps nanoseconds a picture, from which 60000/1001 does not come back
ASPECT_TAG = "SAMPLE_ASPECT"  # PyAV gives no way to Matroska's own field, DisplayWidth
SIZE_TAG = "PICTURE_SIZE"  # of coders that only take even sizes: the part of their pictures that counts, from top left
BITS_TAG = "NVC_BITS"  # of the pictures, where an encoder takes only deeper ones
DEPTHS = tuple(str(bits) for bits in range(8, MOST_BITS + 1))

Opened = tuple[ClipInfo, Iterator[Picture], Callable[[], None]]


def picture_demuxer(head: bytes) -> str | None:
    """The demuxer for a PNG, JPEG or WebP file that begins with ``head`` (12 bytes are enough), else None."""
    return next((demuxer for magic, demuxer in PICTURE_MAGIC if magic.match(head)), None)


def is_animated_png(file: BinaryIO) -> bool:
    """Whether an open PNG file, which is left at its first byte, is an animation: acTL stands before IDAT."""
    file.seek(8)
    animated = False
    while len(head := file.read(8)) == 8 and head[4:] not in (b"IDAT", b"IEND"):
        animated = animated or head[4:] == b"acTL"
        file.seek(int.from_bytes(head[:4], "big") + 4, os.SEEK_CUR)
    file.seek(0)
    return animated


def read_container(source: Path | BinaryIO, name: str, limits: Limits, demuxer: str | None = None,
                   most_bits: int = 8) -> Opened:
    """Open a file or seekable stream and decode its first picture. Gives info, pictures and a function that closes.
    Pictures have the file's depth, up to ``most_bits``; a file of this program's own says which it is to have.

    Raises NotAVideo, NoVideoStream, EmptyVideo, TooLarge, and DamagedVideo here (first picture) or while iterating.
    """
    cut = "its segment is longer than the file" if _is_cut_matroska(source) else ""  # reads from where it stands
    packets = Packets() if demuxer in STILL_DEMUXERS else _scan(source, name, demuxer, limits)
    container = _open(source, name, demuxer)
    try:
        stream = _chosen(container, name)
        if not cut and stream.frames > packets.held > 0:
            cut = f"its header says {stream.frames} pictures, {packets.held} are there"
        context = stream.codec_context
        if context is None:
            raise VideoError(f"{name}: no decoder for its video")
        if context.width or context.height:  # before a picture of that size is made
            check_size(name, context.width, context.height, limits)
        frames = _decode(container, stream, name, bool(cut))
        first = next(frames, None)
        if first is None:
            raise EmptyVideo(f"{name}: holds no picture")
        check_size(name, first.width, first.height, limits)
        info = replace(_info(container, stream, first, packets, name, most_bits), cut=cut)
    except BaseException:
        container.close()
        raise
    return info, _pictures(first, frames, info, name), container.close


def _open(source: Path | BinaryIO, name: str, demuxer: str | None) -> InputContainer:
    options = {"format_whitelist": DEMUXERS}
    files = {"protocol_whitelist": "file"}
    try:
        if isinstance(source, Path):  # "file:", so that no name is taken for an address
            return av.open(f"file:{source}", "r", demuxer, options=options | files, metadata_errors="replace")
        return av.open(source, "r", demuxer, options=options, metadata_errors="replace")
    except av.error.EOFError as error:
        raise EmptyVideo(f"{name}: ends before its first picture") from error
    except (av.error.InvalidDataError, av.error.ArgumentError) as error:
        raise NotAVideo(f"{name}: not a video, or of a format that is not read") from error
    except av.error.FFmpegError as error:
        raise VideoError(f"{name}: cannot be opened: {error.strerror}") from error


def _is_cut_matroska(source: Path | BinaryIO) -> bool:
    """Whether a Matroska file ends before its one segment does (RFC 9559): FFmpeg says nothing of it.

    Elements are an id and a size, both of a length that the first byte's leading zeros tell (RFC 8794); a size of all
    ones means unknown, as in a stream that was never finished.
    """
    stream = source.open("rb") if isinstance(source, Path) else source
    start = stream.tell()
    try:
        end = stream.seek(0, os.SEEK_END)
        stream.seek(start)
        for element in (b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"):  # EBML header, segment
            if stream.read(4) != element:
                return False
            first = stream.read(1)
            length = 9 - first[0].bit_length() if first and first[0] else 1
            value = int.from_bytes(first + stream.read(length - 1)) & ((1 << 7 * length) - 1)
            if value == (1 << 7 * length) - 1:
                return False
            if stream.tell() + value > end:  # looked at before: a size may be larger than any file can be
                return True
            stream.seek(value, os.SEEK_CUR)
        return False
    finally:
        if stream is source:
            stream.seek(start)
        else:
            stream.close()


def _decode(container: InputContainer, stream: av.VideoStream, name: str, cut: bool) -> Iterator[av.VideoFrame]:
    """All frames up to the first damage, those that the decoder still holds included; then DamagedVideo.

    ``cut``: the file is known to end too early, so that the end of its frames is damage.
    """
    index = 0
    problem: av.error.FFmpegError | None = None
    try:
        for packet in container.demux(stream):
            for frame in packet.decode():
                yield _sound(frame, index, name)
                index += 1
    except av.error.FFmpegError as error:
        problem = error
    if problem is not None:
        try:
            for frame in stream.codec_context.decode(None):
                yield _sound(frame, index, name)
                index += 1
        except av.error.FFmpegError:
            pass  # what the decoder held is gone too; the first problem is the one to tell
    if problem is not None or cut:
        raise DamagedVideo(f"{name}: picture {index} is damaged or cut short", index) from problem


def _sound(frame: av.VideoFrame, index: int, name: str) -> av.VideoFrame:
    if frame.is_corrupt:  # the decoder has guessed parts of it: no picture to measure by
        raise DamagedVideo(f"{name}: picture {index} is damaged", index)
    return frame


def _chosen(container: InputContainer, name: str) -> av.VideoStream:
    """The video stream marked as default, of several the one with the most pictures; covers are no video."""
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        raise NoVideoStream(f"{name}: no video stream (of {len(container.streams)} streams)")
    if all(s.disposition & Disposition.dependent for s in streams):
        raise VideoError(f"{name}: a picture made of {len(streams)} tiles (a grid), which are not joined here")
    return max(streams, key=lambda s: (bool(s.disposition & Disposition.default), s.frames, -s.index))


@dataclass(frozen=True)
class Packets:
    """What a pass over a file's packets finds, without decoding: the times of pictures that are shown (empty where not
    each has one), their number, that of all it holds (an edit list hides some), and ticks that the last is shown."""

    times: list[int] = field(default_factory=list)
    count: int = 0
    held: int = 0
    last: int | None = None


def _scan(source: Path | BinaryIO, name: str, demuxer: str | None, limits: Limits) -> Packets:
    """Read a file's packets; a stream is left where it stood."""
    start = 0 if isinstance(source, Path) else source.tell()
    container = _open(source, name, demuxer)
    shown: list[tuple[int | None, int | None, int | None]] = []
    held = 0
    try:
        stream = _chosen(container, name)
        vp8 = stream.codec_context is not None and stream.codec_context.name.endswith("vp8")
        for packet in container.demux(stream):
            held += bool(packet.size)
            hidden = vp8 and packet.size and not bytes(packet)[0] & 0x10  # RFC 6386, 9.1: show_frame
            if packet.size and not packet.is_discard and not hidden:
                shown.append((packet.pts, packet.dts, packet.duration))
                if len(shown) > limits.max_frames:
                    break
    except av.error.FFmpegError:
        pass  # it is damaged from here on, which decoding will say
    finally:
        container.close()
        if not isinstance(source, Path):
            source.seek(start)
    for column in (0, 1):  # pts; AVI has dts only
        times = [row[column] for row in shown]
        if None not in times:
            ordered = sorted(range(len(times)), key=lambda i: times[i] or 0)
            last = shown[ordered[-1]][2] if shown else None
            return Packets([t for t in times if t is not None], len(shown), held, last)
    return Packets([], len(shown), held)


def _timing(container: InputContainer, stream: av.VideoStream, packets: Packets, name: str) -> tuple[Timing, list[str]]:
    """When pictures are shown, and what to say of it."""
    said = [rate for rate in (stream.guessed_rate, stream.average_rate, stream.base_rate) if rate]
    tagged = _tag(container, RATE_TAG, "/")
    if tagged:  # a file that was written here
        return Timing(Fraction(*tagged), Fraction(0)), []
    found = timing_of(packets.times, stream.time_base, packets.last, said) if stream.time_base else None
    if found is None:
        rates = [rate for rate in said if rate <= MAX_PLAIN_FPS]
        if not rates and said:
            check_rate(name, said[0])
        return Timing(rates[0] if rates else said[0] if said else DEFAULT_FPS, Fraction(0)), []
    check_rate(name, found.fps)
    notes = list(notes_of(found))
    header = stream.average_rate or stream.guessed_rate
    if header and abs(header / found.fps - 1) > DISAGREEMENT:
        notes.append(f"its header says {float(header):.5g} pictures a second, its time stamps {float(found.fps):.5g}")
    return found, notes


def _field_order(stream: av.VideoStream, frame: av.VideoFrame) -> str:
    if not frame.interlaced_frame:
        return "progressive"
    # AVFieldOrder: which field is coded first, then which is shown first.
    return {2: "tff", 5: "tff", 3: "bff", 4: "bff"}.get(int(stream.codec_context.field_order), "interlaced")


def _info(container: InputContainer, stream: av.VideoStream, frame: av.VideoFrame, packets: Packets,
          name: str, most_bits: int) -> ClipInfo:
    timing, notes = _timing(container, stream, packets, name)
    videos = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if len(videos) > 1:
        default = ", which is marked as default" if stream.disposition & Disposition.default else ""
        notes.append(f"{len(videos)} video streams: number {videos.index(stream) + 1}, of "
                     f"{frame.width}x{frame.height}, was taken{default}")
    fields = _field_order(stream, frame)
    notes += notes_of_fields(fields)
    if frame.rotation:
        notes.append(f"players turn it by {frame.rotation} degrees counter-clockwise; pictures stay as they are coded")
    form = frame.format
    from_rgb = form.is_rgb or form.has_palette or form.is_bit_stream  # converted to limited range (pixels.py)
    matrix = None if from_rgb else MATRIX_OF_CODE.get(int(frame.colorspace))
    full = not from_rgb and is_full(frame)
    said = container.metadata.get(BITS_TAG, "")
    bits = bits_of(form, min(most_bits, int(said)) if said in DEPTHS else most_bits)
    target = "yuv420p" if bits == 8 else f"yuv420p{bits}le"
    plain = target in (form.name.replace("yuvj", "yuv"), REORDERED.get(form.name)) or said == str(bits)
    aspect = _tag(container, ASPECT_TAG, ":")
    width, height = _tag(container, SIZE_TAG, "x") or (frame.width, frame.height)
    if width > frame.width or height > frame.height:
        raise DamagedVideo(f"{name}: pictures of {frame.width}x{frame.height} cannot hold {width}x{height}", 0)
    return ClipInfo(
        width=width,
        height=height,
        fps=timing.fps,
        # What pixels.py makes of chroma at full size lies in the middle of the samples that it is the mean of.
        chroma_location="center" if from_rgb or "444" in form.name else "",
        frames=packets.count or stream.frames or None,
        matrix=matrix or default_matrix(frame.height),
        range="full" if full else "limited",
        converted="" if plain else f"{form.name} to {target}",
        bits=bits,
        sample_aspect=Fraction(*aspect) if aspect else stream.sample_aspect_ratio or Fraction(1),
        rotation=frame.rotation,
        field_order=fields,
        primaries=PRIMARIES.get(int(frame.color_primaries), ""),
        transfer=TRANSFERS.get(int(frame.color_trc), ""),
        duration_s=timing.duration_s if timing.intervals_s else None,
        intervals_s=timing.intervals_s,
        warnings=tuple(notes),
    )


def _tag(container: InputContainer, name: str, between: str) -> tuple[int, int] | None:
    """Two numbers above 0 of a tag such as 60000/1001 or 175x143, or None where the file has no such tag."""
    match = re.fullmatch(rf"([1-9]\d{{0,9}}){between}([1-9]\d{{0,9}})", container.metadata.get(name, ""))
    return (int(match[1]), int(match[2])) if match else None


def _pictures(first: av.VideoFrame, rest: Iterator[av.VideoFrame], info: ClipInfo, name: str) -> Iterator[Picture]:
    coded = (first.width, first.height)
    for index, frame in enumerate(itertools.chain([first], rest)):
        if (frame.width, frame.height) != coded:
            raise size_change(name, index, frame, first)
        yield _cropped(picture_of(frame, info.matrix, info.bits), info)


def _cropped(picture: Picture, info: ClipInfo) -> Picture:
    rows, columns = info.chroma_shape
    if picture.y.shape == (info.height, info.width):
        return picture
    y, u, v = picture.y[: info.height, : info.width], picture.u[:rows, :columns], picture.v[:rows, :columns]
    return Picture(*(np.ascontiguousarray(plane) for plane in (y, u, v)))


def size_change(
    name: str, index: int, new: av.VideoFrame | ClipInfo, old: av.VideoFrame | ClipInfo
) -> DamagedVideo:
    return DamagedVideo(
        f"{name}: picture {index} is {new.width}x{new.height}, the ones before are {old.width}x{old.height}", index
    )


class VideoWriter:
    """Pictures to a lossless Matroska file that keeps rate, matrix, range and odd sizes. A context manager.

    The same pictures give the same bytes.  Raises VideoError when the file cannot be written or a picture's size is
    not the clip's.
    """

    def __init__(self, path: str | Path, info: ClipInfo, codec: str = "ffv1") -> None:
        if codec not in LOSSLESS:
            raise VideoError(f"codec: expected one of {', '.join(LOSSLESS)}, got {codec!r}")
        check_rate(str(path), info.fps)
        self.info = info
        self._path = Path(path)
        self._count = 0
        container = av.open(f"file:{path}", "w", format="matroska", options={"fflags": "+bitexact"})
        container.metadata[RATE_TAG] = f"{info.fps.numerator}/{info.fps.denominator}"
        self._container: OutputContainer | None = container
        small = info.width <= SLICE_WIDTH and info.height <= SLICE_HEIGHT
        options = LOSSLESS[codec] | ({"slices": "1"} if small else {})
        self._stream = cast(av.VideoStream, container.add_stream(codec, rate=info.fps, options=options))
        self._stream.width, self._stream.height, self._stream.pix_fmt = info.width, info.height, info.form
        self._stream.codec_context.colorspace = CODE_OF_MATRIX[info.matrix]
        self._stream.codec_context.color_range = FULL if info.range == "full" else LIMITED
        for attribute, names, said in (("color_primaries", PRIMARIES, info.primaries),
                                       ("color_trc", TRANSFERS, info.transfer)):
            if said:
                setattr(self._stream.codec_context, attribute, next(code for code, n in names.items() if n == said))
        if info.sample_aspect != 1:
            container.metadata[ASPECT_TAG] = f"{info.sample_aspect.numerator}:{info.sample_aspect.denominator}"
        try:
            container.start_encoding()  # opens the file and writes the header, so that what cannot be done shows here
        except av.error.FFmpegError as error:
            raise VideoError(f"{path}: cannot be written: {error.strerror}") from error

    def write(self, picture: Picture) -> None:
        """Append one picture."""
        if self._container is None:
            raise VideoError(f"{self._path}: is closed")
        frame = frame_of(picture, self.info)
        frame.pts, frame.time_base = self._count, 1 / self.info.fps
        self._count += 1
        self._mux(self._container, frame)

    def append(self, path: Path) -> None:
        """Append all pictures of a file that another writer made of pictures like these, as they are coded there."""
        if self._container is None:
            raise VideoError(f"{self._path}: is closed")
        try:
            with av.open(f"file:{path}", "r", "matroska") as part:
                for packet in part.demux(video=0):
                    if packet.size:
                        packet.pts = packet.dts = self._count
                        packet.time_base, packet.duration = 1 / self.info.fps, 1
                        packet.stream = self._stream
                        self._container.mux(packet)
                        self._count += 1
        except (av.error.FFmpegError, OSError) as error:
            raise VideoError(f"{path}: cannot be appended: {error.strerror}") from error

    def close(self) -> None:
        """Finish the file. May be called twice."""
        container, self._container = self._container, None
        if container is not None:
            try:
                self._mux(container, None)
            finally:
                container.close()

    def _mux(self, container: OutputContainer, frame: av.VideoFrame | None) -> None:
        try:
            for packet in self._stream.encode(frame):
                container.mux(packet)
        except (av.error.FFmpegError, OSError) as error:
            raise VideoError(f"{self._path}: cannot be written: {error.strerror}") from error

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
