"""A whole clip: pictures in, stream out. Its GOPs are coded here one after the other, or in several processes at once.

    pictures ─ pad ─ mark cuts ─ GOPs ─┬─ code_gop ───────────────────┬─► steps ─► stream, hash, progress
                                       └─ processes, code_gop in each ┘

Memory is bounded by the mini-GOP in one process, and by `processes.most_alive` GOPs in several.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from dataclasses import replace
from typing import Any

import torch

from coding.interface import Encoded, FrameReport, Progress, Report, Settings, no_report
from nvc.encoder.encode import Tally, check, jobs_of, step_index
from nvc.encoder.gop import Step, Work, code_gop
from nvc.encoder.processes import code_in_processes
from nvc.encoder.sources.scene_cuts import mark_cuts
from nvc.encoder.sources.structure import gops
from nvc.network.model import load_model
from nvc.network.planes import pad
from nvc.stream.errors import SettingsError
from nvc.stream.syntax import Header
from nvc.stream.writing import Writer
from video.picture import ClipInfo, Picture

Gops = Iterable[tuple[int, Iterable[Picture]]]          # first number, padded pictures
Watch = Callable[[int, Picture], None]


class Assembly:
    """Puts the steps of GOPs that may be coded at the same time into display order."""

    def __init__(self, header: Header, watch: Watch | None, first: int) -> None:
        self.stream, self.tally = Writer(header, first), Tally()
        self.reports: list[FrameReport] = []
        self.digest = hashlib.sha256()
        self._watch = watch
        self._due, self._shown = first, 0               # first number of the GOP whose steps are due; pictures shown
        self._waiting: defaultdict[int, list[Step]] = defaultdict(list)

    def take(self, first: int, step: Step) -> None:
        """Add a step of the GOP of picture `first`; a GOP's own steps come in their order."""
        self.reports += step.reports
        self._waiting[first].append(step)
        while self._due in self._waiting:
            for due in self._waiting.pop(self._due):
                self._put(due)

    def _put(self, step: Step) -> None:
        for picture in step.shown:
            for plane in picture:
                self.digest.update(plane.data)
            if self._watch:
                self._watch(self._shown, picture)
            self._shown += 1
        if step.gop:
            self.stream.add_gop(step.gop.first, step.gop.pictures, step.gop.data)
            self.tally.add(step.gop.tally)
            self._due += step.gop.pictures


def _code_here(coded: Gops, work: Work) -> Generator[tuple[int, Step], None, None]:
    encoder = work.encoder()
    for first, pictures in coded:
        for step in code_gop(encoder, work.header, first, pictures):
            yield first, step


def gops_of(pictures: Iterable[Picture], settings: Settings) -> Gops:
    """The GOPs of a clip, as its pictures come. Each is to be taken before the next."""
    marked = mark_cuts(map(pad, pictures), lambda picture: picture.y)
    return gops(marked, settings.structure, settings.intra_period)


def encode_clip(pictures: Iterable[Picture], info: ClipInfo, settings: Settings, progress: Report = no_report, *,
                t: float | None = None, slack: float = 0.0, watch: Watch | None = None, first: int = 0,
                coded: Gops | None = None) -> Encoded:
    """Code a clip at a constant quality. SettingsError names a bad setting; Cancelled passes from `progress`.

    t: step index instead of the quality's, may have a fraction; slack: see `Encoder`; watch: is handed each decoded
    picture and its place, in order; coded: the GOPs, where they are a segment of a clip, in place of its pictures, and
    first: the number of their first picture. CodecError: a process of several ended by itself."""
    check(settings)
    model = load_model(settings.model)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    header = Header.of(info, model.id, settings.structure, settings.intra_period)
    work = Work(settings, step_index(settings.quality) if t is None else t, header, slack)
    parts = gops_of(pictures, settings) if coded is None else coded
    jobs = min(jobs_of(settings), info.frames or jobs_of(settings))
    assembly = Assembly(header, watch, first)
    with closing(code_in_processes(parts, work, jobs) if jobs > 1 else _code_here(parts, work)) as steps:
        for number, step in steps:
            assembly.take(number, step)
            if not step.gop:
                progress(Progress("encode", len(assembly.reports), info.frames))
    reports = [replace(report, index=report.index - first)
               for report in sorted(assembly.reports, key=lambda report: report.index)]
    if not reports:
        raise SettingsError("clip: no pictures, expected at least one")
    data = assembly.stream.finish()
    bits = assembly.tally.bits | {"headers": 8 * len(data) - sum(assembly.tally.bits.values())}
    details: dict[str, Any] = {"seconds": assembly.tally.clock.rounded(), "bits": bits, "quality": settings.quality,
                               "step_index": work.t, "model": model.name, "model_sha256": model.sha256,
                               "kernels": sorted(set(model.network.kernels.values()))}
    return Encoded(data, reports, assembly.digest.hexdigest(), replace(info, frames=len(reports)), details)
