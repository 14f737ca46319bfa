"""Codecs of the user's own: the page that teaches it, as it stands, and the two examples."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import subprocess
import sys
import tomllib
import types
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import codec
from coding import registry
from coding.interface import BitstreamError, CodecError, Decoded, Settings, SettingsError
from examples.compressai_image import CompressAI
from examples.tiny_transform import Tiny
from metrics import ClipMetrics
from video import library
from video.files import open_clip
from video.picture import ClipInfo, Picture

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "own-codec.md").read_text(encoding="utf-8")
PATIENCE_S = 120.0  # for a whole tutorial on a busy machine


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def free_port() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


def pictures(count: int, clip: str = "generated") -> tuple[list[Picture], ClipInfo]:
    with open_clip(library.find(clip)) as opened:
        return list(islice(opened, count)), replace(opened.info, frames=count)


def mean_psnr(sources: list[Picture], decoded: Decoded) -> float:
    total = ClipMetrics()
    for source, picture in zip(sources, decoded, strict=True):
        total.add(source, picture)
    return float(total.summary()["psnr"])


# --- the page


def test_the_tutorial_runs_word_for_word(tmp_path: Path) -> None:
    setup, *commands = blocks("sh")
    (tmp_path / "my-codec").mkdir()
    (tmp_path / "my-codec" / "halves.py").write_text(blocks("python")[0])
    script = "set -e\ntrap 'kill $(jobs -p)' EXIT\n" + setup + "\n".join(commands)
    for port in ("8081", "8080"):
        script = script.replace(port, free_port())
    if not (ROOT / ".venv").exists():  # the tests run in another environment than the one that the page has made
        script = script.replace("$NVC/.venv/bin/python", sys.executable)
    done = subprocess.run(["timeout", "-k", "5", str(PATIENCE_S), "bash", "-c", script], cwd=tmp_path, text=True,
                          capture_output=True, check=False,
                          env={**os.environ, "NVC": str(ROOT), "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-3000:]
    ended = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("exp_")]
    assert [line[0] for line in ended] == ["completed", "completed"]
    assert ended[1] == ["completed", "8/8", "runs"]


def test_an_entry_point_makes_a_codec_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    about = tomllib.loads(blocks("toml")[0])["project"]
    info = tmp_path / "halves-1.dist-info"      # what installing the package leaves behind
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {about['name']}\nVersion: {about['version']}\n")
    (info / "entry_points.txt").write_text("".join(f"[{group}]\n" + "".join(
        f"{name} = {target}\n" for name, target in points.items()) for group, points in about["entry-points"].items()))
    (tmp_path / "halves.py").write_text(blocks("python")[0])
    assert "halves" not in codec.names()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "halves" in codec.names()
    assert codec.get("halves").describe() == {"codec": "halves", "version": 1}
    registry._made.pop("halves")


def test_every_end_that_the_page_names_is_one_that_a_worker_tells() -> None:
    named = set(re.findall(r"`([a-z]+(?:-[a-z]+)+)`", PAGE)) | {"timeout"}
    told = set(re.findall(r"`([a-z-]+)`", (ROOT / "docs" / "worker.md").read_text(encoding="utf-8")))
    assert named - told == set()


# --- the tiny transform codec


def test_the_tiny_codec_decodes_from_its_bytes_to_what_it_announced() -> None:
    sources, info = pictures(3)
    encoded = Tiny().encode(sources, info, Settings(quality=30))
    digest = hashlib.sha256()
    for picture in Tiny().decode(encoded.data):
        for plane in picture:
            digest.update(plane.tobytes())
    assert digest.hexdigest() == encoded.pictures_sha256


def test_the_tiny_codec_spends_more_for_more() -> None:
    sources, info = pictures(2)
    coded = [Tiny().encode(sources, info, Settings(quality=quality)) for quality in (0, 20, 40, 63)]
    sizes = [len(each.data) for each in coded]
    quality = [mean_psnr(sources, Tiny().decode(each.data)) for each in coded]
    assert sizes == sorted(sizes)
    assert quality == sorted(quality)
    assert quality[0] > 24
    assert quality[-1] > 48


def test_the_tiny_codec_takes_odd_sizes() -> None:
    rng = np.random.default_rng(1)
    odd = Picture(*(rng.integers(0, 256, shape, np.uint8) for shape in ((13, 17), (7, 9), (7, 9))))
    info = ClipInfo(17, 13, Fraction(24000, 1001), 1, "bt709", "full")
    decoded = Tiny().decode(Tiny().encode([odd], info, Settings()).data)
    assert decoded.info == info
    assert [plane.shape for plane in next(iter(decoded))] == [(13, 17), (7, 9), (7, 9)]


def test_the_tiny_codec_refuses_what_it_cannot_do() -> None:
    sources, info = pictures(1)
    with pytest.raises(SettingsError, match="quality: expected; this codec cannot aim at"):
        Tiny().encode(sources, info, Settings(bitrate_mbps=1.0))
    with pytest.raises(BitstreamError, match="offset 0"):
        Tiny().decode(b"something else, and long enough to hold a header")


def test_the_tiny_codec_has_under_a_hundred_lines() -> None:
    assert len((ROOT / "examples" / "tiny_transform.py").read_text(encoding="utf-8").splitlines()) < 100


# --- the wrapper round CompressAI, with a stand-in for its package


class Latent:
    """Behaves as a model of CompressAI does: a latent of a sixteenth of each side, one string, RGB in 0…1."""

    @classmethod
    def from_state_dict(cls, state: dict[str, Any]) -> Latent:
        made = cls()
        made.levels = float(state["levels"])
        return made

    def eval(self) -> Latent:
        return self

    def update(self) -> None:
        self.updated = True     # without it CompressAI has no tables to code with

    def compress(self, x: Any) -> dict[str, Any]:
        import torch

        assert self.updated
        assert x.shape[2] % 64 == x.shape[3] % 64 == 0
        y = torch.nn.functional.avg_pool2d(x, 16)
        return {"strings": [[(y * self.levels).round().to(torch.uint8).numpy().tobytes()]], "shape": y.shape[-2:]}

    def decompress(self, strings: list[list[bytes]], shape: Any) -> dict[str, Any]:
        import torch

        y = torch.frombuffer(bytearray(strings[0][0]), dtype=torch.uint8).reshape(1, 3, *shape) / self.levels
        return {"x_hat": torch.nn.functional.interpolate(y, scale_factor=16)}


@pytest.fixture
def compressai(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package of that name, and a folder with two files of weights."""
    import torch

    zoo, image = types.ModuleType("compressai.zoo"), types.ModuleType("compressai.zoo.image")
    zoo.load_state_dict = dict  # type: ignore[attr-defined]
    image.model_architectures = {"bmshj2018-factorized": Latent}  # type: ignore[attr-defined]
    for module in (types.ModuleType("compressai"), zoo, image):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    torch.save({"levels": torch.tensor(7.0)}, tmp_path / "1.pth.tar")
    torch.save({"state_dict": {"levels": torch.tensor(255.0)}}, tmp_path / "2.pth.tar")
    monkeypatch.setenv("COMPRESSAI_WEIGHTS", str(tmp_path))
    yield tmp_path
    torch.set_grad_enabled(True)


def test_a_compressai_model_codes_pictures_by_the_weights_of_the_quality(compressai: Path) -> None:
    sources, info = pictures(2, "carphone")
    quality = []
    for asked, name in ((10, "1.pth.tar"), (60, "2.pth.tar")):
        encoded = CompressAI().encode(sources, info, Settings(quality=asked))
        assert encoded.details["weights"] == name
        assert encoded.details["model_sha256"] == hashlib.sha256((compressai / name).read_bytes()).hexdigest()
        decoded = CompressAI().decode(encoded.data)
        assert replace(decoded.info, sample_aspect=info.sample_aspect) == info
        quality.append(mean_psnr(sources, decoded))
    assert quality[0] + 1 < quality[1]


def test_a_stream_of_other_weights_is_refused(compressai: Path) -> None:
    import torch

    sources, info = pictures(1)
    stream = CompressAI().encode(sources, info, Settings(quality=0)).data
    torch.save({"levels": torch.tensor(9.0)}, compressai / "1.pth.tar")
    with pytest.raises(BitstreamError, match=r"coded with other weights than 1\.pth\.tar"):
        CompressAI().decode(stream)


def test_an_unknown_architecture_is_named_with_the_known_ones(compressai: Path, monkeypatch: pytest.MonkeyPatch
                                                              ) -> None:
    monkeypatch.setenv("COMPRESSAI_MODEL", "mine")
    with pytest.raises(CodecError, match="COMPRESSAI_MODEL: expected one of bmshj2018-factorized, got 'mine'"):
        CompressAI().warm()


def test_missing_weights_are_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPRESSAI_WEIGHTS", "/no/such/file")
    with pytest.raises(CodecError, match="COMPRESSAI_WEIGHTS: expected a file of weights or a folder"):
        CompressAI().warm()


def test_a_missing_package_is_said_so(compressai: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "compressai.zoo", None)
    with pytest.raises(CodecError, match="install it with: pip install compressai"):
        CompressAI().warm()
