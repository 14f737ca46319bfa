"""Between PyAV's frames and pictures: planes copied without the padding of rows, other sample formats converted."""

from __future__ import annotations

from collections.abc import Iterator

import av
import numpy as np
from av.video.reformatter import Interpolation

from video.picture import ClipInfo, Picture, check_picture
from video.pixels import rgb_to_420, to_420

# ISO/IEC 23091-2 MatrixCoefficients; 5 (625 lines) and 6 (525 lines) are the same matrix, 9 and 10 nearly so.
MATRIX_OF_CODE = {1: "bt709", 4: "fcc", 5: "bt601", 6: "bt601", 7: "smpte240m", 8: "ycgco", 9: "bt2020", 10: "bt2020"}
CODE_OF_MATRIX = {"bt709": 1, "fcc": 4, "bt601": 6, "smpte240m": 7, "ycgco": 8, "bt2020": 9}
LIMITED, FULL = 1, 2  # AVColorRange

# Sample formats that are another order of the same samples: a copy, not a conversion.
REORDERED = {
    **dict.fromkeys(("nv12", "nv21"), "yuv420p"),
    **dict.fromkeys(("p010le", "p010be"), "yuv420p10le"),
    **dict.fromkeys(("yuyv422", "uyvy422", "yvyu422", "nv16"), "yuv422p"),
    **dict.fromkeys(("p210le", "y210le"), "yuv422p10le"),
    **dict.fromkeys(("nv24", "nv42"), "yuv444p"),
    "p410le": "yuv444p10le",
}
EXACT = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INP | Interpolation.BITEXACT


def bits_of(form: av.VideoFormat, most_bits: int) -> int:
    """The depth of pictures that are made of such frames: their own up to ``most_bits``; 8 of RGB and of what is no
    plain format."""
    plain = form.name in REORDERED or (not (form.is_rgb or form.has_palette or form.is_bit_stream)
                                       and _is_plain_planar(form))
    return max(8, min(max(c.bits for c in form.components), most_bits)) if plain else 8


def picture_of(frame: av.VideoFrame, matrix: str, target: int = 8) -> Picture:
    """A decoded frame as a 4:2:0 picture of ``target`` bits and its own memory; RGB, which is for 8 bits only, goes by
    ``matrix``."""
    form = frame.format
    if form.name in REORDERED:
        frame = frame.reformat(format=REORDERED[form.name])
        form = frame.format
    if form.name in ("yuv420p", "yuvj420p") and target == 8:
        return Picture(*(samples.copy() for samples in _samples(frame)))
    bits = max(c.bits for c in form.components)
    if form.is_rgb or form.has_palette or form.is_bit_stream:
        depth = 8 if bits <= 8 else 16
        rgb = frame.reformat(format="rgb24" if depth == 8 else "rgb48le", interpolation=EXACT)
        return rgb_to_420(rgb.to_ndarray(), depth, matrix)
    if not _is_plain_planar(form):
        bits = 8 if bits <= 8 else 16
        frame = frame.reformat(format="yuv444p" if bits == 8 else "yuv444p16le", interpolation=EXACT)
    return to_420(list(_samples(frame)), bits, is_full(frame), target)


def is_full(frame: av.VideoFrame) -> bool:
    """Full range where the frame says so or, as FFmpeg has it, says nothing and is grey or of JPEG's old formats."""
    if int(frame.color_range) in (LIMITED, FULL):
        return int(frame.color_range) == FULL
    return frame.format.name.startswith(("yuvj", "gray", "ya"))


def _is_plain_planar(form: av.VideoFormat) -> bool:
    """Each component in a plane of its own, integers in the low bits, chroma at full or half size."""
    parts = [c for c in form.components if not c.is_alpha]
    rows, columns = (form.height, (form.height + 1) // 2), (form.width, (form.width + 1) // 2)
    return (
        len(parts) in (1, 3)
        and len(parts) == len({c.plane for c in parts})
        and len({c.plane for c in form.components}) == len(form.components)
        and all(8 <= c.bits <= 16 and c.height in rows and c.width in columns for c in parts)
        and "msb" not in form.name
    )


def _samples(frame: av.VideoFrame) -> Iterator[np.ndarray]:
    """Views of the planes y, u, v (or y), without the padding that FFmpeg keeps at the end of rows. Alpha is left."""
    for component in frame.format.components:
        if component.is_alpha:
            continue
        plane = frame.planes[component.plane]
        kind = np.dtype("u1") if component.bits <= 8 else np.dtype(">u2" if frame.format.is_big_endian else "<u2")
        rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)  # type: ignore[call-overload]
        yield rows[: component.height, : component.width * kind.itemsize].view(kind)


def frame_of(picture: Picture, info: ClipInfo) -> av.VideoFrame:
    """A picture as a 4:2:0 frame, with the clip's depth, matrix and range. Raises VideoError on another size."""
    check_picture(picture, info)
    frame = av.VideoFrame(info.width, info.height, info.form)
    frame.colorspace = CODE_OF_MATRIX[info.matrix]
    frame.color_range = FULL if info.range == "full" else LIMITED
    for target, plane in zip(_samples(frame), picture, strict=True):
        target[:] = plane
    return frame
