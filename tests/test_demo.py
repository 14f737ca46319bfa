"""What the demo shows. That it runs is tried by `make demo` itself."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import demo
from video import library
from video.picture import ClipInfo, Picture
from video.rgb import rgb


def picture(y: int, u: int, v: int) -> Picture:
    planes = (np.full((4, 6), y, np.uint8), np.full((2, 3), u, np.uint8), np.full((2, 3), v, np.uint8))
    return Picture(*planes)


@pytest.mark.parametrize(
    ("matrix", "range_", "yuv", "colour"),
    [
        ("bt601", "limited", (16, 128, 128), (0, 0, 0)),
        ("bt601", "limited", (235, 128, 128), (255, 255, 255)),
        ("bt601", "limited", (81, 90, 240), (254, 0, 0)),  # red of the 75 % and 100 % colour bars, BT.601
        ("bt709", "limited", (63, 102, 240), (255, 1, 0)),
        ("bt601", "full", (128, 128, 128), (128, 128, 128)),
    ],
)
def test_colours_follow_matrix_and_range(
    matrix: str, range_: str, yuv: tuple[int, int, int], colour: tuple[int, int, int]
) -> None:
    seen = rgb(picture(*yuv), ClipInfo(6, 4, Fraction(25), 1, matrix, range_))
    assert seen.shape == (4, 6, 3)
    assert np.abs(seen - colour).max() <= 1


def test_the_comparison_shows_source_decoded_and_difference(tmp_path: Path) -> None:
    source = library.find("carphone")
    demo.compare(source, source, 3, tmp_path / "comparison.png")
    seen = np.asarray(Image.open(tmp_path / "comparison.png"))
    assert seen.shape == (3 * 144, 3 * 3 * 176, 3)  # small pictures are enlarged three times
    assert np.array_equal(seen[:, :528], seen[:, 528:1056])
    assert np.unique(seen[:, 1056:]).tolist() == [128]


def test_of_many_pictures_the_first_two_are_printed() -> None:
    assert demo.shortened({"status": "completed", "frames": [{"index": n} for n in range(5)]}) == (
        '{\n  "status": "completed",\n  "frames": [\n    {"index": 0},\n    {"index": 1},\n    … 5 in all\n  ]\n}'
    )
