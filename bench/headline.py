"""What the service's predecessor claimed without measuring (45 dB, SSIM 0.98, 90:1, 0.5 Mbit/s), measured.

    python -m bench.headline > bench/results/headline.json

On `bikes`: what nvc gives at 0.5 Mbit/s, at 90:1, and the rate that 45 dB takes. That clip comes as H.264 of
0.41 Mbit/s, so that near this rate x264 is asked for what it, or its like, has made before: hence the same at half the
size, where each sample is the mean of four, and nothing of that is left. And the default experiment as a whole, `{}`
through both services, three times.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import codec
from bench.codec import machine
from bench.rates.points import METRICS, anchor_points, compare, rd_points
from bench.service import both_running, wait_end
from coding.interface import Settings
from nvc.motion.prediction import halved
from video import library
from video.files import open_clip, read_info
from video.picture import Picture
from video.planar import Y4MWriter

FRAMES = 97
QUALITIES = (8, 24, 40, 56)
KEYS = ("bitrate_mbps", "compression_ratio", "psnr", "psnr_y", "ssim", "ms_ssim", "bpp")
AT_45_DB = {"at 45 dB": Settings(psnr_db=45.0)}
RUNS = 3


def bikes() -> dict[str, Any]:
    """Each claim on `bikes`, by rate control, with what was met."""
    clip = library.find("bikes")
    info = read_info(clip)
    raw_mbps = info.picture_bytes * 8e-6 * float(info.fps)
    return beside_x264(clip, {"at 0.5 Mbit/s": Settings(bitrate_mbps=0.5),
                              "at 90:1": Settings(bitrate_mbps=raw_mbps / 90), **AT_45_DB})


def bikes_at_half_size() -> dict[str, Any]:
    """The rate that 45 dB takes, and BD-rates against x264."""
    with tempfile.TemporaryDirectory() as folder:
        clip = at_half_size(library.find("bikes"), Path(folder) / "half.y4m")
        out = beside_x264(clip, AT_45_DB)
        ours = rd_points(codec.get("nvc"), clip, FRAMES, [Settings(quality) for quality in QUALITIES])
        return out | {"bd_rate": {metric: compare(out["x264"], ours, metric).percent for metric in METRICS}}


def beside_x264(clip: Path, aims: dict[str, Settings]) -> dict[str, Any]:
    """What rate control meets on `bikes` at some size, and x264's points."""
    info = read_info(clip)
    out: dict[str, Any] = {"clip": "bikes", "size": f"{info.width}x{info.height}", "frames": FRAMES}
    for name, settings in aims.items():
        point = rd_points(codec.get("nvc"), clip, FRAMES, [settings])[0]
        out[name] = {key: point[key] for key in KEYS}
    out["x264"] = [{key: point[key] for key in KEYS} for point in anchor_points("x264", clip, FRAMES, 64)]
    return out


def at_half_size(clip: Path, out: Path) -> Path:
    """The first pictures of a clip whose sides are multiples of 4, each sample the mean of four, as Y4M."""
    with open_clip(clip) as source, out.open("wb") as file:
        info = replace(source.info, width=source.info.width // 2, height=source.info.height // 2)
        writer = Y4MWriter(file, info)
        for picture in islice(source, FRAMES):
            writer.write(Picture(*(halved(plane) for plane in picture)))
    return out


def default_experiment() -> dict[str, Any]:
    """Seconds from POST /experiment `{}` to its result, through both services on a quiet worker, and the parts."""
    rows = []
    with tempfile.TemporaryDirectory() as name, both_running(Path(name)) as (_, call):
        for _ in range(RUNS):
            began = time.perf_counter()
            document = wait_end(call, call("POST", "/experiment", {})["experiment_id"])
            seconds = time.perf_counter() - began
            rows.append({"seconds": round(seconds, 3), "encode_s": round(document["encoding_result"]["encode_s"], 3),
                         "decode_s": round(document["decoding_result"]["decode_s"], 3)})
    return {"clip": document["clip"], "runs": rows, "metrics": document["metrics"]}


def main() -> int:
    report = {"command": "python -m bench.headline", "machine": machine(), "bikes": bikes(),
              "bikes at half size": bikes_at_half_size(), "default_experiment": default_experiment()}
    print(json.dumps(report, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
