"""Files as people have them: what they are is kept, and what cannot be kept is said."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from video.containers import VideoWriter
from video.files import open_clip, read_info
from video.frames import frame_of
from video.picture import ClipInfo, DamagedVideo, Picture, VideoError
from video.planar import Y4MWriter, rate_of


def pictures(count: int, width: int = 64, height: int = 48) -> list[Picture]:
    rng = np.random.default_rng(1)
    rows, columns = (height + 1) // 2, (width + 1) // 2
    return [Picture(*(rng.integers(0, 256, shape, np.uint8)
                      for shape in ((height, width), (rows, columns), (rows, columns)))) for _ in range(count)]


def write(path: Path, count: int, *, times: Callable[[int], int] = lambda number: number,
          tick: Fraction = Fraction(1, 25), change: Callable[[av.VideoStream], None] = lambda stream: None) -> Path:
    """A coded file whose pictures have the times given, in ticks."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=min(int(1 / tick), 30))
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = tick
        change(stream)
        for number, picture in enumerate(pictures(count)):
            frame = frame_of(picture, ClipInfo(64, 48, Fraction(25)))
            frame.pts, frame.time_base = times(number), tick
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def test_a_variable_frame_rate_is_said_and_rates_go_by_the_true_duration(tmp_path: Path) -> None:
    path = write(tmp_path / "gap.mp4", 30, times=lambda n: n if n < 15 else n + 15, tick=Fraction(1, 30))
    info = read_info(path)
    assert (info.fps, info.frames, info.duration_s) == (20, 30, Fraction(3, 2))
    assert info.warnings[0].startswith("variable frame rate: pictures are 0.0333 to 0.533 s apart")
    varies = info.document()["variable_frame_rate"]
    assert (varies["duration_s"], round(varies["largest_interval_s"], 3)) == (1.5, 0.533)


def test_a_header_that_disagrees_with_the_time_stamps_is_not_believed(tmp_path: Path) -> None:
    path = write(tmp_path / "slow.mkv", 20, times=lambda n: n * 80, tick=Fraction(1, 1000))
    data = path.read_bytes()
    duration = data.index(b"\x23\xe3\x83\x84")  # Matroska's DefaultDuration, in nanoseconds
    path.write_bytes(data[:duration + 4] + struct.pack(">I", 1_000_000) + data[duration + 8:])
    info = read_info(path)
    assert info.fps == Fraction(25, 2)
    assert "its time stamps 12.5" in info.warnings[0]


def test_the_shape_of_samples_is_kept_in_what_is_written(tmp_path: Path) -> None:
    def anamorphic(stream: av.VideoStream) -> None:
        stream.codec_context.sample_aspect_ratio = Fraction(16, 11)

    path = write(tmp_path / "sar.mp4", 3, change=anamorphic)
    with open_clip(path) as clip:
        assert clip.info.sample_aspect == Fraction(16, 11)
        out = io.BytesIO()
        writer = Y4MWriter(out, clip.info)
        with VideoWriter(tmp_path / "kept.mkv", clip.info) as kept:
            for picture in clip:
                writer.write(picture)
                kept.write(picture)
    assert b" A16:11 " in out.getvalue().splitlines()[0]
    assert read_info(tmp_path / "kept.mkv").sample_aspect == Fraction(16, 11)


def test_colours_are_kept_in_what_is_written(tmp_path: Path) -> None:
    info = ClipInfo(64, 48, Fraction(25), matrix="bt2020", primaries="bt2020", transfer="smpte2084")
    with VideoWriter(tmp_path / "hdr.mkv", info) as writer:
        writer.write(pictures(1)[0])
    back = read_info(tmp_path / "hdr.mkv")
    assert (back.matrix, back.primaries, back.transfer) == ("bt2020", "bt2020", "smpte2084")


def test_of_several_video_streams_the_default_one_is_taken_and_the_others_are_said(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "two.mkv"), "w") as container:
        streams = []
        for side, default in ((32, 0), (64, 1)):
            stream = container.add_stream("ffv1", rate=25)
            assert isinstance(stream, av.VideoStream)
            stream.width, stream.height, stream.pix_fmt = side, side, "yuv420p"
            stream.disposition = av.stream.Disposition(default)
            streams.append((stream, side))
        for stream, side in streams:
            for number, picture in enumerate(pictures(2, side, side)):
                frame = frame_of(picture, ClipInfo(side, side, Fraction(25)))
                frame.pts, frame.time_base = number, Fraction(1, 25)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    info = read_info(tmp_path / "two.mkv")
    assert (info.width, info.frames) == (64, 2)
    assert info.warnings == ("2 video streams: number 2, of 64x64, was taken, which is marked as default",)


def test_a_file_that_is_cut_off_is_refused_when_it_is_looked_at(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "whole.mp4"), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("mpeg4", rate=25)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for picture in pictures(20):
            container.mux(stream.encode(frame_of(picture, ClipInfo(64, 48, Fraction(25)))))
        container.mux(stream.encode(None))
    data = (tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[:len(data) * 2 // 3])
    with pytest.raises(DamagedVideo, match=r"is cut off: its header says 20 pictures, \d+ are there"):
        read_info(tmp_path / "cut.mp4")


def image(level: int, size: tuple[int, int] = (32, 16)) -> Image.Image:
    return Image.new("RGB", size, (level, level, level))


@pytest.mark.parametrize(("name", "options"), [
    ("a.png", {"format": "PNG"}), ("a.webp", {"format": "WEBP", "lossless": True}), ("a.gif", {"format": "GIF"})])
def test_animations_have_all_their_pictures_and_their_rate(tmp_path: Path, name: str, options: dict) -> None:
    frames = [image(level) for level in (0, 80, 160, 240)]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], duration=100, loop=0, **options)
    with open_clip(tmp_path / name) as clip:
        levels = [int(picture.y[0, 0]) for picture in clip]
        assert (clip.info.fps, clip.info.frames) == (10, 4)
    assert levels == sorted(levels)
    assert len(set(levels)) == 4


def test_pictures_of_every_kind_of_png_have_one_range(tmp_path: Path) -> None:
    chessboard = Image.fromarray(np.tile(np.array([[0, 255], [255, 0]], np.uint8), (8, 16)))
    for number, mode in enumerate(("RGB", "L", "1", "P", "RGBA", "LA")):
        chessboard.convert(mode).save(tmp_path / f"{number}.png")
    with open_clip(tmp_path) as clip:
        assert clip.info.range == "limited"
        assert {(int(picture.y.min()), int(picture.y.max())) for picture in clip} == {(16, 235)}


@pytest.mark.parametrize(("mode", "levels"), [("1", (16, 235)), ("P", (16, 235)), ("L", (0, 255))])
def test_a_png_alone_has_the_range_that_it_says(tmp_path: Path, mode: str, levels: tuple[int, int]) -> None:
    Image.fromarray(np.tile(np.array([[0, 255]], np.uint8), (16, 16))).convert(mode).save(tmp_path / "a.png")
    with open_clip(tmp_path / "a.png") as clip:
        picture = next(iter(clip))
        assert clip.info.range == ("full" if levels == (0, 255) else "limited")
    assert (int(picture.y.min()), int(picture.y.max())) == levels


def test_gaps_in_numbered_pictures_are_said(tmp_path: Path) -> None:
    for number in (7, 8, 11):
        image(number).save(tmp_path / f"f{number:04}.png")
    with open_clip(tmp_path) as clip:
        assert clip.info.warnings == ("the numbers of its pictures have gaps: 9, 10 are not there",)


def y4m(*fields: str, samples: int) -> bytes:
    return " ".join(("YUV4MPEG2", "W16", "H8", "F25:1", *fields)).encode() + b"\nFRAME\n" + bytes(samples)


def test_y4m_keeps_fields_shape_and_place_of_chroma(tmp_path: Path) -> None:
    (tmp_path / "a.y4m").write_bytes(y4m("It", "A10:11", "C420jpeg", samples=192))
    info = read_info(tmp_path / "a.y4m")
    assert (info.field_order, info.sample_aspect, info.chroma_location) == ("tff", Fraction(10, 11), "center")
    assert info.warnings == ("interlaced, top field first: both fields are coded together, as one picture",)
    out = io.BytesIO()
    Y4MWriter(out, info)
    assert b" It A10:11 C420jpeg " in out.getvalue()


def test_y4m_whose_colour_space_stands_in_its_free_field_only(tmp_path: Path) -> None:
    (tmp_path / "a.y4m").write_bytes(y4m("Ip", "XYSCSS=422", samples=256))
    assert read_info(tmp_path / "a.y4m").converted == "yuv422p to yuv420p"


def test_a_turned_picture_stays_as_it_is_coded_and_is_said(tmp_path: Path) -> None:
    def turned(stream: av.VideoStream) -> None:
        stream.set_display_rotation(90)

    info = read_info(write(tmp_path / "rot.mp4", 2, change=turned))
    assert (info.width, info.height, abs(info.rotation)) == (64, 48, 90)
    assert "players turn it by" in info.warnings[0]


@pytest.mark.parametrize(("text", "fps"), [("29.97", Fraction(30000, 1001)), ("29.970", Fraction(30000, 1001)),
                                           ("119.88", Fraction(120000, 1001)), ("47.952", Fraction(48000, 1001)),
                                           ("14.985", Fraction(15000, 1001)), ("25.0", Fraction(25))])
def test_rounded_rates_mean_their_fractions(text: str, fps: Fraction) -> None:
    assert rate_of(text, "here") == fps


def test_the_document_of_a_clip_says_what_a_player_needs() -> None:
    info = replace(ClipInfo(16, 8, Fraction(25), 3), sample_aspect=Fraction(16, 11), rotation=90, warnings=("x",))
    assert info.document() == {
        "width": 16, "height": 8, "fps": "25/1", "frames": 3, "bits": 8, "matrix": "bt601", "range": "limited",
        "converted": "",
        "sample_aspect": "16:11", "rotation": 90, "field_order": "progressive", "primaries": "", "transfer": "",
        "chroma_location": "", "variable_frame_rate": None, "warnings": ["x"]}


def test_a_damaged_webp_animation_is_refused(tmp_path: Path) -> None:
    frames = [image(level) for level in (0, 240)]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], duration=40)
    data = (tmp_path / "a.webp").read_bytes()
    (tmp_path / "a.webp").write_bytes(data[:len(data) // 2])
    with pytest.raises(VideoError, match="damaged"), open_clip(tmp_path / "a.webp") as clip:
        list(clip)
