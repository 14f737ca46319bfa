"""`pip install .`: a wheel is built, installed beside nothing of this folder, and used from there."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import tomllib
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LEFT_OUT = shutil.ignore_patterns(".*", "tests", "bench", "train", "docs", "build", "*.egg-info", "__pycache__",
                                  "demo-output")
PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the wheel is installed."""
    folder = tmp_path_factory.mktemp("package")
    shutil.copytree(ROOT, folder / "source", ignore=LEFT_OUT)
    subprocess.run([*PIP, "wheel", folder / "source", "--no-deps", "--no-build-isolation", "--no-index", "-w", folder],
                   check=True, timeout=120)
    (wheel,) = folder.glob("*.whl")
    subprocess.run([*PIP, "install", "--no-deps", "--no-index", "--target", folder / "site", wheel], check=True,
                   timeout=120)
    return folder / "site"


def run(site: Path, command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
    """Run with the installed package alone, elsewhere."""
    return subprocess.run(command, cwd=site.parent, env={**os.environ, "PYTHONPATH": str(site)}, text=True,
                          capture_output=True, timeout=300, **options)  # type: ignore[call-overload]


def test_python_encodes_and_decodes_with_it(site: Path) -> None:
    done = run(site, [sys.executable, "-P", "-c", "\n".join((
        "import numpy as np, nvc",
        "grey = np.full((32, 48, 3), 99, np.uint8)",
        "data = nvc.encode([grey, grey], fps=25)",
        "print(nvc.__file__, [picture.y.shape for picture in nvc.decode(data)], nvc.info(data).frames)"))])
    assert done.stdout == f"{site}/nvc/__init__.py [(32, 48), (32, 48)] 2\n", done.stderr


def test_all_weights_are_in_it(site: Path) -> None:
    def weights(folder: Path) -> set[Path]:
        return {path.relative_to(folder) for path in folder.rglob("*.safetensors")}

    assert weights(site / "nvc") == weights(ROOT / "nvc") >= {Path("weights/loop_filters/nvc-1.safetensors")}


@pytest.mark.parametrize(("command", "words"), [
    (["nvc", "--version"], "0."), (["nvc-orchestrator", "--show-config"], "port"),
    (["nvc-worker", "--show-config"], "slots"), (["nvc-client", "--help"], "usage:"),
    (["nvc-metrics", "--help"], "--measures"),
])
def test_its_commands_run(site: Path, command: list[str], words: str) -> None:
    done = run(site, [str(site / "bin" / command[0]), *command[1:]])
    assert (done.returncode, words in done.stdout) == (0, True), done.stderr


def test_its_orchestrator_serves_the_page(site: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [site / "bin" / "nvc-orchestrator", "--host", "127.0.0.1", "--port", str(port), "--state",
               tmp_path / "state"]
    process = subprocess.Popen(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(site)})
    try:
        for _ in range(200):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as reply:
                    assert b"<title>" in reply.read()
                    break
            except OSError:
                assert process.poll() is None
                time.sleep(0.1)
        else:
            pytest.fail("it did not come up")
    finally:
        process.terminate()
        assert process.wait(timeout=20) == 0


def test_services_are_installed_without_test_tools() -> None:
    def pins(name: str) -> dict[str, str]:
        return dict(re.findall(r"^([\w-]+)==([\d.]+)", (ROOT / name).read_text(), re.MULTILINE))

    everything = pins("requirements.txt")
    assert everything.pop("pytest")
    assert pins("requirements-run.txt") == everything


def test_it_asks_for_what_the_requirements_pin() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = dict(re.fullmatch(r"([\w-]+)>=([\d.]+)", each).groups() for each in (  # type: ignore[union-attr]
        *project["dependencies"], *project["optional-dependencies"]["measures"]))
    pinned = dict(re.findall(r"^([\w-]+)==([\d.]+)", (ROOT / "requirements-run.txt").read_text()
                             + (ROOT / "requirements-measures.txt").read_text(), re.MULTILINE))
    assert wanted.keys() == pinned.keys()
    for name, least in wanted.items():
        numbers = [[int(part) for part in version.split(".")] for version in (least, pinned[name])]
        assert numbers[0] <= numbers[1], name
