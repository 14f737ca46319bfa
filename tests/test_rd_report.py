"""Tables and plots of a rate-distortion result."""

from pathlib import Path
from typing import Any

import pytest

from bench.rates import plots, tables
from bench.rates.points import METRICS


def points(rate: str, *pairs: tuple[float, float]) -> list[dict[str, Any]]:
    return [{rate: x, "psnr_y": y, "psnr": y, "ssim": 0.9, "ms_ssim": 0.99} for x, y in pairs]


def by(*values: float | None) -> dict[str, dict[str, Any]]:
    return {metric: {"percent": value, "reason": "no"} for metric, value in zip(METRICS, values, strict=True)}


@pytest.fixture
def result() -> dict[str, Any]:
    row = {
        "clip": "pan",
        "nvc": points("bitrate_mbps", (1.0, 30.0), (4.0, 40.0)),
        "x264": points("bitrate_mbps", (1.0, 31.0), (3.0, 41.0)),
        "bd_rate": {"x264": by(-12.34, 1.0, None, 3.0)},
        "others": {"nvc-1, effort 1": {"nvc": points("bitrate_mbps", (0.9, 30.0), (3.5, 40.0)),
                                       "bd_rate": {"x264": by(-14.0, 0.0, None, 2.0)},
                                       "against_before": {"nvc-1, effort 0": by(-2.0, -1.0, None, 0.1)}}},
    }  # fmt: skip
    still = {
        "clip": "boat",
        "nvc": points("bpp", (0.2, 30.0), (2.0, 40.0)),
        "jpeg": points("bpp", (0.4, 30.0), (4.0, 40.0)),
        "bd_rate": {"jpeg": by(-50.0, -50.0, -50.0, -50.0)},
        "others": {},
    }
    return {
        "command": "python -m bench.rd",
        "frames": 33,
        "intra_period": 64,
        "variant": "nvc-1, effort 0",
        "mean_bd_rate": {"x264": {"psnr_y": -12.34, "psnr": 1.0, "ssim": None, "ms_ssim": 3.0}},
        "mean_bd_rate_clips": {"x264": {"psnr_y": 2, "psnr": 1, "ssim": 0, "ms_ssim": 2}},
        "others": {"nvc-1, effort 1": {"x264": {"psnr_y": -14.0, "psnr": 0.0, "ssim": None, "ms_ssim": 2.0}}},
        "against_before": {"nvc-1, effort 1": {"nvc-1, effort 0": {"psnr_y": -2.5, "psnr": 0.5}}},
        "left_out": {"vp9": "vp9: not here"},
        "encoders": {"x264": {}},
        "clips": [row, {**row, "clip": "zoom"}],
        "stills": {
            "mean_bd_rate": {"jpeg": {"psnr_y": -50.0, "psnr": -50.0, "ssim": -50.0, "ms_ssim": -50.0}},
            "mean_bd_rate_clips": {"jpeg": {"psnr_y": 1, "psnr": 1, "ssim": 1, "ms_ssim": 1}},
            "others": {},
            "left_out": {},
            "encoders": {"jpeg": {}},
            "variant": "nvc-1, effort 0",
            "pictures": [still],
        },
    }


def test_the_first_table_has_the_means_of_each_effort(result: dict[str, Any]) -> None:
    text = tables.page(result, Path("docs/page.md"))
    assert text.split("\n\n")[5] == (
        "| nvc against | nvc with | PSNR-Y | PSNR-YUV | SSIM | MS-SSIM |\n"
        "| --- | --: | --: | --: | --: | --: |\n"
        "| x264 medium | nvc-1, effort 0 | -12.3 % | +1.0 % (1) | n/a | +3.0 % |\n"
        "| x264 medium | nvc-1, effort 1 | -14.0 % | +0.0 % | n/a | +2.0 % |"
    )
    assert "(n): mean over the n of 2 of which both curves share half of their range of quality." in text


def test_each_clip_has_a_row(result: dict[str, Any]) -> None:
    text = tables.page(result, Path("docs/page.md"))
    assert "|  | x264 medium |\n| --- | --: |\n| pan | -12.3 % / +3.0 % |\n| zoom | -12.3 % / +3.0 % |" in text
    assert "| boat | -50.0 % / -50.0 % |" in text


def test_the_page_says_what_is_left_out(result: dict[str, Any]) -> None:
    result["stills"] = {"left_out": {"all": "none: no such folder"}}
    text = tables.page(result, Path("docs/page.md"))
    assert "Left out: VP9 (libvpx, cpu-used 2): vp9: not here." in text
    assert "## Stills\n\nLeft out: all: none: no such folder." in text


def test_the_page_shows_the_plots_from_where_it_stands(result: dict[str, Any]) -> None:
    text = tables.page(result, Path("docs/page.md"), [Path("docs/plots/pan.svg"), Path("docs/plots/stills-mean.svg")])
    assert "![pan](plots/pan.svg)" in text
    assert "(plots/stills-mean.svg)" in text
    assert "zoom.svg" not in text


def test_there_is_a_plot_of_each_clip_and_of_the_means(result: dict[str, Any], tmp_path: Path) -> None:
    made = plots.write(result, tmp_path)
    assert [path.name for path in made] == ["clips-mean.svg", "pan.svg", "zoom.svg", "stills-mean.svg"]
    assert max(path.stat().st_size for path in made) < 60_000


def test_the_same_result_makes_the_same_bytes(result: dict[str, Any], tmp_path: Path) -> None:
    first, again = plots.write(result, tmp_path / "first"), plots.write(result, tmp_path / "again")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]


def test_a_metric_that_clips_are_too_small_for_draws_no_line(result: dict[str, Any], tmp_path: Path) -> None:
    for name in ("nvc", "x264"):
        result["clips"][0][name] = [{**point, "ms_ssim": None} for point in result["clips"][0][name]]
    assert len(plots.write(result, tmp_path)) == 4


def test_a_mean_curve_is_taken_setting_by_setting() -> None:
    rows = [{"nvc": points("bpp", (1.0, 30.0), (2.0, 40.0))}, {"nvc": points("bpp", (4.0, 32.0), (8.0, 44.0))}]
    mean = plots.mean_curves(rows, "bpp")["nvc"]
    assert [point["bpp"] for point in mean] == pytest.approx([2.0, 4.0])
    assert [point["psnr_y"] for point in mean] == [31.0, 42.0]
    assert [point["ms_ssim"] for point in mean] == pytest.approx([0.99, 0.99])


def test_a_plot_is_made_small_without_a_change_to_be_seen() -> None:
    svg = '<g>\n <!-- 0.2 -->\n <path d="M 1.23456 2\nL 10.001 -0.5\nz"/>\n <g transform="scale(0.015625)"/>\n</g>'
    assert plots.small(svg) == '<g>\n<path d="M 1.23 2L 10 -0.5z"/>\n<g transform="scale(0.015625)"/>\n</g>'


def test_each_effort_stands_beside_the_one_before(result: dict[str, Any]) -> None:
    assert (
        "| --- | --: |\n"
        "| pan | -2.0 % / -1.0 % |\n"
        "| zoom | -2.0 % / -1.0 % |\n"
        "| mean | -2.5 % / +0.5 % |"
    ) in tables.page(result, Path("docs/page.md"))
    result["against_before"] = {}
    assert "Effort by effort" not in tables.page(result, Path("docs/page.md"))


def test_where_bits_go_is_told_where_points_tell_it(result: dict[str, Any]) -> None:
    assert "Where bits go" not in tables.page(result, Path("docs/page.md"))
    bits = {"motion": 20, "hyper": 5, "latents": 70, "headers": 5}
    told = [{**point, "settings": {"quality": q}, "bits": bits} for q, point in zip((8, 24), result["clips"][0]["nvc"],
                                                                                      strict=True)]
    result["clips"] = [{**row, "nvc": told} for row in result["clips"]]
    text = tables.page(result, Path("docs/page.md"))
    assert "|  | quality 8 | quality 24 |" in text
    assert "| pan | 20 % / 5 % | 20 % / 5 % |" in text
