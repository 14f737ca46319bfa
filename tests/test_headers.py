"""Headerless video that gets a header: what is said of it, and that no sample changes."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from video.files import open_clip
from video.headers import raw_format, wrap
from video.picture import DEFAULT_LIMITS, DamagedVideo, EmptyVideo, TooLarge, VideoError
from video.planar import RawFormat

SAID = {"width": "6", "height": "4", "fps": "29.97"}


def test_what_is_said_is_the_format() -> None:
    assert raw_format("clip", SAID) == RawFormat(6, 4, Fraction(30000, 1001))
    more = {"pixel_format": "yuv422p10le", "matrix": "bt709", "range": "full"}
    assert raw_format("x.yuv", SAID | more) == RawFormat(6, 4, Fraction(30000, 1001), 10, "422", "bt709", "full")
    assert raw_format("x", {**SAID, "pixel_format": "gray"}) == RawFormat(6, 4, Fraction(30000, 1001), 8, "400")


def test_where_nothing_is_said_the_name_of_a_yuv_says_it() -> None:
    assert raw_format("foo_352x288_30fps_10bit.YUV", {}) == RawFormat(352, 288, Fraction(30), 10)
    assert raw_format("foo_352x288_30fps.mkv", {}) is None


@pytest.mark.parametrize(("said", "words"), [
    ({"width": "6", "height": "4"}, "fps: headerless video needs width, height, fps"),
    ({"pixel_format": "yuv420p"}, "width: headerless video needs"),
    ({**SAID, "width": "-6"}, "width: expected a number of samples, got '-6'"),
    ({**SAID, "fps": "1e99999"}, "fps: expected a number or a fraction"),
    ({**SAID, "pixel_format": "nv12"}, "pixel_format: expected yuv420p, .* got 'nv12'"),
    ({**SAID, "matrix": "rec709"}, "matrix: expected one of"),
    ({**SAID, "range": "tv"}, "range: expected limited or full"),
])
def test_what_is_wrong_or_missing_is_named(said: dict[str, str], words: str) -> None:
    with pytest.raises(VideoError, match=words):
        raw_format("clip", said)


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p", "yuv444p", "gray", "yuv420p10le", "yuv444p12le",
                                          "gray16"])
def test_wrapped_samples_are_those_that_came(tmp_path: Path, pixel_format: str) -> None:
    form = raw_format("x", {**SAID, "width": "7", "height": "5", "pixel_format": pixel_format, "matrix": "bt2020"})
    assert form is not None
    rng = np.random.default_rng(3)
    samples = rng.integers(0, 1 << form.depth, 3 * form.picture_bytes // form.sample_bytes)
    data = samples.astype("<u2" if form.depth > 8 else "u1").tobytes()
    out = io.BytesIO()
    wrap(io.BytesIO(data), len(data), out, "x", form, DEFAULT_LIMITS)
    (tmp_path / "raw").write_bytes(data)
    with open_clip(tmp_path / "raw", raw=form) as plain, open_clip(io.BytesIO(out.getvalue())) as wrapped:
        assert wrapped.info == plain.info
        assert all(np.array_equal(a, b) for one, other in zip(plain, wrapped, strict=True)
                   for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(("size", "kind", "words"), [
    (0, EmptyVideo, "holds no picture"),
    (37, DamagedVideo, "37 bytes are not a whole number of yuv420p pictures of 6x4 .36 bytes each.; is the size right"),
])
def test_a_file_of_another_length_is_refused(size: int, kind: type[VideoError], words: str) -> None:
    form = raw_format("x", SAID)
    assert form is not None
    with pytest.raises(kind, match=words):
        wrap(io.BytesIO(bytes(size)), size, io.BytesIO(), "x", form, DEFAULT_LIMITS)


def test_an_absurd_size_is_refused() -> None:
    form = raw_format("x", {**SAID, "width": "99999"})
    assert form is not None
    with pytest.raises(TooLarge):
        wrap(io.BytesIO(b"x"), 1, io.BytesIO(), "x", form, DEFAULT_LIMITS)
