"""What a picture and a clip are: the types, limits and errors that every reader, writer, codec and metric shares."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

MATRICES = ("bt601", "bt709", "bt2020", "smpte240m", "fcc", "ycgco")
RANGES = ("limited", "full")
FIELD_ORDERS = ("progressive", "tff", "bff", "interlaced")  # top or bottom field first; "interlaced": not known which
# ITU-T H.273 ColourPrimaries and TransferCharacteristics, by FFmpeg's names.
PRIMARIES = {1: "bt709", 4: "bt470m", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m", 8: "film", 9: "bt2020",
             10: "smpte428", 11: "smpte431", 12: "smpte432"}
TRANSFERS = {1: "bt709", 4: "gamma22", 5: "gamma28", 6: "smpte170m", 7: "smpte240m", 8: "linear", 11: "iec61966-2-4",
             13: "iec61966-2-1", 14: "bt2020-10", 15: "bt2020-12", 16: "smpte2084", 17: "smpte428", 18: "arib-std-b67"}
CHROMA_LOCATIONS = ("left", "center", "topleft")
DEFAULT_FPS = Fraction(25)  # of what has no rate: single pictures, folders of pictures, Y4M that says 0:0
MAX_FPS = 1000  # containers count milliseconds


MOST_BITS = 12  # of a sample


def kind_of(bits: int) -> type[np.unsignedinteger[Any]]:
    """Of the samples of pictures of so many bits: uint8, or uint16 over 8."""
    return np.uint8 if bits == 8 else np.uint16


class Picture(NamedTuple):
    """One 4:2:0 picture: uint8 (uint16 of more than 8 bits), C-contiguous; y is (H, W), u and v are (ceil(H/2),
    ceil(W/2))."""

    y: np.ndarray
    u: np.ndarray
    v: np.ndarray


@dataclass(frozen=True)
class ClipInfo:
    """What is known of a clip before its pictures are read.

    Where a file does not say, the matrix is bt601 under 720 lines and bt709 from 720 lines on, and the range is
    limited: what players assume.  ``frames`` is None where only reading the whole clip would tell.
    """

    width: int
    height: int
    fps: Fraction
    frames: int | None = None
    matrix: str = "bt601"  # one of MATRICES: how RGB became Y'CbCr
    range: str = "limited"  # "limited" (Y 16…235) or "full" (0…255)
    converted: str = ""  # "" when the file held such pictures, else e.g. "yuv444p10le to yuv420p"
    bits: int = 8  # of a sample, 8…MOST_BITS
    # What players need to show the pictures, and no measure depends on; "" and None where the file does not say.
    sample_aspect: Fraction = Fraction(1)  # width of a sample over its height
    rotation: int = 0  # degrees counter-clockwise
    field_order: str = "progressive"  # one of FIELD_ORDERS
    primaries: str = ""  # one of PRIMARIES
    transfer: str = ""  # one of TRANSFERS
    chroma_location: str = ""  # one of CHROMA_LOCATIONS; "" and "left" are the same, the latter being assumed
    # Where the rate varies, and fps is pictures over duration: from the first picture's time to the end of the last
    # one's, and the smallest and largest time between two.
    duration_s: Fraction | None = None
    intervals_s: tuple[float, float] | None = None
    cut: str = ""  # "" or how it is known that the file ends too early
    warnings: tuple[str, ...] = ()  # what was not taken as the file has it, a sentence each

    def document(self) -> dict[str, Any]:
        """The clip as JSON documents describe it: rates and shapes as text, what is not known as null or ""."""
        varies = None
        if self.intervals_s is not None and self.duration_s is not None:
            varies = {"smallest_interval_s": self.intervals_s[0], "largest_interval_s": self.intervals_s[1],
                      "duration_s": float(self.duration_s)}
        return {"width": self.width, "height": self.height, "fps": f"{self.fps.numerator}/{self.fps.denominator}",
                "frames": self.frames, "bits": self.bits, "matrix": self.matrix, "range": self.range,
                "converted": self.converted,
                "sample_aspect": f"{self.sample_aspect.numerator}:{self.sample_aspect.denominator}",
                "rotation": self.rotation, "field_order": self.field_order, "primaries": self.primaries,
                "transfer": self.transfer, "chroma_location": self.chroma_location, "variable_frame_rate": varies,
                "warnings": list(self.warnings)}

    @property
    def chroma_shape(self) -> tuple[int, int]:
        """(rows, columns) of u and v; odd sizes round up."""
        return (self.height + 1) // 2, (self.width + 1) // 2

    @property
    def samples(self) -> int:
        """Of one 4:2:0 picture."""
        rows, columns = self.chroma_shape
        return self.width * self.height + 2 * rows * columns

    @property
    def picture_bytes(self) -> int:
        """Bytes of one raw 4:2:0 picture in memory and in files: two for each sample of more than 8 bits."""
        return self.samples * (1 if self.bits == 8 else 2)

    @property
    def form(self) -> str:
        """The sample format by FFmpeg's name."""
        return "yuv420p" if self.bits == 8 else f"yuv420p{self.bits}le"


def notes_of_fields(field_order: str) -> tuple[str, ...]:
    """What to say of a clip with this order of fields; () of a progressive one."""
    if field_order == "progressive":
        return ()
    which = {"tff": ", top field first", "bff": ", bottom field first"}.get(field_order, "")
    return (f"interlaced{which}: both fields are coded together, as one picture",)


def default_matrix(height: int) -> str:
    """The matrix assumed where a file names none: SD material is BT.601, HD is BT.709."""
    return "bt601" if height < 720 else "bt709"


@dataclass(frozen=True)
class Limits:
    """What a clip may ask of the machine. A clip over one of these is refused before memory is spent on it."""

    max_width: int = 8192  # 8K and a bit: what the common decoders take without a special build
    max_height: int = 8192  # the same, for upright pictures
    max_pixels: int = 8192 * 4320  # 53 MB a picture; a handful are alive at once
    max_frames: int = 1_000_000  # nine hours at 30 a second; a longer clip is a mistake or an attack


DEFAULT_LIMITS = Limits()


class VideoError(Exception):
    """Root of all that can be wrong with a clip; the message names the file and is fit for a user."""


class NotAVideo(VideoError):
    """The bytes, or the file name, are of no known format."""


class NoVideoStream(VideoError):
    """A container that holds sound or data only."""


class EmptyVideo(VideoError):
    """A video without a single picture."""


class DamagedVideo(VideoError):
    """Reading failed at picture ``frame`` (counted from 0; None where the damage is not in a picture)."""

    def __init__(self, message: str, frame: int | None = None) -> None:
        super().__init__(message)
        self.frame = frame


class TooLarge(VideoError):
    """Over one of the :class:`Limits`, or of an absurd size."""


def check_size(name: str, width: int, height: int, limits: Limits) -> None:
    """Raise TooLarge, naming the limit, unless the picture size is sane and within the limits."""
    if width < 1 or height < 1:
        raise TooLarge(f"{name}: {width}x{height} is not a picture size")
    if width > limits.max_width or height > limits.max_height or width * height > limits.max_pixels:
        raise TooLarge(
            f"{name}: {width}x{height} is over the limit of {limits.max_width}x{limits.max_height} "
            f"and {limits.max_pixels} pixels"
        )


def check_picture(picture: Picture, info: ClipInfo) -> None:
    """Raise VideoError unless the picture has the size and type that ``info`` promises."""
    expected = ((info.height, info.width), info.chroma_shape, info.chroma_shape)
    for name, plane, shape in zip("yuv", picture, expected, strict=True):
        if plane.shape != shape or plane.dtype != kind_of(info.bits):
            kind = np.dtype(kind_of(info.bits)).name
            raise VideoError(f"{name}: expected {kind} {shape}, got {plane.dtype} {plane.shape}")


def check_rate(name: str, fps: Fraction) -> None:
    """Raise VideoError unless the rate is one that a clock can show: above 0, at most MAX_FPS, of 31-bit integers."""
    if not 0 < fps <= MAX_FPS or max(fps.numerator, fps.denominator) >= 1 << 31:
        raise VideoError(f"{name}: fps: expected a rate above 0 and at most {MAX_FPS}, got {fps}")
