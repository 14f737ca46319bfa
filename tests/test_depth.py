"""Clips of more than 8 bits: read, written, coded by the peers and measured at their own depth."""

from __future__ import annotations

import io
import subprocess
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from skimage.metrics import structural_similarity

import codec
import metrics
from coding.interface import Settings
from measures.perceptual import PerceptualMeasures
from measures.ssim import ssim
from metrics import ClipMetrics
from peers.ffmpeg import Peer
from peers.kinds import KINDS
from peers.program import ProgramPeer, Vp9
from service.jobs.fields import read_request
from service.processes import measuring
from video.containers import VideoWriter
from video.ffmpeg_program import executable
from video.files import open_clip
from video.picture import ClipInfo, Picture, VideoError
from video.pixels import change_depth
from video.planar import RawFormat, Y4MWriter


def soft(bits: int, frames: int = 4, width: int = 96, height: int = 80) -> list[Picture]:
    """A slow wave over the whole range: smooth enough that 8 bits lose something of 10."""
    y, x = np.mgrid[:height, :width]
    top = (1 << bits) - 1
    made = []
    for t in range(frames):
        planes = [(0.5 + 0.35 * np.sin((x[::s, ::s] + t) / 23) * np.cos(y[::s, ::s] / 31 + c)) * top
                  for c, s in enumerate((1, 2, 2))]
        made.append(Picture(*(np.ascontiguousarray(plane.astype(np.uint8 if bits == 8 else np.uint16))
                              for plane in planes)))
    return made


def info_of(pictures: list[Picture], bits: int) -> ClipInfo:
    height, width = pictures[0].y.shape
    return ClipInfo(width, height, Fraction(25), len(pictures), bits=bits)


def y4m(path: Path, pictures: list[Picture], bits: int) -> Path:
    with path.open("wb") as out:
        writer = Y4MWriter(out, info_of(pictures, bits))
        for picture in pictures:
            writer.write(picture)
    return path


def same(a: list[Picture], b: list[Picture]) -> bool:
    return len(a) == len(b) and all(np.array_equal(p, q) and p.dtype == q.dtype for x, y in zip(a, b, strict=True)
                                    for p, q in zip(x, y, strict=True))


# --- reading and writing


@pytest.mark.parametrize("bits", [10, 12])
def test_y4m_keeps_its_depth_where_it_is_asked_for(tmp_path: Path, bits: int) -> None:
    source = soft(bits)
    with open_clip(y4m(tmp_path / "deep.y4m", source, bits), most_bits=12) as clip:
        assert (clip.info.bits, clip.info.converted, clip.info.form) == (bits, "", f"yuv420p{bits}le")
        assert same(list(clip), source)


def test_without_asking_ten_bits_become_eight_and_that_is_said(tmp_path: Path) -> None:
    with open_clip(y4m(tmp_path / "deep.y4m", soft(10), 10)) as clip:
        assert (clip.info.bits, clip.info.converted) == (8, "yuv420p10le to yuv420p")
        assert next(iter(clip)).y.dtype == np.uint8


@pytest.mark.parametrize("bits", [8, 10, 12])
def test_the_lossless_file_keeps_the_depth(tmp_path: Path, bits: int) -> None:
    source = soft(bits)
    with VideoWriter(tmp_path / "kept.mkv", info_of(source, bits)) as writer:
        for picture in source:
            writer.write(picture)
    with open_clip(tmp_path / "kept.mkv", most_bits=12) as clip:
        assert clip.info.bits == bits
        assert same(list(clip), source)


@pytest.mark.parametrize(("chroma", "said"), [("420", ""), ("422", "yuv422p10le to yuv420p10le"),
                                              ("400", "gray10le to yuv420p10le")])
def test_headerless_video_of_ten_bits(chroma: str, said: str) -> None:
    raw = RawFormat(4, 2, Fraction(25), 10, chroma)
    samples = np.arange(raw.picture_bytes // 2, dtype="<u2") + 500
    with open_clip(io.BytesIO(samples.tobytes()), raw=raw, most_bits=12) as clip:
        assert (clip.info.bits, clip.info.converted) == (10, said)
        (picture,) = clip
    assert picture.y.tolist() == [[500, 501, 502, 503], [504, 505, 506, 507]]
    assert picture.u.tolist() == {"420": [[508, 509]], "422": [[509, 510]], "400": [[512, 512]]}[chroma]


def test_sixteen_bits_become_twelve() -> None:
    raw = RawFormat(2, 2, Fraction(25), 16)
    with open_clip(io.BytesIO(np.full(6, 0xABCD, "<u2").tobytes()), raw=raw, most_bits=12) as clip:
        assert (clip.info.bits, clip.info.converted) == (12, "yuv420p16le to yuv420p12le")
        assert next(iter(clip)).y.tolist() == [[0xABD, 0xABD], [0xABD, 0xABD]]


def test_eight_bits_stay_eight(tmp_path: Path) -> None:
    with open_clip(y4m(tmp_path / "a.y4m", soft(8), 8), most_bits=12) as clip:
        assert (clip.info.bits, clip.info.converted) == (8, "")


def test_depth_changes_by_a_shift_and_in_full_range_by_a_scale() -> None:
    picture = Picture(*(np.array([[0, 255, 129]], np.uint8) for _ in range(3)))
    assert change_depth(picture, 8, 10, full_range=False).y.tolist() == [[0, 1020, 516]]
    assert change_depth(picture, 8, 10, full_range=True).y.tolist() == [[0, 1023, 518]]
    deep = Picture(*(np.array([[0, 1023, 518, 517]], np.uint16) for _ in range(3)))
    assert change_depth(deep, 10, 8, full_range=True).y.tolist() == [[0, 255, 129, 129]]
    assert change_depth(deep, 10, 8, full_range=False).y.tolist() == [[0, 255, 130, 129]]
    assert change_depth(deep, 10, 10, full_range=False) is deep


def test_a_picture_of_another_depth_is_refused(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "x.mkv", info_of(soft(10), 10)) as writer, pytest.raises(
            VideoError, match=r"y: expected uint16 \(80, 96\), got uint8"):
        writer.write(soft(8)[0])


# --- measures


def test_the_peak_of_psnr_is_that_of_the_depth() -> None:
    a = Picture(*(np.full((16, 16), 500, np.uint16) for _ in range(3)))
    b = Picture(*(np.full((16, 16), 501, np.uint16) for _ in range(3)))
    assert metrics.frame_metrics(a, b, bits=10)["psnr"] == pytest.approx(60.1975, abs=1e-4)     # 20 log10 1023
    assert metrics.frame_metrics(a, b, bits=12)["psnr"] == pytest.approx(72.2451, abs=1e-4)     # 20 log10 4095


def test_ssim_of_ten_bits_agrees_with_scikit_image() -> None:
    a = soft(10)[0].y
    b = np.clip(a.astype(int) + np.random.default_rng(1).integers(-30, 31, a.shape), 0, 1023).astype(np.uint16)
    _, full = structural_similarity(a, b, data_range=1023, gaussian_weights=True, sigma=1.5, full=True,
                                    use_sample_covariance=False)
    assert ssim(a, b, 1023) == pytest.approx(float(full[5:-5, 5:-5].mean()), abs=1e-9)


def test_perceptual_measures_of_ten_bits_are_the_programs_own(tmp_path: Path) -> None:
    source = soft(10)
    noise = np.random.default_rng(2)
    decoded = [Picture(*(np.clip(plane + noise.integers(-9, 10, plane.shape), 0, 1023).astype(np.uint16)
                         for plane in picture)) for picture in source]
    with PerceptualMeasures(["xpsnr"], info_of(source, 10)) as measures:
        for pair in zip(source, decoded, strict=True):
            measures.add(*pair)
        found = measures.finish().summary
    subprocess.run([executable("a test"), "-loglevel", "error", "-nostdin", "-i", y4m(tmp_path / "b.y4m", decoded, 10),
                    "-i", y4m(tmp_path / "a.y4m", source, 10), "-lavfi", "xpsnr=stats_file=log", "-f", "null", "-"],
                   cwd=tmp_path, check=True, timeout=60)
    words = (tmp_path / "log").read_text().split()
    assert found["xpsnr_y"] == pytest.approx(float(words[len(words) - 1 - words[::-1].index("y:") + 1]), abs=1e-3)


def test_the_command_compares_at_the_deeper_depth(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    deep = soft(10)
    shallow = [change_depth(picture, 10, 8, full_range=False) for picture in deep]
    files = [str(y4m(tmp_path / "a.y4m", deep, 10)), str(y4m(tmp_path / "b.y4m", shallow, 8))]
    assert metrics.main([*files, "--measures", "psnr"]) == 0
    printed = capsys.readouterr().out
    errors = [float(np.mean((a.y.astype(float) - 4.0 * b.y) ** 2)) for a, b in zip(deep, shallow, strict=True)]
    expected = np.mean([10 * np.log10(1023**2 / error) for error in errors])
    assert f"psnr_y            {expected:.4f} dB" in printed
    assert "note: bits differs (10 and 8)" in printed


# --- codecs


def peer(name: str) -> Peer:
    return Vp9() if name == "vp9" else ProgramPeer(name) if KINDS[name].program else Peer(name)


def psnr_of(source: list[Picture], decoded: list[Picture], bits: int) -> float:
    total = ClipMetrics(["psnr"], bits)
    for pair in zip(source, decoded, strict=True):
        total.add(*pair)
    return float(total.summary()["psnr"])


@pytest.mark.parametrize("name", list(KINDS))
def test_peers_code_ten_bits_better_than_eight_could_hold(name: str) -> None:
    source = soft(10)
    encoded = peer(name).encode(source, info_of(source, 10), Settings(
        threads=1, options={KINDS[name].constant: 20 if name == "rav1e" else 4}))
    decoded = peer(name).decode(encoded.data)
    assert (decoded.info.bits, decoded.info.converted, encoded.details["coded_bits"]) == (10, "", 10)
    shallow = [change_depth(change_depth(picture, 10, 8, False), 8, 10, False) for picture in source]
    assert psnr_of(source, list(decoded), 10) > psnr_of(source, shallow, 10)


@pytest.mark.parametrize("name", [name for name in KINDS if max(KINDS[name].depths) == 12])
def test_some_peers_code_twelve_bits(name: str) -> None:
    source = soft(12)
    encoded = peer(name).encode(source, info_of(source, 12), Settings(threads=1))
    decoded = peer(name).decode(encoded.data)
    assert (peer(name).most_bits, decoded.info.bits, encoded.details["coded_bits"]) == (12, 12, 12)
    assert psnr_of(source, list(decoded), 12) > 38


def test_nine_bits_are_coded_as_ten_and_come_back_as_nine() -> None:
    source = soft(9)
    encoded = peer("x265").encode(source, info_of(source, 9), Settings(threads=1))
    decoded = list(peer("x265").decode(encoded.data))
    assert encoded.details["coded_bits"] == 10
    assert max(int(picture.y.max()) for picture in decoded) < 512
    assert psnr_of(source, decoded, 9) > 38


# --- runs


def run(clip: Path, folder: Path, **wanted: Any) -> dict[str, Any]:
    job = {"run": "exp_7", "experiment": read_request(wanted), "threads": 1,
           "clip": {"name": "deep", "sha256": None, "path": str(clip)}}
    return measuring.run(job, folder)["result"]


def test_a_run_of_a_peer_is_of_ten_bits_from_end_to_end(tmp_path: Path) -> None:
    result = run(y4m(tmp_path / "deep.y4m", soft(10), 10), tmp_path, codec="x265", quality=60)
    assert (result["clip"]["bits"], result["clip"]["converted"], result["clip"]["warnings"]) == (10, "", [])
    assert "coded_bits" not in result["clip"]
    assert result["metrics"]["psnr_db"] > 50
    assert result["metrics"]["compression_ratio"] == pytest.approx(
        96 * 80 * 1.5 * 4 * 10 / 8 / result["encoding_result"]["rate_bytes"])
    with open_clip(tmp_path / "reconstruction.mkv", most_bits=12) as kept:
        assert kept.info.bits == 10


def test_a_codec_of_eight_bits_is_measured_against_the_ten_of_the_clip(tmp_path: Path) -> None:
    codec.register("raw", "tests.standin:Raw")
    source = soft(10)
    result = run(y4m(tmp_path / "deep.y4m", source, 10), tmp_path, codec="raw")
    assert (result["clip"]["bits"], result["clip"]["coded_bits"]) == (10, 8)
    assert result["clip"]["warnings"] == [
        "coded with 8 bits; quality is measured against the 10 bits of the clip"]
    shallow = [change_depth(change_depth(picture, 10, 8, False), 8, 10, False) for picture in source]
    assert result["metrics"]["psnr_db"] == pytest.approx(psnr_of(source, shallow, 10))
    with open_clip(tmp_path / "reconstruction.mkv", most_bits=12) as kept:
        assert kept.info.bits == 8
