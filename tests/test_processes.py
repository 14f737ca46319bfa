"""GOPs coded by several processes: the same bytes, and whichever way it ends, no process stays behind."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from synthetic import info_of, moving

import codec
from coding.interface import Cancelled, CodecError, Encoded, Progress, Report, Settings, SettingsError, no_report
from nvc.encoder.clip import encode_clip
from nvc.encoder.processes import _Process
from video.picture import DamagedVideo, Picture

CLIP = moving(22, cut=6)            # with an intra period of 4 its GOPs begin at 0, 4, 6, 10, 14, 18


def children() -> list[int]:
    return [int(pid) for tasks in Path("/proc/self/task").glob("*/children") for pid in tasks.read_text().split()]


def coded(jobs: int, progress: Report = no_report, threads: int = 0) -> Encoded:
    settings = Settings(quality=28, intra_period=4, threads=threads, options={"jobs": jobs})
    return codec.get("nvc").encode(CLIP, info_of(CLIP), settings, progress)


@pytest.fixture
def before() -> list[int]:
    return children()


def test_the_bytes_and_all_that_is_told_are_those_of_one_process(before: list[int]) -> None:
    taken, shown, coded_then, ahead = 0, list[int](), list[int](), list[int]()

    def counted() -> Iterator[Picture]:
        nonlocal taken
        for picture in CLIP:
            taken += 1
            yield picture

    def progress(p: Progress) -> None:
        coded_then.append(p.frame)
        ahead.append(taken - p.frame)

    one = encode_clip(CLIP, info_of(CLIP), Settings(quality=28, intra_period=4), t=50.3)
    two = encode_clip(counted(), info_of(CLIP), Settings(quality=28, intra_period=4, options={"jobs": 2}), progress,
                      t=50.3, watch=lambda number, _: shown.append(number))
    assert two.data == one.data
    assert two.pictures_sha256 == one.pictures_sha256
    assert two.frames == one.frames
    assert [f.index for f in two.frames if f.type == "I"] == [0, 4, 6, 10, 14, 18]
    assert two.details["bits"] == one.details["bits"]
    assert shown == list(range(22))
    assert coded_then == list(range(1, 23))
    assert max(ahead) <= 12 + 3     # three GOPs, and what the search for cuts looks at
    assert children() == before


def test_threads_bound_the_processes(before: list[int]) -> None:
    running: list[int] = []
    coded(2, lambda p: running.extend(children()), threads=1)
    assert running == before * 22


def test_cancelling_ends_the_processes(before: list[int]) -> None:
    def stop(progress: Progress) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        coded(2, stop)
    assert children() == before


def test_a_killed_process_is_an_error_and_ends_the_others(before: list[int]) -> None:
    def kill(progress: Progress) -> None:
        for pid in set(children()) - set(before):
            os.kill(pid, signal.SIGKILL)

    with pytest.raises(CodecError, match=r"jobs: a process died of SIGKILL while it coded the pictures from \d+ on"):
        coded(2, kill)
    assert children() == before


def test_an_error_of_a_process_is_raised_here(before: list[int]) -> None:
    pictures = [*CLIP[:4], CLIP[4]._replace(u=CLIP[4].u[:30])]
    for jobs in (1, 2):
        with pytest.raises(ValueError, match=r"from shape \(32,40\) into shape \(30,40\)"):
            encode_clip(pictures, info_of(CLIP), Settings(intra_period=4, options={"jobs": jobs}))
    assert children() == before


def test_an_error_of_the_clip_ends_the_processes(before: list[int]) -> None:
    def damaged() -> Iterator[Picture]:
        yield from CLIP[:3]
        raise DamagedVideo("clip.y4m: picture 3 is cut off", 3)

    with pytest.raises(DamagedVideo):
        encode_clip(damaged(), info_of(CLIP), Settings(options={"jobs": 2}))
    assert children() == before


def test_a_process_ends_when_its_parent_is_gone() -> None:
    process = _Process()
    process.connection.close()      # what the kernel does for a parent that was killed
    assert process._child.wait(300) == 0


@pytest.mark.parametrize(("options", "message"), [
    ({"jobs": 0}, "options.jobs is 0, expected 1…64"),
    ({"jobs": 65}, "options.jobs is 65, expected 1…64"),
    ({"jobs": "2"}, "options.jobs is '2', expected 1…64"),
    ({"jobs": True}, "options.jobs is True, expected 1…64"),
    ({"crf": 20}, "options.crf: nvc has jobs"),
])
def test_bad_options_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        encode_clip(CLIP[:1], info_of(CLIP[:1]), Settings(options=options))
