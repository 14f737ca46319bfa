"""Rate and quality of codecs on clips: the anchors x264 and x265, any other codec, and BD-rate between them.

    python -m bench.rd [--cache DIR] [--frames 33] [--intra-period 64] [CLIP…] > bench/results/rd.json

Everything is measured on decoded pictures by metrics.py; rates are of the coded pictures
and their parameter sets, without a container's own structure.  Anchors are coded by one thread (their bytes depend on
the number of threads) at preset medium, tune psnr, CRF 17, 22, 27, 32, 37, 42, and kept in the cache by everything
that they depend on: the clip's bytes, the settings, the libraries' versions.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any

import clips
import codec
from coding import Codec, Settings
from metrics import BDRate, ClipMetrics, bd_rate, rate_metrics, ssim_db
from picture import ClipInfo, Picture
from video import open_clip

ANCHORS = ("x264", "x265")
METRICS = ("psnr_y", "psnr", "ssim", "ms_ssim")
TEST_CLIPS = Path("../shared/data/test")
ANCHOR_CRF = (17, 22, 27, 32, 37, 42)
FORMAT = 1  # of the cached files; raised when a point's meaning changes

Point = dict[str, Any]  # settings, bytes, bitrate_mbps, bpp, the metrics of ClipMetrics.summary, encode_s


def rd_points(coder: Codec, clip: Path, frames: int | None, runs: Iterable[Settings]) -> list[Point]:
    """Code and decode the first ``frames`` pictures of a clip (None: all) with each of the settings, and measure."""
    points = []
    for settings in runs:
        with open_clip(clip) as source:
            info = replace(source.info, frames=_known(source.info, frames))
            encoded = coder.encode(islice(source, frames), info, settings)
        total = ClipMetrics()
        decoded = iter(coder.decode(encoded.data))
        for reference, picture in zip(_pictures(clip, frames), decoded, strict=True):
            total.add(reference, picture)
        size = encoded.details.get("rate_bytes", len(encoded.data))
        points.append(
            {
                "settings": asdict(settings),
                "bytes": size,
                **rate_metrics(size, encoded.info),
                **total.summary(),
                "encode_s": encoded.details.get("encode_s"),
            }
        )
    return points


def anchor_points(
    name: str,
    clip: Path,
    frames: int | None,
    intra_period: int,
    cache: Path | None = None,
    crfs: Sequence[float] = ANCHOR_CRF,
) -> list[Point]:
    """The points of x264 or x265 (or another peer), from ``cache`` where they are known already."""
    coder = codec.get(name)
    runs = [Settings(intra_period=intra_period, threads=1, options={"crf": crf}) for crf in crfs]
    key = {
        "format": FORMAT,
        "codec": coder.describe(),
        "clip_sha256": _sha256(clip),
        "frames": frames,
        "runs": [asdict(settings) for settings in runs],
    }
    if cache is None:
        return rd_points(coder, clip, frames, runs)
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    path = cache / f"{clip.stem}-{name}-{digest[:16]}.json"
    if path.is_file():
        return json.loads(path.read_text())["points"]
    points = rd_points(coder, clip, frames, runs)
    cache.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_text(json.dumps({"key": key, "points": points}, indent=1))
    os.replace(part, path)  # a reader never meets half a file
    return points


def compare(anchor: Iterable[Point], test: Iterable[Point], metric: str = "psnr_y", method: str = "pchip") -> BDRate:
    """BD-rate of ``test`` against ``anchor`` by bit rate and a metric of the points; ssim and ms_ssim go in dB."""
    return bd_rate(_curve(anchor, metric), _curve(test, metric), method)


def _curve(points: Iterable[Point], metric: str) -> list[tuple[float, float]]:
    in_db = ssim_db if metric in ("ssim", "ms_ssim") else float
    return [(point["bitrate_mbps"], in_db(point[metric])) for point in points if point[metric] is not None]


def _pictures(clip: Path, frames: int | None) -> Iterator[Picture]:
    with open_clip(clip) as source:
        yield from islice(source, frames)


def _known(info: ClipInfo, frames: int | None) -> int | None:
    return min(info.frames, frames) if info.frames and frames else info.frames


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def report(clip: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Points of nvc and the anchors on one clip, and nvc's BD-rate against each by each metric."""
    anchors = {name: anchor_points(name, clip, options.frames, options.intra_period, options.cache) for name in ANCHORS}
    runs = [Settings(quality=q, effort=options.effort, intra_period=options.intra_period) for q in options.qualities]
    ours = rd_points(codec.get("nvc"), clip, options.frames, runs)
    against = {
        name: {metric: asdict(compare(points, ours, metric)) for metric in METRICS} for name, points in anchors.items()
    }
    row = "  ".join(f"{name} {_shown(result['psnr'])}" for name, result in against.items())
    print(f"{clip.stem:16s} BD-rate, PSNR-YUV: {row}", file=sys.stderr, flush=True)
    return {"clip": clip.stem, "clip_sha256": _sha256(clip), "nvc": ours, **anchors, "bd_rate": against}


def _shown(result: dict[str, Any]) -> str:
    return result["reason"] if result["percent"] is None else f"{result['percent']:+.1f} %"


def mean_bd_rate(rows: list[dict[str, Any]]) -> dict[str, dict[str, float | None]]:
    """Means over the clips where the BD-rate exists; None where it exists nowhere."""
    means: dict[str, dict[str, float | None]] = {}
    for name in ANCHORS:
        means[name] = {}
        for metric in METRICS:
            values = [v for row in rows if (v := row["bd_rate"][name][metric]["percent"]) is not None]
            means[name][metric] = round(sum(values) / len(values), 2) if values else None
    return means


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bench.rd", description="nvc beside the anchors, as JSON on standard output.")
    parser.add_argument("clips", metavar="CLIP", type=Path, nargs="*", help="default: the test clips, or the library's")
    parser.add_argument("--cache", type=Path, help="folder that keeps measured anchors")
    parser.add_argument("--frames", type=int, default=33)
    parser.add_argument("--intra-period", type=int, default=64)
    parser.add_argument("--effort", type=int, default=0)
    parser.add_argument("--qualities", type=int, nargs="+", default=[8, 20, 32, 44, 56])
    options = parser.parse_args(arguments)
    paths = options.clips or sorted(TEST_CLIPS.glob("*.mp4")) or [clips.find("carphone"), clips.find("bikes")]
    rows = [report(path, options) for path in paths]
    result = {
        "command": " ".join(["python -m bench.rd", *(arguments if arguments is not None else sys.argv[1:])]),
        "model_sha256": {name: about["sha256"] for name, about in codec.get("nvc").describe()["models"].items()},
        "frames": options.frames,
        "intra_period": options.intra_period,
        "effort": options.effort,
        "mean_bd_rate": mean_bd_rate(rows),
        "clips": rows,
    }
    print(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
