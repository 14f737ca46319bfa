"""Hashes of what an installation got: the next host takes these archives and no other."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def wheel(folder: Path, content: str) -> None:
    """A package `tiny` 1.0, as a wheel."""
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / "tiny-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr("tiny.py", content)
        archive.writestr("tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        archive.writestr("tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("tiny-1.0.dist-info/RECORD", "tiny.py,,\n")


def pip(index: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-index",
                           "--find-links", str(index), "--dry-run", "--ignore-installed", *map(str, arguments)],
                          capture_output=True, text=True, timeout=120, check=False)


def lock(*reports: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, ROOT / "systemd/lock_requirements.py", *reports], capture_output=True,
                          text=True, timeout=60, check=False)


def test_an_archive_that_has_changed_is_not_installed(tmp_path: Path) -> None:
    wheel(tmp_path / "index", "a = 1\n")
    assert pip(tmp_path / "index", "--report", tmp_path / "report.json", "tiny==1.0").returncode == 0
    made = lock(tmp_path / "report.json")
    assert made.returncode == 0
    assert made.stdout.startswith("tiny==1.0 --hash=sha256:")
    (tmp_path / "requirements.lock").write_text(made.stdout)

    hashes = "--no-deps", "--require-hashes", "-r", tmp_path / "requirements.lock"
    assert "Would install tiny-1.0" in pip(tmp_path / "index", *hashes).stdout
    wheel(tmp_path / "index", "a = 2\n")
    refused = pip(tmp_path / "index", *hashes)
    assert refused.returncode != 0
    assert "DO NOT MATCH THE HASHES" in refused.stderr


def report(name: str, version: str, info: dict) -> dict:
    return {"install": [{"metadata": {"name": name, "version": version}, "download_info": {"url": "x", **info}}]}


def test_lines_are_sorted_and_name_versions_as_requirements_do(tmp_path: Path) -> None:
    for k, (name, version) in enumerate([("torch", "2.13.0+cpu"), ("Av", "18.1.0")]):
        made = report(name, version, {"archive_info": {"hashes": {"sha256": f"{k}" * 64}}})
        (tmp_path / f"{k}.json").write_text(json.dumps(made))
    assert lock(tmp_path / "0.json", tmp_path / "1.json").stdout == (
        f"Av==18.1.0 --hash=sha256:{'1' * 64}\ntorch==2.13.0 --hash=sha256:{'0' * 64}\n")


@pytest.mark.parametrize("info", [{}, {"archive_info": {}}, {"dir_info": {}}])
def test_what_came_without_a_hash_is_named(tmp_path: Path, info: dict) -> None:
    (tmp_path / "report.json").write_text(json.dumps(report("tiny", "1.0", info)))
    made = lock(tmp_path / "report.json")
    assert (made.returncode, made.stdout) == (1, "")
    assert made.stderr == "lock_requirements.py: tiny 1.0 came without a SHA-256, from x\n"
