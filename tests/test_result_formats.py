"""Curves in other programs' layouts: CompressAI's out and in, DCVC's in, as anchors."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metrics import bd_rate, ssim_db
from service.results import curves
from service.results import formats as layouts
from service.results.formats import LayoutError

RATES = {8: 0.1, 16: 0.2, 24: 0.4, 32: 0.8}     # bits a pixel, by quality


def curve(name: str, clip: str, factor: float = 1.0, gain: float = 0.0) -> dict[str, Any]:
    points = [{"run": f"{clip}.{quality}", "quality": quality, "psnr_db": None, "bitrate_mbps": 10 * factor * rate,
               "bpp": factor * rate, "psnr_y": 28 + quality / 4 + gain, "psnr": 29 + quality / 4 + gain,
               "ssim_db": 10.0 + gain, "ms_ssim_db": None} for quality, rate in RATES.items()]
    return {"clip": clip, "curve": name, "codec": name, "points": points}


def compressai_file(**lists: list[Any]) -> dict[str, Any]:
    return {"name": "theirs", "description": "x", "results": {"bpp": [0.1, 0.2, 0.4, 0.8], **lists}}


def dcvc_file(**more: float) -> dict[str, Any]:
    """Four rate points of one sequence, each with these quantities, which grow by 1 from point to point."""
    points = {f"{n:03}": {"ave_all_frame_bpp": 0.1 * 2**n, "qp": n, **{f"ave_all_frame_{name}": value + n
                                                                      for name, value in more.items()}}
              for n in range(4)}
    return {"UVG": {"Beauty_1920x1080_120fps_420_8bit_YUV.yuv": points}}


# --- out


def test_a_curve_of_one_clip_in_compressais_layout() -> None:
    figures = {f"bikes.{quality}": {"encode_s": 2.0, "decode_s": 1.0} for quality in RATES}
    made = layouts.compressai([curve("x264", "bikes"), curve("nvc", "bikes")], "x264", None, "words", figures)
    assert made["name"] == "x264"
    assert made["description"] == "words"
    assert made["results"]["q"] == [8, 16, 24, 32]
    assert made["results"]["bpp"] == [0.1, 0.2, 0.4, 0.8]
    assert made["results"]["bitrate"] == [1000, 2000, 4000, 8000]
    assert made["results"]["psnr-y"] == [30, 32, 34, 36]
    assert made["results"]["psnr-yuv-611"] == [31, 33, 35, 37]
    assert made["results"]["ssim-y"] == pytest.approx([0.9] * 4)
    assert made["results"]["encoding_time"] == [2.0] * 4
    assert "ms-ssim-y" not in made["results"]     # it was not measured
    assert not any("rgb" in name for name in made["results"])


def test_over_several_clips_it_is_the_mean_at_the_settings_that_all_have() -> None:
    other = curve("x264", "carphone", factor=3.0, gain=2.0)
    del other["points"][1]
    made = layouts.compressai([curve("x264", "bikes"), other], "x264", None, "", {})["results"]
    assert made["q"] == [8, 24, 32]
    assert made["bpp"] == pytest.approx([0.2, 0.8, 1.6])
    assert made["psnr-y"] == [31, 35, 37]
    assert made["ssim-y"] == pytest.approx([(0.9 + 1 - 10**-1.2) / 2] * 3)   # of the SSIMs, not of their decibels
    alone = layouts.compressai([curve("x264", "bikes"), other], "x264", "bikes", "", {})["results"]
    assert alone["q"] == [8, 16, 24, 32]


def test_an_unknown_curve_is_told_with_the_known_ones() -> None:
    with pytest.raises(KeyError) as caught:
        layouts.compressai([curve("x264", "bikes")], "x265", None, "", {})
    assert caught.value.args == (["x264"], ["bikes"])


def test_what_is_written_is_read_again_as_the_same_curve() -> None:
    mine = curve("x264", "bikes")
    (read,) = layouts.read_anchor("x264.json", layouts.compressai([mine], "x264", None, "", {}))
    assert [point["psnr_y"] for point in read["points"]] == [point["psnr_y"] for point in mine["points"]]
    assert [point["psnr"] for point in read["points"]] == [31, 33, 35, 37]
    assert read["points"][0]["ssim_db"] == pytest.approx(10.0)


# --- in


def test_a_compressai_file_of_an_image_model_is_in_rgb() -> None:
    (read,) = layouts.read_anchor("f.json", compressai_file(**{
        "psnr-rgb": [28, 30, 32, 34], "ms-ssim-rgb": [0.9, 0.95, 0.97, 0.99]}))
    assert (read["clip"], read["curve"], read["anchor"]) == (curves.MEAN, "theirs", True)
    assert read["points"][0] == {"bpp": 0.1, "psnr_y": None, "psnr": None, "ssim_db": None, "ms_ssim_db": None,
                                 "psnr_rgb": 28.0, "ms_ssim_rgb_db": ssim_db(0.9)}


def test_a_compressai_file_of_the_first_version_is_in_rgb_too() -> None:
    (read,) = layouts.read_anchor("f.json", compressai_file(psnr=[28, 30, 32, 34], msssim=[0.9, 0.95, 0.97, 0.99]))
    assert [point["psnr_rgb"] for point in read["points"]] == [28, 30, 32, 34]
    assert read["points"][0]["ms_ssim_rgb_db"] == ssim_db(0.9)


def test_a_compressai_file_of_a_video_codec_has_planes_and_no_name() -> None:
    lists = {"qp": [37, 32, 27, 22], "bpp": [0.1, 0.2, 0.4, 0.8], "y_psnr": [30, 32, 34, 36],
             "u_psnr": [38, 38, 38, 38], "v_psnr": [40, 40, 40, 40]}
    (read,) = layouts.read_anchor("ffmpeg-x264-medium.json", lists)
    assert read["curve"] == "ffmpeg-x264-medium"
    assert [point["psnr_y"] for point in read["points"]] == [30, 32, 34, 36]
    assert read["points"][0]["psnr"] == (6 * 30 + 38 + 40) / 8


def test_a_compressai_file_may_give_kilobits_in_place_of_bits_a_pixel() -> None:
    (read,) = layouts.read_anchor("f.json", {"name": "ssf", "results": {
        "q": ["a", "b"], "bitrate": [10416.9, 16466.7], "psnr-y": [33.9, 35.3]}})
    assert [(point["bitrate_mbps"], point["bpp"]) for point in read["points"]] == [(10.4169, None), (16.4667, None)]


def test_a_dcvc_file_has_a_curve_for_each_sequence() -> None:
    (read,) = layouts.read_anchor("vtm.json", dcvc_file(psnr=40, psnr_y=39, msssim=-4, msssim_y=-4.5))
    assert (read["clip"], read["curve"]) == ("Beauty_1920x1080_120fps_420_8bit_YUV.yuv", "vtm")
    assert [point["bpp"] for point in read["points"]] == pytest.approx([0.1, 0.2, 0.4, 0.8])
    assert [(point["psnr"], point["psnr_y"]) for point in read["points"]] == [(40, 39), (41, 40), (42, 41), (43, 42)]
    assert read["points"][0]["psnr_rgb"] is None


def test_a_dcvc_file_without_planes_is_in_rgb() -> None:
    (read,) = layouts.read_anchor("dcvc.json", dcvc_file(psnr=40))
    assert (read["points"][0]["psnr"], read["points"][0]["psnr_rgb"]) == (None, 40)


@pytest.mark.parametrize(("document", "words"), [
    ([], "f.json: expected a JSON object of CompressAI's or DCVC's layout"),
    ({"results": {"psnr": [1]}}, 'f.json: expected "results" with a list "bpp"'),
    (compressai_file(psnr=[1, 2]), "f.json: psnr: expected as many values as bpp has, 4; got 2"),
    (compressai_file(psnr=[1, 2, None, 4]), r"f.json: psnr\[2\]: expected a number, got 'None'"),
    ({"results": {"bpp": []}}, "f.json: bpp: expected 1 to 10000 points, got 0"),
    ({"results": {"bpp": [0.1] * 10_001}}, "f.json: bpp: expected 1 to 10000 points, got 10001"),
    ({"UVG": {"a": {"0": {"ave_all_frame_bpp": "0.1"}}}}, "f.json: a: ave_all_frame_bpp: expected a number, got '0.1'"),
])
def test_a_file_that_is_none_is_refused_by_its_place(document: Any, words: str) -> None:
    with pytest.raises(LayoutError, match=words):
        layouts.read_anchor("f.json", document)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(
        ["results", "bpp", "bitrate", "psnr-y", "ms-ssim-rgb", "name", "a", "ave_all_frame_bpp",
         "ave_all_frame_psnr_y"]), inner, max_size=4), max_leaves=12)


@settings(deadline=None)
@given(JSON)
def test_any_document_gives_curves_or_says_what_is_wrong(document: Any) -> None:
    try:
        anchors = layouts.read_anchor("f.json", document)
    except LayoutError:
        return
    rows, _ = layouts.beside([curve("nvc", "bikes")], anchors)
    json.dumps(curves.matrix(rows, "bpp"), allow_nan=False)


# --- side by side


def test_an_anchor_of_a_data_set_stands_beside_the_means_of_all_clips() -> None:
    mine = [curve("nvc", "bikes"), curve("nvc", "carphone")]
    anchors = layouts.read_anchor("x.json", compressai_file(**{"psnr-y": [29, 31, 33, 35]}))
    rows, unmatched = layouts.beside(mine, anchors)
    assert [(row["clip"], row["curve"]) for row in rows] == [(curves.MEAN, "theirs"), (curves.MEAN, "nvc")]
    assert unmatched == []
    cell = curves.matrix(rows, "bpp")["metrics"]["psnr_y"]["per_clip"][curves.MEAN][0][1]
    ours = [(rate, 28 + quality / 4) for quality, rate in RATES.items()]
    assert cell["percent"] == bd_rate([(0.1, 29), (0.2, 31), (0.4, 33), (0.8, 35)], ours).percent
    assert cell["percent"] < 0


def test_an_anchor_of_sequences_stands_beside_the_clips_of_the_same_names() -> None:
    mine = [curve("nvc", "beauty_1920x1080_120fps_420_8bit_yuv"), curve("nvc", "bikes")]
    anchors = layouts.read_anchor("vtm.json", dcvc_file(psnr_y=30, psnr=31))
    rows, unmatched = layouts.beside(mine, anchors)
    assert [(row["clip"], row["curve"]) for row in rows] == [
        ("beauty_1920x1080_120fps_420_8bit_yuv", "vtm"), ("beauty_1920x1080_120fps_420_8bit_yuv", "nvc")]
    assert layouts.beside(mine[1:], anchors) == ([], ["Beauty_1920x1080_120fps_420_8bit_YUV.yuv"])
    assert unmatched == []


def test_rgb_is_never_compared_with_luma() -> None:
    anchors = layouts.read_anchor("x.json", compressai_file(**{"psnr-rgb": [29, 31, 33, 35]}))
    rows, _ = layouts.beside([curve("nvc", "bikes")], anchors)
    found = curves.matrix(rows, "bpp", (*curves.QUALITIES, "psnr_rgb"))["metrics"]
    assert found["psnr_y"]["per_clip"][curves.MEAN][0][1]["reason"] == "theirs has no psnr_y"
    assert found["psnr_rgb"]["per_clip"][curves.MEAN][0][1]["reason"] == "nvc has no psnr_rgb"


def test_an_anchor_with_the_name_of_a_curve_keeps_apart_from_it() -> None:
    anchors = layouts.read_anchor("nvc.json", {"bpp": [0.1], "psnr-y": [30]})
    rows, _ = layouts.beside([curve("nvc", "bikes")], anchors)
    assert [row["curve"] for row in rows] == ["nvc (file)", "nvc"]
    assert json.dumps(rows)
