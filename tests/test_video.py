"""Containers, pictures and folders: what is read, what is written, what is refused."""

import io
import itertools
import struct
import tracemalloc
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from video.containers import VideoWriter
from video.files import open_clip, read_info
from video.frames import frame_of
from video.picture import (
    ClipInfo,
    DamagedVideo,
    EmptyVideo,
    Limits,
    NotAVideo,
    NoVideoStream,
    Picture,
    TooLarge,
    VideoError,
)


def pictures(width: int, height: int, count: int, seed: int = 0) -> list[Picture]:
    """Moving gradients with some noise: coded by every codec in few bytes."""
    rng = np.random.default_rng(seed)
    clip = []
    for t in range(count):
        planes = []
        for step in (1, 2, 2):
            rows, columns = (height + step - 1) // step, (width + step - 1) // step
            ramp = np.add.outer(np.arange(rows) * 3, np.arange(columns) * 2) * step + 5 * t
            planes.append(((ramp + rng.integers(0, 4, (rows, columns))) % 220 + 16).astype(np.uint8))
        clip.append(Picture(*planes))
    return clip


def same(a: list[Picture], b: list[Picture]) -> bool:
    return len(a) == len(b) and all(map(np.array_equal, itertools.chain(*a), itertools.chain(*b)))


def write_lossless(path: Path, clip: list[Picture], info: ClipInfo) -> None:
    with VideoWriter(path, info) as writer:
        for picture in clip:
            writer.write(picture)


def write_coded(path: Path, clip: list[Picture], codec: str = "libx264", rate: int = 25, **options: str) -> None:
    """A file as a user has it: made by FFmpeg alone."""
    height, width = clip[0].y.shape
    with av.open(str(path), "w") as container:
        stream = cast(av.VideoStream, container.add_stream(codec, rate=rate, options=options))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for index, picture in enumerate(clip):
            frame = frame_of(picture, ClipInfo(width, height, Fraction(rate)))
            frame.pts, frame.time_base = index, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


# ── what VideoWriter wrote comes back ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("size", [(64, 48), (63, 47), (33, 1), (1, 33), (1, 1), (361, 289), (640, 272), (100, 401)])
def test_a_lossless_file_comes_back_exactly(tmp_path: Path, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    small = ((size[1] + 1) // 2, (size[0] + 1) // 2)
    clip = [Picture(*(rng.integers(0, 256, s, np.uint8) for s in (size[::-1], small, small))) for _ in range(3)]
    write_lossless(tmp_path / "a.mkv", clip, ClipInfo(*size, Fraction(25)))
    with open_clip(tmp_path / "a.mkv") as back:
        assert same(list(back), clip)


@pytest.mark.parametrize("fps", ["24000/1001", "25", "30000/1001", "60000/1001", "120000/1001", "15/2", "50001/1000"])
def test_a_lossless_file_keeps_the_rate(tmp_path: Path, fps: str) -> None:
    write_lossless(tmp_path / "a.mkv", pictures(16, 16, 3), ClipInfo(16, 16, Fraction(fps)))
    assert read_info(tmp_path / "a.mkv").fps == Fraction(fps)


@settings(max_examples=30, deadline=None)
@given(st.fractions(min_value=Fraction(1, 10), max_value=1000, max_denominator=100_000))
def test_a_lossless_file_keeps_any_rate(tmp_path_factory: pytest.TempPathFactory, fps: Fraction) -> None:
    path = tmp_path_factory.mktemp("rate") / "a.mkv"
    write_lossless(path, pictures(2, 2, 2), ClipInfo(2, 2, fps))
    assert read_info(path).fps == fps


@pytest.mark.parametrize("matrix", ["bt601", "bt709", "bt2020", "smpte240m", "fcc", "ycgco"])
@pytest.mark.parametrize("span", ["limited", "full"])
def test_a_lossless_file_keeps_matrix_and_range(tmp_path: Path, matrix: str, span: str) -> None:
    info = ClipInfo(16, 16, Fraction(25), 1, matrix, span)
    write_lossless(tmp_path / "a.mkv", pictures(16, 16, 1), info)
    assert read_info(tmp_path / "a.mkv") == info


def test_the_same_pictures_give_the_same_file(tmp_path: Path) -> None:
    for name in ("a.mkv", "b.mkv"):
        write_lossless(tmp_path / name, pictures(33, 17, 4), ClipInfo(33, 17, Fraction(25)))
    assert (tmp_path / "a.mkv").read_bytes() == (tmp_path / "b.mkv").read_bytes()


def test_the_writer_refuses_a_picture_of_another_size(tmp_path: Path) -> None:
    with (
        VideoWriter(tmp_path / "a.mkv", ClipInfo(16, 16, Fraction(25))) as writer,
        pytest.raises(VideoError, match=r"y: expected uint8 \(16, 16\), got uint8 \(8, 8\)"),
    ):
        writer.write(pictures(8, 8, 1)[0])


def test_the_writer_names_the_codecs_it_has(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="expected one of ffv1, got 'h264'"):
        VideoWriter(tmp_path / "a.mkv", ClipInfo(16, 16, Fraction(25)), codec="h264")


def test_a_file_that_cannot_be_made_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="cannot be written: No such file or directory"):
        VideoWriter(tmp_path / "no" / "a.mkv", ClipInfo(16, 16, Fraction(25)))


# ── containers ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_mp4_is_read_with_rate_and_number_of_pictures(tmp_path: Path) -> None:
    clip = pictures(66, 50, 7)
    write_coded(tmp_path / "a.mp4", clip, rate=30, qp="0")
    with open_clip(tmp_path / "a.mp4") as back:
        assert back.info == ClipInfo(66, 50, Fraction(30), 7)
        assert same(list(back), clip)


def test_planes_are_copied_without_the_padding_of_rows(tmp_path: Path) -> None:
    clip = pictures(66, 50, 1)
    write_coded(tmp_path / "a.mp4", clip, qp="0")
    with open_clip(tmp_path / "a.mp4") as back:
        (picture,) = back
    assert [plane.shape for plane in picture] == [(50, 66), (25, 33), (25, 33)]
    assert [plane.flags.c_contiguous for plane in picture] == [True] * 3


def test_pictures_are_counted_where_the_container_does_not_say(tmp_path: Path) -> None:
    write_coded(tmp_path / "a.mkv", pictures(32, 32, 7))
    assert read_info(tmp_path / "a.mkv").frames == 7


def test_marks_for_players_are_left_to_players(tmp_path: Path) -> None:
    write_coded(tmp_path / "a.mp4", pictures(64, 32, 2), **{"x264-params": "sar=2/1"})
    unity, quarter_turn = ([1, 0, 0, 0, 1, 0, 0, 0, 1 << 14], [0, 1, 0, -1, 0, 0, 0, 0, 1 << 14])
    before, after = (struct.pack(">9i", *(v << 16 for v in m)) for m in (unity, quarter_turn))
    data = (tmp_path / "a.mp4").read_bytes()
    place = data.index(before, data.index(b"tkhd"))
    (tmp_path / "b.mp4").write_bytes(data[:place] + after + data[place + len(before) :])
    with av.open(str(tmp_path / "b.mp4")) as container:
        assert container.streams.video[0].sample_aspect_ratio == 2
        assert next(container.decode(video=0)).rotation == -90
    with open_clip(tmp_path / "b.mp4") as clip:
        assert (clip.info.width, clip.info.height) == (64, 32)
        assert [picture.y.shape for picture in clip] == [(32, 64)] * 2


def test_a_container_in_memory_is_read_too(tmp_path: Path) -> None:
    write_coded(tmp_path / "a.mkv", pictures(32, 32, 3))
    with open_clip(io.BytesIO((tmp_path / "a.mkv").read_bytes())) as clip:
        assert len(list(clip)) == 3


def test_a_clip_is_never_in_memory_whole(tmp_path: Path) -> None:
    clip = pictures(352, 288, 4)
    with VideoWriter(tmp_path / "a.mkv", ClipInfo(352, 288, Fraction(25))) as writer:
        for index in range(60):
            writer.write(clip[index % 4])
    tracemalloc.start()
    with open_clip(tmp_path / "a.mkv") as back:
        count = sum(1 for _ in back)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 60
    assert peak < 10 * clip[0].y.size * 3 // 2  # ten of the sixty pictures


# ── pictures and folders ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_a_picture_is_a_clip_of_one(tmp_path: Path, suffix: str) -> None:
    Image.new("RGB", (33, 21), (120, 120, 120)).save(tmp_path / f"a{suffix}")
    with open_clip(tmp_path / f"a{suffix}") as clip:
        assert (clip.info.width, clip.info.height, clip.info.frames) == (33, 21, 1)
        assert len(list(clip)) == 1


def test_a_jpeg_is_taken_as_it_is_stored(tmp_path: Path) -> None:
    Image.new("RGB", (32, 32), (120, 120, 120)).save(tmp_path / "a.jpg")
    info = read_info(tmp_path / "a.jpg")
    assert (info.matrix, info.range, info.converted) == ("bt601", "full", "")


def test_a_folder_is_a_clip_in_the_order_of_its_numbers(tmp_path: Path) -> None:
    for number in (1, 2, 10):
        Image.new("L", (16, 16), number * 10).save(tmp_path / f"frame{number}.png")
    (tmp_path / "notes.txt").write_text("not a picture")
    with open_clip(tmp_path) as clip:
        assert (clip.info.frames, clip.info.fps) == (3, 25)
        assert [int(picture.y[0, 0]) for picture in clip] == [10, 20, 100]


def test_a_folder_without_pictures_is_empty(tmp_path: Path) -> None:
    with pytest.raises(EmptyVideo, match="without pictures"):
        open_clip(tmp_path)


def test_a_folder_of_several_sizes_names_the_picture(tmp_path: Path) -> None:
    Image.new("L", (16, 16)).save(tmp_path / "1.png")
    Image.new("L", (16, 18)).save(tmp_path / "2.png")
    with open_clip(tmp_path) as clip, pytest.raises(DamagedVideo, match="picture 1 is 16x18, the ones before are"):
        list(clip)


def test_a_damaged_picture_in_a_folder_is_named(tmp_path: Path) -> None:
    for number in (0, 1):
        Image.effect_noise((64, 64), 50).save(tmp_path / f"{number}.png")
    whole = (tmp_path / "1.png").read_bytes()
    (tmp_path / "1.png").write_bytes(whole[:20])
    with open_clip(tmp_path) as clip, pytest.raises(DamagedVideo, match=r"1\.png: picture 1 is damaged") as caught:
        list(clip)
    assert caught.value.frame == 1


# ── refusals ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_missing_file_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="cannot be read: No such file or directory"):
        open_clip(tmp_path / "a.mp4")


def test_an_empty_file_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"")
    with pytest.raises(EmptyVideo, match="0 bytes"):
        open_clip(tmp_path / "a.mp4")


@pytest.mark.parametrize("name", ["a.mp4", "a.txt", "a.m3u8", "a"])
def test_text_is_not_a_video_whatever_its_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n" * 20)
    with pytest.raises(NotAVideo, match="not a video"):
        open_clip(tmp_path / name)


def test_a_list_of_other_files_is_not_followed(tmp_path: Path) -> None:
    write_coded(tmp_path / "secret.mp4", pictures(32, 32, 2))
    (tmp_path / "a.mp4").write_text("ffconcat version 1.0\nfile secret.mp4\n")
    with pytest.raises(NotAVideo):
        open_clip(tmp_path / "a.mp4")


def test_a_sound_file_has_no_video_stream(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mka"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    with pytest.raises(NoVideoStream, match="no video stream"):
        open_clip(tmp_path / "a.mka")


def test_a_container_without_pictures_is_empty(tmp_path: Path) -> None:
    write_lossless(tmp_path / "a.mkv", [], ClipInfo(16, 16, Fraction(25)))
    with pytest.raises(EmptyVideo, match="before its first picture"):
        open_clip(tmp_path / "a.mkv")


def test_a_size_over_the_limits_is_refused(tmp_path: Path) -> None:
    write_coded(tmp_path / "a.mp4", pictures(64, 32, 1))
    with pytest.raises(TooLarge, match="64x32 is over the limit of 63x8192"):
        open_clip(tmp_path / "a.mp4", limits=Limits(max_width=63))


@pytest.mark.parametrize("size", [8_193, 20_000])
def test_a_picture_file_of_an_absurd_size_is_refused(tmp_path: Path, size: int) -> None:
    Image.new("1", (size, size)).save(tmp_path / "a.png")
    with pytest.raises(TooLarge, match="limit"):
        open_clip(tmp_path / "a.png")


def test_a_cut_file_gives_the_sound_pictures_and_names_the_next(tmp_path: Path) -> None:
    clip = pictures(64, 64, 20)
    write_lossless(tmp_path / "a.mkv", clip, ClipInfo(64, 64, Fraction(25)))
    data = (tmp_path / "a.mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(data[: len(data) // 2])
    sound: list[Picture] = []
    with open_clip(tmp_path / "cut.mkv") as back, pytest.raises(DamagedVideo, match="cut short") as caught:
        sound.extend(back)
    assert 5 < len(sound) < 15
    assert caught.value.frame == len(sound)
    assert same(sound, clip[: len(sound)])


def test_a_cut_file_in_memory_is_found_too(tmp_path: Path) -> None:
    write_lossless(tmp_path / "a.mkv", pictures(64, 64, 4), ClipInfo(64, 64, Fraction(25)))
    cut = io.BytesIO((tmp_path / "a.mkv").read_bytes()[:-1])
    with open_clip(cut) as back, pytest.raises(DamagedVideo, match="picture 4 is damaged or cut short"):
        list(back)


def test_a_picture_that_the_decoder_had_to_guess_is_named(tmp_path: Path) -> None:
    write_coded(tmp_path / "a.mp4", pictures(64, 64, 10), bf="0")
    data = bytearray((tmp_path / "a.mp4").read_bytes())
    with av.open(str(tmp_path / "a.mp4")) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][7]
    where = data.index(bytes(packet))
    data[where : where + 5] = b"\x7f\xff\xff\xff\xff"  # a length and a type that cannot be
    (tmp_path / "b.mp4").write_bytes(data)
    with open_clip(tmp_path / "b.mp4") as back, pytest.raises(DamagedVideo) as caught:
        list(back)
    assert caught.value.frame == 7


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_bytes_give_a_video_error_and_nothing_else(data: st.DataObject) -> None:
    broken = bytearray(_whole_file())
    for _ in range(data.draw(st.integers(1, 8))):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(0, len(broken)))
    try:
        with open_clip(io.BytesIO(bytes(broken[:end]))) as clip:
            count = sum(1 for _ in clip)
        assert count >= 1
    except VideoError:
        pass


def _whole_file() -> bytes:
    out = io.BytesIO()
    with av.open(out, "w", format="mp4", options={"movflags": "frag_keyframe+empty_moov"}) as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for index, picture in enumerate(pictures(32, 32, 4)):
            frame = frame_of(picture, ClipInfo(32, 32, Fraction(25)))
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return out.getvalue()
