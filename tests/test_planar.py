"""Y4M and headerless files: what is read, what is written, what is refused."""

import io
import itertools
import os
import threading
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from video.files import open_clip, read_info
from video.picture import ClipInfo, DamagedVideo, EmptyVideo, Limits, NotAVideo, Picture, TooLarge, VideoError
from video.planar import RawFormat, Y4MWriter, raw_format_from_name


def pictures(width: int, height: int, count: int, seed: int = 0) -> list[Picture]:
    rng = np.random.default_rng(seed)
    small = ((height + 1) // 2, (width + 1) // 2)
    shapes = ((height, width), small, small)
    return [Picture(*(rng.integers(0, 256, shape, np.uint8) for shape in shapes)) for _ in range(count)]


def y4m(info: ClipInfo, clip: list[Picture]) -> bytes:
    out = io.BytesIO()
    writer = Y4MWriter(out, info)
    for picture in clip:
        writer.write(picture)
    return out.getvalue()


def same(a: list[Picture], b: list[Picture]) -> bool:
    return len(a) == len(b) and all(map(np.array_equal, itertools.chain(*a), itertools.chain(*b)))


TINY = b"YUV4MPEG2 W2 H2 F25:1\nFRAME\n" + bytes([1, 2, 3, 4, 5, 6])


def test_y4m_is_read_plane_by_plane() -> None:
    with open_clip(io.BytesIO(TINY)) as clip:
        (picture,) = clip
    assert picture.y.tolist() == [[1, 2], [3, 4]]
    assert picture.u.tolist() == [[5]]
    assert picture.v.tolist() == [[6]]


def test_y4m_writer_writes_header_and_frames() -> None:
    clip = [Picture(np.array([[1, 2], [3, 4]], np.uint8), np.array([[5]], np.uint8), np.array([[6]], np.uint8))]
    assert y4m(ClipInfo(2, 2, Fraction(30000, 1001)), clip) == (
        b"YUV4MPEG2 W2 H2 F30000:1001 Ip A1:1 C420mpeg2 XCOLORRANGE=LIMITED XCOLORMATRIX=BT601\n"
        b"FRAME\n\x01\x02\x03\x04\x05\x06"
    )


@pytest.mark.parametrize("size", [(16, 16), (17, 15), (1, 1), (3, 2)])
def test_y4m_comes_back_exactly_with_odd_sizes(size: tuple[int, int]) -> None:
    info = ClipInfo(*size, Fraction(60000, 1001), 3, "bt709", "full")
    clip = pictures(*size, 3)
    with open_clip(io.BytesIO(y4m(info, clip))) as back:
        assert back.info == info
        assert same(list(back), clip)


def test_pictures_are_writable_and_contiguous() -> None:
    with open_clip(io.BytesIO(TINY)) as clip:
        (picture,) = clip
    assert [(p.flags.writeable, p.flags.c_contiguous) for p in picture] == [(True, True)] * 3


def test_y4m_frame_lines_may_carry_parameters() -> None:
    data = TINY.replace(b"FRAME\n", b"FRAME Ip\n")
    with open_clip(io.BytesIO(data)) as clip:
        assert clip.info.frames is None
        assert len(list(clip)) == 1


def test_y4m_without_a_rate_is_at_25() -> None:
    with open_clip(io.BytesIO(TINY.replace(b"F25:1", b"F0:0"))) as clip:
        assert clip.info.fps == 25


@pytest.mark.parametrize(
    ("space", "payload", "converted", "expected"),
    [
        (b"C444", bytes([9] * 4 + [1, 2, 3, 4] + [7] * 4), "yuv444p to yuv420p", (9, 3, 7)),  # 2.5 rounds up
        (b"C422", bytes([9] * 4 + [1, 2] + [7, 7]), "yuv422p to yuv420p", (9, 2, 7)),
        (b"Cmono", bytes([9] * 4), "gray to yuv420p", (9, 128, 128)),
        (b"C420p10", np.array([402] * 4 + [16, 1023], "<u2").tobytes(), "yuv420p10le to yuv420p", (101, 4, 255)),
    ],
)
def test_other_y4m_formats_are_converted_and_said_so(
    space: bytes, payload: bytes, converted: str, expected: tuple[int, int, int]
) -> None:
    data = b"YUV4MPEG2 W2 H2 F25:1 " + space + b"\nFRAME\n" + payload
    with open_clip(io.BytesIO(data)) as clip:
        (picture,) = clip
        assert clip.info.converted == converted
    assert (picture.y[0, 0], picture.u[0, 0], picture.v[0, 0]) == expected


def test_full_range_ten_bits_are_scaled_and_not_shifted() -> None:
    samples = np.array([514] * 4 + [512, 1023], "<u2").tobytes()
    with open_clip(io.BytesIO(b"YUV4MPEG2 W2 H2 F25:1 C420p10 XCOLORRANGE=FULL\nFRAME\n" + samples)) as clip:
        (picture,) = clip
    assert (picture.y[0, 0], picture.u[0, 0], picture.v[0, 0]) == (128, 128, 255)  # 514·255/1023 = 128.1


def test_y4m_through_a_pipe_is_read_while_it_is_written() -> None:
    clip = pictures(64, 48, 20)
    data = y4m(ClipInfo(64, 48, Fraction(25)), clip)
    read_end, write_end = os.pipe()

    def feed() -> None:
        with os.fdopen(write_end, "wb") as out:
            out.write(data)

    thread = threading.Thread(target=feed)
    thread.start()
    with os.fdopen(read_end, "rb") as source, open_clip(source) as back:
        assert back.info.frames is None
        assert same(list(back), clip)
    thread.join()


def test_a_pipe_that_is_no_y4m_is_refused() -> None:
    read_end, write_end = os.pipe()
    os.write(write_end, b"\x1aE\xdf\xa3 a container\n")
    os.close(write_end)
    with os.fdopen(read_end, "rb") as source, pytest.raises(NotAVideo, match="expected YUV4MPEG2"):
        open_clip(source)


@pytest.mark.parametrize("header", [b"YUV4MPEG2 W2\n", b"YUV4MPEG2 Wx H2 F25:1\n", b"YUV4MPEG2 W2 H2 F25\n"])
def test_a_y4m_header_that_lacks_fields_is_refused(header: bytes) -> None:
    with pytest.raises(NotAVideo, match="expected W, H and F"):
        open_clip(io.BytesIO(header))


def test_a_y4m_header_without_an_end_is_refused_without_reading_it_all() -> None:
    with pytest.raises(NotAVideo, match="at most 1024 bytes"):
        open_clip(io.BytesIO(b"YUV4MPEG2 " + b"X" * 10_000_000))


def test_an_unknown_y4m_colour_space_is_named() -> None:
    with pytest.raises(VideoError, match="C411 is not read"):
        open_clip(io.BytesIO(TINY.replace(b"F25:1", b"F25:1 C411")))


@pytest.mark.parametrize("fields", [b"W100000 H2", b"W2 H100000", b"W8192 H8192", b"W0 H2", b"W2 H-2"])
def test_an_absurd_y4m_size_is_refused(fields: bytes) -> None:
    with pytest.raises(TooLarge):
        open_clip(io.BytesIO(b"YUV4MPEG2 " + fields + b" F25:1\n"))


def test_an_absurd_rate_is_refused() -> None:
    with pytest.raises(VideoError, match="at most 1000"):
        open_clip(io.BytesIO(TINY.replace(b"F25:1", b"F99999999999:1")))


def test_a_cut_y4m_names_the_picture() -> None:
    data = y4m(ClipInfo(16, 16, Fraction(25)), pictures(16, 16, 3))
    with open_clip(io.BytesIO(data[:-1])) as clip, pytest.raises(DamagedVideo, match="2 is cut short") as caught:
        list(clip)
    assert caught.value.frame == 2


def test_a_lost_frame_line_names_the_picture() -> None:
    data = bytearray(y4m(ClipInfo(16, 16, Fraction(25)), pictures(16, 16, 3)))
    where = data.index(b"FRAME", data.index(b"FRAME") + 1)
    data[where] = 0
    with open_clip(io.BytesIO(bytes(data))) as clip, pytest.raises(DamagedVideo) as caught:
        list(clip)
    assert caught.value.frame == 1


def test_a_y4m_without_pictures_is_empty() -> None:
    with open_clip(io.BytesIO(b"YUV4MPEG2 W2 H2 F25:1\n")) as clip, pytest.raises(EmptyVideo):
        list(clip)


def test_more_pictures_than_the_limit_are_refused() -> None:
    data = y4m(ClipInfo(16, 16, Fraction(25)), pictures(16, 16, 3))
    with pytest.raises(TooLarge, match="limit of 2 pictures"):
        open_clip(io.BytesIO(data), limits=Limits(max_frames=2))


def test_the_limit_on_pictures_also_holds_where_the_number_is_not_known() -> None:
    data = y4m(ClipInfo(16, 16, Fraction(25)), pictures(16, 16, 3)).replace(b"FRAME\n", b"FRAME Ip\n")
    with open_clip(io.BytesIO(data), limits=Limits(max_frames=2)) as clip, pytest.raises(TooLarge):
        list(clip)


def test_the_writer_refuses_a_picture_of_another_size() -> None:
    writer = Y4MWriter(io.BytesIO(), ClipInfo(16, 16, Fraction(25)))
    with pytest.raises(VideoError, match=r"y: expected uint8 \(16, 16\), got uint8 \(8, 8\)"):
        writer.write(pictures(8, 8, 1)[0])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("foo_352x288_30fps_8bit.yuv", RawFormat(352, 288, Fraction(30))),
        ("foreman_cif.yuv", RawFormat(352, 288, Fraction(30))),
        ("carphone-qcif-15fps.yuv", RawFormat(176, 144, Fraction(15))),
        ("BasketballDrive_1920x1080_50.yuv", RawFormat(1920, 1080, Fraction(50))),
        ("Beauty_1920x1080_120fps_420_8bit_YUV.yuv", RawFormat(1920, 1080, Fraction(120))),
        ("Jockey_3840x2160_59.94fps_10bit_422.yuv", RawFormat(3840, 2160, Fraction(60000, 1001), 10, "422")),
        ("Tango_4096x2160_60fps_10b_420.yuv", RawFormat(4096, 2160, Fraction(60), 10)),
        ("a_64x32_29.97hz_yuv444p12le.yuv", RawFormat(64, 32, Fraction(30000, 1001), 12, "444")),
    ],
)
def test_the_name_of_a_raw_file_tells_its_format(name: str, expected: RawFormat) -> None:
    assert raw_format_from_name(Path(name)) == expected


@pytest.mark.parametrize(("name", "missing"), [("foo.yuv", "a size"), ("foo_64x64.yuv", "a frame rate")])
def test_a_name_that_does_not_tell_is_refused(name: str, missing: str) -> None:
    with pytest.raises(VideoError, match=f"expected {missing} in its name"):
        raw_format_from_name(Path(name))


@pytest.mark.parametrize(
    ("field", "value"), [("depth", 7), ("chroma", "411"), ("matrix", "rgb"), ("range", "tv"), ("fps", Fraction(0))]
)
def test_a_raw_format_names_its_wrong_field(field: str, value: object) -> None:
    fields = {"width": 2, "height": 2, "fps": Fraction(25), field: value}
    with pytest.raises(VideoError, match=f"{field}: expected"):
        RawFormat(**fields)  # type: ignore[arg-type]


def test_a_raw_file_is_read_by_its_name(tmp_path: Path) -> None:
    clip = pictures(6, 4, 3)
    path = tmp_path / "noise_6x4_30fps.yuv"
    path.write_bytes(b"".join(plane.tobytes() for picture in clip for plane in picture))
    assert read_info(path) == ClipInfo(6, 4, Fraction(30), 3)
    with open_clip(path) as back:
        assert same(list(back), clip)


def test_a_raw_format_rules_over_the_name(tmp_path: Path) -> None:
    path = tmp_path / "wrong_8x8_30fps.yuv"
    path.write_bytes(bytes(6))
    with open_clip(path, raw=RawFormat(2, 2, Fraction(1), matrix="bt2020", range="full")) as clip:
        assert clip.info == ClipInfo(2, 2, Fraction(1), 1, "bt2020", "full")


def test_a_raw_file_of_a_broken_length_asks_whether_the_size_is_right(tmp_path: Path) -> None:
    path = tmp_path / "a_2x2_30fps.yuv"
    path.write_bytes(bytes(6 * 4 + 1))
    with pytest.raises(DamagedVideo, match=r"25 bytes are not a whole number .* picture 4 is cut short"):
        open_clip(path)


def test_an_empty_raw_file_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "a_2x2_30fps.yuv"
    path.write_bytes(b"")
    with pytest.raises(EmptyVideo):
        open_clip(path)
