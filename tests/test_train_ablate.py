"""Ablations: what is compared, and that every variant is a codec that learns."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from train.ablate import Split, by_rate, table

ROOT = Path(__file__).resolve().parent.parent


def row(variant: str, j: list[float]) -> dict:
    return {"variant": variant, "parameters": 840_000, "kind": [0, 1, 1, 2], "J": j}


def test_the_table_gives_the_mean_change_of_j_by_type() -> None:
    lines = table([row("whole", [2.0, 1.0, 4.0, 1.0]), row("half", [1.0, 2.0, 2.0, 1.1])]).splitlines()
    assert lines[2:] == ["| whole | 0.84 million | +0.0 % | +0.0 % | +0.0 % |",
                         "| half | 0.84 million | -50.0 % | +0.0 % | +10.0 % |"]


def test_the_rates_are_thirds_of_the_steps_and_the_better_is_chosen_for_each_picture() -> None:
    steps = {"kind": [0] * 3 + [1] * 3 + [2] * 6, "t": [10, 90, 50, 1, 2, 3, 6, 5, 4, 3, 2, 1]}
    whole = {"variant": "whole", **steps, "J": [1.0] * 12}
    other = {"variant": "other", **steps, "J": [2.0, 0.5, 1.0, 1.1, 1.0, 0.9, 0.5, 2.0, *[1.0] * 4]}
    lines = by_rate([whole, other]).splitlines()
    assert lines[0] == ("| variant, at t = | I 90…90 | I 50…50 | I 10…10 | P 3…3 | P 2…2 | P 1…1 "
                        "| B 6…5 | B 4…3 | B 2…1 |")
    assert lines[3] == ("| other | -50.0 % | +0.0 % | +100.0 % | -10.0 % | +0.0 % | +10.0 % "
                        "| +0.0 % | +0.0 % | +0.0 % |")
    assert lines[4] == ("| … or whole, the better for each picture | -50.0 % | +0.0 % | +0.0 % | -10.0 % | +0.0 % "
                        "| +0.0 % | -29.3 % | +0.0 % | +0.0 % |")


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


@pytest.mark.parametrize("variant", ["whole", "support 24x24", "checkerboard in group 0 only", "one group",
                                     "context of 48", "stride 16", "stride 16, hybrid basis", "no second transform"])
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


def test_a_variant_trains_on_other_samples_but_for_the_clips_that_are_measured_on(data: Path, tmp_path: Path) -> None:
    held = Split([data / "own.bin"], data, 1).names
    other = tmp_path / "other.bin"
    np.fromfile(data / "own.bin", np.uint8).reshape(16, -1)[:4].tofile(other)
    other.with_suffix(".txt").write_text("".join(f"40 1 4 {name}\n" for name in [*sorted(held), "new.mp4", "new.mp4"]))
    samples = Split([other], data, 1, held).choose(False, 1)
    assert [record for _, record, *_ in samples.rows] == [2, 3]
