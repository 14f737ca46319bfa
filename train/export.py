"""Freeze trained weights.

    python -m train.export FLOAT.safetensors OUT.safetensors [--fit CLIPS --pictures 3000]

Writes the integers that nvc/network/fixed_point.py describes, proves that no sum leaves float32's exact range, and
checks that the frozen network gives the very numbers of the trained one. Prints the bound of each layer and the file's
SHA-256.

With --fit the range coder's tables take the shape that symbols really have: the clips are coded at random steps with
Laplace tables, the magnitudes counted for each scale index, and the tables made from the counts.
"""

from __future__ import annotations

import argparse
import math
import random
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

import nvc.encoder.clip
import nvc.encoder.encode
import nvc.network.model
from coding.interface import Settings
from nvc.entropy.range_coder import Tables
from nvc.network.fixed_point import FixedNetwork, Weights, context_of, integers_of, prove, tables_of
from nvc.network.layers import Conv
from nvc.network.network import SCALES
from train.objective import Objective
from video.files import open_clip

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


def fitted_tables(base: Tables, counts: NDArray[np.int64], weight: float = 300.0) -> Tables:
    """Tables from counts [64, 32768] of magnitudes by scale index; `base` counts as `weight` symbols of each index."""
    slots = np.diff(base.cdf, axis=1) / 65536.0
    pmf = np.zeros_like(slots)
    for i, reach in enumerate(base.radius):
        used = 2 * int(reach) + 2
        seen = counts[i, : reach + 1].astype(np.float64)
        seen[1:] /= 2                                       # each sign gets half
        both = np.concatenate([seen[:0:-1], seen, [counts[i, reach + 1:].sum()]])
        pmf[i, :used] = both + weight * slots[i, :used]
    return Tables.from_probabilities(pmf, base.radius)


def count_symbols(weights: Path, clips: Path, pictures: int, seed: int = 0) -> NDArray[np.int64]:
    """Magnitudes by scale index, [64, 32768], of the latents that the encoder writes for clips at random steps."""
    nvc.network.model.FOLDER = weights.parent
    model = nvc.network.model.load_model(weights.stem)
    counts = np.zeros((SCALES, 32768), np.int64)
    put = nvc.encoder.encode.SymbolWriter.put

    def counting(self: nvc.encoder.encode.SymbolWriter, symbols: NDArray[np.int32], index: NDArray[np.int32]) -> None:
        np.add.at(counts, (index.ravel(), np.abs(symbols).ravel()), 1)
        put(self, symbols, index)

    nvc.encoder.encode.SymbolWriter.put = counting      # type: ignore[method-assign]
    r, done = random.Random(seed), 0
    paths = sorted(clips.glob("*.mp4"))
    r.shuffle(paths)
    for path in paths:
        with open_clip(path) as clip:
            encoded = nvc.encoder.clip.encode_clip(clip, clip.info, Settings(model=weights.stem), t=r.uniform(10, 104))
        done += len(encoded.frames)
        if done >= pictures:
            break
    nvc.encoder.encode.SymbolWriter.put = put           # type: ignore[method-assign]
    print(f"counted {counts.sum()} symbols of {done} pictures ({model.name})")
    return counts


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
    a.add_argument("--fit", type=Path, help="folder of training clips")
    a.add_argument("--pictures", type=int, default=3000)
    o = a.parse_args()
    trained = load_file(o.source)
    model = Objective(context=context_of(trained, "network."))
    model.load_state_dict(trained)
    model.eval().requires_grad_(False)
    save_file(frozen(model, laplace_tables()), o.out)
    if o.fit:
        counts = count_symbols(o.out, o.fit, o.pictures)
        save_file(frozen(model, fitted_tables(laplace_tables(), counts)), o.out)
    weights = Weights.read(o.out)
    fixed = FixedNetwork(weights)
    for name, kernel in fixed.kernels.items():
        bound = prove(name, weights.tensors[f"{name}.weight"], weights.tensors[f"{name}.bias"])
        print(f"{name:12s} {kernel:9s} largest sum {bound:9d} of {1 << 24}")
    print(f"{o.out} {o.out.stat().st_size} bytes, sha256 {weights.model_sha256}")


if __name__ == "__main__":
    main()
