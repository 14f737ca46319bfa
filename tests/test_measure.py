"""One run, measured: what is reported was observed, on pictures that came from the written bytes alone."""

import hashlib
import json
import math
import os
import resource
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import codec
from coding.interface import Progress
from service.jobs.fields import read_request
from service.processes import measuring
from service.processes.measuring import MeasureError
from service.processes.memory import automatic_limit_mb
from service.runtime.version import commit
from video.containers import VideoWriter
from video.files import open_clip
from video.picture import ClipInfo, Picture

SPECS = ["raw=tests.standin:Raw", "scripted=tests.standin:Scripted"]
INFO = ClipInfo(48, 32, Fraction(30000, 1001), matrix="bt709", range="limited")


@pytest.fixture(autouse=True)
def _codecs() -> None:
    for spec in SPECS:
        codec.register(*spec.split("=", 1))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "six.mkv"
    rng = np.random.default_rng(2)
    with VideoWriter(path, INFO) as writer:
        for _ in range(6):
            writer.write(Picture(*(rng.integers(0, 256, size, np.uint8) for size in ((32, 48), (16, 24), (16, 24)))))
    return path


def job(clip: Path, **wanted: Any) -> dict[str, Any]:
    experiment = read_request({"codec": "raw", **wanted})
    return {"run": "exp_7", "experiment": experiment, "clip": {"name": "six", "sha256": None, "path": str(clip)},
            "threads": 1}


def test_every_part_of_the_result_is_there_and_measured(clip: Path, tmp_path: Path) -> None:
    made = measuring.run(job(clip), tmp_path)
    result, stream = made["result"], (tmp_path / "stream.raw").read_bytes()
    assert result["encoding_result"]["compressed_data"] == "/experiment/exp_7/artifacts/stream.raw"
    assert result["encoding_result"]["bytes"] == len(stream)
    assert result["encoding_result"]["sha256"] == hashlib.sha256(stream).hexdigest()
    assert result["decoding_result"]["reconstructed_video"] == "/experiment/exp_7/artifacts/reconstruction.mkv"
    assert result["decoding_result"]["matches_encoder"] is True
    assert result["decoding_result"]["quality_metrics"]["psnr"] == 100.0
    assert result["metrics"]["psnr_db"] == 100.0
    assert result["metrics"]["ssim"] == pytest.approx(1.0)
    assert result["metrics"]["bpp"] == pytest.approx(len(stream) * 8 / (48 * 32 * 6))
    assert result["metrics"]["compression_ratio"] == pytest.approx(48 * 32 * 1.5 * 6 / len(stream))
    assert result["metrics"]["bitrate_mbps"] == pytest.approx(len(stream) * 8 / (6 * 1001 / 30000) / 1e6)
    assert [row["index"] for row in result["frames"]] == [0, 1, 2, 3, 4, 5]
    assert {row["type"] for row in result["frames"]} == {"I"}
    assert result["clip"] == {
        "name": "six", "sha256": hashlib.sha256(clip.read_bytes()).hexdigest(), "width": 48, "height": 32,
        "fps": "30000/1001", "frames": 6, "bits": 8, "matrix": "bt709", "range": "limited", "converted": "",
        "sample_aspect": "1:1", "rotation": 0, "field_order": "progressive", "primaries": "", "transfer": "",
        "chroma_location": "", "variable_frame_rate": None, "warnings": []}
    assert result["settings"] == read_request({"codec": "raw"})
    assert set(result["provenance"]) >= {"version", "commit", "model_sha256", "torch", "cpu", "threads", "seed"}
    assert made["artifacts"]["stream.raw"] == {
        "sha256": hashlib.sha256(stream).hexdigest(), "bytes": len(stream)}


def test_measures_that_are_asked_for_are_in_metrics_rows_and_provenance(clip: Path, tmp_path: Path) -> None:
    result = measuring.run(job(clip, measures=["xpsnr", "vmaf"]), tmp_path)["result"]
    assert (result["metrics"]["xpsnr"], result["metrics"]["ssim"]) == (100.0, None)
    assert result["metrics"]["vmaf"] == result["decoding_result"]["quality_metrics"]["vmaf"]
    assert [row["xpsnr"] for row in result["frames"]] == 6 * [100.0]
    assert result["provenance"]["measures"]["vmaf"] == "vmaf_v0.6.1"


def test_a_result_without_them_says_nothing_of_other_measures(clip: Path, tmp_path: Path) -> None:
    result = measuring.run(job(clip), tmp_path)["result"]
    assert "measures" not in result["provenance"]
    assert set(result["metrics"]) == {"bitrate_mbps", "bpp", "compression_ratio", "psnr_db", "ssim", "ms_ssim"}


def test_an_orchestrator_of_an_earlier_version_names_no_measures(clip: Path, tmp_path: Path) -> None:
    old = job(clip)
    del old["experiment"]["measures"]
    assert measuring.run(old, tmp_path)["result"]["metrics"]["ssim"] == pytest.approx(1.0)


def test_the_reconstruction_holds_the_decoded_pictures(clip: Path, tmp_path: Path) -> None:
    made = measuring.run(job(clip), tmp_path)
    digest = hashlib.sha256()
    with open_clip(tmp_path / "reconstruction.mkv") as reconstruction:
        for picture in reconstruction:
            for plane in picture:
                digest.update(plane.tobytes())
    assert made["result"]["decoding_result"]["decoded_sha256"] == digest.hexdigest()


def test_a_clip_of_another_format_is_converted_and_the_result_says_so(tmp_path: Path) -> None:
    (tmp_path / "deep.y4m").write_bytes(b"YUV4MPEG2 W48 H32 F25:1 C444p10\nFRAME\n" + bytes(48 * 32 * 3 * 2))
    made = measuring.run(job(tmp_path / "deep.y4m"), tmp_path)
    assert made["result"]["clip"]["converted"] == "yuv444p10le to yuv420p10le"
    assert made["result"]["clip"]["coded_bits"] == 8


def test_no_reconstruction_is_kept_unless_asked_for(clip: Path, tmp_path: Path) -> None:
    made = measuring.run(job(clip, keep_reconstruction=False), tmp_path)
    assert made["result"]["decoding_result"]["reconstructed_video"] is None
    assert [path.name for path in tmp_path.iterdir()] == ["stream.raw"]


def test_a_part_of_the_clip_is_coded_when_asked_for(clip: Path, tmp_path: Path) -> None:
    made = measuring.run(job(clip, first_frame=2, frames=3), tmp_path)
    with open_clip(clip) as source:
        wanted = b"".join(plane.tobytes() for picture in list(source)[2:5] for plane in picture)
    assert made["result"]["clip"]["frames"] == 3
    assert made["result"]["decoding_result"]["decoded_sha256"] == hashlib.sha256(wanted).hexdigest()


def test_more_frames_than_there_are_means_all_of_them(clip: Path, tmp_path: Path) -> None:
    assert measuring.run(job(clip, frames=100), tmp_path)["result"]["clip"]["frames"] == 6


def test_a_first_frame_past_the_end_is_refused(clip: Path, tmp_path: Path) -> None:
    with pytest.raises(MeasureError, match="first_frame: 6 is past the end of a clip of 6 pictures") as caught:
        measuring.run(job(clip, first_frame=6), tmp_path)
    assert caught.value.slug == "bad-settings"
    assert caught.value.retry is False


def test_a_clip_that_is_not_the_one_asked_for_is_refused(clip: Path, tmp_path: Path) -> None:
    wanted = job(clip)
    wanted["clip"]["sha256"] = "0" * 64
    with pytest.raises(MeasureError, match="not 0000") as caught:
        measuring.run(wanted, tmp_path)
    assert caught.value.retry is True


def test_what_is_no_video_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.mkv").write_text("not a video")
    with pytest.raises(MeasureError, match=r"^six: not a video") as caught:  # and not its path on this machine
        measuring.run(job(tmp_path / "text.mkv"), tmp_path)
    assert (caught.value.slug, caught.value.retry) == ("bad-video", False)


def test_a_decoder_that_needs_the_encoders_memory_fails(clip: Path, tmp_path: Path) -> None:
    with pytest.raises(MeasureError, match="nothing is remembered here"):
        measuring.run(job(clip, codec="scripted", model="remember"), tmp_path)


def test_too_few_decoded_pictures_are_an_error(clip: Path, tmp_path: Path) -> None:
    with pytest.raises(MeasureError, match="the decoder gave 5 pictures, the clip has 6"):
        measuring.run(job(clip, codec="scripted", model="wrong-count"), tmp_path)


def test_progress_tells_both_phases_to_their_ends(clip: Path, tmp_path: Path) -> None:
    heard: list[Progress] = []
    measuring.run(job(clip), tmp_path, heard.append)
    assert heard[0] == Progress("encode", 0, 6)
    assert Progress("encode", 6, 6) in heard
    assert heard[-1] == Progress("decode", 6, 6)


def test_the_result_is_json_whatever_a_codec_reports() -> None:
    said = {"a": np.float32(0.5), "b": np.arange(3), "c": math.nan, "d": (1, {2: math.inf}), "e": Path("x")}
    assert json.loads(json.dumps(measuring.plain(said), allow_nan=False)) == {
        "a": 0.5, "b": [0, 1, 2], "c": None, "d": [1, {"2": None}], "e": "x"}


def test_an_endless_report_of_a_codec_is_dropped() -> None:
    assert measuring.bounded({"trace": "x" * (2 << 20)}) == {"dropped": "2097165 bytes, more than 1048576"}


def test_the_commit_is_read_from_a_file_a_branch_or_packed_references(tmp_path: Path) -> None:
    assert commit(tmp_path) == "unknown"
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    (tmp_path / ".git" / "packed-refs").write_text("# pack-refs\nabc123 refs/heads/main\n")
    assert commit(tmp_path) == "abc123"
    (tmp_path / ".git" / "refs" / "heads").mkdir(parents=True)
    (tmp_path / ".git" / "refs" / "heads" / "main").write_text("def456\n")
    assert commit(tmp_path) == "def456"
    (tmp_path / "COMMIT").write_text("installed\n")
    assert commit(tmp_path) == "installed"


def test_pictures_that_take_more_memory_than_there_is_are_refused_before_the_start(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (4 << 30, 4 << 30))
    measuring.check_memory("nvc", ClipInfo(1920, 1080, Fraction(25)))
    with pytest.raises(MeasureError, match="coding pictures of 8192x4288 with nvc takes about 34200 MiB, "
                                           "and a codec process of this worker may use 4096") as caught:
        measuring.check_memory("nvc", ClipInfo(8192, 4288, Fraction(25)))
    assert caught.value.slug == "out-of-memory"


def test_the_memory_of_codec_processes_is_a_share_of_the_machines() -> None:
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
    assert 0 < automatic_limit_mb(2) <= automatic_limit_mb(1) // 2 + 1
    assert automatic_limit_mb(1) <= whole * 0.8
