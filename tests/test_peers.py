"""The peers: real bytes out of the pictures given, pictures out of the bytes alone, settings that say what they do."""

import contextlib
import functools
import io
import os
from dataclasses import replace
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coding.interface import BitstreamError, Cancelled, Codec, CodecError, Progress, Settings, SettingsError
from metrics import ClipMetrics
from peers import ffmpeg, program
from peers.ffmpeg import Peer
from peers.kinds import KINDS, encoder_options
from peers.program import ProgramPeer, Vp9
from video import library
from video.ffmpeg_program import ProgramMissing
from video.files import open_clip
from video.picture import ClipInfo, Picture

NAMES = list(KINDS)


def peer(name: str) -> Peer:
    return Vp9() if name == "vp9" else ProgramPeer(name) if KINDS[name].program else Peer(name)


def clip(width: int, height: int, count: int) -> tuple[list[Picture], ClipInfo]:
    """A pan over a texture, with some noise: something for motion search and for every picture type."""
    rng = np.random.default_rng(0)
    texture = np.kron(rng.integers(40, 200, (40, 60)), np.ones((8, 8), int))
    small = ((height + 1) // 2, (width + 1) // 2)
    pictures = []
    for t in range(count):
        y = texture[t : t + height, 2 * t : 2 * t + width] + rng.integers(0, 3, (height, width))
        u, v = (np.full(small, 100 + 50 * i, np.uint8) for i in (0, 1))
        pictures.append(Picture(y.astype(np.uint8), u, v))
    return pictures, ClipInfo(width, height, Fraction(30000, 1001), count)


def quality_of(source: list[Picture], decoded: list[Picture]) -> float:
    total = ClipMetrics()
    for a, b in zip(source, decoded, strict=True):
        total.add(a, b)
    return float(total.summary()["psnr"])


def packets(data: bytes) -> list[av.Packet]:
    with av.open(io.BytesIO(data)) as container:
        return [packet for packet in container.demux(video=0) if packet.size]


@pytest.mark.parametrize("name", NAMES)
def test_a_peer_has_the_interface_of_a_codec(name: str) -> None:
    made = getattr(program if KINDS[name].program or name == "vp9" else ffmpeg, name)()
    assert isinstance(made, Codec)
    assert made.name == name


@pytest.mark.parametrize("name", NAMES)
def test_pictures_come_back_from_the_bytes_alone(name: str) -> None:
    source, info = clip(96, 80, 12)
    encoded = peer(name).encode(source, info, Settings(quality=40, threads=1))
    decoded = peer(name).decode(encoded.data)
    assert decoded.info == info
    assert quality_of(source, list(decoded)) > 35
    assert decoded.details["decode_s"] > 0


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(95, 81), (1, 1), (20, 6)])
def test_odd_and_small_sizes_come_back_in_their_own_size(name: str, size: tuple[int, int]) -> None:
    source, info = clip(*size, 3)
    encoded = peer(name).encode(source, info, Settings(quality=60, threads=1))
    decoded = peer(name).decode(encoded.data)
    assert (decoded.info.width, decoded.info.height) == size
    back = list(decoded)
    assert [plane.shape for plane in back[2]] == [plane.shape for plane in source[2]]
    assert quality_of(source, back) > 35


@pytest.mark.parametrize("name", NAMES)
def test_one_picture_is_a_clip(name: str) -> None:
    source, info = clip(64, 64, 1)
    encoded = peer(name).encode(source, info, Settings(threads=1))
    assert [(row.index, row.type) for row in encoded.frames] == [(0, "I")]
    assert len(list(peer(name).decode(encoded.data))) == 1


@pytest.mark.parametrize("name", NAMES)
def test_the_number_of_pictures_need_not_be_known_before(name: str) -> None:
    source, info = clip(64, 64, 5)
    encoded = peer(name).encode(iter(source), ClipInfo(64, 64, info.fps), Settings(threads=1))
    assert encoded.info.frames == 5


@pytest.mark.parametrize("name", NAMES)
def test_bytes_are_counted_for_pictures_headers_and_container(name: str) -> None:
    source, info = clip(96, 80, 12)
    encoded = peer(name).encode(source, info, Settings(threads=1))
    details = encoded.details
    in_file = packets(encoded.data)
    assert details["packet_bytes"] == sum(packet.size for packet in in_file) == sum(row.bytes for row in encoded.frames)
    assert [row.bytes for row in encoded.frames] == [p.size for p in sorted(in_file, key=lambda p: p.pts or 0)]
    assert details["rate_bytes"] == details["packet_bytes"] + details["header_bytes"]
    assert details["container_bytes"] == len(encoded.data)


def test_the_text_of_x264_is_kept_in_the_details_and_not_in_the_stream() -> None:
    source, info = clip(96, 80, 4)
    encoded = Peer("x264").encode(source, info, Settings(threads=1))
    assert b"x264 - core" not in encoded.data
    assert encoded.details["encoder_settings"].startswith("x264 - core 1")
    assert " psy=0 " in encoded.details["encoder_settings"]  # what tune=psnr does


@pytest.mark.parametrize("name", NAMES)
def test_no_thread_becomes_a_real_time_one(name: str) -> None:
    source, info = clip(96, 80, 8)
    seen = set()

    def look(_: Progress) -> None:
        for task in Path("/proc/self/task").iterdir():
            with contextlib.suppress(OSError):      # ended while we looked
                seen.add(os.sched_getscheduler(int(task.name)))

    peer(name).encode(source, info, Settings(threads=1), look)
    look(Progress("encode", 0))
    assert seen == {os.SCHED_OTHER}


@pytest.mark.parametrize("name", NAMES)
def test_the_same_settings_give_the_same_bytes(name: str) -> None:
    source, info = clip(96, 80, 8)
    first, second = (peer(name).encode(source, info, Settings(threads=1)).data for _ in range(2))
    assert first == second


@pytest.mark.parametrize("name", NAMES)
def test_higher_quality_takes_more_bytes_and_gives_higher_psnr(name: str) -> None:
    source, info = clip(96, 80, 8)
    points = []
    for quality in (8, 32, 56):
        encoded = peer(name).encode(source, info, Settings(quality=quality, threads=1))
        points.append((encoded.details["rate_bytes"], quality_of(source, list(peer(name).decode(encoded.data)))))
    assert points == sorted(points)
    assert points[0][1] + 3 < points[2][1]


@pytest.mark.parametrize("name", NAMES)
def test_intra_pictures_come_at_the_period_and_groups_are_closed(name: str) -> None:
    source, info = clip(96, 80, 24)
    still = {"params": "min_key_frame_interval=8"} if name == "rav1e" else {}    # which finds a cut in this pan
    encoded = peer(name).encode(source, info, Settings(intra_period=8, threads=1, options=still))
    assert [row.index for row in encoded.frames if row.type == "I"] == [0, 8, 16]
    in_file = packets(encoded.data)
    for place, packet in enumerate(in_file):
        if packet.is_keyframe:
            assert all((later.pts or 0) > (packet.pts or 0) for later in in_file[place + 1 :])


@pytest.mark.parametrize("name", NAMES)
def test_intra_structure_has_intra_pictures_only(name: str) -> None:
    source, info = clip(64, 64, 5)
    encoded = peer(name).encode(source, info, Settings(structure="intra", threads=1))
    assert "".join(row.type for row in encoded.frames) == "IIIII"


@pytest.mark.parametrize("name", [name for name in NAMES if name != "vvenc"])
def test_low_delay_keeps_the_order_of_display(name: str) -> None:
    source, info = clip(96, 80, 12)
    encoded = peer(name).encode(source, info, Settings(structure="low_delay", threads=1))
    assert "".join(row.type for row in encoded.frames) == "IPPPPPPPPPPP"
    times = [packet.pts or 0 for packet in packets(encoded.data)]
    assert times == sorted(times)


@pytest.mark.parametrize("name", ["x264", "x265"])
def test_random_access_has_pictures_of_all_types(name: str) -> None:
    source, info = clip(96, 80, 12)
    encoded = peer(name).encode(source, info, Settings(threads=1))
    assert {row.type for row in encoded.frames} == {"I", "P", "B"}


@pytest.mark.parametrize("name", NAMES)
def test_a_bit_rate_can_be_asked_for(name: str) -> None:
    source, info = clip(96, 80, 24)
    sizes = [
        peer(name).encode(source, info, Settings(bitrate_mbps=rate, threads=1)).details["rate_bytes"]
        for rate in (0.05, 1.0)
    ]
    assert 2 * sizes[0] < sizes[1]


@pytest.mark.parametrize("name", NAMES)
def test_matrix_and_range_are_kept(name: str) -> None:
    source, _ = clip(64, 64, 2)
    info = ClipInfo(64, 64, Fraction(60000, 1001), 2, "bt709", "full")
    encoded = peer(name).encode(source, info, Settings(threads=1))
    assert peer(name).decode(encoded.data).info == info


def test_options_of_the_default() -> None:
    assert encoder_options("x264", Settings()) == {
        "preset": "medium", "g": "64", "tune": "psnr", "crf": "30.83", "x264-params": "cpu-independent=1"}
    assert encoder_options("x265", Settings(threads=1)) == {
        "preset": "medium", "g": "64", "tune": "psnr", "crf": "29.88",
        "x265-params": "keyint=64:open-gop=0:info=0:log-level=none:pools=1:frame-threads=1",
    }  # fmt: skip
    assert encoder_options("svtav1", Settings(threads=2)) == {
        "preset": "8", "g": "64", "crf": "52", "svtav1-params": "tune=1:lp=2",
    }  # fmt: skip
    assert encoder_options("vp9", Settings()) == {
        "cpu-used": "2", "g": "64", "deadline": "good", "row-mt": "1", "auto-alt-ref": "1", "tune": "psnr",
        "lag-in-frames": "25", "crf": "48", "b": "0",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "option", "value"),
    [
        (Settings(quality=63), "crf", "20"),
        (Settings(quality=0), "crf", "45.8"),
        (Settings(options={"crf": 22.5}), "crf", "22.5"),
        (Settings(effort=3), "preset", "veryslow"),
        (Settings(options={"preset": "ultrafast"}), "preset", "ultrafast"),
        (Settings(options={"tune": "ssim"}), "tune", "ssim"),
        (Settings(options={"params": "ref=1"}), "x264-params", "cpu-independent=1:ref=1"),
        (Settings(structure="low_delay"), "bf", "0"),
        (Settings(bitrate_mbps=0.5), "b", "500000"),
    ],
)
def test_settings_become_options(settings: Settings, option: str, value: str) -> None:
    assert encoder_options("x264", settings)[option] == value


def test_vvenc_refuses_low_delay() -> None:
    with pytest.raises(SettingsError, match="structure: vvenc has no low_delay"):
        encoder_options("vvenc", Settings(structure="low_delay"))


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_rules_over_the_effort(name: str) -> None:
    kind = KINDS[name]
    options = encoder_options(name, Settings(effort=3, preset=kind.every_preset[1]))
    assert options[kind.preset_option] == kind.every_preset[1]
    assert set(kind.presets) <= set(kind.every_preset)


def test_options_of_the_programs_peers() -> None:
    assert encoder_options("aom", Settings()) == {
        "cpu-used": "6", "g": "64", "usage": "good", "row-mt": "1", "tune": "psnr", "lag-in-frames": "35", "b": "0",
        "crf": "50",
    }  # fmt: skip
    assert encoder_options("rav1e", Settings()) == {
        "speed": "6", "g": "64", "qp": "148", "rav1e-params": "tune=psnr",
    }  # fmt: skip
    assert encoder_options("vvenc", Settings()) == {
        "preset": "faster", "qpa": "0", "qp": "32",
        "vvenc-params": "poc0idr=1:intraperiod=64:decodingrefreshtype=idr_no_radl",
    }  # fmt: skip


def test_without_the_program_its_peers_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(needed_for: str) -> str:
        raise ProgramMissing(needed_for)

    monkeypatch.setattr(program, "executable", missing)
    source, info = clip(64, 64, 1)
    with pytest.raises(CodecError, match=r"vvenc needs .* pip install -r requirements-measures.txt"):
        peer("vvenc").encode(source, info, Settings())


def test_pictures_of_eight_bits_pass_through_ten_and_back_without_a_change() -> None:
    source, info = clip(64, 64, 1)
    encoded = peer("vvenc").encode(source, info, Settings(options={"qp": 0}, threads=1))
    assert encoded.details["coded_bits"] == 10
    assert quality_of(source, list(peer("vvenc").decode(encoded.data))) > 55


@pytest.mark.parametrize(("name", "target"), [("x264", 33.0), ("x264", 38.0), ("svtav1", 40.0), ("vvenc", 33.0)])
def test_a_psnr_is_met_as_nearly_as_the_encoder_can(name: str, target: float) -> None:
    with open_clip(library.find("carphone")) as real:
        source, info = list(islice(real, 8)), replace(real.info, frames=8)
    seen: list[Progress] = []
    encoded = peer(name).encode(iter(source), info, Settings(psnr_db=target, threads=1), seen.append)
    found = encoded.details["rate_control"]
    probes = [probe["psnr_db"] for probe in found["probes"]]
    assert abs(quality_of(source, list(peer(name).decode(encoded.data))) - target) == pytest.approx(
        min(abs(psnr - target) for psnr in probes), abs=1e-3)
    assert found["met"] is (min(abs(psnr - target) for psnr in probes) <= 0.05)
    assert abs(min(probes, key=lambda psnr: abs(psnr - target)) - target) < (0.5 if KINDS[name].whole else 0.05)
    assert [progress.frame for progress in seen] == sorted(progress.frame for progress in seen)


def test_two_aims_are_one_too_many() -> None:
    source, info = clip(64, 64, 1)
    with pytest.raises(SettingsError, match="psnr_db: expected one aim, got bitrate_mbps too"):
        peer("x264").encode(source, info, Settings(psnr_db=40.0, bitrate_mbps=1.0))


@pytest.mark.parametrize("name", NAMES)
def test_a_higher_quality_is_never_a_worse_constant(name: str) -> None:
    constants = [KINDS[name].constant_at(quality) for quality in range(64)]
    assert constants == sorted(constants, reverse=True)
    assert 0 < constants[63] < constants[0] <= KINDS[name].worst


def test_a_bit_rate_rules_over_the_quality() -> None:
    assert "crf" not in encoder_options("x264", Settings(bitrate_mbps=0.5))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (Settings(quality=64), "quality: expected 0 to 63, got 64"),
        (Settings(effort=4), "effort: expected -1 to 3, got 4"),
        (Settings(structure="open"), "structure: expected one of intra, low_delay, random_access, got 'open'"),
        (Settings(intra_period=0), "intra_period: expected at least 1, got 0"),
        (Settings(bitrate_mbps=0.0), "bitrate_mbps: expected a rate above 0"),
        (Settings(options={"crf": 64}), "options.crf: expected a number from 0 to 63, got 64"),
        (Settings(options={"crf": "18"}), "options.crf: expected a number"),
        (Settings(options={"speed": 1}), "options.speed: vp9 has crf, preset, tune, params"),
        (Settings(options={"params": "x=1"}), "options.params: vp9 has none"),
        (Settings(preset="medium"), "preset: vp9 has 0, 1, 2, 3, 4, 5, 6, 7, 8; got 'medium'"),
    ],
)
def test_a_wrong_setting_is_named(settings: Settings, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        encoder_options("vp9", settings)


@pytest.mark.parametrize("name", NAMES)
def test_an_encoder_that_refuses_its_options_is_a_codec_error(name: str) -> None:
    source, info = clip(64, 64, 2)
    with pytest.raises(CodecError, match="the encoder failed"):
        peer(name).encode(source, info, Settings(threads=1, options={"preset": "nonsense"}))


def test_a_clip_without_pictures_is_a_codec_error() -> None:
    with pytest.raises(CodecError, match="no picture"):
        Peer("x264").encode([], ClipInfo(64, 64, Fraction(25)), Settings())


@pytest.mark.parametrize("name", NAMES)
def test_the_progress_callback_can_stop_the_encoder(name: str) -> None:
    source, info = clip(64, 64, 10)
    seen: list[Progress] = []

    def stop(progress: Progress) -> None:
        seen.append(progress)
        if len(seen) == 3:
            raise Cancelled

    with pytest.raises(Cancelled):
        peer(name).encode(source, info, Settings(threads=1), stop)
    assert len(seen) == 3


@pytest.mark.parametrize("name", NAMES)
def test_progress_counts_to_the_end_both_ways(name: str) -> None:
    source, info = clip(64, 64, 6)
    seen: list[Progress] = []
    encoded = peer(name).encode(source, info, Settings(threads=1), seen.append)
    assert seen[-1] == Progress("encode", 6, 6)
    list(peer(name).decode(encoded.data, seen.append))
    assert seen[-1] == Progress("decode", 6, 6)


@pytest.mark.parametrize("data", [b"", b"NVC1 something", bytes(1000), b"\x1a\x45\xdf\xa3" + bytes(1000)])
def test_foreign_bytes_are_a_bitstream_error(data: bytes) -> None:
    with pytest.raises(BitstreamError):
        Peer("x264").decode(data)


def test_the_stream_of_another_peer_is_a_bitstream_error() -> None:
    source, info = clip(64, 64, 2)
    encoded = Peer("vp9").encode(source, info, Settings(threads=1))
    with pytest.raises(BitstreamError, match=r"not a stream of x264: expected h264, found \['vp9'\]"):
        Peer("x264").decode(encoded.data)


@pytest.mark.parametrize("name", NAMES)
def test_a_truncated_stream_is_a_bitstream_error(name: str) -> None:
    source, info = clip(96, 80, 12)
    data = peer(name).encode(source, info, Settings(threads=1)).data
    with pytest.raises(BitstreamError):
        list(peer(name).decode(data[:-500]))


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damaged_bytes_give_pictures_or_a_bitstream_error(name: str, data: st.DataObject) -> None:
    broken = bytearray(_stream(name))
    for _ in range(data.draw(st.integers(1, 6))):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(BitstreamError):
        assert len(list(peer(name).decode(bytes(broken)))) <= 4


@functools.cache
def _stream(name: str) -> bytes:
    return peer(name).encode(*clip(64, 64, 4), Settings(threads=1)).data


@pytest.mark.parametrize("name", NAMES)
def test_the_version_of_the_library_is_told(name: str) -> None:
    assert peer(name).describe()["encoder"] == KINDS[name].library
    assert any(digit.isdigit() for digit in peer(name).describe()["encoder_version"])
