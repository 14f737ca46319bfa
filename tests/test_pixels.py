"""Other sample formats become 8-bit 4:2:0, by the arithmetic that video/pixels.py promises, and the clip says so."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from skimage.color import rgb2ycbcr

from video.files import open_clip, read_info
from video.frames import frame_of, picture_of
from video.picture import DEFAULT_FPS, ClipInfo, Picture


def write_frame(path: Path, frame: av.VideoFrame) -> None:
    """One frame without loss, in its own sample format."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, frame.format.name
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@pytest.mark.parametrize(("height", "matrix"), [(718, "bt601"), (720, "bt709")])
def test_a_file_that_names_no_matrix_gets_the_one_of_its_height(tmp_path: Path, height: int, matrix: str) -> None:
    frame = av.VideoFrame(32, height, "yuv420p")
    write_frame(tmp_path / "a.mkv", frame)
    info = read_info(tmp_path / "a.mkv")
    assert (info.matrix, info.range) == (matrix, "limited")


def test_four_two_two_is_converted_by_the_mean_of_two_lines(tmp_path: Path) -> None:
    frame = av.VideoFrame.from_ndarray(np.full((4, 8), 40, np.uint8), "gray").reformat(format="yuv422p")
    np.frombuffer(frame.planes[1], np.uint8).reshape(4, -1)[:, :4] = [[10], [13], [20], [20]]
    write_frame(tmp_path / "a.mkv", frame)
    with open_clip(tmp_path / "a.mkv") as clip:
        assert clip.info.converted == "yuv422p to yuv420p"
        (picture,) = clip
    assert picture.u.tolist() == [[12] * 4, [20] * 4]  # 11.5 rounds up


def test_ten_bit_444_is_converted(tmp_path: Path) -> None:
    frame = av.VideoFrame(4, 2, "yuv444p10le")
    for plane, values in zip(frame.planes, ([400] * 8, [256, 258, 512, 512] * 2, [1023] * 8), strict=True):
        np.frombuffer(plane, "<u2").reshape(2, -1)[:, :4] = np.reshape(values, (2, 4))
    write_frame(tmp_path / "a.mkv", frame)
    with open_clip(tmp_path / "a.mkv") as clip:
        assert clip.info.converted == "yuv444p10le to yuv420p"
        (picture,) = clip
    assert picture.y.tolist() == [[100] * 4] * 2
    assert picture.u.tolist() == [[64, 128]]
    assert picture.v.tolist() == [[255, 255]]


def test_grey_gets_neutral_chroma(tmp_path: Path) -> None:
    write_frame(tmp_path / "a.mkv", av.VideoFrame.from_ndarray(np.full((4, 4), 77, np.uint8), "gray"))
    with open_clip(tmp_path / "a.mkv") as clip:
        assert clip.info.converted == "gray to yuv420p"
        (picture,) = clip
    assert (picture.y[0, 0], picture.u[0, 0], picture.v[0, 0]) == (77, 128, 128)


def test_rgb_is_converted_by_bt601_in_small_pictures(tmp_path: Path) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (8, 6, 1, 3), np.uint8).repeat(2, 0).repeat(2, 1)[:, :, 0]
    Image.fromarray(rgb).save(tmp_path / "a.png")
    with open_clip(tmp_path / "a.png") as clip:
        assert clip.info == ClipInfo(12, 16, DEFAULT_FPS, 1, "bt601", "limited", "rgb24 to yuv420p",
                                     chroma_location="center")
        (picture,) = clip
    expected = np.floor(rgb2ycbcr(rgb) + 0.5)  # an independent BT.601, full precision
    assert np.abs(picture.y - expected[..., 0]).max() <= 1
    assert np.abs(picture.u - expected[::2, ::2, 1]).max() <= 1
    assert np.abs(picture.v - expected[::2, ::2, 2]).max() <= 1


@pytest.mark.parametrize(
    ("colour", "expected"),
    [((255, 255, 255), (235, 128, 128)), ((0, 0, 0), (16, 128, 128)), ((255, 0, 0), (63, 102, 240))],
)
def test_rgb_is_converted_by_bt709_in_large_pictures(
    tmp_path: Path, colour: tuple[int, int, int], expected: tuple[int, int, int]
) -> None:
    Image.new("RGB", (2, 720), colour).save(tmp_path / "a.png")
    with open_clip(tmp_path / "a.png") as clip:
        assert clip.info.matrix == "bt709"
        (picture,) = clip
    assert (picture.y[0, 0], picture.u[0, 0], picture.v[0, 0]) == expected


def test_sixteen_bit_rgb_keeps_its_precision_until_the_end(tmp_path: Path) -> None:
    frame = av.VideoFrame.from_ndarray(np.full((2, 2, 3), 0x8080, np.uint16), "rgb48le")
    picture = picture_of(frame, "bt601")
    assert picture.y.tolist() == [[126, 126]] * 2  # 16 + 219·128/255 = 125.93


@pytest.mark.parametrize("name", ["nv12", "nv21"])
def test_another_order_of_420_is_no_conversion(name: str) -> None:
    rng = np.random.default_rng(0)
    plain = Picture(*(rng.integers(0, 256, shape, np.uint8) for shape in ((8, 16), (4, 8), (4, 8))))
    frame = frame_of(plain, ClipInfo(16, 8, Fraction(25))).reformat(format=name)
    assert all(map(np.array_equal, picture_of(frame, "bt601"), plain))


FORMATS = """
    p010le yuyv422 yuv440p yuv411p yuva420p yuva444p10le yuvj444p yuv420p16be ya8 gray10le gray16be
    monow rgb565le rgba bgr0 gbrp gbrp12le gbrap16be rgba64le
"""


@pytest.mark.parametrize("name", FORMATS.split())
def test_every_sample_format_becomes_the_picture_it_shows(name: str) -> None:
    grey = Picture(np.full((16, 16), 235, np.uint8), np.full((8, 8), 128, np.uint8), np.full((8, 8), 128, np.uint8))
    frame = frame_of(grey, ClipInfo(16, 16, Fraction(25))).reformat(format=name)
    back = picture_of(frame, "bt601")
    assert [plane.shape for plane in back] == [(16, 16), (8, 8), (8, 8)]
    assert abs(int(back.y[8, 8]) - 235) <= (20 if name.startswith(("yuvj", "gray")) else 4)  # white: 255 in full range
    assert abs(int(back.u[4, 4]) - 128) <= 2
    assert abs(int(back.v[4, 4]) - 128) <= 2
