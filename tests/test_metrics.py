"""The metrics: literal values by hand, and agreement with independent implementations."""

import json
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from pytorch_msssim import ms_ssim as oracle_ms_ssim
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from measures.ssim import ssim_and_ms_ssim
from metrics import ClipMetrics, MetricsError, frame_metrics, frame_psnr, main, psnr, rate_metrics, ssim_db
from video.picture import ClipInfo, Picture
from video.planar import Y4MWriter

ROOT = Path(__file__).resolve().parent.parent


def flat(height: int, width: int, y: int, u: int = 128, v: int = 128) -> Picture:
    small = ((height + 1) // 2, (width + 1) // 2)
    return Picture(np.full((height, width), y, np.uint8), np.full(small, u, np.uint8), np.full(small, v, np.uint8))


def noise(height: int, width: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width), np.uint8)


def scene(height: int, width: int) -> np.ndarray:
    """Gradients, edges and texture, as pictures have them."""
    y, x = np.mgrid[0:height, 0:width]
    return (60 + 0.3 * x + 40 * np.sin(y / 7.0) + 50 * ((x // 16 + y // 16) % 2)).clip(0, 255).astype(np.uint8)


def worse(plane: np.ndarray, amount: float, seed: int = 0) -> np.ndarray:
    return (plane + np.random.default_rng(seed).normal(0, amount, plane.shape)).clip(0, 255).astype(np.uint8)


PAIRS = {
    "noise against noise": (noise(97, 130, 1), noise(97, 130, 2)),
    "a scene with noise": (scene(288, 352), worse(scene(288, 352), 6)),
    "a scene with little noise": (scene(176, 200), worse(scene(176, 200), 0.7)),
    "a scene shifted": (scene(171, 230), np.roll(scene(171, 230), 3, axis=1)),
    "a scene turned negative": (scene(164, 180), 255 - scene(164, 180)),
    "black against white": (np.zeros((20, 30), np.uint8), np.full((20, 30), 255, np.uint8)),
    "one window": (noise(11, 11, 3), noise(11, 11, 4)),
    "more columns than a strip": (noise(12, 9000, 5), noise(12, 9000, 6)),
}


# ── literal values ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_psnr_of_an_error_of_one_is_48_db() -> None:
    assert psnr(1.0) == pytest.approx(48.1308, abs=1e-4)


def test_psnr_is_capped_at_100_db() -> None:
    assert (psnr(0.0), psnr(1e-9)) == (100.0, 100.0)


def test_psnr_is_weighted_6_1_1() -> None:
    values = frame_metrics(flat(16, 16, 100, 100, 100), flat(16, 16, 101, 102, 100))
    assert (values["mse_y"], values["mse_u"], values["mse_v"]) == (1.0, 4.0, 0.0)
    assert values["psnr_y"] == pytest.approx(48.1308, abs=1e-4)
    assert values["psnr_u"] == pytest.approx(42.1102, abs=1e-4)
    assert values["psnr_v"] == 100.0
    assert values["psnr"] == pytest.approx((6 * 48.1308 + 42.1102 + 100) / 8, abs=1e-4)


def test_an_error_of_255_does_not_wrap() -> None:
    assert frame_metrics(flat(16, 16, 0), flat(16, 16, 255))["mse_y"] == 65025.0


def test_identical_pictures_are_perfect() -> None:
    picture = Picture(scene(180, 200), noise(90, 100, 0), noise(90, 100, 1))
    values = frame_metrics(picture, picture)
    assert values == {
        "psnr": 100.0, "psnr_y": 100.0, "psnr_u": 100.0, "psnr_v": 100.0, "mse_y": 0.0, "mse_u": 0.0, "mse_v": 0.0,
        "ssim": pytest.approx(1.0, abs=1e-12), "ms_ssim": pytest.approx(1.0, abs=1e-12),
    }  # fmt: skip


def test_ssim_of_two_flat_pictures_is_their_luminance_term() -> None:
    ssim, _ = ssim_and_ms_ssim(np.full((16, 16), 100, np.uint8), np.full((16, 16), 150, np.uint8))
    assert ssim == pytest.approx((2 * 100 * 150 + 6.5025) / (100**2 + 150**2 + 6.5025), abs=1e-12)


def test_ssim_in_db() -> None:
    assert ssim_db(0.99) == pytest.approx(20.0)
    assert ssim_db(1.0) == 100.0


def test_the_two_averagings_differ_as_defined() -> None:
    total = ClipMetrics()
    total.add(flat(16, 16, 100), flat(16, 16, 101))  # MSE 1: 48.13 dB
    total.add(flat(16, 16, 100), flat(16, 16, 103))  # MSE 9: 38.59 dB
    summary = total.summary()
    assert summary["psnr_y"] == pytest.approx((48.1308 + 38.5884) / 2, abs=1e-4)
    assert summary["psnr_y_of_mean_mse"] == pytest.approx(41.1411, abs=1e-4)  # of MSE 5
    assert summary["psnr_of_mean_mse"] == pytest.approx((6 * 41.1411 + 200) / 8, abs=1e-4)
    assert summary["mse_y"] == 5.0
    assert summary["frames"] == 2


def test_a_small_picture_has_no_ms_ssim_and_the_summary_says_why() -> None:
    total = ClipMetrics()
    assert total.add(flat(144, 176, 100), flat(144, 176, 101))["ms_ssim"] is None
    summary = total.summary()
    assert summary["ms_ssim"] is None
    assert summary["ms_ssim_reason"] == "needs at least 161 lines and columns, the luma is 176x144"
    assert "ssim_reason" not in summary


def test_a_tiny_picture_has_no_ssim() -> None:
    assert ssim_and_ms_ssim(noise(10, 64, 0), noise(10, 64, 1)) == (None, None)


def test_161_lines_are_enough_for_ms_ssim() -> None:
    assert ssim_and_ms_ssim(noise(161, 161, 0), noise(161, 161, 0))[1] == pytest.approx(1.0)
    assert ssim_and_ms_ssim(noise(160, 161, 0), noise(160, 161, 0))[1] is None


def test_rate_metrics_of_a_clip() -> None:
    info = ClipInfo(176, 144, Fraction(30000, 1001), frames=96)
    assert rate_metrics(31245, info) == {
        "bitrate_mbps": pytest.approx(0.0780344, abs=1e-7),  # 249960 bits in 3.2032 s
        "bpp": pytest.approx(0.1027363, abs=1e-7),  # by 2433024 luma samples
        "compression_ratio": pytest.approx(116.8038, abs=1e-4),  # of 3649536 raw bytes
    }


def test_raw_size_counts_odd_chroma_rounded_up() -> None:
    assert rate_metrics(17, ClipInfo(3, 3, Fraction(25), frames=1))["compression_ratio"] == 1.0  # 9 + 4 + 4


@pytest.mark.parametrize(("size", "frames"), [(0, 1), (1, 0), (1, None)])
def test_a_rate_of_nothing_is_refused(size: int, frames: int | None) -> None:
    with pytest.raises(MetricsError):
        rate_metrics(size, ClipInfo(2, 2, Fraction(25), frames=frames))


def test_pictures_of_two_sizes_are_refused() -> None:
    with pytest.raises(MetricsError, match="y: the reference is 16x16, the distorted picture 18x16"):
        frame_metrics(flat(16, 16, 0), flat(16, 18, 0))


def test_a_summary_of_nothing_is_refused() -> None:
    with pytest.raises(MetricsError, match="no picture"):
        ClipMetrics().summary()


# ── oracles ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", PAIRS)
def test_psnr_agrees_with_scikit_image(name: str) -> None:
    a, b = PAIRS[name]
    chroma = np.zeros((1, 1), np.uint8)
    ours = frame_metrics(Picture(a, chroma, chroma), Picture(b, chroma, chroma))["psnr_y"]
    assert ours == pytest.approx(peak_signal_noise_ratio(a, b, data_range=255), abs=1e-9)


@pytest.mark.parametrize("name", PAIRS)
def test_ssim_agrees_with_scikit_image(name: str) -> None:
    a, b = PAIRS[name]
    expected = structural_similarity(a, b, gaussian_weights=True, use_sample_covariance=False, data_range=255)
    assert ssim_and_ms_ssim(a, b)[0] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name", [name for name, (a, _) in PAIRS.items() if min(a.shape) > 160])
def test_ms_ssim_agrees_with_pytorch_msssim(name: str) -> None:
    a, b = PAIRS[name]
    expected = oracle_ms_ssim(*(torch.tensor(p, dtype=torch.float64)[None, None] for p in (a, b)), data_range=255)
    assert ssim_and_ms_ssim(a, b)[1] == pytest.approx(expected.item(), abs=1e-6)  # its window is made in float32


@pytest.mark.parametrize("size", [(161, 162), (175, 193), (183, 179), (191, 168)])
def test_ms_ssim_agrees_at_sides_that_are_odd_at_some_scale(size: tuple[int, int]) -> None:
    a = scene(*size)
    b = worse(a, 12, seed=size[0])
    expected = oracle_ms_ssim(*(torch.tensor(p, dtype=torch.float64)[None, None] for p in (a, b)), data_range=255)
    assert ssim_and_ms_ssim(a, b)[1] == pytest.approx(expected.item(), abs=1e-6)


# ── command line ─────────────────────────────────────────────────────────────────────────────────────────────────────


def write_y4m(path: Path, pictures: list[Picture], span: str = "limited") -> str:
    height, width = pictures[0].y.shape
    with path.open("wb") as out:
        writer = Y4MWriter(out, ClipInfo(width, height, Fraction(25), range=span))
        for picture in pictures:
            writer.write(picture)
    return str(path)


def test_the_command_prints_one_json_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = write_y4m(tmp_path / "a.y4m", [flat(16, 16, 100)] * 3)
    b = write_y4m(tmp_path / "b.y4m", [flat(16, 16, 101)] * 3)
    assert main([a, b, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["frames"] == 3
    assert result["psnr_y"] == pytest.approx(48.1308, abs=1e-4)
    assert [row["index"] for row in result["per_frame"]] == [0, 1, 2]
    assert result["notes"] == []


def test_the_command_prints_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = write_y4m(tmp_path / "a.y4m", [flat(16, 16, 100)])
    assert main([a, a]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "1 pictures",
        "psnr              100.0000 dB YUV 6:1:1",
        "psnr_y            100.0000 dB",
        "psnr_u            100.0000 dB",
        "psnr_v            100.0000 dB",
        "psnr_of_mean_mse  100.0000 dB YUV 6:1:1",
        "ssim              1.0000",
        "ms_ssim           none: needs at least 161 lines and columns, the luma is 16x16",
    ]


def test_the_command_notes_that_ranges_differ(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = write_y4m(tmp_path / "a.y4m", [flat(16, 16, 100)])
    b = write_y4m(tmp_path / "b.y4m", [flat(16, 16, 100)], span="full")
    assert main([a, b]) == 0
    assert "note: range differs (limited and full); samples are compared as they are" in capsys.readouterr().out


@pytest.mark.parametrize(("first", "second", "ends"), [(2, 3, "a.y4m ends after 2"), (3, 2, "b.y4m ends after 2")])
def test_clips_of_two_lengths_fail(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], first: int, second: int, ends: str
) -> None:
    a = write_y4m(tmp_path / "a.y4m", [flat(16, 16, 100)] * first)
    b = write_y4m(tmp_path / "b.y4m", [flat(16, 16, 100)] * second)
    assert main([a, b]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert ends in line


def test_a_missing_file_fails_with_one_line() -> None:
    done = subprocess.run([sys.executable, "metrics.py", "no.y4m", "no.y4m"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "metrics.py: no.y4m: cannot be read: No such file or directory\n"


@pytest.mark.parametrize("arguments", [[], ["a"], ["a", "b", "--nonsense"], ["-", "-"]])
def test_wrong_usage_exits_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2


def test_one_clip_may_come_from_standard_input(tmp_path: Path) -> None:
    a = write_y4m(tmp_path / "a.y4m", [flat(16, 16, 100)] * 2)
    with open(a, "rb") as source:
        done = subprocess.run([sys.executable, "metrics.py", a, "-"], cwd=ROOT, stdin=source, capture_output=True)
    assert done.returncode == 0, os.fsdecode(done.stderr)
    assert done.stdout.startswith(b"2 pictures\n")


def test_frame_psnr_is_the_psnr_of_frame_metrics() -> None:
    rng = np.random.default_rng(3)
    a, b = (Picture(*(rng.integers(0, 256, shape, np.uint8) for shape in ((32, 48), (16, 24), (16, 24)))) for _ in "ab")
    assert frame_psnr(a, b) == frame_metrics(a, b)["psnr"]
