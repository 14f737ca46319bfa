"""Measure the learned codec.

    python -m bench.codec [--clips DIR] [--only speed,efforts,memory,network] > bench/results/codec.json

Speed by part at three sizes, speed of each effort at one, kMAC/pixel, the share of the machine's matrix-product rate
that the networks reach, and peak memory against clip length. Rate-distortion is bench/rd.py's. Timings are the median
of three runs, all listed; those of efforts, which take long, of one.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

import codec
from coding.interface import Settings
from metrics import frame_psnr
from nvc.encoder.effort import EFFORT_MAX
from nvc.network import cpu_reconstruction
from nvc.network.cost import kmac_per_pixel
from nvc.network.layers import Conv
from nvc.network.model import DEFAULT_MODEL, load_model
from nvc.network.network import Side
from video import library
from video.files import open_clip

SIZES = {"176x144": "carphone", "352x288": "foreman_cif.mp4", "640x360": "crowd_360p.mp4"}
FRAMES = 33
RUNS = 3


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    model = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                  if line.startswith("model name")), platform.processor())
    return {"cpu": model, "cores": torch.get_num_threads(), "torch": torch.__version__,
            "python": platform.python_version()}


def path_of(name: str, folder: Path) -> Path:
    return folder / name if "." in name else library.find(name)


def speed(folder: Path) -> dict[str, Any]:
    """Frames/s of encoding and decoding, and seconds by part, at the default settings."""
    nvc, out = codec.get("nvc"), {}
    nvc.warm()
    for size, name in SIZES.items():
        with open_clip(path_of(name, folder)) as clip:
            info, pictures = clip.info, list(islice(clip, FRAMES))
        runs = []
        for _ in range(RUNS):
            began = time.perf_counter()
            encoded = nvc.encode(pictures, info, Settings())
            middle = time.perf_counter()
            decoded = nvc.decode(encoded.data)
            count = sum(1 for _ in decoded)
            end = time.perf_counter()
            runs.append({"encode_fps": round(count / (middle - began), 2),
                         "decode_fps": round(count / (end - middle), 2),
                         "encode_s": encoded.details["seconds"], "decode_s": decoded.details["seconds"]})
        out[size] = {"clip": name, "frames": len(pictures), "runs": runs} | {
            key: statistics.median(run[key] for run in runs) for key in ("encode_fps", "decode_fps")}
    return out


def efforts(folder: Path, size: str = "352x288") -> dict[str, Any]:
    """Frames/s of encoding at each effort, and bytes and PSNR of what it makes."""
    nvc = codec.get("nvc")
    with open_clip(path_of(SIZES[size], folder)) as clip:
        info, pictures = clip.info, list(islice(clip, FRAMES))
    rows = []
    for effort in range(EFFORT_MAX + 1):
        nvc.encode(pictures[:2], info, Settings(effort=effort))         # what is made once is made
        began = time.perf_counter()
        encoded = nvc.encode(pictures, info, Settings(effort=effort))
        rows.append({"effort": effort, "encode_fps": round(len(pictures) / (time.perf_counter() - began), 2),
                     "bytes": len(encoded.data),
                     "psnr": round(statistics.mean(map(frame_psnr, pictures, nvc.decode(encoded.data))), 3)})
    return {"clip": SIZES[size], "frames": len(pictures), "size": size, "rows": rows}


def network_share(height: int = 352, width: int = 640) -> dict[str, Any]:
    """Rate of the decoder's networks (without entropy decoding) beside that of one 3×3 convolution of 96 channels."""
    network = load_model(DEFAULT_MODEL).network
    dtype = next(m.frozen[0].dtype for m in network.modules() if isinstance(m, Conv) and m.frozen)
    x = torch.randint(0, 255, (1, 96, height // 8, width // 8)).to(dtype).contiguous(memory_format=torch.channels_last)
    w = torch.randint(-9, 9, (96, 96, 3, 3)).to(dtype).contiguous(memory_format=torch.channels_last)
    side = Side.of(torch.tensor([2]), torch.tensor([56.0]))
    p = np.full((1, 6, height // 2, width // 2), 100, np.uint8)
    d, z = np.zeros(p.shape, np.int16), np.zeros((1, -(-height // 64), -(-width // 64), 48), np.int32)

    def once() -> None:
        cpu_reconstruction.reconstruct(network, side, p, d, z, lambda step, mean, index, local: np.zeros_like(mean))

    def seconds(run, repeats: int) -> float:
        run()
        times = []
        for _ in range(repeats):
            began = time.perf_counter()
            run()
            times.append(time.perf_counter() - began)
        return statistics.median(times)

    with torch.inference_mode():
        peak = 2 * 96 * 96 * 9 * (height // 8) * (width // 8) / seconds(lambda: F.conv2d(x, w, padding=1), 50)
        took = seconds(once, 15)
    rate = 2e3 * kmac_per_pixel(DEFAULT_MODEL, 288, 352)["total"] * height * width / took
    return {"size": f"{width}x{height}", "dtype": str(dtype), "ms_per_picture": round(took * 1e3, 2),
            "gflops": round(rate / 1e9, 1), "convolution_gflops": round(peak / 1e9, 1), "share": round(rate / peak, 3)}


def memory(folder: Path) -> dict[str, Any]:
    """Peak resident MiB of encoding and decoding `flower` repeated to each length, each in its own process."""
    rows = []
    for frames in (16, 64, 256):
        out = subprocess.run([sys.executable, "-m", "bench.codec", "--clips", str(folder), "--peak", str(frames)],
                             capture_output=True, text=True, check=True)
        rows.append(json.loads(out.stdout))
    growth = [round(b["encode_mib"] - a["encode_mib"], 1) for a, b in pairwise(rows)]
    return {"clip": "foreman_cif.mp4, played to and fro", "rows": rows, "growth_mib": growth}


def peak(folder: Path, frames: int) -> dict[str, Any]:
    """One row of `memory`: pictures are made as they are asked for."""
    with open_clip(folder / "foreman_cif.mp4") as clip:
        info, base = clip.info, list(islice(clip, 16))
    turn = base + base[-2:0:-1]
    nvc = codec.get("nvc")
    encoded = nvc.encode((turn[k % len(turn)] for k in range(frames)), info, Settings())
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    for _ in nvc.decode(encoded.data):
        pass
    return {"frames": frames, "encode_mib": round(after, 1),
            "with_decode_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)}


def main() -> None:
    a = argparse.ArgumentParser(description=__doc__)
    a.add_argument("--clips", type=Path, default=Path("../shared/data/test"), help="folder of the test clips")
    a.add_argument("--only", default="speed,efforts,memory,network")
    a.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    o = a.parse_args()
    if o.peak:
        print(json.dumps(peak(o.clips, o.peak)))
        return
    parts = o.only.split(",")
    model = load_model(DEFAULT_MODEL)
    result: dict[str, Any] = {"command": "python -m bench.codec", "machine": machine(), "model_sha256": model.sha256}
    if "network" in parts:
        result["kmac_per_pixel"] = kmac_per_pixel(DEFAULT_MODEL, 288, 352)
        result["network"] = network_share()
        result["parameters"] = sum(m.weight.numel() + m.bias.numel() for m in model.network.modules()
                                   if isinstance(m, Conv))
    if "speed" in parts:
        result["speed"] = speed(o.clips)
    if "efforts" in parts:
        result["efforts"] = efforts(o.clips)
    if "memory" in parts:
        result["memory"] = memory(o.clips)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
