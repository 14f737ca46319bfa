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
