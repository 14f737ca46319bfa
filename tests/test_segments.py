"""A clip in segments: coded apart, decoded apart, joined to the bytes of one encoder."""

from __future__ import annotations

import hashlib
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from synthetic import info_of, moving, sha_of

import codec
from coding.interface import BitstreamError, Segmented, Settings
from service.jobs.fields import read_request
from service.processes.errors import MeasureError
from service.processes.measuring import run
from service.processes.segments import run_join, run_segment
from video.containers import VideoWriter
from video.picture import Picture

NVC = codec.get("nvc")
FRAMES, CUT = 23, 9


@pytest.fixture(scope="module")
def clip() -> list[Picture]:
    return moving(FRAMES, cut=CUT)


def segments(clip: list[Picture], settings: Settings, of: int) -> list[tuple[int, bytes]]:
    """First number and bytes of each segment, each coded as a worker of its own would."""
    assert isinstance(NVC, Segmented)
    found = []
    for index in range(of):
        low, high = (-(-len(clip) * n // of) for n in (index, index + 1))
        made = NVC.encode_segment(iter(clip), info_of(clip), settings, low, high)
        if made is not None:
            found.append((made[0], made[1].data))
    return found


def test_no_more_pictures_are_read_than_it_takes_to_find_the_next_gop(clip: list[Picture]) -> None:
    assert isinstance(NVC, Segmented)
    rest = iter(clip)
    made = NVC.encode_segment(rest, info_of(clip), Settings(intra_period=5), 3, 6)
    assert made is not None
    assert (made[0], [row.index for row in made[1].frames]) == (5, [0, 1, 2, 3])    # to the cut
    assert len([*rest]) == FRAMES - CUT - 1 - 2     # which is told by the two after it


@pytest.mark.parametrize("structure", ["intra", "low_delay", "random_access"])
@pytest.mark.parametrize("of", [1, 2, 3, 5])
def test_joined_segments_are_the_stream_of_one_encoder(clip: list[Picture], structure: str, of: int) -> None:
    settings = Settings(quality=20, structure=structure, intra_period=4)
    assert isinstance(NVC, Segmented)
    whole = NVC.encode(clip, info_of(clip), settings).data
    assert NVC.join([data for _, data in segments(clip, settings, of)]) == whole


@pytest.mark.parametrize("effort", [1, 2, 3])
def test_at_every_effort(clip: list[Picture], effort: int) -> None:
    settings, few = Settings(quality=20, intra_period=5, effort=effort), clip[:10]
    assert isinstance(NVC, Segmented)
    whole = NVC.encode(few, info_of(few), settings).data
    assert NVC.join([data for _, data in segments(few, settings, 2)]) == whole


def test_a_segment_is_decoded_from_its_own_bytes_alone(clip: list[Picture]) -> None:
    settings = Settings(quality=20, intra_period=6)
    assert isinstance(NVC, Segmented)
    digest = hashlib.sha256()
    for first, data in segments(clip, settings, 3):
        for picture in NVC.decode_segment(data, first):
            for plane in picture:
                digest.update(plane.data)
    assert digest.hexdigest() == sha_of(NVC.decode(NVC.encode(clip, info_of(clip), settings).data))


def test_segments_lie_one_after_the_other(clip: list[Picture]) -> None:
    firsts = [first for first, _ in segments(clip, Settings(intra_period=4), 5)]
    assert firsts[0] == 0
    assert all(a < b for a, b in pairwise(firsts))


def test_a_segment_is_no_stream_by_itself(clip: list[Picture]) -> None:
    (_, _), (first, data) = segments(clip, Settings(quality=20, intra_period=8), 2)
    with pytest.raises(BitstreamError, match=f"a GOP of picture {first}, expected 0"):
        NVC.decode(data)


@pytest.mark.parametrize(("wrong", "words"), [
    (lambda parts: parts[::-1], "a GOP of picture 13, expected 0"),
    (lambda parts: [parts[0], parts[0]], "pictures up to 12, expected some from 13 on"),
    (lambda parts: [parts[0][:-1], parts[1]], "truncated"),
])
def test_what_does_not_belong_together_is_not_joined(clip: list[Picture], wrong, words: str) -> None:
    parts = [data for _, data in segments(clip, Settings(quality=20, intra_period=4), 2)]
    assert isinstance(NVC, Segmented)
    with pytest.raises(BitstreamError, match=words):
        NVC.join(wrong(parts))


def test_segments_of_other_settings_are_not_joined(clip: list[Picture]) -> None:
    first = segments(clip, Settings(quality=20, intra_period=4), 2)[0][1]
    second = segments(clip, Settings(quality=20, intra_period=4, structure="low_delay"), 2)[1][1]
    assert isinstance(NVC, Segmented)
    with pytest.raises(BitstreamError, match="segment 1 is not of the same clip and settings as segment 0"):
        NVC.join([first, second])


def test_a_target_is_met_in_each_segment(clip: list[Picture]) -> None:
    settings = Settings(psnr_db=34.0, intra_period=12)
    assert isinstance(NVC, Segmented)
    whole = NVC.join([data for _, data in segments(clip, settings, 2)])
    from metrics import frame_psnr

    decoded = list(NVC.decode(whole))
    mean = sum(map(frame_psnr, clip, decoded)) / FRAMES
    assert mean == pytest.approx(34.0, abs=0.05)


# --- as a worker carries it out: measured, and joined to one result ---------------------------------------------------


def job(clip_file: Path, **wanted: Any) -> dict[str, Any]:
    experiment = read_request({"quality": 20, "intra_period": 4, **wanted})
    return {"run": "exp_7", "experiment": experiment, "clip": {"name": "a", "sha256": None, "path": str(clip_file)},
            "threads": 1}


def in_segments(whole: dict[str, Any], of: int, folder: Path) -> dict[str, Any]:
    """The outcome of the join, after each segment was carried out in a folder of its own."""
    files = []
    for index in range(of):
        out = folder / str(index)
        out.mkdir()
        made = run_segment(whole | {"segment": {"index": index, "of": of}}, out)
        files.append({name: str(out / name) for name in made["artifacts"]})
    out = folder / "joined"
    out.mkdir()
    return run_join(whole | {"segments": files}, out)


def without_times(result: dict[str, Any]) -> dict[str, Any]:
    """What must be the same however a clip was coded."""
    result = json.loads(json.dumps(result))
    result.pop("segments", None)
    for part in ("encoding_result", "decoding_result"):
        for name in ("encode_s", "decode_s", "frames_per_s"):
            result[part].pop(name, None)
        result[part]["details"].pop("seconds")
    result["provenance"].pop("peak_memory_bytes")
    return result


@pytest.fixture(scope="module")
def clip_file(clip: list[Picture], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "a.mkv"
    with VideoWriter(path, info_of(clip)) as writer:
        for picture in clip:
            writer.write(picture)
    return path


@pytest.mark.parametrize(("of", "wanted"), [
    (2, {}), (5, {"structure": "intra"}), (3, {"frames": 17, "first_frame": 2}), (2, {"measures": ["xpsnr", "vmaf"]}),
])
def test_the_result_is_that_of_a_clip_in_one_piece_but_for_times(
        clip_file: Path, tmp_path: Path, of: int, wanted: dict[str, Any]) -> None:
    whole = job(clip_file, **wanted)
    (tmp_path / "whole").mkdir()
    expected, joined = run(whole, tmp_path / "whole"), in_segments(whole, of, tmp_path)
    assert joined["artifacts"] == expected["artifacts"]
    assert without_times(joined["result"]) == without_times(expected["result"])
    for name in expected["artifacts"]:
        assert (tmp_path / "joined" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_each_segment_has_a_row(clip_file: Path, tmp_path: Path) -> None:
    joined = in_segments(job(clip_file), 2, tmp_path)["result"]
    first, second = joined["segments"]
    assert (first["index"], first["first"], first["pictures"]) == (0, 0, 13)
    assert (second["index"], second["first"], second["pictures"]) == (1, 13, 10)
    assert joined["encoding_result"]["encode_s"] == pytest.approx(first["encode_s"] + second["encode_s"])


def test_a_segment_in_which_no_gop_begins_is_empty(clip_file: Path, tmp_path: Path) -> None:
    whole = job(clip_file, intra_period=64)        # GOPs begin at 0 and at the cut, 9
    joined = in_segments(whole, 4, tmp_path)
    assert [row["pictures"] for row in joined["result"]["segments"]] == [9, 14, 0, 0]
    assert joined["result"]["encoding_result"]["bytes"] == (tmp_path / "joined" / "stream.nvc").stat().st_size


def test_a_segment_whose_file_lacks_pictures_is_not_joined(clip_file: Path, tmp_path: Path) -> None:
    whole, files = job(clip_file), []
    for index in range(2):
        (tmp_path / str(index)).mkdir()
        made = run_segment(whole | {"segment": {"index": index, "of": 2}}, tmp_path / str(index))
        files.append({name: str(tmp_path / str(index) / name) for name in made["artifacts"]})
    files[1]["pictures.mkv"] = files[0]["pictures.mkv"]
    with pytest.raises(MeasureError, match="the segments' files have 26 pictures, 23 were measured"):
        run_join(whole | {"segments": files}, tmp_path)


def test_a_codec_that_cannot_be_cut_says_so(clip_file: Path, tmp_path: Path) -> None:
    with pytest.raises(MeasureError, match="segments: codec x264 cannot be cut into segments"):
        run_segment(job(clip_file, codec="x264") | {"segment": {"index": 0, "of": 2}}, tmp_path)
