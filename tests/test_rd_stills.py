"""Still pictures side by side: every codec is handed the same planes, and gives planes back."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bench.rates import stills as bench
from coding.interface import BitstreamError, CodecError, Settings
from video.picture import ClipInfo, Picture


def saved(path: Path, *colours: tuple[int, int, int]) -> Path:
    """A picture of 2 lines with a column of each colour."""
    Image.fromarray(np.array([colours, colours], np.uint8)).save(path, lossless=True)
    return path


def back(coder: Any, picture: Picture, info: ClipInfo, quality: int) -> Picture:
    (made,) = coder.decode(coder.encode([picture], info, Settings(quality=quality)).data)
    return made


@pytest.mark.parametrize(
    ("colour", "y", "u", "v"),
    [
        ((255, 0, 0), 76, 85, 255),
        ((0, 0, 255), 29, 255, 107),
        ((255, 255, 255), 255, 128, 128),
        ((0, 0, 0), 0, 128, 128),
    ],
)
def test_the_reference_is_full_range_as_jpeg_has_it(
    tmp_path: Path, colour: tuple[int, int, int], y: int, u: int, v: int
) -> None:
    picture, info = bench.planes_of(saved(tmp_path / "a.webp", colour, colour))
    assert [plane.tolist() for plane in picture] == [[[y, y], [y, y]], [[u]], [[v]]]
    assert (info.matrix, info.range, info.frames) == ("bt601", "full", 1)


def test_chroma_is_averaged_before_it_is_rounded(tmp_path: Path) -> None:
    # Cb is 143 and 143.5, the mean 143.25; of 143 and 144, rounded before, it would be 143.5, so 144.
    picture, _ = bench.planes_of(saved(tmp_path / "a.webp", (100, 100, 130), (100, 100, 131)))
    assert picture.u.tolist() == [[143]]


@pytest.fixture
def halves() -> tuple[Picture, ClipInfo]:
    """Black, then white; and chroma that changes from one sample to the next, at the ends of its range."""
    y = np.zeros((32, 48), np.uint8)
    y[:, 24:] = 255
    u = np.full((16, 24), 20, np.uint8)
    u[::2] = 235
    return Picture(y, u, 255 - u), ClipInfo(48, 32, bench.DEFAULT_FPS, 1, "bt601", "full")


def test_jpeg_codes_the_very_planes(halves: tuple[Picture, ClipInfo]) -> None:
    made = back(bench.Jpeg(), *halves, 100)
    assert [int(np.abs(a.astype(int) - b).max()) for a, b in zip(made, halves[0], strict=True)] == [0, 0, 0]


def test_webp_codes_the_very_planes(halves: tuple[Picture, ClipInfo]) -> None:
    picture, info = halves
    made = back(bench.WebP(), picture, info, 100)  # RGB on the way would bring 0 and 255 to 16 and 235
    assert [int(np.abs(a.astype(int) - b).max()) for a, b in zip(made, picture, strict=True)] == [0, 1, 1]


def test_jpeg_is_baseline_and_half_size_in_chroma(halves: tuple[Picture, ClipInfo]) -> None:
    data = bench.Jpeg().encode([halves[0]], halves[1], Settings(quality=50)).data
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.size, image.mode) == ("JPEG", (48, 32), "RGB")
        assert "progressive" not in image.info
        assert [part[1:3] for part in image.layer] == [(2, 2), (1, 1), (1, 1)]


def test_a_still_is_one_picture(halves: tuple[Picture, ClipInfo]) -> None:
    with pytest.raises(CodecError, match="jpeg: expected one picture, got 2"):
        bench.Jpeg().encode([halves[0], halves[0]], halves[1], Settings())


def test_bytes_of_no_picture_are_refused() -> None:
    with pytest.raises(BitstreamError):
        bench.WebP().decode(b"RIFF, they said")


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of two small pictures."""
    folder = tmp_path_factory.mktemp("pictures")
    yy, xx = np.mgrid[0:176, 0:192]
    noise = np.random.default_rng(3).normal(0, 3, (176, 192, 3))
    for name, step in (("b", 7), ("a", 11)):
        waves = np.stack([128 + 90 * np.sin((xx + k * yy) / (step + k)) for k in range(3)], -1)
        Image.fromarray((waves + noise).clip(0, 255).astype(np.uint8)).save(folder / f"{name}.png")
    (folder / "SOURCES.md").write_text("no picture")
    return bench.stills(bench.pictures_of(folder), {"nvc-1, effort 0": ("nvc-1", 0)})


def test_each_picture_has_six_points_of_each_codec(result: dict[str, Any]) -> None:
    assert [row["clip"] for row in result["pictures"]] == ["a", "b"]
    for row in result["pictures"]:
        assert {name: len(row[name]) for name in ("nvc", "jpeg", "webp", "x264", "x265")} == {
            "nvc": 6, "jpeg": 6, "webp": 6, "x264": 6, "x265": 6,
        }  # fmt: skip
        for name in ("nvc", "jpeg", "webp", "x264", "x265"):
            by_rate = sorted(row[name], key=lambda point: point["bytes"])
            assert [p["psnr_y"] for p in by_rate] == sorted(p["psnr_y"] for p in by_rate)


def test_points_say_bytes_rate_and_metrics(result: dict[str, Any]) -> None:
    point = result["pictures"][0]["jpeg"][0]
    assert list(point) == ["at", "bytes", "bpp", "psnr_y", "psnr", "ssim", "ms_ssim"]
    assert point["at"] == 15
    assert point["bpp"] == round(8 * point["bytes"] / (192 * 176), 6)


def test_the_mean_is_against_each_codec(result: dict[str, Any]) -> None:
    assert list(result["mean_bd_rate"]) == ["jpeg", "webp", "x264", "x265"]
    assert result["mean_bd_rate_clips"]["jpeg"]["psnr_y"] == 2
    assert result["left_out"] == {}
