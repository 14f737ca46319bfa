"""VMAF, VMAF-NEG and XPSNR of 4:2:0 clips, by filters of the FFmpeg program (video/ffmpeg_program.py).

vmaf      Li et al., "Toward a practical perceptual video quality metric", 2016, and libvmaf's model vmaf_v0.6.1;
          0…100 for each picture.  Of a clip: the mean over pictures, and ``vmaf_harmonic_mean``.
vmaf_neg  The same by the model vmaf_v0.6.1neg, which gives nothing for enhancement (sharpening, more contrast).
xpsnr     Helmrich et al., "XPSNR: a low-complexity extension of the perceptually weighted peak signal-to-noise ratio",
          ICASSP 2020; dB, (6 Y + U + V) / 8 of the planes, at most 100.  Of a clip: as the filter averages, from the
          mean of the weighted distortions' roots; ``xpsnr_y`` and so on are its planes.

Pictures are streamed: one pipe carries source and decoded picture in turn, and the filter graph separates them again.
So neither side ever waits for the other, whatever the size, and no more than a few pictures are in memory.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from video.ffmpeg_program import ProgramError, executable, version
from video.picture import ClipInfo, Picture

NAMES = ("vmaf", "vmaf_neg", "xpsnr")
MODELS = {"vmaf": "vmaf_v0.6.1", "vmaf_neg": "vmaf_v0.6.1neg"}
MAX_DB = 100.0
PLANES = ("y", "u", "v")

SEPARATE = (r"[0:v]split=2[even][odd];[even]select=not(mod(n\,2)),setpts=N[reference];"
            r"[odd]select=mod(n\,2),setpts=N[distorted];[distorted][reference]")
LOG, ERRORS = "log", "errors"  # the filter's file, and the program's complaints, in the folder that the program runs in
XPSNR_ROW = re.compile(r"n: *\d+ +XPSNR y: (\S+) +XPSNR u: (\S+) +XPSNR v: (\S+)")
XPSNR_MEAN = re.compile(r"XPSNR average, \d+ frames +y: (\S+) +u: (\S+) +v: (\S+)")


@dataclass(frozen=True)
class Measured:
    """Of a clip: a row of measures for each picture (none where a program failed), and those of the whole.  A measure
    that could not be had is None in ``summary``, and ``…_reason`` says why."""

    rows: list[dict[str, float]]
    summary: dict[str, Any]


class PerceptualMeasures:
    """The measures of NAMES among ``wanted``: ``add`` each pair of pictures in order, then ``finish``.  Without any of
    them wanted it does nothing.  Used as a context, so that no program stays behind."""

    def __init__(self, wanted: Iterable[str], info: ClipInfo, threads: int = 0) -> None:
        names = [name for name in NAMES if name in set(wanted)]
        models = [name for name in names if name in MODELS]
        self._filters: list[_Filter] = []
        self._summary: dict[str, Any] = {}
        self.made_by: dict[str, str] = {}
        try:
            if models:
                self._filters.append(_Vmaf(models, info, threads or os.cpu_count() or 1))
            if "xpsnr" in names:
                self._filters.append(_Xpsnr(info))
            if names:
                self.made_by = {"ffmpeg": version(), **{name: MODELS[name] for name in models}}
        except ProgramError as error:
            self._summary = {key: value for name in names for key, value in
                             ((name, None), (f"{name}_reason", str(error)))}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
                 ) -> None:
        self.close()

    def close(self) -> None:
        """End the programs, if they still run."""
        for each in self._filters:
            each.close()

    def add(self, reference: Picture, distorted: Picture) -> None:
        """Send a source picture and what a decoder made of it on their way."""
        for each in self._filters:
            each.add(reference, distorted)

    def finish(self) -> Measured:
        """What the filters found; to be called once, after the last pair."""
        rows: list[dict[str, float]] = []
        summary = dict(self._summary)
        for each in self._filters:
            try:
                found = each.finish()
            except ProgramError as error:
                for name in each.names:
                    summary |= {name: None, f"{name}_reason": str(error)}
                continue
            rows = [{**row, **more} for row, more in zip(rows or [{}] * len(found.rows), found.rows, strict=True)]
            summary |= found.summary
        return Measured(rows, summary)


class _Filter:
    """One filter in one process of the program; its log is read when it has ended."""

    def __init__(self, names: Sequence[str], graph: str, info: ClipInfo) -> None:
        self.names = names
        self._pairs = 0
        program = executable(" and ".join(name.replace("_", "-").upper() for name in names))
        self._folder = tempfile.TemporaryDirectory(prefix="measures-")
        given = ["-f", "rawvideo", "-pix_fmt", info.form, "-s", f"{info.width}x{info.height}", "-r", str(info.fps)]
        with Path(self._folder.name, ERRORS).open("wb") as errors:
            self._process = subprocess.Popen(
                [program, "-hide_banner", "-loglevel", "error", *given, "-i", "pipe:0", "-filter_complex",
                 SEPARATE + graph, "-f", "null", "-"],
                stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=errors, cwd=self._folder.name)

    def add(self, reference: Picture, distorted: Picture) -> None:
        self._pairs += 1
        assert self._process.stdin is not None  # asked for by stdin=PIPE
        with contextlib.suppress(BrokenPipeError):  # it has ended: finish() says why
            for picture in (reference, distorted):
                self._process.stdin.write(b"".join(plane.tobytes() for plane in picture))

    def finish(self) -> Measured:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        status = self._process.wait()
        log = Path(self._folder.name, LOG)
        if status or not log.is_file():
            said = Path(self._folder.name, ERRORS).read_text(errors="replace").splitlines() or ["it said nothing"]
            raise ProgramError(f"FFmpeg ended with exit status {status}: {said[0][:200]}")
        try:
            found = self.read(log.read_text(encoding="utf-8"))
        except (ValueError, KeyError, TypeError) as error:
            raise ProgramError(f"FFmpeg's log was not understood: {error!r}") from error
        if len(found.rows) != self._pairs:
            raise ProgramError(f"FFmpeg measured {len(found.rows)} of {self._pairs} pictures")
        return found

    def read(self, log: str) -> Measured:
        raise NotImplementedError

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        with contextlib.suppress(BrokenPipeError):
            if self._process.stdin:
                self._process.stdin.close()
        self._folder.cleanup()


class _Vmaf(_Filter):
    def __init__(self, names: Sequence[str], info: ClipInfo, threads: int) -> None:
        models = "|".join(rf"version={MODELS[name]}\\:name={name}" for name in names)
        super().__init__(names, f"libvmaf=log_fmt=json:log_path={LOG}:n_threads={threads}:model={models}", info)

    def read(self, log: str) -> Measured:
        document = json.loads(log)
        rows = [{name: float(frame["metrics"][name]) for name in self.names} for frame in document["frames"]]
        pooled = {name: document["pooled_metrics"][name] for name in self.names}
        return Measured(rows, {key: value for name in self.names for key, value in (
            (name, float(pooled[name]["mean"])), (f"{name}_harmonic_mean", float(pooled[name]["harmonic_mean"])))})


class _Xpsnr(_Filter):
    def __init__(self, info: ClipInfo) -> None:
        super().__init__(("xpsnr",), f"xpsnr=stats_file={LOG}", info)

    def read(self, log: str) -> Measured:
        rows = [_planes(found) for found in XPSNR_ROW.findall(log)]
        means = XPSNR_MEAN.findall(log)
        if len(means) != 1:
            raise ValueError("there is no average")
        return Measured(rows, _planes(means[0]))


def _planes(words: Sequence[str]) -> dict[str, float]:
    """"38.5012" and so on, "inf" for identical planes, as xpsnr, xpsnr_y, xpsnr_u, xpsnr_v."""
    y, u, v = (min(MAX_DB, float(word)) for word in words)
    if any(math.isnan(value) for value in (y, u, v)):
        raise ValueError(f"no number: {words}")
    return {"xpsnr": (6 * y + u + v) / 8, **dict(zip((f"xpsnr_{plane}" for plane in PLANES), (y, u, v), strict=True))}
