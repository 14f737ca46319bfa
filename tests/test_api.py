"""The codec from Python: arrays in, bytes out, and back."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

import nvc
from nvc.decoder import StreamDecoder
from video.picture import Picture

GREY = Picture(np.full((16, 24), 90, np.uint8), np.full((8, 12), 128, np.uint8), np.full((8, 12), 128, np.uint8))


def moving(count: int = 3, height: int = 33, width: int = 47) -> list[Picture]:
    y, x = np.mgrid[:height, :width]
    small = ((height + 1) // 2, (width + 1) // 2)
    return [Picture((128 + 60 * np.sin((x + 2 * t) / 5) * np.cos(y / 7)).astype(np.uint8),
                    np.full(small, 110, np.uint8), np.full(small, 140, np.uint8)) for t in range(count)]


def test_pictures_come_back_in_their_size_and_order() -> None:
    source = moving()
    back = list(nvc.decode(nvc.encode(source, fps=25, quality=40)))
    assert [[plane.shape for plane in picture] for picture in back] == 3 * [[(33, 47), (17, 24), (17, 24)]]
    assert all(plane.dtype == np.uint8 for picture in back for plane in picture)
    errors = [[np.abs(a.y.astype(int) - b.y.astype(int)).mean() for b in back] for a in source]
    assert [row.index(min(row)) for row in errors] == [0, 1, 2]
    assert max(errors[n][n] for n in range(3)) < 6


def test_the_stream_says_what_it_was_made_of() -> None:
    found = nvc.info(nvc.encode(iter(moving()), fps="30000/1001", matrix="bt709", colour_range="full"))
    assert (found.width, found.height, found.frames) == (47, 33, 3)
    assert (found.fps, found.matrix, found.range) == (Fraction(30000, 1001), "bt709", "full")


def test_rgb_goes_in_and_comes_out() -> None:
    source = np.zeros((32, 32, 3), np.uint8)
    source[:, :] = (200, 60, 40)
    back = list(nvc.decode_rgb(nvc.encode([source, source], fps=25, quality=50)))
    assert [picture.shape for picture in back] == 2 * [(32, 32, 3)]
    assert np.abs(back[1].astype(int) - source).mean() <= 4


def test_the_command_line_makes_the_same_bytes() -> None:
    from coding.interface import Settings
    from coding.registry import get
    from video.picture import ClipInfo

    source = moving()
    expected = get("nvc").encode(source, ClipInfo(47, 33, Fraction(25)), Settings(quality=20)).data
    assert nvc.encode(source, fps=25, quality=20) == expected


def test_decoding_begins_with_the_first_picture_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    data = nvc.encode(moving(), fps=25)
    monkeypatch.setattr(StreamDecoder, "pictures", lambda _: pytest.fail("a picture was decoded"))
    nvc.decode(data)


@pytest.mark.parametrize(("pictures", "words"), [
    ([], "pictures: expected one at least, got none"),
    ([GREY, GREY._replace(y=GREY.y[:, :8])], r"pictures\[1\]: expected u and v of \(8, 4\) \(rows, columns\) beside y"),
    ([GREY, *moving(1)], r"pictures\[1\]: expected the first picture's size, \(16, 24\) \(rows, columns\); got \(33"),
    ([GREY.y], r"pictures\[0\]: expected \(y, u, v\) or one \(H, W, 3\), uint8; got 16 parts"),
    ([np.zeros((8, 8, 3))], r"pictures\[0\]: expected .* uint8; got float64"),
    ([tuple(plane.astype(np.uint16) for plane in GREY)], r"pictures\[0\]: expected .* got uint16 \(16, 24\), uint16"),
])
def test_what_is_no_picture_is_named(pictures: list, words: str) -> None:
    with pytest.raises(nvc.SettingsError, match=words):
        nvc.encode(pictures, fps=25)


@pytest.mark.parametrize(("arguments", "words"), [
    ({"fps": "fast"}, "fps: expected a rate such as 25 or '30000/1001', got 'fast'"),
    ({"fps": 0}, "fps: expected a rate above 0, up to 1000, got 0"),
    ({"fps": float("nan")}, "fps: expected a rate"),
    ({"fps": 25, "matrix": "rgb"}, "matrix: expected one of bt601, bt709, "),
    ({"fps": 25, "colour_range": "tv"}, "colour_range: expected one of limited, full, got 'tv'"),
    ({"fps": 25, "quality": 64}, "quality"),
    ({"fps": 25, "model": "nvc-9"}, "model"),
])
def test_a_wrong_argument_is_named(arguments: dict, words: str) -> None:
    with pytest.raises(nvc.CodecError, match=words):
        nvc.encode([GREY], **arguments)


def test_foreign_bytes_are_refused() -> None:
    with pytest.raises(nvc.BitstreamError):
        nvc.decode(b"RIFF")


def test_nothing_else_is_in_the_package() -> None:
    with pytest.raises(AttributeError, match="module 'nvc' has no attribute 'encoder9'"):
        _ = nvc.encoder9
