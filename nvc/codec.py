"""The learned codec as callers see it: `Nvc` fills the interface of coding/interface.py."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from coding.interface import Decoded, Encoded, Progress, Report, Settings, no_report, refuse_gpu, refuse_preset
from nvc.decoder import StreamDecoder
from nvc.encoder.clip import encode_clip
from nvc.encoder.rate_control import choose_quality
from nvc.machine.allocator import keep_memory
from nvc.network.model import DEFAULT_MODEL, load_for, load_model, models
from nvc.network.planes import crop
from nvc.segments import gops_within, join
from nvc.stream.reading import parse, recover
from video.picture import ClipInfo, Picture


class Nvc:
    """The learned codec behind the interface of coding/interface.py."""

    name = "nvc"

    def warm(self) -> None:
        """Load the default weights, prove the kernels exact on this machine, compile the integer loops."""
        from nvc import warm

        keep_memory()
        warm.compile_all()
        load_model(DEFAULT_MODEL)

    def encode(self, pictures: Iterable[Picture], info: ClipInfo, settings: Settings,
               progress: Report = no_report) -> Encoded:
        """Code a clip; SettingsError names a setting out of its range. With a target rate or PSNR the clip is read
        into memory, since it is coded several times."""
        refuse_gpu(self.name, settings)
        refuse_preset(self.name, settings)
        if settings.bitrate_mbps is not None or settings.psnr_db is not None:
            return choose_quality(list(pictures), info, settings, progress, _psnr())
        return encode_clip(pictures, info, settings, progress)

    def decode(self, data: bytes, progress: Report = no_report) -> Decoded:
        """Decode from the bytes alone; BitstreamError for damaged or foreign bytes."""
        return decode(data, progress)

    # --- in segments (coding.interface.Segmented)

    def encode_segment(self, pictures: Iterable[Picture], info: ClipInfo, settings: Settings, low: int, high: int,
                       progress: Report = no_report) -> tuple[int, Encoded] | None:
        refuse_gpu(self.name, settings)
        refuse_preset(self.name, settings)
        found = gops_within(pictures, settings, low, high)
        if found is None:
            return None
        first, coded = found
        if settings.bitrate_mbps is None and settings.psnr_db is None:
            return first, encode_clip((), info, settings, progress, first=first, coded=coded)
        kept = [(number, list(group)) for number, group in coded]       # it is coded several times
        own = [crop(picture, info.width, info.height) for _, group in kept for picture in group]
        return first, choose_quality(own, info, settings, progress, _psnr(), first=first, coded=kept)

    def decode_segment(self, data: bytes, first: int, progress: Report = no_report) -> Decoded:
        return decode(data, progress, first=first)

    def join(self, segments: Sequence[bytes]) -> bytes:
        return join(segments)

    def describe(self) -> dict[str, Any]:
        from nvc.network.cost import summary

        return {"codec": "nvc", "format": "NVC1", "models": {name: summary(name) for name in models()}}


def _psnr() -> Callable[[Picture, Picture], float]:
    from metrics import frame_psnr  # which brings SciPy

    return frame_psnr


def decode(data: bytes, progress: Report = no_report, *, best_effort: bool = False, first: int = 0) -> Decoded:
    """Decode a stream, or a segment whose first picture has the number `first`; `best_effort`: of a damaged one the
    GOPs that are whole. BitstreamError for foreign bytes."""
    stream = recover(data) if best_effort else parse(data, first=first)
    decoder = StreamDecoder(stream, load_for(stream.header.model))
    decoded = Decoded(replace(stream.header.info, frames=stream.header.frames - first), iter(()))

    def pictures() -> Iterator[Picture]:
        for number, picture in enumerate(decoder.pictures(), 1):
            progress(Progress("decode", number, decoded.info.frames))
            yield picture
        decoded.details.update(decoder.details())

    decoded.pictures = pictures()
    return decoded
