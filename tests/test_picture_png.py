"""One picture of a video as PNG, by a process under limits, and over HTTP."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.clips import picture_png
from tests.orchestrator_rig import FakeWorker, Orchestrator
from video import library


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Orchestrator, str]]:
    """A run that began at picture 2 and whose reconstruction is the clip from its beginning."""
    process = Orchestrator(tmp_path_factory.mktemp("still"), "--lease-s", "5", "--heartbeat-s", "0.2")
    worker = FakeWorker(process, "w", codec="own")
    name = process.submit(codec="own", first_frame=2)
    kept = worker.store(library.find("carphone").read_bytes())
    worker.end(worker.next_offer(), artifacts={"reconstruction.mkv": kept})
    yield process, name
    worker.stop()
    assert process.stop() == 0


def test_a_picture_has_the_clips_size_and_colours() -> None:
    assert pixels(picture_png.make((library.find("carphone"), 5))).shape == (144, 176, 3)


def test_the_error_of_a_picture_with_itself_is_black() -> None:
    same = (library.find("carphone"), 5)
    assert np.unique(pixels(picture_png.make(same, same))).tolist() == [0]


def test_the_error_of_two_pictures_is_eight_times_their_luma_difference() -> None:
    clip = library.find("carphone")
    map_ = pixels(picture_png.make((clip, 0), (clip, 30)))
    assert map_.shape == (144, 176)
    assert map_.max() == 255


def test_a_picture_beyond_the_end_is_refused() -> None:
    with pytest.raises(picture_png.NoPicture, match="there is no picture 99999"):
        picture_png.make((library.find("carphone"), 99999))


def test_what_is_no_video_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.mkv").write_bytes(b"no video at all")
    with pytest.raises(picture_png.NoPicture):
        picture_png.make((tmp_path / "a.mkv", 0))


def test_source_and_reconstruction_are_served_as_png(run: tuple[Orchestrator, str]) -> None:
    process, name = run
    paths = ("0?of=source", "2", "2?of=reconstruction")
    answers = [process.get(f"/experiment/{name}/pictures/{path}") for path in paths]
    assert [(answer.status_code, answer.headers["Content-Type"]) for answer in answers] == [(200, "image/png")] * 3
    assert len({answer.content for answer in answers}) == 1     # the source's picture 0 is the clip's picture 2


def test_an_error_is_against_the_source_or_another_run(run: tuple[Orchestrator, str]) -> None:
    process, name = run
    source, other = (pixels(process.get(f"/experiment/{name}/pictures/0?of=error{against}").content)
                     for against in ("", f"&against={name}"))
    assert (source.max() > 0, other.max()) == (True, 0)


@pytest.mark.parametrize(("path", "status"), [
    ("0?of=colour", 400), ("x", 404), ("99999", 404), ("0?of=error&against=exp_1_abcdef", 404)])
def test_wrong_pictures_are_refused(run: tuple[Orchestrator, str], path: str, status: int) -> None:
    process, name = run
    assert process.get(f"/experiment/{name}/pictures/{path}").status_code == status


def split(pngs: bytes) -> list[np.ndarray]:
    """The pictures of PNG files that stand one after the other; each ends with its chunk IEND."""
    end = b"IEND\xaeB`\x82"
    return [pixels(each + end) for each in pngs.split(end)[:-1]]


def test_pictures_are_played_in_their_order() -> None:
    clip = library.find("carphone")
    played = split(b"".join(picture_png.Playback(clip, 3, 4)))
    assert [np.array_equal(one, pixels(picture_png.make((clip, 3 + n)))) for n, one in enumerate(played)] == [True] * 4


def test_playing_ends_with_the_clip() -> None:
    assert len(split(b"".join(picture_png.Playback(library.find("carphone"), 115, 100)))) == 5


def test_playing_from_beyond_the_end_is_refused() -> None:
    with pytest.raises(picture_png.NoPicture, match="there is no picture 99999"):
        picture_png.Playback(library.find("carphone"), 99999, 10)


def test_no_more_clips_are_played_at_once_than_may_be() -> None:
    clip = library.find("carphone")
    playing = [picture_png.Playback(clip, 0, 2) for _ in range(picture_png.PLAYED_AT_ONCE)]
    with pytest.raises(picture_png.Busy, match="4 clips are being played"):
        picture_png.Playback(clip, 0, 2)
    for each in playing:
        each.close()
        each.close()
    picture_png.Playback(clip, 0, 2).close()


def test_decoding_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture_png, "WALL_S", 0.5)
    monkeypatch.setattr(picture_png, "START", "import time; time.sleep(60)")
    with pytest.raises(picture_png.NoPicture, match=r"longer than 0\.5 s"):
        picture_png.Playback(library.find("carphone"), 0, 2)
    assert picture_png._players.acquire(blocking=False)     # its place is free again
    picture_png._players.release()


def test_source_and_reconstruction_are_played_over_http(run: tuple[Orchestrator, str]) -> None:
    process, name = run
    source, made = (split(process.get(f"/experiment/{name}/pictures?{query}").content)
                    for query in ("of=source&count=3", "first=2&count=3"))
    assert (len(source), np.array_equal(source, made)) == (3, True)     # the run begins at the clip's picture 2


@pytest.mark.parametrize(("query", "status"), [
    ("of=error", 400), ("first=x", 400), ("count=0", 400), ("count=1001", 400), ("first=99999", 404)])
def test_what_cannot_be_played_is_refused(run: tuple[Orchestrator, str], query: str, status: int) -> None:
    process, name = run
    assert process.get(f"/experiment/{name}/pictures?{query}").status_code == status


def test_a_viewer_who_leaves_ends_the_process(run: tuple[Orchestrator, str]) -> None:
    process, name = run
    for _ in range(2 * picture_png.PLAYED_AT_ONCE):
        with process.get(f"/experiment/{name}/pictures", stream=True) as answer:
            assert next(answer.iter_content(8)) == b"\x89PNG\r\n\x1a\n"
