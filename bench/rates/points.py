"""Points of rate and quality: a codec makes bytes of pictures and pictures of those bytes, and metrics.py compares.

Rates are of the coded pictures and their parameter sets, without a container's own structure, where a codec tells them
apart (``rate_bytes``); of all bytes otherwise.

Anchors are the codecs to compare with, run as their users run them: constant quality, tuned for PSNR, preset medium or
its like (peers/ffmpeg.py).  One thread codes them, since their bytes depend on the number of threads.

Points are kept in a cache by everything that they depend on: the clip's bytes, the settings, the libraries' versions,
for nvc the weights and the program itself.  So a bench that was stopped goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any

import codec
from coding.interface import Codec, CodecError, Settings
from metrics import BDRate, ClipMetrics, bd_rate, rate_metrics, ssim_db
from video.files import open_clip
from video.picture import ClipInfo, Picture

# CRF of each anchor: over the qualities that nvc reaches from 8 to 56. The two scales end at 51 and at 63.
ANCHOR_CRF: dict[str, tuple[int, ...]] = {
    "x264": (17, 22, 27, 32, 37, 42),
    "x265": (17, 22, 27, 32, 37, 42),
    "svtav1": (20, 30, 40, 50, 58, 63),
    "vp9": (20, 29, 38, 47, 55, 63),
}
# The same with a preset that takes longer, by "codec preset": --slower.
SLOWER_CRF = {"x265 slower": ANCHOR_CRF["x265"], "svtav1 4": ANCHOR_CRF["svtav1"]}
METRICS = ("psnr_y", "psnr", "ssim", "ms_ssim")
ROOT = Path(__file__).resolve().parents[2]
# Beside nvc/, what nvc's points depend on.
PROGRAM = ("codec.py", "coding/interface.py", "metrics.py", "video/picture.py", "video/files.py")
FORMAT = 1  # of the cached files; raised when a point's meaning changes

Point = dict[str, Any]  # settings, bytes, bitrate_mbps, bpp, the metrics of ClipMetrics.summary, encode_s; nvc's bits


def point_of(coder: Codec, pictures: Callable[[], Iterable[Picture]], info: ClipInfo, settings: Settings) -> Point:
    """Code pictures, decode the bytes, compare. ``pictures`` is asked twice: to be coded, and to be compared with."""
    encoded = coder.encode(pictures(), info, settings)
    total = ClipMetrics()
    for reference, picture in zip(pictures(), coder.decode(encoded.data), strict=True):
        total.add(reference, picture)
    size = encoded.details.get("rate_bytes", len(encoded.data))
    return {
        "settings": asdict(settings),
        "bytes": size,
        **rate_metrics(size, encoded.info),
        **total.summary(),
        "encode_s": encoded.details.get("encode_s"),
        **({"bits": encoded.details["bits"]} if "bits" in encoded.details else {}),
    }


def rd_points(coder: Codec, clip: Path, frames: int | None, runs: Iterable[Settings]) -> list[Point]:
    """A point of the first ``frames`` pictures of a clip (None: all) with each of the settings."""

    def pictures() -> Iterator[Picture]:
        with open_clip(clip) as source:
            yield from islice(source, frames)

    with open_clip(clip) as source:
        info = replace(source.info, frames=_known(source.info, frames))
    return [point_of(coder, pictures, info, settings) for settings in runs]


def anchor_points(
    name: str,
    clip: Path,
    frames: int | None,
    intra_period: int,
    cache: Path | None = None,
    crfs: Sequence[float] = (),
) -> list[Point]:
    """The points of an anchor, by name or "name preset", on a clip, at its usual CRFs or those given; from ``cache``
    where they are known."""
    base, _, preset = name.partition(" ")
    coder = codec.get(base)
    crfs = crfs or (ANCHOR_CRF | SLOWER_CRF)[name]
    runs = [Settings(intra_period=intra_period, threads=1, preset=preset or None, options={"crf": crf}) for crf in crfs]
    return kept_points(coder, clip, frames, runs, cache, coder.describe())


def own_points(clip: Path, frames: int | None, runs: Sequence[Settings], cache: Path | None = None) -> list[Point]:
    """nvc's points on a clip; from ``cache`` where this program with these weights has measured them."""
    coder = codec.get("nvc")
    program = [ROOT / name for name in PROGRAM] + sorted((ROOT / "nvc").rglob("*.py"))
    models = coder.describe()["models"]
    known = {"program_sha256": hashlib.sha256(b"".join(path.read_bytes() for path in program)).hexdigest(),
             "models": {run.model: models[run.model]["sha256"] for run in runs}}
    return kept_points(coder, clip, frames, runs, cache, known)


def kept_points(
    coder: Codec, clip: Path, frames: int | None, runs: Sequence[Settings], cache: Path | None, known: dict[str, Any]
) -> list[Point]:
    """`rd_points`, measured once for each clip, settings and what is ``known`` of the codec."""
    if cache is None:
        return rd_points(coder, clip, frames, runs)
    key = {
        "format": FORMAT,
        "codec": known,
        "clip_sha256": sha256_of(clip),
        "frames": frames,
        "runs": [asdict(settings) for settings in runs],
    }
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    path = cache / f"{clip.stem}-{coder.name}-{digest[:16]}.json"
    if path.is_file():
        return json.loads(path.read_text())["points"]
    points = rd_points(coder, clip, frames, runs)
    cache.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_text(json.dumps({"key": key, "points": points}, indent=1))
    os.replace(part, path)  # a reader never meets half a file
    return points


def at_hand(coders: Iterable[Codec]) -> tuple[dict[str, Codec], dict[str, str]]:
    """Which of the codecs run here, by name, and of the others why they do not."""
    here: dict[str, Codec] = {}
    left_out: dict[str, str] = {}
    for coder in coders:
        try:
            coder.warm()
            here[coder.name] = coder
        except CodecError as error:
            left_out[coder.name] = str(error)
    return here, left_out


def compare(
    anchor: Iterable[Point], test: Iterable[Point], metric: str = "psnr_y", method: str = "pchip",
    rate: str = "bitrate_mbps",
) -> BDRate:
    """BD-rate of ``test`` against ``anchor`` by a rate and a metric of the points; ssim and ms_ssim go in dB."""
    return bd_rate(curve(anchor, metric, rate), curve(test, metric, rate), method)


def curve(points: Iterable[Point], metric: str, rate: str) -> list[tuple[float, float]]:
    """(rate, quality in dB) of the points that have the metric."""
    in_db = ssim_db if metric in ("ssim", "ms_ssim") else float
    return [(point[rate], in_db(point[metric])) for point in points if point[metric] is not None]


def against_each(
    ours: list[Point], anchors: dict[str, list[Point]], rate: str = "bitrate_mbps"
) -> dict[str, dict[str, Any]]:
    """BD-rates of ``ours`` by anchor and metric."""
    return {
        name: {metric: asdict(compare(points, ours, metric, rate=rate)) for metric in METRICS}
        for name, points in anchors.items()
    }


def means_of(rows: Sequence[dict[str, dict[str, Any]]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Of what `against_each` gave for each clip: means over the clips where the BD-rate exists (None where it exists
    nowhere), and over how many clips each is taken; by anchor and metric."""
    means: dict[str, dict[str, float | None]] = {}
    counts: dict[str, dict[str, int]] = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        means[name], counts[name] = {}, {}
        for metric in METRICS:
            values = [v for row in rows if name in row and (v := row[name][metric]["percent"]) is not None]
            means[name][metric] = round(sum(values) / len(values), 2) if values else None
            counts[name][metric] = len(values)
    return means, counts


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _known(info: ClipInfo, frames: int | None) -> int | None:
    return min(info.frames, frames) if info.frames and frames else info.frames
