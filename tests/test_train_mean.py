"""Means of weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from train.mean import mean


def test_each_number_is_the_mean_of_those_in_its_place(tmp_path: Path) -> None:
    for name, value in (("a", 1.0), ("b", 4.0)):
        save_file({"w": torch.tensor([value, -value])}, tmp_path / name)
    assert mean([tmp_path / "a", tmp_path / "b"])["w"].tolist() == [2.5, -2.5]


def test_weights_of_another_kind_are_refused(tmp_path: Path) -> None:
    save_file({"w": torch.zeros(2)}, tmp_path / "a")
    save_file({"w": torch.zeros(3)}, tmp_path / "b")
    with pytest.raises(ValueError, match="b: other tensors"):
        mean([tmp_path / "a", tmp_path / "b"])
