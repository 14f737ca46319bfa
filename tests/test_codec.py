"""The codec as a user meets it: real clips in, bytes, pictures out, from the bytes alone and in another process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from synthetic import info_of, moving, sha_of

import codec
from coding.interface import BitstreamError, Cancelled, CodecError, Progress, Settings
from metrics import ClipMetrics
from nvc import decoder
from nvc.machine.parallel import shares
from nvc.network.cost import kmac_per_pixel
from nvc.network.model import DEFAULT_MODEL, load_model, models
from nvc.stream.errors import SettingsError
from nvc.stream.reading import parse
from nvc.stream.syntax import Header, Packet
from nvc.stream.writing import Writer
from video.picture import Picture

ROOT = Path(__file__).resolve().parent.parent
NVC = codec.get("nvc")


@pytest.fixture(scope="module")
def clip() -> list[Picture]:
    return moving(11)


@pytest.fixture(scope="module")
def stream(clip: list[Picture]) -> bytes:
    return NVC.encode(clip, info_of(clip), Settings(quality=30)).data


@pytest.mark.parametrize("structure", ["intra", "low_delay", "random_access"])
def test_the_decoder_makes_the_encoders_pictures_from_the_bytes_alone(clip: list[Picture], structure: str) -> None:
    encoded = NVC.encode(clip, info_of(clip), Settings(quality=24, structure=structure))
    decoded = NVC.decode(encoded.data)
    assert sha_of(decoded) == encoded.pictures_sha256
    assert decoded.info.frames == 11


@pytest.mark.parametrize(("width", "height", "frames"),
                         [(17, 19, 1), (34, 16, 2), (65, 47, 3), (1, 1, 2), (16, 130, 9)])
def test_odd_and_tiny_sizes_come_back_in_their_size(width: int, height: int, frames: int) -> None:
    pictures = [Picture(p.y[:height, :width].copy(), p.u[:(height + 1) // 2, :(width + 1) // 2].copy(),
                        p.v[:(height + 1) // 2, :(width + 1) // 2].copy()) for p in moving(frames, 80, 136)]
    encoded = NVC.encode(pictures, info_of(pictures), Settings(quality=40))
    decoded = list(NVC.decode(encoded.data))
    assert [p.y.shape for p in decoded] == [(height, width)] * frames
    assert sha_of(decoded) == encoded.pictures_sha256


def test_a_core_each_for_large_pictures_changes_neither_bytes_nor_pictures() -> None:
    pictures = moving(6, 288, 240)
    before, made = torch.get_num_threads(), []
    for threads in (1, 2):
        encoded = NVC.encode(pictures, info_of(pictures), Settings(quality=20, threads=threads))
        made.append((encoded.data, sha_of(NVC.decode(encoded.data))))
    parts = len(shares(pictures, 288 * 240))
    torch.set_num_threads(before)
    assert parts == 2
    assert made[0] == made[1]


@pytest.mark.parametrize("model", models())
def test_a_stream_is_decoded_with_the_weights_that_it_names(clip: list[Picture], model: str) -> None:
    encoded = NVC.encode(clip, info_of(clip), Settings(quality=20, model=model))
    assert parse(encoded.data).header.model == load_model(model).id
    decoded = NVC.decode(encoded.data)
    assert sha_of(decoded) == encoded.pictures_sha256
    assert decoded.details["model"] == model


def test_rate_and_psnr_rise_with_quality(clip: list[Picture]) -> None:
    sizes, psnrs = [], []
    for quality in (4, 16, 28, 40, 52, 63):
        encoded = NVC.encode(clip, info_of(clip), Settings(quality=quality))
        metrics = ClipMetrics()
        for source, decoded in zip(clip, NVC.decode(encoded.data), strict=True):
            metrics.add(source, decoded)
        sizes.append(len(encoded.data))
        psnrs.append(metrics.summary()["psnr"])
    assert sizes == sorted(sizes)
    assert psnrs == sorted(psnrs)
    assert psnrs[-1] > 45


def test_a_scene_cut_becomes_an_intra_picture() -> None:
    pictures = moving(12, cut=5)
    encoded = NVC.encode(pictures, info_of(pictures), Settings(quality=24))
    assert [f.index for f in encoded.frames if f.type == "I"] == [0, 5]


def test_the_intra_period_is_kept(clip: list[Picture]) -> None:
    encoded = NVC.encode(clip, info_of(clip), Settings(quality=16, intra_period=4))
    assert [f.index for f in encoded.frames if f.type == "I"] == [0, 4, 8]


def test_frame_bytes_add_up_to_the_stream(clip: list[Picture]) -> None:
    encoded = NVC.encode(clip, info_of(clip), Settings(quality=24))
    packets = sum(f.bytes for f in encoded.frames)
    assert packets <= len(encoded.data) <= packets + 120
    assert 8 * len(encoded.data) == sum(encoded.details["bits"].values())


@pytest.mark.parametrize(("arguments", "environment"), [
    (["--threads", "1"], {}),
    (["--threads", "2"], {}),
    (["--no-onednn"], {}),
    (["--wide"], {}),
    (["--wide", "--no-onednn"], {}),
    (["--in-tensors"], {}),
    ([], {"ATEN_CPU_CAPABILITY": "default"}),
    ([], {"ONEDNN_MAX_CPU_ISA": "AVX2"}),
    ([], {"NUMBA_DISABLE_JIT": "0", "OMP_NUM_THREADS": "1"}),
], ids=["one-thread", "two-threads", "onednn-off", "wide", "wide-onednn-off", "in-tensors", "aten-default",
        "onednn-avx2", "omp-1"])
def test_another_process_decodes_the_same_pictures(tmp_path: Path, clip: list[Picture], stream: bytes,
                                                   arguments: list[str], environment: dict[str, str]) -> None:
    path = tmp_path / "x.nvc"
    path.write_bytes(stream)
    out = subprocess.run([sys.executable, str(ROOT / "tests/decode_variant.py"), str(path), *arguments],
                         capture_output=True, text=True, env={**os.environ, **environment}, check=True)
    assert out.stdout.split()[0] == sha_of(NVC.decode(stream))


def test_the_frozen_streams_decode_to_their_frozen_pictures() -> None:
    folder = ROOT / "tests/streams"
    expected = json.loads((folder / "pictures.json").read_text())
    assert sorted(f.name for f in folder.glob("*.nvc")) == sorted(expected)
    for name, sha in expected.items():
        assert sha_of(NVC.decode((folder / name).read_bytes())) == sha, name


def test_truncated_streams_are_refused(stream: bytes) -> None:
    for length in {0, 3, 20, len(stream) // 2, len(stream) - 1}:
        with pytest.raises(BitstreamError):
            list(NVC.decode(stream[:length]))


def test_any_changed_byte_is_refused(stream: bytes) -> None:
    rng = np.random.default_rng(0)
    for at in rng.integers(0, len(stream), 60):
        damaged = bytearray(stream)
        damaged[at] ^= int(rng.integers(1, 256))
        with pytest.raises(BitstreamError):
            list(NVC.decode(bytes(damaged)))


def test_best_effort_gives_the_groups_of_pictures_that_are_whole(tmp_path: Path, clip: list[Picture]) -> None:
    encoded = NVC.encode(clip, info_of(clip), Settings(quality=16, intra_period=4))
    damaged = bytearray(encoded.data)
    damaged[parse(encoded.data).gops[1].offset + 9] ^= 255
    source, out = tmp_path / "x.nvc", tmp_path / "x.y4m"
    source.write_bytes(damaged)
    assert codec.main(["decode", str(source), str(out)]) == 1
    assert not out.exists()
    assert codec.main(["decode", str(source), str(out), "--best-effort"]) == 0
    whole = list(NVC.decode(encoded.data))
    frame = 6 + 80 * 64 * 3 // 2            # "FRAME\n" and the planes
    body = out.read_bytes()[-7 * frame:]
    assert body[6:6 + 80 * 64] == whole[0].y.tobytes()
    assert body[4 * frame + 6:4 * frame + 6 + 80 * 64] == whole[8].y.tobytes()


def test_a_stream_of_other_weights_is_refused_by_name(stream: bytes) -> None:
    from nvc.stream.syntax import Header, Packet
    from nvc.stream.writing import Writer

    header = parse(stream).header
    writer = Writer(Header(**(vars(header) | {"model": b"\x01" * 8})))
    writer.add(Packet(0, "I", (), 50, b"\0"))
    with pytest.raises(BitstreamError, match="made with model 0101010101010101"):
        list(NVC.decode(writer.finish()))


@pytest.mark.parametrize(("setting", "message"), [
    ({"quality": 64}, "quality is 64, expected 0…63"),
    ({"effort": 4}, "effort is 4, expected -1…3"),
    ({"structure": "zigzag"}, "structure is 'zigzag', expected one of intra, low_delay, random_access"),
    ({"intra_period": 0}, "intra_period is 0, expected at least 1"),
    ({"model": "nope"}, "model: unknown name 'nope'"),
    ({"bitrate_mbps": 1.0, "psnr_db": 40.0}, "expected one of them, got both"),
    ({"bitrate_mbps": 0.0}, "bitrate_mbps is 0.0, expected a number above 0"),
])
def test_bad_settings_are_named(clip: list[Picture], setting: dict, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        NVC.encode(clip[:1], info_of(clip[:1]), Settings(**setting))


def test_a_target_rate_is_met_within_two_percent() -> None:
    pictures = moving(17, 96, 96)
    encoded = NVC.encode(pictures, info_of(pictures), Settings(bitrate_mbps=0.05))
    assert encoded.details["rate_control"]["met"]
    assert len(encoded.data) * 8e-6 / (17 / 25) == pytest.approx(0.05, rel=0.02)


def test_a_target_psnr_is_met_within_a_twentieth_of_a_decibel() -> None:
    pictures = moving(9, 96, 96)
    encoded = NVC.encode(pictures, info_of(pictures), Settings(psnr_db=38.0))
    metrics = ClipMetrics()
    for source, decoded in zip(pictures, NVC.decode(encoded.data), strict=True):
        metrics.add(source, decoded)
    assert metrics.summary()["psnr"] == pytest.approx(38.0, abs=0.05)


def test_progress_can_cancel(clip: list[Picture]) -> None:
    def stop(progress: Progress) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        NVC.encode(clip, info_of(clip), Settings(), stop)


def test_progress_counts_every_picture(clip: list[Picture]) -> None:
    seen: list[int] = []
    NVC.encode(clip, info_of(clip), Settings(), lambda p: seen.append(p.frame))
    assert seen[-1] == 11
    assert seen == sorted(seen)


def test_an_unknown_codec_is_refused_with_the_known_names() -> None:
    with pytest.raises(CodecError, match=r"unknown name 'h267', known are .*nvc"):
        codec.get("h267")


def test_the_command_line_encodes_verifies_and_decodes(tmp_path: Path, clip: list[Picture]) -> None:
    from video.planar import Y4MWriter

    source, stream, out = tmp_path / "a.y4m", tmp_path / "a.nvc", tmp_path / "b.y4m"
    with source.open("wb") as f:
        writer = Y4MWriter(f, info_of(clip))
        for picture in clip:
            writer.write(picture)
    assert codec.main(["encode", str(source), str(stream), "--quality", "20", "--json"]) == 0
    assert codec.main(["verify", str(stream)]) == 0
    assert codec.main(["info", str(stream), "--json"]) == 0
    assert codec.main(["decode", str(stream), str(out)]) == 0
    assert out.stat().st_size == source.stat().st_size


def test_the_command_line_fails_with_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.nvc").write_bytes(b"hello")
    assert codec.main(["verify", str(tmp_path / "x.nvc")]) == 1
    line = "codec.py: not an NVC1 stream: it does not start with NVC1 (at byte 0)"
    assert capsys.readouterr().err.splitlines() == [line]


def test_a_codec_says_what_its_decoder_costs_on_any_machine() -> None:
    described = codec.get("nvc").describe()["models"]
    assert sorted(described) == models()
    model = described[DEFAULT_MODEL]
    assert set(model) == {"sha256", "parameters", "decoder_kmac_per_pixel"}
    assert model["parameters"] == sum(tensor.numel() for tensor in load_model(DEFAULT_MODEL).weights.tensors.values())
    assert model["decoder_kmac_per_pixel"] == kmac_per_pixel(DEFAULT_MODEL, 256, 192)["total"]   # whatever the size


def test_a_stream_of_a_few_bytes_that_claims_a_large_picture_is_refused_before_the_networks_run(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    def reached(*arguments: object) -> None:
        raise AssertionError("the networks ran")

    header = Header(model=load_model(DEFAULT_MODEL).id, width=8192, height=4320, fps=Fraction(25))
    writer = Writer(header)
    writer.add(Packet(0, "I", (), 40, b"\x01\x02"))
    monkeypatch.setattr(decoder, "reconstruct", reached)
    with pytest.raises(BitstreamError, match="tiles are longer than its bytes"):
        list(codec.get("nvc").decode(writer.finish()))


@pytest.mark.parametrize("name", ["nvc", "x264"])
def test_a_device_that_is_not_used_is_refused(name: str) -> None:
    with pytest.raises(CodecError, match=r"device: .* on the CPU, cuda was asked for"):
        codec.get(name).encode(moving(1), info_of(moving(1)), Settings(device="cuda"))


# --- what a command must not do


def command(*words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "codec.py", *words], cwd=ROOT, capture_output=True, text=True, timeout=120,
                          **options)


def test_the_input_is_never_written_to(tmp_path: Path) -> None:
    clip = tmp_path / "a.y4m"
    clip.write_bytes(b"YUV4MPEG2 W16 H16 F25:1\nFRAME\n" + bytes(384))
    done = command("encode", str(clip), str(clip), "--force")
    assert (done.returncode, done.stderr) == (2, f"codec.py: {clip}: is the input as well, which would be lost\n")
    assert clip.stat().st_size == 414


def test_a_file_is_replaced_only_when_asked(tmp_path: Path) -> None:
    (tmp_path / "out.nvc").write_text("precious")
    done = command("encode", "generated", str(tmp_path / "out.nvc"), "--frames", "1")
    assert (done.returncode, done.stderr) == (
        2, f"codec.py: {tmp_path / 'out.nvc'}: is there already; --force replaces it\n")
    assert (tmp_path / "out.nvc").read_text() == "precious"
    assert command("encode", "generated", str(tmp_path / "out.nvc"), "--frames", "1", "--force").returncode == 0


@pytest.mark.parametrize(("words", "says"), [
    (("encode", "generated", "/nowhere/out.nvc"), "codec.py: /nowhere/out.nvc: there is no folder /nowhere\n"),
    (("decode", "in.nvc", "out.mp4"), "codec.py: out.mp4: a name that ends in .y4m was expected, which is what is "
                                      "written\n")])
def test_where_the_output_goes_is_looked_at_first(words: tuple[str, ...], says: str) -> None:
    done = command(*words)
    assert (done.returncode, done.stderr) == (2, says)


def test_a_number_of_pictures_below_one_is_wrong_usage() -> None:
    done = command("encode", "generated", "-", "--frames", "-1")
    assert (done.returncode, done.stderr.splitlines()[-1]) == (
        2, "codec.py encode: error: argument --frames: expected a number of pictures from 1 on, got '-1'")


def test_what_the_stream_does_not_keep_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.y4m").write_bytes(b"YUV4MPEG2 W16 H16 F25:1 A16:11 C444\nFRAME\n" + bytes(768))
    done = command("encode", str(tmp_path / "a.y4m"), str(tmp_path / "a.nvc"))
    assert done.stderr.splitlines() == ["codec.py: note: converted: yuv444p to yuv420p"]


def test_how_pictures_are_shown_goes_through_a_stream(tmp_path: Path) -> None:
    (tmp_path / "a.y4m").write_bytes(b"YUV4MPEG2 W16 H16 F25:1 It A16:11 C420jpeg\nFRAME\n" + bytes(384))
    source, stream, back = (str(tmp_path / name) for name in ("a.y4m", "a.nvc", "b.y4m"))
    assert command("encode", source, stream).stderr == (
        "codec.py: note: interlaced, top field first: both fields are coded together, as one picture\n")
    facts = json.loads(command("info", stream, "--json").stdout)
    assert (facts["sample_aspect"], facts["field_order"], facts["version"]) == ("16:11", "tff", 6)
    assert command("decode", stream, back).returncode == 0
    assert Path(back).read_bytes().startswith(b"YUV4MPEG2 W16 H16 F25:1 It A16:11")


def test_ctrl_c_is_one_line(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "codec.py", "encode", "-", str(tmp_path / "a.nvc")], cwd=ROOT, text=True,
                          stdin=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdin is not None
        assert child.stderr is not None
        child.stdin.write("YUV4MPEG2 W16 H16 F25:1 It\n")
        child.stdin.flush()
        assert child.stderr.readline().startswith("codec.py: note: interlaced")  # it is reading now
        child.send_signal(signal.SIGINT)
        assert child.stderr.read().splitlines()[-1] == "codec.py: stopped by Ctrl-C; nothing was written"
    assert child.returncode == 130
