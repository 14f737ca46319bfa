"""VMAF, VMAF-NEG and XPSNR: as the FFmpeg program measures them by itself, streamed, and what is said without them."""

from __future__ import annotations

import json
import subprocess
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import metrics
from measures import perceptual
from measures.perceptual import PerceptualMeasures
from metrics import ClipMetrics
from video import ffmpeg_program
from video.picture import ClipInfo, Picture
from video.planar import Y4MWriter

FPS = Fraction(30000, 1001)
EVERY = ("vmaf", "vmaf_neg", "xpsnr")


def clip(width: int, height: int, frames: int = 6) -> list[Picture]:
    """Soft shapes that move, so that there is something to see and to predict."""
    yy, xx = np.mgrid[:height, :width]
    return [Picture(*(np.clip(128 + 80 * np.sin((xx[::s, ::s] + 3 * t) / 9) * np.cos(yy[::s, ::s] / 7 + c), 0, 255)
                      .astype(np.uint8) for c, s in enumerate((1, 2, 2)))) for t in range(frames)]


def noisy(pictures: list[Picture], by: int = 9) -> list[Picture]:
    draw = np.random.default_rng(5)
    return [Picture(*(np.clip(plane + draw.integers(-by, by + 1, plane.shape), 0, 255).astype(np.uint8)
                      for plane in picture)) for picture in pictures]


def info_of(pictures: list[Picture]) -> ClipInfo:
    height, width = pictures[0].y.shape
    return ClipInfo(width, height, FPS, len(pictures))


def write_y4m(path: Path, pictures: list[Picture]) -> None:
    with path.open("wb") as out:
        writer = Y4MWriter(out, info_of(pictures))
        for picture in pictures:
            writer.write(picture)


def measured(source: list[Picture], decoded: list[Picture], wanted: tuple[str, ...] = EVERY) -> perceptual.Measured:
    with PerceptualMeasures(wanted, info_of(source), 2) as measures:
        for pair in zip(source, decoded, strict=True):
            measures.add(*pair)
        return measures.finish()


def by_the_program_alone(folder: Path, source: list[Picture], decoded: list[Picture], graph: str) -> str:
    """What a filter of the program writes about two files."""
    files = [folder / "decoded.y4m", folder / "source.y4m"]
    for file, pictures in zip(files, (decoded, source), strict=True):
        write_y4m(file, pictures)
    command = [ffmpeg_program.executable("a test"), "-loglevel", "error", "-nostdin", "-i", files[0], "-i", files[1],
               "-lavfi", graph, "-f", "null", "-"]
    subprocess.run(command, cwd=folder, check=True, timeout=60)
    return (folder / "log").read_text()


@pytest.mark.parametrize("size", [(176, 144), (175, 143)])
def test_vmaf_and_neg_are_the_programs_own_for_each_picture_and_the_clip(tmp_path: Path, size: tuple[int, int]) -> None:
    source = clip(*size)
    decoded = noisy(source)
    found = measured(source, decoded)
    for name, model in (("vmaf", "vmaf_v0.6.1"), ("vmaf_neg", "vmaf_v0.6.1neg")):
        log = json.loads(by_the_program_alone(tmp_path, source, decoded,
                                              f"libvmaf=log_fmt=json:log_path=log:model=version={model}"))
        alone = [frame["metrics"]["vmaf"] for frame in log["frames"]]
        assert [row[name] for row in found.rows] == pytest.approx(alone, abs=1e-3)
        assert found.summary[name] == pytest.approx(log["pooled_metrics"]["vmaf"]["mean"], abs=1e-3)
        assert found.summary[f"{name}_harmonic_mean"] == pytest.approx(
            log["pooled_metrics"]["vmaf"]["harmonic_mean"], abs=1e-3)


@pytest.mark.parametrize("size", [(176, 144), (175, 143)])
def test_xpsnr_is_the_programs_own_for_each_picture_and_the_clip(tmp_path: Path, size: tuple[int, int]) -> None:
    source = clip(*size)
    decoded = noisy(source)
    found = measured(source, decoded, ("xpsnr",))
    log = by_the_program_alone(tmp_path, source, decoded, "xpsnr=stats_file=log")
    words = log.split()
    luma = [float(words[n + 1]) for n, word in enumerate(words) if word == "y:"]
    assert [row["xpsnr_y"] for row in found.rows] == pytest.approx(luma[:-1], abs=1e-3)
    assert found.summary["xpsnr_y"] == pytest.approx(luma[-1], abs=1e-3)


def test_xpsnr_weighs_the_planes_six_to_one_to_one() -> None:
    source = clip(64, 64)
    found = measured(source, noisy(source), ("xpsnr",)).summary
    assert found["xpsnr"] == pytest.approx((6 * found["xpsnr_y"] + found["xpsnr_u"] + found["xpsnr_v"]) / 8)


def test_identical_pictures_have_an_xpsnr_of_a_hundred() -> None:
    source = clip(64, 64, 2)
    assert measured(source, source, ("xpsnr",)).summary["xpsnr"] == 100.0


def test_only_what_is_wanted_is_measured() -> None:
    source = clip(176, 144, 2)
    found = measured(source, noisy(source), ("psnr", "vmaf_neg"))
    assert sorted(found.summary) == ["vmaf_neg", "vmaf_neg_harmonic_mean"]
    assert [sorted(row) for row in found.rows] == [["vmaf_neg"], ["vmaf_neg"]]


def test_a_clip_that_a_filter_refuses_keeps_the_other_measures_and_says_why() -> None:
    source = clip(8, 8, 3)      # VMAF takes pictures of 16 lines and columns at least
    found = measured(source, noisy(source))
    assert (found.summary["vmaf"], found.summary["vmaf_neg"]) == (None, None)
    assert "exit status" in found.summary["vmaf_reason"]
    assert found.summary["xpsnr"] > 20
    assert [sorted(row) for row in found.rows] == 3 * [["xpsnr", "xpsnr_u", "xpsnr_v", "xpsnr_y"]]


def test_without_the_package_the_reason_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(needed_for: str) -> str:
        raise ffmpeg_program.ProgramMissing(needed_for)

    monkeypatch.setattr(perceptual, "executable", missing)
    source = clip(64, 64, 2)
    found = measured(source, source, ("vmaf", "xpsnr"))
    assert found.rows == []
    assert found.summary["vmaf"] is None
    assert found.summary["xpsnr_reason"].endswith("pip install -r requirements-measures.txt")


def test_no_program_stays_behind_when_the_pictures_break_off() -> None:
    with PerceptualMeasures(EVERY, ClipInfo(64, 64, FPS, 9)) as measures:
        processes = [each._process for each in measures._filters]
        measures.add(*clip(64, 64, 2))
    assert [process.poll() is not None for process in processes] == [True, True]


def test_measures_that_are_not_wanted_are_none_and_the_summary_says_so() -> None:
    total = ClipMetrics(["psnr"])
    source = clip(64, 64, 1)[0]
    assert total.add(source, source)["ssim"] is None
    summary = total.summary()
    assert (summary["psnr"], summary["ssim"], summary["ms_ssim"]) == (100.0, None, None)
    assert summary["ssim_reason"] == "not among the measures that were asked for"


def test_ssim_alone_is_the_same_as_with_ms_ssim() -> None:
    source, decoded = clip(176, 176, 1)[0], noisy(clip(176, 176, 1))[0]
    alone = metrics.frame_metrics(source, decoded, ["ssim"])
    both = metrics.frame_metrics(source, decoded, ["ssim", "ms_ssim"])
    assert alone["ssim"] == both["ssim"]
    assert (alone["ms_ssim"], both["ms_ssim"]) == (None, pytest.approx(1.0, abs=0.2))


def test_the_command_line_prints_the_measures_that_are_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]
                                                                  ) -> None:
    source = clip(176, 144, 3)
    for name, pictures in (("a", source), ("b", noisy(source))):
        write_y4m(tmp_path / f"{name}.y4m", pictures)
    files = [str(tmp_path / "a.y4m"), str(tmp_path / "b.y4m")]
    assert metrics.main([*files, "--measures", "psnr,vmaf,xpsnr"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed] == ["3", "psnr", "psnr_y", "psnr_u", "psnr_v", "psnr_of_mean_mse",
                                                     "vmaf", "xpsnr"]
    assert metrics.main([*files, "--measures", "vmaf", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["vmaf"] == pytest.approx(sum(row["vmaf"] for row in document["per_frame"]) / 3, abs=1e-3)
    assert document["made_by"]["vmaf"] == "vmaf_v0.6.1"


def test_the_command_line_names_a_measure_that_there_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        metrics.main(["a.y4m", "b.y4m", "--measures", "vmaf,beauty"])
    assert ended.value.code == 2
    assert "--measures: expected names of psnr, ssim, ms_ssim, vmaf, vmaf_neg, xpsnr, got 'beauty'" in (
        capsys.readouterr().err)
