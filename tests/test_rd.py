"""Rate and quality of clips: measured points, anchors kept by what they depend on, BD-rates, what is left out."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import codec
from bench import rd
from bench.rates import points as rates
from bench.rates.processes import each
from coding.interface import Codec, CodecError, Settings
from video import library
from video.picture import VideoError


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("anchors")


@pytest.fixture(scope="module")
def points(cache: Path) -> list[rates.Point]:
    return rates.anchor_points("x264", library.find("carphone"), 9, 8, cache)


def test_the_first_weight_set_is_measured_at_all_efforts_the_others_at_both_ends() -> None:
    options = argparse.Namespace(models=["a", "b"], efforts=[1, 2, 3])
    assert list(rd.variants(options).values()) == [("a", 1), ("a", 2), ("a", 3), ("b", 1), ("b", 3)]
    options.efforts = [0]
    assert rd.variants(options) == {"a, effort 0": ("a", 0), "b, effort 0": ("b", 0)}


def test_several_processes_give_what_one_gives_in_its_order() -> None:
    assert each(abs, [-3, 1, -2], processes=2) == each(abs, [-3, 1, -2], processes=1) == [3, 1, 2]


def test_an_anchor_has_six_points_of_falling_rate_and_quality(points: list[rates.Point]) -> None:
    assert [point["settings"]["options"]["crf"] for point in points] == [17, 22, 27, 32, 37, 42]
    for name in ("bytes", "bitrate_mbps", "bpp", "psnr", "psnr_y", "ssim"):
        values = [point[name] for point in points]
        assert values == sorted(values, reverse=True)
    assert {point["frames"] for point in points} == {9}


def test_an_anchor_is_measured_once(cache: Path, points: list[rates.Point]) -> None:
    (path,) = cache.glob("carphone_pristine-x264-*.json")
    kept = json.loads(path.read_text())
    kept["points"][0]["bytes"] = -1
    path.write_text(json.dumps(kept))
    again = rates.anchor_points("x264", library.find("carphone"), 9, 8, cache)
    assert again[0]["bytes"] == -1
    assert again[1:] == points[1:]


@pytest.mark.parametrize(("frames", "period"), [(8, 8), (9, 9)])
def test_other_settings_are_measured_anew(cache: Path, points: list[rates.Point], frames: int, period: int) -> None:
    before = len(list(cache.iterdir()))
    rates.anchor_points("x264", library.find("carphone"), frames, period, cache, crfs=(22,))
    assert len(list(cache.iterdir())) == before + 1


def test_nvc_is_measured_once_by_the_same_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[int] = []

    def points_of(coder: Codec, clip: Path, frames: int, runs: Sequence[Settings]) -> list[rates.Point]:
        measured.append(frames)
        return [{"bytes": 7}]

    def points_again() -> list[rates.Point]:
        return rates.own_points(library.find("carphone"), 9, [Settings(30)], tmp_path / "cache")

    monkeypatch.setattr(rates, "rd_points", points_of)
    assert points_again() == points_again() == [{"bytes": 7}]
    assert measured == [9]
    (tmp_path / "nvc").mkdir()
    for name in rates.PROGRAM:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.setattr(rates, "ROOT", tmp_path)
    points_again()
    assert measured == [9, 9]


def test_bd_rate_against_an_anchor(points: list[rates.Point]) -> None:
    cheaper = [{**point, "bitrate_mbps": 0.8 * point["bitrate_mbps"]} for point in points]
    for metric in ("psnr", "psnr_y", "ssim"):
        assert rates.compare(points, cheaper, metric).percent == pytest.approx(-20.0)


def test_bd_rate_by_another_rate(points: list[rates.Point]) -> None:
    cheaper = [{**point, "bpp": 0.5 * point["bpp"]} for point in points]
    assert rates.compare(points, cheaper, "psnr", rate="bpp").percent == pytest.approx(-50.0)


def test_a_metric_that_the_clip_is_too_small_for_gives_a_reason(points: list[rates.Point]) -> None:
    assert rates.compare(points, points, "ms_ssim").reason == "anchor: 0 points, at least 4 are needed"


def test_a_mean_is_over_the_clips_that_have_a_bd_rate() -> None:
    def row(*values: float | None) -> dict[str, Any]:
        return {"x264": {metric: {"percent": value} for metric, value in zip(rates.METRICS, values, strict=True)}}

    mean, counts = rates.means_of([row(10.0, None, 1.0, None), row(-4.0, 2.0, 2.0, None)])
    assert mean == {"x264": {"psnr_y": 3.0, "psnr": 2.0, "ssim": 1.5, "ms_ssim": None}}
    assert counts == {"x264": {"psnr_y": 2, "psnr": 1, "ssim": 2, "ms_ssim": 0}}


def test_a_codec_that_is_missing_is_left_out_with_its_reason() -> None:
    def warm() -> None:
        raise CodecError("gone: no such encoder")

    gone: Any = SimpleNamespace(name="gone", warm=warm)
    here: Any = SimpleNamespace(name="here", warm=lambda: None)
    assert rates.at_hand([gone, here]) == ({"here": here}, {"gone": "gone: no such encoder"})


def test_a_folder_stands_for_the_clips_in_it(tmp_path: Path) -> None:
    for name in ("b.mp4", "a.Y4M", "notes.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert rd.paths_of([Path("one.mkv"), tmp_path]) == [Path("one.mkv"), tmp_path / "a.Y4M", tmp_path / "b.mp4"]


def test_a_folder_without_clips_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"no clip in this folder \(expected \.avi, \.mkv"):
        rd.paths_of([tmp_path])


def test_the_command_in_the_result_leaves_out_where_things_are_kept() -> None:
    arguments = ["--cache", "a", "--efforts", "0", "1", "--markdown", "page.md", "one.mp4", "--plots", "plots"]
    assert rd.command_of(arguments) == "python -m bench.rd --efforts 0 1 one.mp4"


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of one clip, two efforts, an FFmpeg without SVT-AV1."""
    svtav1: Any = codec.get("svtav1")
    kept = svtav1.kind
    out = tmp_path_factory.mktemp("rd")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(svtav1, "kind", replace(kept, library="libnone"))
        patch.setattr("builtins.print", lambda *words, file=None, **_: None if file else said.append(words[0]))
        said: list[str] = []
        arguments = ["--only", "video", "--frames", "3", "--efforts", "0", "1", "--qualities", "24", "36", "48", "60"]
        files = ["--markdown", str(out / "page.md"), "--plots", str(out / "plots")]
        assert rd.main([str(library.find("carphone")), *arguments, *files]) == 0
    return {**json.loads(said[0]), "out": out}


def test_the_result_has_the_mean_against_each_codec_that_is_there(result: dict[str, Any]) -> None:
    assert list(result["mean_bd_rate"]) == ["x264", "x265", "vp9"]
    assert result["mean_bd_rate_clips"]["vp9"] == {"psnr_y": 1, "psnr": 1, "ssim": 1, "ms_ssim": 0}
    assert result["left_out"] == {"svtav1": "svtav1: this build of PyAV lacks the encoder libnone"}


def test_the_first_effort_leads_and_the_others_follow_by_name(result: dict[str, Any]) -> None:
    assert (result["variant"], list(result["others"])) == ("nvc-1, effort 0", ["nvc-1, effort 1"])
    (row,) = result["clips"]
    assert [point["settings"]["quality"] for point in row["nvc"]] == [24, 36, 48, 60]
    assert {point["settings"]["effort"] for point in row["nvc"]} == {0}
    assert {point["settings"]["effort"] for point in row["others"]["nvc-1, effort 1"]["nvc"]} == {1}
    assert [point["settings"]["options"]["crf"] for point in row["vp9"]] == [20, 29, 38, 47, 55, 63]


def test_an_effort_is_compared_with_the_one_before(result: dict[str, Any]) -> None:
    (row,) = result["clips"]
    (before,) = row["others"]["nvc-1, effort 1"]["against_before"].items()
    points = [row["nvc"], row["others"]["nvc-1, effort 1"]["nvc"]]
    assert before[0] == "nvc-1, effort 0"
    assert before[1]["psnr"]["percent"] == pytest.approx(rates.compare(*points, "psnr").percent)
    mean = result["against_before"]["nvc-1, effort 1"]["nvc-1, effort 0"]
    assert mean["psnr"] == round(before[1]["psnr"]["percent"], 2)


def test_the_command_writes_a_page_and_its_plots(result: dict[str, Any]) -> None:
    names = sorted(path.name for path in (result["out"] / "plots").iterdir())
    assert names == ["carphone_pristine.svg", "clips-mean.svg"]
    page = (result["out"] / "page.md").read_text()
    assert "![carphone_pristine](plots/carphone_pristine.svg)" in page
    assert "Left out: SVT-AV1 preset 8: svtav1: this build of PyAV lacks the encoder libnone." in page


def test_a_folder_without_pictures_leaves_the_stills_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.md"
    assert rd.main(["--only", "stills", "--stills", str(tmp_path / "none"), "--markdown", str(page)]) == 0
    reason = f"{tmp_path}/none: no pictures there (--stills)"
    assert json.loads(capsys.readouterr().out)["stills"] == {"left_out": {"all": reason}}
    assert f"Left out: all: {reason}." in page.read_text()


def test_an_unknown_weight_set_is_refused_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [str(library.find("carphone")), "--only", "video", "--frames", "1", "--models", "none"]
    assert rd.main(arguments) == 1
    assert "unknown name 'none'" in capsys.readouterr().err


def test_an_anchor_may_have_a_preset_that_takes_longer() -> None:
    usual, slower = (rates.anchor_points(name, library.find("carphone"), 5, 8, crfs=(30,))
                     for name in ("x264", "x264 slower"))
    assert [points[0]["settings"]["preset"] for points in (usual, slower)] == [None, "slower"]
    assert usual[0]["bytes"] != slower[0]["bytes"]
