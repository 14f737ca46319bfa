"""The codecs to be compared with: x264, x265, SVT-AV1 and VP9, through PyAV, behind the interface of
coding/interface.py.

They get the pictures that every codec gets, make real bytes, and are decoded from those bytes alone.

Settings.      One pass, preset medium or its like, tuned for PSNR, constant quality; closed GOPs of ``intra_period``
               pictures, with the encoder's own scene-cut detection as it is by default.

    quality    x264, x265: CRF = 51 - 0.75 · quality; svtav1, vp9: CRF = 63 - 0.875 · quality, rounded (so that 32,
               the default, is CRF 27 and 35).  ``options["crf"]`` rules over it, and ``bitrate_mbps`` over both (one
               pass, average bit rate).  There is no search for ``psnr_db``.
    structure  intra: intra pictures only.  low_delay: no picture refers to a later one.  random_access: the default.
    effort     0…3: x264, x265 medium, slow, slower, veryslow; svtav1 preset 8, 6, 4, 2; vp9 cpu-used 2, 1, 1, 0.
    options    crf; preset, tune (as the encoder names them); params (x264-params and the like, "key=value:key=value").

Bytes.         The stream is a Matroska file, so that any player can show it.  Its own structure is no achievement of
               the codec: ``details`` has ``packet_bytes`` (the coded pictures), ``header_bytes`` (parameter sets kept
               outside of them) and ``container_bytes`` (the whole file), and rates are to be taken from
               ``rate_bytes`` = packet_bytes + header_bytes.  The text in which x264 and x265 store their settings
               (600 bytes and more, in every stream) is taken out first.
Odd sizes.     x264 and x265 take even sizes only, and each has a smallest size: pictures are padded by their edges,
               and the file says which part counts.
"""

from __future__ import annotations

import ctypes
import io
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import av.error
import numpy as np
from av.bitstream import BitStreamFilterContext

from coding.interface import (
    STRUCTURES,
    BitstreamError,
    CodecError,
    Decoded,
    Encoded,
    FrameReport,
    Progress,
    Report,
    Settings,
    SettingsError,
    no_report,
    refuse_gpu,
)
from video.containers import RATE_TAG, SIZE_TAG, read_container
from video.frames import CODE_OF_MATRIX, FULL, LIMITED, frame_of
from video.picture import DEFAULT_LIMITS, ClipInfo, Picture, VideoError

os.environ.setdefault("SVT_LOG", "1")  # errors only: SVT-AV1 writes its settings to standard error otherwise

MAX_QUALITY, MAX_EFFORT = 63, 3
OPTIONS = ("crf", "preset", "tune", "params")
PICTURE_TYPES = {1: "I", 2: "P", 3: "B"}  # AVPictureType, byte 4 of the packets' quality statistics
X264_TEXT = re.compile(rb"x264 - core[^\0]*")  # in its first packet: version and every setting
EBML = b"\x1a\x45\xdf\xa3"


@dataclass(frozen=True)
class Kind:
    """What one peer has of its own."""

    library: str  # FFmpeg's name of the encoder
    coded_as: str  # FFmpeg's name of the format
    crf: tuple[float, float]  # CRF at quality 0, and its fall for one step of quality
    whole_crf: bool  # the encoder takes whole numbers only
    presets: tuple[str, str, str, str]  # for effort 0…3
    preset_option: str
    params_option: str  # the option that carries "key=value:…", "" where there is none
    align: int  # sizes must be multiples of this
    min_side: int
    file_name: str  # how the library's file name begins, to ask it for its version
    version: Callable[[ctypes.CDLL, str], str]
    fixed: Mapping[str, str] = field(default_factory=dict)
    remove_units: str = ""  # bit stream filter that takes out the encoder's text


def _call(name: str) -> Callable[[ctypes.CDLL, str], str]:
    """Ask a C function without arguments for the version."""

    def ask(library: ctypes.CDLL, file: str) -> str:
        function = getattr(library, name)
        function.restype = ctypes.c_char_p
        return cast(bytes, function()).decode()

    return ask


KINDS = {
    "x264": Kind(
        library="libx264", coded_as="h264", crf=(51, 0.75), whole_crf=False,
        presets=("medium", "slow", "slower", "veryslow"), preset_option="preset", params_option="x264-params",
        align=2, min_side=2, file_name="libx264", remove_units="filter_units=remove_types=6",  # SEI
        version=lambda library, file: f"core {file.rpartition('.so.')[2]}",
    ),
    "x265": Kind(
        library="libx265", coded_as="hevc", crf=(51, 0.75), whole_crf=False,
        presets=("medium", "slow", "slower", "veryslow"), preset_option="preset", params_option="x265-params",
        align=2, min_side=16, file_name="libx265",
        version=lambda library, file: (ctypes.c_char_p.in_dll(library, "x265_version_str").value or b"").decode(),
    ),
    "svtav1": Kind(
        library="libsvtav1", coded_as="av1", crf=(63, 0.875), whole_crf=True,
        presets=("8", "6", "4", "2"), preset_option="preset", params_option="svtav1-params",
        align=1, min_side=64, file_name="libSvtAv1Enc", version=_call("svt_av1_get_version"),
    ),
    "vp9": Kind(
        library="libvpx-vp9", coded_as="vp9", crf=(63, 0.875), whole_crf=True,
        presets=("2", "1", "1", "0"), preset_option="cpu-used", params_option="",
        align=1, min_side=1, file_name="libvpx", version=_call("vpx_codec_version_str"),
        fixed={"deadline": "good", "row-mt": "1", "auto-alt-ref": "1"},
    ),
}  # fmt: skip
SVT_TUNES = {"vq": "0", "psnr": "1", "ssim": "2"}


def x264() -> Peer:
    return Peer("x264")


def x265() -> Peer:
    return Peer("x265")


def svtav1() -> Peer:
    return Peer("svtav1")


def vp9() -> Peer:
    return Peer("vp9")


class Peer:
    """One of KINDS as a codec. Holds no state between clips."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.kind = KINDS[name]

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
        self.warm()
        refuse_gpu(self.name, settings)
        options = encoder_options(self.name, settings)
        out = io.BytesIO()
        coded = _padded_info(info, self.kind)
        packets: list[av.Packet] = []
        count, seconds = 0, 0.0
        with av.open(out, "w", format="matroska", options={"fflags": "+bitexact"}) as container:
            stream = cast(av.VideoStream, container.add_stream(self.kind.library, rate=info.fps, options=options))
            _set_up(stream, coded, settings)
            try:
                for picture in pictures:
                    frame = frame_of(_padded(picture, coded), coded)
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
                container.metadata[RATE_TAG] = f"{info.fps.numerator}/{info.fps.denominator}"
                container.metadata[SIZE_TAG] = f"{info.width}x{info.height}"
                for packet in packets:
                    packet.stream = stream
                    container.mux(packet)
            except (av.error.FFmpegError, OverflowError) as error:
                raise CodecError(f"{self.name}: the encoder failed: {error}") from error
            header_bytes = len(stream.codec_context.extradata or b"")
        progress(Progress("encode", count, count))
        data = out.getvalue()
        sizes = self._sizes(data)
        reports = [FrameReport(i, *row) for i, row in enumerate(zip(types, sizes, strict=True))]
        details = {
            **self.describe(),
            "options": options,
            **({"encoder_settings": text[0].decode("latin-1")} if text else {}),
            "threads": settings.threads or os.cpu_count(),
            "encode_s": seconds,
            "packet_bytes": sum(sizes),
            "header_bytes": header_bytes,
            "container_bytes": len(data),
            "rate_bytes": sum(sizes) + header_bytes,
        }
        return Encoded(data, reports, "", replace(info, frames=count), details)

    def decode(self, data: bytes, progress: Report = no_report) -> Decoded:
        """Decode from the bytes alone. BitstreamError when they are no stream of this codec, here or on the way."""
        frames = len(self._sizes(data))
        try:
            info, pictures, close = read_container(io.BytesIO(data), self.name, DEFAULT_LIMITS, "matroska")
        except VideoError as error:
            raise BitstreamError(f"damaged stream: {error}") from error
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


def encoder_options(name: str, settings: Settings) -> dict[str, str]:
    """The options that the encoder is opened with, as FFmpeg names them. SettingsError names a field that is wrong."""
    kind, own = KINDS[name], settings.options
    if unknown := sorted(set(own) - set(OPTIONS)):
        raise SettingsError(f"options.{unknown[0]}: {name} has {', '.join(OPTIONS)}")
    if not 0 <= settings.quality <= MAX_QUALITY:
        raise SettingsError(f"quality: expected 0 to {MAX_QUALITY}, got {settings.quality}")
    if not 0 <= settings.effort <= MAX_EFFORT:
        raise SettingsError(f"effort: expected 0 to {MAX_EFFORT}, got {settings.effort}")
    if settings.structure not in STRUCTURES:
        raise SettingsError(f"structure: expected one of {', '.join(STRUCTURES)}, got {settings.structure!r}")
    if settings.intra_period < 1:
        raise SettingsError(f"intra_period: expected at least 1, got {settings.intra_period}")
    if settings.psnr_db is not None:
        raise SettingsError(f"psnr_db: {name} does not search for a quality; give quality or bitrate_mbps")
    if settings.bitrate_mbps is not None and settings.bitrate_mbps <= 0:
        raise SettingsError(f"bitrate_mbps: expected a rate above 0, got {settings.bitrate_mbps}")
    if "params" in own and not kind.params_option:
        raise SettingsError(f"options.params: {name} has none")

    period = 1 if settings.structure == "intra" else settings.intra_period
    options = {
        kind.preset_option: str(own.get("preset", kind.presets[settings.effort])),
        "g": str(period),
        **kind.fixed,
    }
    tune, params = str(own.get("tune", "psnr")), []
    if name == "svtav1":
        params.append(f"tune={SVT_TUNES.get(tune, tune)}")
        if settings.threads:
            params.append(f"lp={settings.threads}")
        if settings.structure == "low_delay":
            params.append("pred-struct=1")
    else:
        options["tune"] = tune
    if name == "x265":
        params += [f"keyint={period}", "open-gop=0", "info=0", "log-level=none"]
        if settings.threads:
            params += [f"pools={settings.threads}", f"frame-threads={min(settings.threads, 4)}"]
    if settings.structure == "low_delay" and name in ("x264", "x265"):
        options["bf"] = "0"
    if name == "vp9":
        options["lag-in-frames"] = "25" if settings.structure == "random_access" else "0"
    if settings.bitrate_mbps is None:
        options["crf"] = f"{_crf(name, settings):g}"
    if name == "vp9" or settings.bitrate_mbps is not None:
        options["b"] = str(round((settings.bitrate_mbps or 0) * 1e6))  # vp9 takes 0 for "quality alone"
    if own.get("params"):
        params.append(str(own["params"]))
    if params:
        options[kind.params_option] = ":".join(params)
    return options


def _crf(name: str, settings: Settings) -> float:
    first, fall = KINDS[name].crf
    crf = settings.options.get("crf", first - fall * settings.quality)
    if isinstance(crf, bool) or not isinstance(crf, int | float) or not 0 <= crf <= first:
        raise SettingsError(f"options.crf: expected a number from 0 to {first:g}, got {crf!r}")
    return float(round(crf)) if KINDS[name].whole_crf else float(crf)


def _set_up(stream: av.VideoStream, coded: ClipInfo, settings: Settings) -> None:
    stream.width, stream.height, stream.pix_fmt = coded.width, coded.height, "yuv420p"
    stream.codec_context.colorspace = CODE_OF_MATRIX[coded.matrix]
    stream.codec_context.color_range = FULL if coded.range == "full" else LIMITED
    stream.codec_context.thread_count = settings.threads
    stream.codec_context.time_base = Fraction(1) / coded.fps


def _padded_info(info: ClipInfo, kind: Kind) -> ClipInfo:
    """The clip with sizes that the encoder takes."""

    def up(side: int) -> int:
        return max(-(-side // kind.align) * kind.align, kind.min_side)

    return replace(info, width=up(info.width), height=up(info.height))


def _padded(picture: Picture, coded: ClipInfo) -> Picture:
    """Repeat the last line and column until the picture has the coded size."""
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
        return kind.version(ctypes.CDLL(match[1]), Path(match[1]).name) if match else "unknown"
    except (OSError, AttributeError, ValueError):
        return "unknown"
