"""The anchors: measured points, kept by what they depend on, and BD-rate against them."""

import json
from pathlib import Path

import pytest

import clips
from bench import rd


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("anchors")


@pytest.fixture(scope="module")
def points(cache: Path) -> list[rd.Point]:
    return rd.anchor_points("x264", clips.find("carphone"), 9, 8, cache)


def test_an_anchor_has_six_points_of_falling_rate_and_quality(points: list[rd.Point]) -> None:
    assert [point["settings"]["options"]["crf"] for point in points] == [17, 22, 27, 32, 37, 42]
    for name in ("bytes", "bitrate_mbps", "bpp", "psnr", "psnr_y", "ssim"):
        values = [point[name] for point in points]
        assert values == sorted(values, reverse=True)
    assert {point["frames"] for point in points} == {9}


def test_an_anchor_is_measured_once(cache: Path, points: list[rd.Point]) -> None:
    (path,) = cache.glob("carphone_pristine-x264-*.json")
    kept = json.loads(path.read_text())
    kept["points"][0]["bytes"] = -1
    path.write_text(json.dumps(kept))
    again = rd.anchor_points("x264", clips.find("carphone"), 9, 8, cache)
    assert again[0]["bytes"] == -1
    assert again[1:] == points[1:]


@pytest.mark.parametrize(("frames", "period"), [(8, 8), (9, 9)])
def test_other_settings_are_measured_anew(cache: Path, points: list[rd.Point], frames: int, period: int) -> None:
    before = len(list(cache.iterdir()))
    rd.anchor_points("x264", clips.find("carphone"), frames, period, cache, crfs=(22,))
    assert len(list(cache.iterdir())) == before + 1


def test_bd_rate_against_an_anchor(points: list[rd.Point]) -> None:
    cheaper = [{**point, "bitrate_mbps": 0.8 * point["bitrate_mbps"]} for point in points]
    for metric in ("psnr", "psnr_y", "ssim"):
        assert rd.compare(points, cheaper, metric).percent == pytest.approx(-20.0)


def test_a_metric_that_the_clip_is_too_small_for_gives_a_reason(points: list[rd.Point]) -> None:
    assert rd.compare(points, points, "ms_ssim").reason == "anchor: 0 points, at least 4 are needed"
