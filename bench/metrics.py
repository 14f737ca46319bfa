"""Measure the metrics: python -m bench.metrics [--rounds 3] > bench/results/metrics.json

Pictures a second of PSNR (three planes), SSIM and MS-SSIM (luma) at 640×360, beside scikit-image and pytorch-msssim, in
one run on the same pictures, one thread each, one library after the other in every round. What they compute is the
same: Gaussian window of 11, sigma 1.5, population covariance. `difference` is the largest between ours and theirs.

scikit-image is asked for what it computes fastest: float32 planes, no gradient, no full map.

`perceptual`: VMAF, VMAF and VMAF-NEG, and XPSNR as runs measure them, pictures streamed through a pipe, beside the
FFmpeg program's own command line that reads the same pictures from two Y4M files: pictures a second, two threads each.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_msssim
import skimage.metrics
import torch

import metrics
from measures.perceptual import MODELS, PerceptualMeasures
from measures.ssim import MS_SSIM_SIDE, ssim, ssim_and_ms_ssim
from video.ffmpeg_program import executable
from video.picture import ClipInfo, Picture
from video.planar import Y4MWriter

WIDTH, HEIGHT = 640, 360
assert min(WIDTH, HEIGHT) >= MS_SSIM_SIDE
Pair = tuple[Picture, Picture]


def pictures(count: int) -> list[Pair]:
    """Pairs of smooth pictures and what a codec might make of them."""
    rng = np.random.default_rng(4)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    made = []
    for n in range(count):
        planes = [128 + 60 * np.sin(x[: h, : w] / (9 + n)) * np.cos(y[: h, : w] / 13) + rng.normal(0, 8, (h, w))
                  for h, w in ((HEIGHT, WIDTH), (HEIGHT // 2, WIDTH // 2), (HEIGHT // 2, WIDTH // 2))]
        source = Picture(*(plane.clip(0, 255).astype(np.uint8) for plane in planes))
        made.append((source, Picture(*((plane + rng.normal(0, 4, plane.shape)).clip(0, 255).astype(np.uint8)
                                       for plane in source))))
    return made


def skimage_ssim(a: np.ndarray, b: np.ndarray) -> float:
    return float(skimage.metrics.structural_similarity(a, b, data_range=255, gaussian_weights=True, sigma=1.5,
                                                       use_sample_covariance=False))


def tensor(plane: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(plane.astype(np.float32))[None, None]


def ways() -> dict[str, dict[str, Callable[[Pair], float]]]:
    """Metric: who computes it, and how; the first is ours."""
    return {
        "psnr": {
            "ours": lambda pair: metrics.frame_psnr(*pair),
            "scikit-image": lambda pair: metrics.weighted(*(float(skimage.metrics.peak_signal_noise_ratio(
                a, b, data_range=255)) for a, b in zip(*pair, strict=True))),
        },
        "ssim": {
            "ours": lambda pair: ssim(pair[0].y, pair[1].y) or 0.0,
            "scikit-image": lambda pair: skimage_ssim(pair[0].y, pair[1].y),
            "pytorch-msssim": lambda pair: float(pytorch_msssim.ssim(tensor(pair[0].y), tensor(pair[1].y))),
        },
        "ms_ssim": {
            "ours": lambda pair: ssim_and_ms_ssim(pair[0].y, pair[1].y)[1] or 0.0,  # which computes SSIM too
            "pytorch-msssim": lambda pair: float(pytorch_msssim.ms_ssim(tensor(pair[0].y), tensor(pair[1].y))),
        },
        "all": {"ours": lambda pair: float(metrics.frame_metrics(*pair)["psnr"] or 0.0)},
    }


def measure(rounds: int, count: int) -> dict[str, Any]:
    torch.set_num_threads(1)
    pairs = pictures(count)
    found: dict[str, dict[str, list[float]]] = {metric: {who: [] for who in by} for metric, by in ways().items()}
    values: dict[str, dict[str, list[float]]] = {metric: {} for metric in found}
    for turn in range(rounds + 1):  # the first is for caches and compilers
        for metric, by in ways().items():
            for who, compute in by.items():
                began = time.perf_counter()
                values[metric][who] = [compute(pair) for pair in pairs]
                if turn:
                    found[metric][who].append(round(count / (time.perf_counter() - began), 2))
        print(f"round {turn} of {rounds}", file=sys.stderr, flush=True)
    return {
        "pictures_per_s": {metric: {who: {"median": statistics.median(rates), "rounds": rates}
                                    for who, rates in by.items()} for metric, by in found.items()},
        "difference": {metric: {who: max(abs(a - b) for a, b in zip(by["ours"], other, strict=True))
                                for who, other in by.items() if who != "ours"} for metric, by in values.items()},
    }


def by_the_program_alone(folder: Path, names: tuple[str, ...]) -> None:
    """The command line that a user of the program would write."""
    models = "|".join(rf"version={MODELS[name]}\\:name={name}" for name in names if name in MODELS)
    graph = f"libvmaf=n_threads=2:model={models}" if models else "xpsnr"
    subprocess.run([executable("a bench"), "-loglevel", "error", "-nostdin", "-i", folder / "b.y4m", "-i",
                    folder / "a.y4m", "-lavfi", graph, "-f", "null", "-"], check=True)


def perceptual(rounds: int, count: int) -> dict[str, Any]:
    pairs = pictures(20) * (count // 20)
    info = ClipInfo(WIDTH, HEIGHT, Fraction(25), len(pairs))
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        for side, file in enumerate("ab"):
            with Path(name, f"{file}.y4m").open("wb") as out:
                writer = Y4MWriter(out, info)
                for pair in pairs:
                    writer.write(pair[side])
        for names in (("vmaf",), ("vmaf", "vmaf_neg"), ("xpsnr",)):
            rates: dict[str, list[float]] = {"ours": [], "program": []}
            for _ in range(rounds):
                began = time.perf_counter()
                with PerceptualMeasures(names, info, 2) as measures:
                    for pair in pairs:
                        measures.add(*pair)
                    measures.finish()
                rates["ours"].append(len(pairs) / (time.perf_counter() - began))
                began = time.perf_counter()
                by_the_program_alone(Path(name), names)
                rates["program"].append(len(pairs) / (time.perf_counter() - began))
            medians = {who: round(statistics.median(values), 1) for who, values in rates.items()}
            found["+".join(names)] = {**medians, "ratio": round(medians["ours"] / medians["program"], 2),
                                      "rounds": {who: [round(rate, 1) for rate in each] for who, each in rates.items()}}
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pictures", type=int, default=20)
    options = parser.parse_args()
    pools = {f"{pool}_NUM_THREADS": "1" for pool in ("OMP", "OPENBLAS", "MKL", "NUMBA")}
    if not pools.items() <= os.environ.items():  # libraries read them when they are loaded, and these are
        os.execve(sys.executable, [sys.executable, "-m", "bench.metrics", *sys.argv[1:]], {**os.environ, **pools})
    model = next((line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                  if line.startswith("model name")), "")
    print(json.dumps({
        "command": "python -m bench.metrics", "cpu": model, "python": platform.python_version(),
        "numpy": np.__version__, "torch": torch.__version__, "scikit-image": skimage.__version__,
        "size": f"{WIDTH}x{HEIGHT}", "threads": 1,
        "load_average_at_start": os.getloadavg(), **measure(options.rounds, options.pictures),
        "perceptual": perceptual(options.rounds, 100)}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
