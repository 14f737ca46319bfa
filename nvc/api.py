"""The codec from Python: NumPy arrays in, bytes out, and back.  `import nvc` has `nvc.encode` and `nvc.decode`.

A picture is Y, U and V, uint8 arrays of 4:2:0 (video.picture.Picture, or any three), or one R'G'B' array (H, W, 3).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import chain

import numpy as np

from coding.interface import BitstreamError, CodecError, Settings, SettingsError
from nvc.codec import Nvc
from nvc.codec import decode as decode_stream
from nvc.network.model import DEFAULT_MODEL
from video.picture import MATRICES, MAX_FPS, RANGES, ClipInfo, Picture, default_matrix
from video.pixels import rgb_to_420
from video.rgb import rgb as rgb_of

__all__ = ["BitstreamError", "CodecError", "SettingsError", "decode", "decode_rgb", "encode", "info"]

AnyPicture = np.ndarray | Sequence[np.ndarray]


def encode(pictures: Iterable[AnyPicture], *, fps: Fraction | float | str, quality: int = 32,
           bitrate_mbps: float | None = None, psnr_db: float | None = None, structure: str = "random_access",
           intra_period: int = 64, effort: int = 0, model: str = DEFAULT_MODEL, matrix: str = "",
           colour_range: str = "limited", threads: int = 0) -> bytes:
    """Code pictures of one size, in display order, into a stream.

    fps: pictures a second, "30000/1001" too.  quality: 0…63, higher is better; bitrate_mbps or psnr_db is aimed at in
    its place.  structure: "intra", "low_delay" or "random_access".  intra_period: pictures from one I picture to the
    next.  effort: -1…3.  matrix ("bt601", "bt709", …; by the height where it is not given) and colour_range ("limited",
    "full") say what Y, U and V mean; R'G'B' becomes limited range.  threads: 0 takes all processors.

    Raises SettingsError naming what is wrong: an argument, or the first picture that is none.
    """
    try:
        rate = Fraction(fps).limit_denominator(1_000_000)
    except (ValueError, ZeroDivisionError, OverflowError, TypeError) as error:
        raise SettingsError(f"fps: expected a rate such as 25 or '30000/1001', got {fps!r}") from error
    if not 0 < rate <= MAX_FPS:
        raise SettingsError(f"fps: expected a rate above 0, up to {MAX_FPS}, got {fps!r}")
    for name, value, known in (("matrix", matrix or MATRICES[0], MATRICES), ("colour_range", colour_range, RANGES)):
        if value not in known:
            raise SettingsError(f"{name}: expected one of {', '.join(known)}, got {value!r}")
    source = enumerate(pictures)
    found = next(source, None)
    if found is None:
        raise SettingsError("pictures: expected one at least, got none")
    first = _picture_of(*found, matrix)
    height, width = first.y.shape
    info = ClipInfo(width, height, rate, matrix=matrix or default_matrix(height),
                    range="limited" if _is_rgb(found[1]) else colour_range)
    settings = Settings(quality, structure, intra_period, effort, bitrate_mbps=bitrate_mbps, psnr_db=psnr_db,
                        model=model, threads=threads)
    others = (_of_size(number, _picture_of(number, each, matrix), first) for number, each in source)
    return Nvc().encode(chain([first], others), info, settings).data


def decode(data: bytes) -> Iterator[Picture]:
    """The pictures of a stream: y (H, W), u and v (ceil(H/2), ceil(W/2)), uint8, in display order.

    Raises BitstreamError for damaged or foreign bytes, some of it only while the pictures are read.
    """
    return iter(decode_stream(data))


def decode_rgb(data: bytes) -> Iterator[np.ndarray]:
    """As :func:`decode`, each picture as R'G'B' (H, W, 3) uint8, to be looked at: chroma is not
    interpolated."""
    decoded = decode_stream(data)
    for picture in decoded:
        yield rgb_of(picture, decoded.info).round().astype(np.uint8)


def info(data: bytes) -> ClipInfo:
    """What a stream says of its clip: size, rate, number of pictures, colours.  Raises BitstreamError."""
    return decode_stream(data).info


def _is_rgb(picture: AnyPicture) -> bool:
    return isinstance(picture, np.ndarray) and picture.ndim == 3 and picture.shape[2] == 3


def _picture_of(number: int, given: AnyPicture, matrix: str) -> Picture:
    """The picture as Y, U and V.  SettingsError says which it is, and what was expected."""
    expected = f"pictures[{number}]: expected (y, u, v) or one (H, W, 3), uint8"
    if _is_rgb(given):
        assert isinstance(given, np.ndarray)
        if given.dtype != np.uint8:
            raise SettingsError(f"{expected}; got {given.dtype}")
        return rgb_to_420(given, 8, matrix or default_matrix(given.shape[0]))
    planes = [np.asarray(plane) for plane in given] if len(given) == 3 else []
    if not planes or any(plane.ndim != 2 or plane.dtype != np.uint8 or not plane.size for plane in planes):
        kinds = ", ".join(f"{plane.dtype} {plane.shape}" for plane in planes) or f"{len(given)} parts"
        raise SettingsError(f"{expected}; got {kinds}")
    height, width = planes[0].shape
    chroma = ((height + 1) // 2, (width + 1) // 2)
    if planes[1].shape != chroma or planes[2].shape != chroma:
        raise SettingsError(f"pictures[{number}]: expected u and v of {chroma} (rows, columns) beside y of "
                            f"{planes[0].shape}; got {planes[1].shape} and {planes[2].shape}")
    return Picture(*(np.ascontiguousarray(plane) for plane in planes))


def _of_size(number: int, picture: Picture, first: Picture) -> Picture:
    if picture.y.shape != first.y.shape:
        raise SettingsError(f"pictures[{number}]: expected the first picture's size, {first.y.shape} (rows, columns); "
                            f"got {picture.y.shape}")
    return picture
