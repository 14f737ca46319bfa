"""Mini-GOPs that suit how fast a clip moves, on pictures whose motion is known."""

from __future__ import annotations

import numpy as np
import pytest
from synthetic import info_of

import codec
from coding.interface import Settings
from nvc.encoder.sources.mini_gop import segments, suited
from video.picture import Picture

SIDE = 96


def rolled(pixels: int) -> Picture:
    """Blobs of a few pixels, moved to the right; what leaves comes in again at the left."""
    noise = np.random.default_rng(1).integers(0, 256, (SIDE // 8, SIDE // 8)).repeat(8, 0).repeat(8, 1)
    y = np.roll(noise, pixels, 1).astype(np.uint8)
    grey = np.full((SIDE // 2, SIDE // 2), 128, np.uint8)
    return Picture(y, grey, grey)


def clip(speed: float, frames: int = 17) -> list[Picture]:
    return [rolled(round(speed * n)) for n in range(frames)]


@pytest.mark.parametrize(("speed", "mini_gop"), [(0, 16), (0.25, 16), (1, 8), (3, 4)])
def test_the_faster_the_shorter(speed: float, mini_gop: int) -> None:
    first, *rest = clip(speed)
    assert suited(first, rest) == mini_gop


def test_an_i_picture_is_a_segment_and_then_every_sixteen_pictures_are() -> None:
    pictures = clip(1, 36)
    found = list(segments(pictures))
    assert [len(segment) for _, segment, _ in found] == [1, 16, 16, 3]
    assert [before for before, _, _ in found] == [None, pictures[0], pictures[16], pictures[32]]
    assert [picture for _, segment, _ in found for picture in segment] == pictures


@pytest.mark.parametrize(("frames", "more"), [(33, [True, True, False]), (34, [True, True, True, False])])
def test_a_segment_tells_whether_more_follow(frames: int, more: list[bool]) -> None:
    assert [goes_on for _, _, goes_on in segments(clip(1, frames))] == more


def test_each_segment_of_a_coded_clip_takes_what_suits_it() -> None:
    pictures = clip(0) + clip(3, 17)[1:]
    encoded = codec.get("nvc").encode(pictures, info_of(pictures), Settings(quality=10))
    assert "".join(report.type for report in encoded.frames) == "IBBBBBBBBBBBBBBBP" + 4 * "BBBP"
