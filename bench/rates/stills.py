"""Still pictures: nvc beside JPEG, WebP, x264 and x265, all of them coding and giving back the same planes.

The reference.  A picture file's R'G'B' becomes 8-bit 4:2:0 once, by JPEG's own rule: BT.601, full range (JFIF), chroma
averaged over its four samples before the one rounding.  Every codec is handed these planes as they are, and what its
decoder makes of its bytes is compared with them, plane by plane.  No RGB is made on the way, by none of them.

jpeg           Pillow (libjpeg-turbo): Huffman tables optimised, baseline, 4:2:0.  It takes Y'CbCr at full size only,
               so chroma is handed over with each sample four times; libjpeg's mean of four equal samples is that
               sample, so that it codes exactly the planes.  Decoded by FFmpeg, which gives planes (Pillow would
               smooth chroma on its way to full size); luma of both decoders agrees to 0.001 dB.
webp           libwebp at method 4, its default, lossy, by FFmpeg, which hands libwebp planes; Pillow would have it
               convert RGB.  Decoded by FFmpeg.  The planes are of full range, so at the same quality number files
               are larger and better than those that Pillow makes.
x264, x265     as for clips (preset medium, tune psnr, one thread), one intra picture, flagged full range.
nvc            structure intra.

Bytes.         All of the file of JPEG, WebP and nvc; of x264 and x265 the picture and its parameter sets.

What is not quite fair: WebP's decoders take its planes as limited range when they make RGB; here it codes full-range
samples as it would any others.  JPEG and WebP are mostly given RGB, and shown as RGB; what those conversions lose is
the same for all and is left out.  JPEG's files carry 18 bytes of JFIF header that no decoder needs.
"""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from PIL import Image, features

import codec
from bench.rates.points import ANCHOR_CRF, METRICS, Point, against_each, at_hand, means_of, point_of, sha256_of
from bench.rates.processes import each
from coding.interface import (
    BitstreamError,
    Codec,
    CodecError,
    Decoded,
    Encoded,
    FrameReport,
    Progress,
    Report,
    Settings,
    no_report,
)
from video.frames import frame_of
from video.picture import DEFAULT_FPS, DEFAULT_LIMITS, ClipInfo, Picture, VideoError
from video.pixels import to_420
from video.stills import SUFFIXES, read_picture

QUALITIES = (2, 12, 23, 34, 45, 56)  # of nvc
# Of the others, each in its own measure, over what nvc reaches with these.
SETTINGS: dict[str, list[Settings]] = {
    "jpeg": [Settings(quality=quality) for quality in (15, 35, 55, 75, 88, 95)],
    "webp": [Settings(quality=quality) for quality in (5, 25, 50, 75, 90, 97)],
    "x264": [Settings(structure="intra", threads=1, options={"crf": crf}) for crf in ANCHOR_CRF["x264"]],
    "x265": [Settings(structure="intra", threads=1, options={"crf": crf}) for crf in ANCHOR_CRF["x265"]],
}
KEPT = ("bytes", "bpp", *METRICS)  # of a point; the rest of its settings is above


def planes_of(path: Path) -> tuple[Picture, ClipInfo]:
    """The reference: a picture file (RGB, or what Pillow makes RGB of) as full-range BT.601 4:2:0."""
    with Image.open(path) as image:
        r, g, b = np.moveaxis(np.asarray(image.convert("RGB"), np.float64), -1, 0)
    luma = 0.299 * r + 0.587 * g + 0.114 * b
    planes = (luma, 128 + (b - luma) / 1.772, 128 + (r - luma) / 1.402)
    fine = [np.clip(np.rint(257 * plane), 0, 65535).astype(np.uint16) for plane in planes]  # 257 · 255 = 65535
    info = ClipInfo(luma.shape[1], luma.shape[0], DEFAULT_FPS, 1, "bt601", "full")
    return to_420(fine, 16, True), info


class StillCodec(ABC):
    """A format of still pictures as a codec of clips of one picture. ``quality`` is the format's own, 0…100."""

    name: str

    @abstractmethod
    def warm(self) -> None:
        """CodecError where it is missing here."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Its library and version."""

    @abstractmethod
    def coded(self, picture: Picture, info: ClipInfo, quality: int) -> bytes:
        """The picture as a file."""

    def encode(
        self, pictures: Iterable[Picture], info: ClipInfo, settings: Settings, progress: Report = no_report
    ) -> Encoded:
        """CodecError unless there is one picture."""
        given = list(pictures)
        if len(given) != 1:
            raise CodecError(f"{self.name}: expected one picture, got {len(given)}")
        data = self.coded(given[0], info, settings.quality)
        progress(Progress("encode", 1, 1))
        return Encoded(data, [FrameReport(0, "I", len(data))], "", replace(info, frames=1), self.describe())

    def decode(self, data: bytes, progress: Report = no_report) -> Decoded:
        """The planes in the file, by FFmpeg. BitstreamError when it is none."""
        try:
            info, picture = read_picture(data, self.name, DEFAULT_LIMITS)
        except VideoError as error:
            raise BitstreamError(str(error)) from error
        return Decoded(info, iter([picture]), {})


class Jpeg(StillCodec):
    name = "jpeg"

    def warm(self) -> None:
        if not features.check("jpg"):
            raise CodecError("jpeg: this build of Pillow lacks JPEG")

    def describe(self) -> dict[str, Any]:
        return {"name": "jpeg", "encoder": "libjpeg-turbo", "encoder_version": features.version("libjpeg_turbo")}

    def coded(self, picture: Picture, info: ClipInfo, quality: int) -> bytes:
        u, v = (plane.repeat(2, 0).repeat(2, 1)[: info.height, : info.width] for plane in (picture.u, picture.v))
        image = Image.merge("YCbCr", [Image.fromarray(plane) for plane in (picture.y, u, v)])
        out = io.BytesIO()
        image.save(out, "JPEG", quality=quality, optimize=True, progressive=False, subsampling="4:2:0")
        return out.getvalue()


class WebP(StillCodec):
    name = "webp"

    def warm(self) -> None:
        try:
            av.codec.Codec("libwebp", "w")
        except ValueError as error:
            raise CodecError("webp: this build of PyAV lacks the encoder libwebp") from error

    def describe(self) -> dict[str, Any]:
        libavcodec = ".".join(str(part) for part in av.library_versions["libavcodec"])
        return {"name": "webp", "encoder": "libwebp", "libavcodec": libavcodec, "pyav": av.__version__}

    def coded(self, picture: Picture, info: ClipInfo, quality: int) -> bytes:
        context = cast(av.VideoCodecContext, av.codec.CodecContext.create("libwebp", "w"))
        context.width, context.height, context.pix_fmt = info.width, info.height, "yuv420p"
        context.time_base = Fraction(1, 25)
        context.options = {"quality": str(quality), "compression_level": "4"}
        packets = context.encode(frame_of(picture, info)) + context.encode(None)
        return b"".join(bytes(packet) for packet in packets)


def pictures_of(folder: Path) -> list[Path]:
    """The picture files of a folder by name; none where there is no such folder."""
    return sorted(path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES)


def stills(paths: Sequence[Path], variants: dict[str, tuple[str, int]], processes: int = 1) -> dict[str, Any]:
    """Points of all codecs on each picture, and nvc's BD-rates; with each of the weight sets and efforts named.

    ``nvc``, ``bd_rate`` and ``mean_bd_rate`` are of the first, ``others`` has the rest by their names.
    """
    here, left_out = at_hand([coder_of(name) for name in SETTINGS])
    rows = each(partial(_row, anchors=list(here), variants=variants), paths, processes)
    mean, counts = means_of([row["bd_rate"] for row in rows])
    first, *rest = variants
    return {
        "mean_bd_rate": mean,
        "mean_bd_rate_clips": counts,
        "others": {name: means_of([row["others"][name]["bd_rate"] for row in rows])[0] for name in rest},
        "left_out": left_out,
        "encoders": {name: coder.describe() for name, coder in here.items()},
        "variant": first,
        "pictures": rows,
    }


def coder_of(name: str) -> Codec:
    """One of `SETTINGS` by its name."""
    own: dict[str, type[StillCodec]] = {"jpeg": Jpeg, "webp": WebP}
    return own[name]() if name in own else codec.get(name)


def _row(path: Path, anchors: Sequence[str], variants: dict[str, tuple[str, int]]) -> dict[str, Any]:
    picture, info = planes_of(path)

    def points(coder: Codec, runs: Iterable[Settings]) -> list[Point]:
        return [_brief(point_of(coder, lambda: iter([picture]), info, settings)) for settings in runs]

    theirs = {name: points(coder_of(name), SETTINGS[name]) for name in anchors}
    made: dict[str, dict[str, Any]] = {}
    for name, (model, effort) in variants.items():
        ours = points(codec.get("nvc"), [Settings(q, "intra", effort=effort, model=model) for q in QUALITIES])
        made[name] = {"nvc": ours, "bd_rate": against_each(ours, theirs, "bpp")}
    first = made.pop(next(iter(made)))
    about = {"clip": path.stem, "clip_sha256": sha256_of(path), "size": f"{info.width}x{info.height}"}
    return {**about, **first, **theirs, "others": made}


def _brief(point: Point) -> Point:
    settings = point["settings"]
    own = settings["options"].get("crf", settings["quality"])
    return {"at": own, **{key: point[key] and round(point[key], 6) for key in KEPT}}
