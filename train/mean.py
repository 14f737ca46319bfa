"""The mean of float weights of one kind.

    python -m train.mean OUT.safetensors IN.safetensors IN.safetensors…

Rounds of training that start from each other end on different sides of the same valley; between them lie weights that
generalise better than either (Wortsman et al. 2022, arXiv:2203.05482).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file


def mean(paths: list[Path]) -> dict[str, torch.Tensor]:
    """ValueError if the files do not hold the same tensors."""
    files = [load_file(path) for path in paths]
    shapes = [{name: tensor.shape for name, tensor in file.items()} for file in files]
    for path, other in zip(paths, shapes, strict=True):
        if other != shapes[0]:
            raise ValueError(f"{path}: other tensors than in {paths[0]}")
    return {name: torch.stack([file[name].double() for file in files]).mean(0).to(tensor.dtype)
            for name, tensor in files[0].items()}


def main() -> None:
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("out", type=Path)
    a.add_argument("weights", type=Path, nargs="+")
    o = a.parse_args()
    save_file(mean(o.weights), o.out)


if __name__ == "__main__":
    main()
