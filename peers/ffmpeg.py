"""The codecs to be compared with: x264, x265, SVT-AV1 and VP9 through PyAV; libaom, rav1e and VVenC through the FFmpeg
program (peers/program.py).  All behind the interface of coding/interface.py; peers/kinds.py has their settings.

They get the pictures that every codec gets, make real bytes, and are decoded by PyAV from those bytes alone.

Bytes.         The stream is a Matroska file, so that any player can show it.  Its own structure is no achievement of
               the codec: ``details`` has ``packet_bytes`` (the coded pictures), ``header_bytes`` (parameter sets kept
               outside of them) and ``container_bytes`` (the whole file), and rates are to be taken from
               ``rate_bytes`` = packet_bytes + header_bytes.  The text in which x264 and x265 store their settings
               (600 bytes and more, in every stream) is taken out first.
Odd sizes.     Some take even sizes only, and most have a smallest size: pictures are padded by their edges, and the
               file says which part counts; ``details["padded_to"]`` says the size that was coded.
Depth.         Pictures of up to 10 or 12 bits are coded as they are.  VVenC codes 8 bits as 10: samples times 4, and
               what is decoded is rounded back.
"""

from __future__ import annotations

import ctypes
import io
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import av.error
import numpy as np
from av.bitstream import BitStreamFilterContext

from coding.interface import (
    BitstreamError,
    CodecError,
    Decoded,
    Encoded,
    FrameReport,
    Progress,
    Report,
    Settings,
    no_report,
    refuse_gpu,
)
from peers.kinds import KINDS, Kind, encoder_options
from peers.scheduling import ordinary_scheduling
from peers.search import choose_constant
from video.containers import BITS_TAG, RATE_TAG, SIZE_TAG, read_container
from video.frames import CODE_OF_MATRIX, FULL, LIMITED, frame_of
from video.picture import DEFAULT_LIMITS, MOST_BITS, ClipInfo, Picture, VideoError
from video.pixels import change_depth

os.environ.setdefault("SVT_LOG", "1")  # errors only: SVT-AV1 writes its settings to standard error otherwise

PICTURE_TYPES = {1: "I", 2: "P", 3: "B"}  # AVPictureType, byte 4 of the packets' quality statistics
X264_TEXT = re.compile(rb"x264 - core[^\0]*")  # in its first packet: version and every setting
EBML = b"\x1a\x45\xdf\xa3"


def x264() -> Peer:
    return Peer("x264")


def x265() -> Peer:
    return Peer("x265")


def svtav1() -> Peer:
    return Peer("svtav1")


@dataclass(frozen=True)
class Made:
    """What an encoder made: a Matroska file; types of the pictures in display order; seconds; bytes of parameter sets
    outside of the packets; the text in which it stores its settings; its version, where it is not the usual one."""

    data: bytes
    types: list[str]
    seconds: float
    header_bytes: int
    settings_text: str = ""
    encoder_version: str = ""


def tags(info: ClipInfo) -> dict[str, str]:
    """What the file says in its metadata: the exact frame rate, the size without the padding, the pictures' depth."""
    return {RATE_TAG: f"{info.fps.numerator}/{info.fps.denominator}", SIZE_TAG: f"{info.width}x{info.height}",
            BITS_TAG: str(info.bits)}


class Peer:
    """One of KINDS as a codec. Holds no state between clips."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.kind = KINDS[name]
        self.most_bits = max(self.kind.depths)  # coding.interface.most_bits

    def warm(self) -> None:
        """Nothing to load. CodecError where this build of FFmpeg lacks the encoder."""
        try:
            av.codec.Codec(self.kind.library, "w")
        except ValueError as error:
            raise CodecError(f"{self.name}: this build of PyAV lacks the encoder {self.kind.library}") from error

    def describe(self) -> dict[str, Any]:
        """Name, versions of the encoder's library, of FFmpeg's and of PyAV."""
        return {
            "name": self.name,
            "encoder": self.kind.library,
            "encoder_version": _library_version(self.kind),
            "libavcodec": ".".join(str(part) for part in av.library_versions["libavcodec"]),
            "pyav": av.__version__,
        }

    def encode(
        self, pictures: Iterable[Picture], info: ClipInfo, settings: Settings, progress: Report = no_report
    ) -> Encoded:
        """Code the pictures. SettingsError for what the encoder does not have, CodecError when it fails.

        ``pictures_sha256`` is "": these encoders do not show what they reconstruct.
        """
        refuse_gpu(self.name, settings)
        if settings.psnr_db is not None:
            return choose_constant(self.kind, lambda source, chosen, report: self.encode(source, info, chosen, report),
                                   self.decode, pictures, info, settings, progress)
        options = encoder_options(self.name, settings)
        self.warm()
        coded = _padded_info(info, self.kind)
        options |= self.kind.deep if coded.bits > 8 else ()
        with ordinary_scheduling():
            made = self._encode(pictures, info, coded, settings, options, progress)
        progress(Progress("encode", len(made.types), len(made.types)))
        sizes = self._sizes(made.data)
        reports = [FrameReport(i, *row) for i, row in enumerate(zip(made.types, sizes, strict=True))]
        details = {
            **self.describe(),
            **({"encoder_version": made.encoder_version} if made.encoder_version else {}),
            "options": options,
            **({"encoder_settings": made.settings_text} if made.settings_text else {}),
            **({"padded_to": f"{coded.width}x{coded.height}"} if (coded.width, coded.height) != (
                info.width, info.height) else {}),
            "coded_bits": coded.bits,
            "threads": settings.threads or os.cpu_count(),
            "encode_s": made.seconds,
            "packet_bytes": sum(sizes),
            "header_bytes": made.header_bytes,
            "container_bytes": len(made.data),
            "rate_bytes": sum(sizes) + made.header_bytes,
        }
        return Encoded(made.data, reports, "", replace(info, frames=len(sizes)), details)

    def _encode(
        self, pictures: Iterable[Picture], info: ClipInfo, coded: ClipInfo, settings: Settings,
        options: dict[str, str], progress: Report,
    ) -> Made:  # fmt: skip
        """By PyAV. ``coded`` is ``info`` with the size that the pictures are padded to."""
        out = io.BytesIO()
        packets: list[av.Packet] = []
        count, seconds = 0, 0.0
        with av.open(out, "w", format="matroska", options={"fflags": "+bitexact"}) as container:
            stream = cast(av.VideoStream, container.add_stream(self.kind.library, rate=info.fps, options=options))
            _set_up(stream, coded, settings)
            try:
                for picture in pictures:
                    frame = frame_of(fitted(picture, info, coded), coded)
                    frame.pts, frame.time_base = count, 1 / info.fps
                    began = time.perf_counter()
                    packets += stream.encode(frame)
                    seconds += time.perf_counter() - began
                    count += 1
                    progress(Progress("encode", len(packets), info.frames))
                if count == 0:
                    raise CodecError(f"{self.name}: no picture to encode")
                began = time.perf_counter()
                packets += stream.encode(None)
                seconds += time.perf_counter() - began
                types = _types(packets, self.name)
                text = X264_TEXT.search(bytes(packets[0]))
                if self.kind.remove_units:
                    packets = _filtered(packets, stream, self.kind.remove_units)
                container.metadata.update(tags(info))
                for packet in packets:
                    packet.stream = stream
                    container.mux(packet)
            except (av.error.FFmpegError, OverflowError) as error:
                raise CodecError(f"{self.name}: the encoder failed: {error}") from error
            header_bytes = len(stream.codec_context.extradata or b"")
        return Made(out.getvalue(), types, seconds, header_bytes, text[0].decode("latin-1") if text else "")

    def decode(self, data: bytes, progress: Report = no_report) -> Decoded:
        """Decode from the bytes alone. BitstreamError when they are no stream of this codec, here or on the way."""
        frames = len(self._sizes(data))
        try:
            info, pictures, close = read_container(io.BytesIO(data), self.name, DEFAULT_LIMITS, "matroska", MOST_BITS)
        except VideoError as error:
            raise BitstreamError(f"damaged stream: {error}") from error
        if self.kind.coded_as == "vvc":
            info = replace(info, range=_range_of_file(data))
        decoded = Decoded(replace(info, frames=frames), iter(()))
        decoded.pictures = self._decoded(pictures, close, frames, decoded.details, progress)
        return decoded

    def _sizes(self, data: bytes) -> list[int]:
        """Bytes of each coded picture in the file, in display order: what is there, whatever the encoder said."""
        if not data.startswith(EBML):
            raise BitstreamError(f"not a stream of {self.name}: expected a Matroska file at byte 0")
        try:
            with av.open(io.BytesIO(data), "r", "matroska", metadata_errors="replace") as container:
                found = [s.codec_context and s.codec_context.codec.canonical_name for s in container.streams.video]
                if found != [self.kind.coded_as]:
                    raise BitstreamError(f"not a stream of {self.name}: expected {self.kind.coded_as}, found {found}")
                packets = [packet for packet in container.demux(video=0) if packet.size]
                return [packet.size for packet in sorted(packets, key=lambda packet: packet.pts or 0)]
        except av.error.FFmpegError as error:
            raise BitstreamError(f"damaged stream: {error.strerror}") from error

    def _decoded(
        self,
        pictures: Iterator[Picture],
        close: Callable[[], None],
        frames: int,
        details: dict[str, Any],
        progress: Report,
    ) -> Iterator[Picture]:
        count, seconds = 0, 0.0
        try:
            while True:
                began = time.perf_counter()
                picture = next(pictures, None)
                seconds += time.perf_counter() - began
                if picture is None:
                    break
                count += 1
                yield picture
                progress(Progress("decode", count, frames))
        except VideoError as error:
            raise BitstreamError(f"damaged stream: {error}") from error
        finally:
            close()
        details.update(self.describe(), decode_s=seconds)


def _set_up(stream: av.VideoStream, coded: ClipInfo, settings: Settings) -> None:
    stream.width, stream.height, stream.pix_fmt = coded.width, coded.height, coded.form
    stream.codec_context.colorspace = CODE_OF_MATRIX[coded.matrix]
    stream.codec_context.color_range = FULL if coded.range == "full" else LIMITED
    stream.codec_context.thread_count = settings.threads
    stream.codec_context.time_base = Fraction(1) / coded.fps


def _padded_info(info: ClipInfo, kind: Kind) -> ClipInfo:
    """The clip with a size and depth that the encoder takes."""

    def up(side: int) -> int:
        return max(-(-side // kind.align) * kind.align, kind.min_side)

    return replace(info, width=up(info.width), height=up(info.height), bits=kind.coded_bits(info.bits))


def fitted(picture: Picture, info: ClipInfo, coded: ClipInfo) -> Picture:
    """The clip's picture in the coded depth and size: the last line and column are repeated until it has that."""
    picture = change_depth(picture, info.bits, coded.bits, info.range == "full")
    if picture.y.shape == (coded.height, coded.width):
        return picture
    shapes = ((coded.height, coded.width), coded.chroma_shape, coded.chroma_shape)
    missing = [
        [(0, wanted - has) for wanted, has in zip(shape, plane.shape, strict=True)]
        for plane, shape in zip(picture, shapes, strict=True)
    ]
    if any(after < 0 for plane in missing for _, after in plane):
        return picture  # larger than the clip: frame_of says what is wrong
    return Picture(*(np.pad(plane, pad, mode="edge") for plane, pad in zip(picture, missing, strict=True)))


def _range_of_file(data: bytes) -> str:
    """The range that the file declares: VVenC has no setting that writes it into its stream."""
    with av.open(io.BytesIO(data), "r", "matroska", metadata_errors="replace") as container:
        return "full" if container.streams.video[0].codec_context.color_range == FULL else "limited"


def _types(packets: list[av.Packet], name: str) -> list[str]:
    """"I", "P" or "B" of each picture, in display order."""
    types = []
    for index, packet in enumerate(sorted(packets, key=lambda packet: packet.pts or 0)):
        statistics = bytes(packet.get_sidedata("quality_stats"))
        kind = PICTURE_TYPES.get(statistics[4]) if len(statistics) > 4 else None
        if packet.pts != index or kind is None:
            raise CodecError(f"{name}: the encoder gave no picture {index}, or no type for it")
        types.append(kind)
    return types


def _filtered(packets: list[av.Packet], stream: av.VideoStream, name: str) -> list[av.Packet]:
    context = BitStreamFilterContext(name, in_stream=stream)
    return [out for packet in [*packets, None] for out in context.filter(packet)]


def _library_version(kind: Kind) -> str:
    """Ask the library that PyAV has loaded; "unknown" where its file is not found or does not answer."""
    try:
        maps = Path("/proc/self/maps").read_text()
        match = re.search(rf"(/\S*/{kind.file_name}[^/\s]*\.so\S*)", maps)
        found = match and kind.version and kind.version(ctypes.CDLL(match[1]), Path(match[1]).name)
        return found or "unknown"
    except (OSError, AttributeError, ValueError):
        return "unknown"
