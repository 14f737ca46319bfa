"""The peers whose encoders PyAV's build of FFmpeg lacks: libaom, rav1e, VVenC, and VP9 of more than 8 bits, by the
FFmpeg program.

The program (video/ffmpeg_program.py) reads raw pictures from a pipe and writes the Matroska file that the other peers
write too; it is decoded as theirs are, by PyAV.
"""

from __future__ import annotations

import contextlib
import io
import subprocess
import tempfile
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import av
import av.error

from coding.interface import CodecError, Progress, Report, Settings
from peers.ffmpeg import PICTURE_TYPES, Made, Peer, fitted, tags
from video.ffmpeg_program import ProgramError, executable, version
from video.picture import ClipInfo, Picture

MATRICES = {"bt601": "smpte170m", "bt709": "bt709", "bt2020": "bt2020nc"}  # as the program names them
RANGES = {"limited": "tv", "full": "pc"}
FILE, ERRORS = "stream.mkv", "errors"  # in a temporary folder


def vp9() -> Vp9:
    return Vp9()


def aom() -> ProgramPeer:
    return ProgramPeer("aom")


def rav1e() -> ProgramPeer:
    return ProgramPeer("rav1e")


def vvenc() -> ProgramPeer:
    return ProgramPeer("vvenc")


class ProgramPeer(Peer):
    """One of KINDS that is encoded by the FFmpeg program."""

    def warm(self) -> None:
        """Nothing to load. CodecError where there is no such program; it says what to install."""
        try:
            executable(self.name)
        except ProgramError as error:
            raise CodecError(str(error)) from error

    def describe(self) -> dict[str, Any]:
        """Name and encoder, versions of the program that has both, and of PyAV, which decodes.  The encoders do not
        tell theirs; the program is one file with all of them inside."""
        try:
            made_by = f"in FFmpeg {version()}"
        except ProgramError:
            made_by = "not installed"
        return {**super().describe(), "encoder_version": made_by}

    def _encode(
        self, pictures: Iterable[Picture], info: ClipInfo, coded: ClipInfo, settings: Settings,
        options: dict[str, str], progress: Report,
    ) -> Made:  # fmt: skip
        with tempfile.TemporaryDirectory(prefix="peer-") as name:
            folder = Path(name)
            with (folder / ERRORS).open("wb") as errors:
                process = subprocess.Popen(
                    self._command(info, coded, settings, options), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                    stderr=errors, cwd=folder)
                try:
                    assert process.stdin is not None  # asked for by stdin=PIPE
                    seconds = self._feed(process.stdin, pictures, info, coded, progress)
                    waited = time.perf_counter()
                    process.wait()
                    seconds += time.perf_counter() - waited
                finally:
                    if process.poll() is None:
                        process.kill()
                    process.wait()
            if process.returncode:
                said = (folder / ERRORS).read_text(errors="replace").strip().splitlines()
                raise CodecError(f"{self.name}: the encoder failed: {said[0][:300] if said else process.returncode}")
            data = (folder / FILE).read_bytes()
        types, header_bytes = _types(data)
        return Made(data, types, seconds, 0 if self.kind.headers_in_pictures else header_bytes)

    def _command(self, info: ClipInfo, coded: ClipInfo, settings: Settings, options: dict[str, str]) -> list[str]:
        given = ["-f", "rawvideo", "-pix_fmt", coded.form, "-s", f"{coded.width}x{coded.height}", "-r", str(coded.fps),
                 "-colorspace", MATRICES[coded.matrix], "-color_range", RANGES[coded.range], "-i", "pipe:0"]
        chosen = [word for name, value in options.items() for word in (f"-{name}:v", value)]
        threads = ["-threads", str(settings.threads)] if settings.threads else []
        said = [word for name, value in tags(info).items() for word in ("-metadata", f"{name}={value}")]
        return [executable(self.name), "-hide_banner", "-loglevel", "error", *given, "-c:v", self.kind.library,
                *chosen, *threads, *said, "-color_range", RANGES[coded.range], "-fflags", "+bitexact",
                "-flags:v", "+bitexact", FILE]

    def _feed(self, pipe: IO[bytes], pictures: Iterable[Picture], info: ClipInfo, coded: ClipInfo, progress: Report
              ) -> float:
        """Send all pictures; the seconds in which the encoder let us wait.  CodecError without any picture."""
        count, seconds = 0, 0.0
        with contextlib.suppress(BrokenPipeError), pipe:  # it has ended: its exit status says more
            for picture in pictures:
                data = b"".join(plane.tobytes() for plane in fitted(picture, info, coded))
                began = time.perf_counter()
                pipe.write(data)
                pipe.flush()
                seconds += time.perf_counter() - began
                count += 1
                progress(Progress("encode", count, info.frames))
        if count == 0:
            raise CodecError(f"{self.name}: no picture to encode")
        return seconds


class Vp9(Peer):
    """By PyAV, as x264 is; pictures of more than 8 bits (profile 2) by the program, since PyAV's libvpx takes none."""

    def __init__(self) -> None:
        super().__init__("vp9")

    def _encode(
        self, pictures: Iterable[Picture], info: ClipInfo, coded: ClipInfo, settings: Settings,
        options: dict[str, str], progress: Report,
    ) -> Made:  # fmt: skip
        if coded.bits == 8:
            return super()._encode(pictures, info, coded, settings, options, progress)
        program = ProgramPeer(self.name)
        program.warm()
        made = program._encode(pictures, info, coded, settings, options, progress)
        return replace(made, encoder_version=program.describe()["encoder_version"])


def _types(data: bytes) -> tuple[list[str], int]:
    """"I", "P" or "B" of each picture in display order, as a decoder finds them; bytes of parameter sets that the file
    keeps outside of the packets."""
    try:
        with av.open(io.BytesIO(data), "r", "matroska") as container:
            header_bytes = len(container.streams.video[0].codec_context.extradata or b"")
            return [PICTURE_TYPES[int(frame.pict_type)] for frame in container.decode(video=0)], header_bytes
    except (av.error.FFmpegError, KeyError) as error:
        raise CodecError(f"what the encoder wrote cannot be decoded: {error}") from error
