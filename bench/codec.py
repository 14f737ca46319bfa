"""Measure the learned codec.

    python -m bench.codec [--clips DIR] [--only speed,efforts,memory,network,large] > bench/results/codec.json

Speed by part at three sizes, speed of each effort at one, kMAC/pixel, the share of the machine's matrix-product rate
that the networks reach, peak memory against clip length, and speed and memory at 1920×1080. Rate-distortion is
bench/rd.py's. Timings are the median of three runs, all listed; those of efforts, which take long, of one.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

import codec
from coding.interface import Settings
from metrics import frame_psnr
from nvc.encoder.effort import EFFORTS
from nvc.network import cpu_reconstruction
from nvc.network.cost import kmac_per_pixel
from nvc.network.layers import Conv
from nvc.network.model import DEFAULT_MODEL, load_model
from nvc.network.network import Side
from video import library
from video.files import open_clip
from video.picture import ClipInfo, Picture

SIZES = {"176x144": "carphone", "352x288": "foreman_cif.mp4", "640x360": "crowd_360p.mp4"}
FRAMES, LARGE_FRAMES = 33, 17
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
    for effort in EFFORTS:
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


def peak_mib() -> float:
    """The most memory that this process has had, MiB. (getrusage's figure begins with what its parent had.)"""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return round(int(found[1]) / 1024, 1)


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
    after = peak_mib()
    for _ in nvc.decode(encoded.data):
        pass
    return {"frames": frames, "encode_mib": after, "with_decode_mib": peak_mib()}


def mosaic(folder: Path, count: int) -> tuple[list[Picture], ClipInfo]:
    """A film of 1920×1080: nine different parts of the two clips of 640×360, three by three."""
    parts = []
    for name in ("crowd_360p.mp4", "flower_360p.mp4"):
        with open_clip(folder / name) as clip:
            info, pictures = clip.info, list(islice(clip, 5 * count))
        parts += [pictures[k * count:(k + 1) * count] for k in range(len(pictures) // count)]
    nine = [parts[k % len(parts)] for k in range(9)]

    def plane(which: int, number: int) -> NDArray[np.uint8]:
        return np.vstack([np.hstack([nine[3 * row + k][number][which] for k in range(3)]) for row in range(3)])

    made = [Picture(*(np.ascontiguousarray(plane(which, number)) for which in range(3))) for number in range(count)]
    return made, replace(info, width=1920, height=1080, frames=count)


def still_scene(folder: Path, count: int) -> tuple[list[Picture], ClipInfo]:
    """The mosaic's first picture, in which a window of 256×256 goes on."""
    film, info = mosaic(folder, count)
    made = []
    for picture in film:
        planes = [plane.copy() for plane in film[0]]
        for plane, source, side in zip(planes, picture, (256, 128, 128), strict=True):
            plane[side:2 * side, side:2 * side] = source[side:2 * side, side:2 * side]
        made.append(Picture(*planes))
    return made, info


def large(folder: Path) -> dict[str, Any]:
    """Speed and memory at 1920×1080, encoding and decoding in processes of their own."""
    made: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        for content in CONTENTS:
            stream, made[content] = Path(name) / content, {}
            for _ in range(2):          # the first one writes the stream, the second one finds it
                out = subprocess.run([sys.executable, "-m", "bench.codec", "--clips", str(folder), "--content", content,
                                      "--stream", str(stream)], capture_output=True, text=True, check=True)
                made[content] |= json.loads(out.stdout)
    return made


def large_content(folder: Path, content: str, stream: Path) -> dict[str, Any]:
    """One part of `large`: quality 24, effort 0, into the stream, or from it if it is there."""
    nvc = codec.get("nvc")
    nvc.warm()
    if not stream.exists():
        pictures, info = CONTENTS[content](folder, LARGE_FRAMES)
        began = time.perf_counter()
        stream.write_bytes(nvc.encode(pictures, info, Settings(24)).data)
        return {"frames": len(pictures), "bytes": stream.stat().st_size, "encode_mib": peak_mib(),
                "encode_fps": round(len(pictures) / (time.perf_counter() - began), 2)}
    runs = []
    for _ in range(RUNS):
        began = time.perf_counter()
        count = sum(1 for _ in nvc.decode(stream.read_bytes()))
        runs.append(round(count / (time.perf_counter() - began), 2))
    return {"decode_fps": statistics.median(runs), "decode_runs": runs, "decode_mib": peak_mib()}


CONTENTS = {"film": mosaic, "still scene": still_scene}


def main() -> None:
    a = argparse.ArgumentParser(description=__doc__)
    a.add_argument("--clips", type=Path, default=Path("../shared/data/test"), help="folder of the test clips")
    a.add_argument("--only", default="speed,efforts,memory,network,large")
    a.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    a.add_argument("--content", choices=list(CONTENTS), help=argparse.SUPPRESS)
    a.add_argument("--stream", type=Path, help=argparse.SUPPRESS)
    o = a.parse_args()
    if o.content:
        print(json.dumps(large_content(o.clips, o.content, o.stream)))
        return
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
    if "large" in parts:
        result["large"] = large(o.clips)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
