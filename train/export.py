"""Freeze trained weights: python -m train.export FLOAT.safetensors OUT.safetensors

Writes the integers that nvc/fixed.py describes, proves that no sum leaves float32's exact range, and checks that the
frozen network gives the very numbers of the trained one. Prints the bound of each layer and the file's SHA-256.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from nvc.fixed import FixedNetwork, Weights, integers_of, prove, tables_of
from nvc.network import SCALES, Conv
from nvc.rangecoder import Tables
from train.objective import Objective

RADIUS_MAX = 400


def laplace_tables(excess: float = 0.004) -> Tables:
    """Range coder tables of the 64 scales: Laplace of scale b, and a share `excess` of one three times as wide.

    The wider part is what real latents have beyond a Laplace distribution; it keeps surprises affordable.
    """
    pmf = np.zeros((SCALES, 2 * RADIUS_MAX + 2))
    radius = np.zeros(SCALES, np.int64)
    for i in range(SCALES):
        b = 0.06 * math.exp(i / 8.0)
        reach = int(min(RADIUS_MAX, max(3, math.ceil(9 * b))))
        k = np.arange(reach + 1)

        def mass(scale: float, k: np.ndarray = k) -> np.ndarray:
            p = 0.5 * np.exp(-(k - 0.5) / scale) * -np.expm1(-1 / scale)
            p[0] = -np.expm1(-0.5 / scale)
            return p

        p = (1 - excess) * mass(b) + excess * mass(3 * b)
        row = np.concatenate([p[:0:-1], p])
        pmf[i, : 2 * reach + 1] = row
        pmf[i, 2 * reach + 1] = max(1 - row.sum(), 1e-6)
        radius[i] = reach
    return Tables.from_probabilities(pmf, radius)


def frozen(model: Objective, tables: Tables) -> dict[str, Tensor]:
    """All tensors of a weights file."""
    out = tables_of(model.network)
    out["cdf"], out["radius"] = torch.from_numpy(tables.cdf), torch.from_numpy(tables.radius)
    for name, module in model.network.named_modules():
        if isinstance(module, Conv):
            w, e, b = integers_of(module)
            prove(name, w, b)
            out[f"{name}.weight"], out[f"{name}.exponent"], out[f"{name}.bias"] = w, e, b
    for name, value in model.analysis.state_dict().items():
        out[f"analysis.{name}"] = value.half()
    return {k: v.contiguous() for k, v in out.items()}


def main() -> None:
    a = argparse.ArgumentParser(description=__doc__)
    a.add_argument("source", type=Path)
    a.add_argument("out", type=Path)
    o = a.parse_args()
    model = Objective()
    model.load_state_dict(load_file(o.source))
    model.eval().requires_grad_(False)
    save_file(frozen(model, laplace_tables()), o.out)
    weights = Weights.read(o.out)
    fixed = FixedNetwork(weights)
    for name, kernel in fixed.kernels.items():
        bound = prove(name, weights.tensors[f"{name}.weight"], weights.tensors[f"{name}.bias"])
        print(f"{name:12s} {kernel:9s} largest sum {bound:9d} of {1 << 24}")
    print(f"{o.out} {o.out.stat().st_size} bytes, sha256 {weights.model_sha256}")


if __name__ == "__main__":
    main()
