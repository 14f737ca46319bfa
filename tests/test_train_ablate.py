"""Ablations: what is compared, and that every variant is a codec that learns."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from train.ablate import table

ROOT = Path(__file__).resolve().parent.parent


def row(variant: str, j: list[float]) -> dict:
    return {"variant": variant, "parameters": 840_000, "kind": [0, 1, 1, 2], "J": j}


def test_the_table_gives_the_mean_change_of_j_by_type() -> None:
    lines = table([row("whole", [2.0, 1.0, 4.0, 1.0]), row("half", [1.0, 2.0, 2.0, 1.1])]).splitlines()
    assert lines[2:] == ["| whole | 0.84 million | +0.0 % | +0.0 % | +0.0 % |",
                         "| half | 0.84 million | -50.0 % | +0.0 % | +10.0 % |"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen samples of as many clips, eight photographs, all noise."""
    folder = tmp_path_factory.mktemp("data")
    noise = np.random.default_rng(1)
    noise.integers(0, 256, (16, 3, 6, 128, 128), np.uint8).tofile(folder / "own.bin")
    (folder / "own.txt").write_text("".join(f"40 {1 + n % 2} 4 clip{n}.mp4\n" for n in range(16)))
    for n in range(8):
        Image.fromarray(noise.integers(0, 256, (256, 256, 3), np.uint8)).save(folder / f"{n}.webp")
    return folder


@pytest.mark.parametrize("variant", ["whole", "support 24x24", "no checkerboard", "one group", "context of 48"])
def test_a_variant_trains_and_is_measured_on_what_it_has_not_seen(variant: str, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    command = [sys.executable, "-m", "train.ablate", variant, "--samples", data, "--photos", data, "--out", out,
               "--steps", "1", "--batches", "1", "--no-compile"]
    subprocess.run(command, check=True, cwd=ROOT, timeout=300)
    found = json.loads(out.read_text())
    assert found["variant"] == variant
    assert found["kind"][:2] == [0, 0]
    assert len(found["J"]) == 8
    assert all(j > 0 for j in found["J"])
