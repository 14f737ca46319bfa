"""What every codec here shares with its callers: settings in, coded bytes and pictures out. Types only.

A codec is an object with the methods of :class:`Codec`.  Its encoder is handed pictures and settings and gives bytes;
its decoder is handed those bytes and nothing else and gives pictures.  Everything that either reports beside that
(frame types, times, hashes) goes into the result document as it stands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

from video.picture import ClipInfo, Picture

STRUCTURES = ("intra", "low_delay", "random_access")


class CodecError(Exception):
    """Root of what a codec raises about its input; the message is fit for a user."""


class SettingsError(CodecError):
    """The caller's fault: a setting that this codec does not have or cannot honour. Names the field."""


class BitstreamError(CodecError):
    """The bytes' fault: damaged, truncated, foreign or hostile. Names the offset where it is known."""


class Cancelled(Exception):
    """Raised by a progress callback to stop the work; passes through every codec unchanged, so it is no CodecError."""


@dataclass(frozen=True)
class Settings:
    """How to encode. One of quality, bitrate_mbps and psnr_db rules: either of the latter two chooses the quality."""

    quality: int = 32  # 0…63, higher is better
    structure: str = "random_access"  # one of STRUCTURES
    intra_period: int = 64  # pictures from one I picture to the next, 1…; GOPs are closed
    effort: int = 0  # -1…3, how much the encoder may search
    preset: str | None = None  # a peer's own name for that, in place of effort; refused by codecs without presets
    bitrate_mbps: float | None = None  # aim, in 10^6 bits a second
    psnr_db: float | None = None  # aim, in dB of YUV 6:1:1
    model: str = "nvc-1"
    device: str = "auto"
    threads: int = 0  # 0: as many as the machine has
    options: dict[str, Any] = field(default_factory=dict)  # a codec's own; unknown keys are refused by name


@dataclass
class FrameReport:
    """One coded picture: place in display order (from 0), type "I", "P" or "B", and its own bytes in the stream."""

    index: int
    type: str
    bytes: int


@dataclass
class Encoded:
    """What an encoder gives. ``frames`` is in display order.

    ``pictures_sha256`` is the SHA-256 (hex) over the y, u, v bytes of the encoder's own reconstruction in display
    order, or "" from an encoder that does not show its reconstruction.  ``info`` is that of the coded clip, with
    ``frames`` filled in.  ``details`` holds whatever the codec measured: times by part (seconds), bits by part, ids.
    """

    data: bytes
    frames: list[FrameReport]
    pictures_sha256: str
    info: ClipInfo
    details: dict[str, Any] = field(default_factory=dict)


@dataclass
class Decoded:
    """What a decoder gives: iterate it once for the pictures, in display order; ``details`` is full afterwards."""

    info: ClipInfo
    pictures: Iterator[Picture]
    details: dict[str, Any] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Picture]:
        return self.pictures


@dataclass(frozen=True)
class Progress:
    """Where the work is: ``frame`` pictures of ``frames`` (None while unknown) are through this phase."""

    phase: str  # "encode", "decode", …
    frame: int
    frames: int | None = None
    pass_number: int = 0  # of an encoder that aims at a rate or PSNR, from 1 on; frame then counts all passes as one


Report = Callable[[Progress], None]


def refuse_gpu(codec: str, settings: Settings) -> None:
    """SettingsError for a device that a codec which computes on the CPU would not use."""
    if settings.device not in ("auto", "cpu"):
        raise SettingsError(f"device: {codec} computes on the CPU, {settings.device} was asked for")


def refuse_preset(codec: str, settings: Settings) -> None:
    """SettingsError for a preset that is asked of a codec without presets."""
    if settings.preset is not None:
        raise SettingsError(f"preset: {codec} has none, {settings.preset!r} was asked for; it has effort, -1 to 3")


def part_of(progress: Report, passes: int) -> Report:
    """For an encoder that passes over a clip several times: progress of one pass, after so many others, as part of all.
    Each is taken for a half of what is left, so that it never runs back."""
    done = 1 - 0.5 ** passes

    def report(now: Progress) -> None:
        share = now.frame / now.frames if now.frames else 0.0
        frames = now.frames or 0
        progress(replace(now, frame=int(frames * (done + share * (1 - done) / 2)), pass_number=passes + 1))

    return report


def no_report(progress: Progress) -> None:
    """The callback of callers that do not care."""


def most_bits(codec: Codec) -> int:
    """The depth up to which a codec takes pictures: its ``most_bits``, 8 where it does not say. Deeper clips are
    converted before it gets them, and their quality is measured at their own depth all the same."""
    return int(getattr(codec, "most_bits", 8))


@runtime_checkable
class Codec(Protocol):
    """One codec, by name; it may have ``most_bits``, see above. Raises CodecError for bad settings or bytes; Cancelled
    passes through from the callback."""

    name: str

    def warm(self) -> None:
        """Do what need not be done again for every clip: load weights, compile kernels. May be called twice."""

    def encode(
        self, pictures: Iterable[Picture], info: ClipInfo, settings: Settings, progress: Report = no_report
    ) -> Encoded:
        """Code the pictures, in display order, all of the size in ``info``. ``info.frames`` may be None."""

    def decode(self, data: bytes, progress: Report = no_report) -> Decoded:
        """Decode from the bytes alone."""

    def describe(self) -> dict[str, Any]:
        """Version, model ids, parameters: what a reader needs to know which codec this was."""


@runtime_checkable
class Segmented(Protocol):
    """What a codec has besides, whose clips can be coded in segments, by several workers: closed GOPs that depend on
    nothing but their place. Joined segments are the bytes that `encode` gives for the whole clip, at a quality; where
    a rate or PSNR is aimed at, each segment meets it by itself."""

    def encode_segment(self, pictures: Iterable[Picture], info: ClipInfo, settings: Settings, low: int, high: int,
                       progress: Report = no_report) -> tuple[int, Encoded] | None:
        """Code those GOPs of the clip that begin at picture `low` or later and before `high`: the number of their first
        picture, and what `encode` gives, reports counted from 0; None where no GOP begins there. `pictures` are those
        of the clip from its first one on; no more are taken than are needed."""

    def decode_segment(self, data: bytes, first: int, progress: Report = no_report) -> Decoded:
        """Decode a segment from its bytes alone; `first` is the number of its first picture."""

    def join(self, segments: Sequence[bytes]) -> bytes:
        """The stream of all segments, given in order. BitstreamError where one is damaged or of another clip."""
