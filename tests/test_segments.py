"""A clip in segments: coded apart, decoded apart, joined to the bytes of one encoder."""

from __future__ import annotations

import hashlib
from itertools import pairwise

import pytest
from synthetic import info_of, moving, sha_of

import codec
from coding.interface import BitstreamError, Segmented, Settings
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
        starts = NVC.gop_starts(iter(clip), settings, high)
        first = next((n for n in starts if n >= low), len(clip))
        end = next((n for n in starts if n >= high), len(clip))
        if first < end:
            pictures = clip[first:end]
            found.append((first, NVC.encode_segment(pictures, info_of(pictures), settings, first, starts).data))
    return found


def test_gops_begin_at_cuts_and_after_each_period(clip: list[Picture]) -> None:
    assert isinstance(NVC, Segmented)
    assert NVC.gop_starts(iter(clip), Settings(intra_period=5), 100) == [0, 5, 9, 14, 19]
    assert NVC.gop_starts(iter(clip), Settings(structure="intra"), 100) == [*range(FRAMES)]


def test_no_more_pictures_are_read_than_it_takes_to_find_the_next_start(clip: list[Picture]) -> None:
    assert isinstance(NVC, Segmented)
    rest = iter(clip)
    assert NVC.gop_starts(rest, Settings(intra_period=5), 6) == [0, 5, 9]
    assert len([*rest]) == FRAMES - 9 - 3     # the one after it, and what a cut is told by


@pytest.mark.parametrize("structure", ["intra", "low_delay", "random_access"])
@pytest.mark.parametrize("of", [1, 2, 3, 5])
def test_joined_segments_are_the_stream_of_one_encoder(clip: list[Picture], structure: str, of: int) -> None:
    settings = Settings(quality=20, structure=structure, intra_period=4)
    assert isinstance(NVC, Segmented)
    whole = NVC.encode(clip, info_of(clip), settings).data
    assert NVC.join([data for _, data in segments(clip, settings, of)]) == whole


@pytest.mark.parametrize("effort", [1, 2, 3])
def test_at_every_effort(clip: list[Picture], effort: int) -> None:
    settings = Settings(quality=20, intra_period=8, effort=effort)
    assert isinstance(NVC, Segmented)
    whole = NVC.encode(clip, info_of(clip), settings).data
    assert NVC.join([data for _, data in segments(clip, settings, 2)]) == whole


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
    assert firsts[0] == 0 and all(a < b for a, b in pairwise(firsts))


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
