"""The result of bench/rd.py as a page of Markdown: what a reader wants to know first, then clip by clip."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from bench.rates.points import METRICS

METRIC_NAMES = {"psnr_y": "PSNR-Y", "psnr": "PSNR-YUV", "ssim": "SSIM", "ms_ssim": "MS-SSIM"}
CODEC_NAMES = {
    "nvc": "nvc",
    "x264": "x264 medium",
    "x265": "x265 medium",
    "x265 slower": "x265 slower",
    "svtav1": "SVT-AV1 preset 8",
    "svtav1 4": "SVT-AV1 preset 4",
    "vp9": "VP9 (libvpx, cpu-used 2)",
    "jpeg": "JPEG",
    "webp": "WebP",
}
STILL_NAMES = {**CODEC_NAMES, "x264": "x264, intra", "x265": "x265, intra"}


def page(result: dict[str, Any], file: Path, plots: Sequence[Path] = ()) -> str:
    """The whole page, to stand in ``file``, with links to the plots."""
    images = {path.stem: os.path.relpath(path, file.parent) for path in plots}
    parts = [
        "# Rate and distortion",
        f"Made by `{result['command']}`, its result in bench/results. How it is measured stands in `bench/rd.py`, "
        "`bench/rates/points.py` and `bench/rates/stills.py`, what is measured in `metrics.py`.",
        "BD-rate: how much more (+) or less (-) rate nvc needs for the same quality, averaged over the qualities that "
        "both reach; less is better.",
    ]
    if "clips" in result:
        parts += _clips(result, images)
    if "stills" in result:
        parts += _stills(result["stills"], images)
    return "\n\n".join(parts) + "\n"


def _clips(result: dict[str, Any], images: dict[str, str]) -> list[str]:
    rows, names = result["clips"], list(result["encoders"])
    head = (
        f"{len(rows)} clips, {result['frames']} pictures of each, an intra picture every {result['intra_period']} "
        "pictures at the latest, 8-bit 4:2:0; one pass, constant quality (CRF), tuned for PSNR (`peers/ffmpeg.py`). "
        f"nvc with {result['variant']}" + (", then with the others named." if result["others"] else ".")
    )
    means = {result["variant"]: result["mean_bd_rate"], **result["others"]}
    return [
        "## Clips",
        head,
        _means(names, means, result["mean_bd_rate_clips"], len(rows), CODEC_NAMES),
        *_left_out(result["left_out"], CODEC_NAMES),
        *_image(images, "clips-mean", "Mean of the clips: rate against PSNR-Y and MS-SSIM"),
        "### Clip by clip",
        "BD-rate by PSNR-Y / MS-SSIM.",
        _by_clip(rows, names, CODEC_NAMES),
        *_efforts(rows, result["against_before"]),
        *_where_bits_go(rows),
        *(part for row in rows for part in _image(images, row["clip"], row["clip"])),
    ]


def _stills(stills: dict[str, Any], images: dict[str, str]) -> list[str]:
    if "pictures" not in stills:
        return ["## Stills", *_left_out(stills["left_out"], STILL_NAMES)]
    rows, names = stills["pictures"], list(stills["encoders"])
    means = {stills["variant"]: stills["mean_bd_rate"], **stills["others"]}
    return [
        "## Stills",
        f"{len(rows)} pictures, each coded alone. All codecs are handed the same full-range BT.601 4:2:0 planes, and "
        "their decoders' planes are compared with these: no RGB is made on the way.",
        _means(names, means, stills["mean_bd_rate_clips"], len(rows), STILL_NAMES),
        *_left_out(stills["left_out"], STILL_NAMES),
        *_image(images, "stills-mean", "Mean of the pictures: bits a pixel against PSNR-Y and MS-SSIM"),
        "### Picture by picture",
        "BD-rate by PSNR-Y / MS-SSIM.",
        _by_clip(rows, names, STILL_NAMES),
    ]


def _means(
    anchors: Iterable[str], means: dict[str, Any], counts: dict[str, Any], clips: int, names: dict[str, str]
) -> str:
    """A row for each anchor and variant of nvc; where not every clip has a BD-rate, how many have one."""
    rows, some = [], False
    for index, (variant, by_anchor) in enumerate(means.items()):
        for anchor in anchors:
            cells = []
            for metric in METRICS:
                few = not index and counts[anchor][metric] not in (0, clips)
                some |= few
                cells.append(percent(by_anchor[anchor][metric]) + (f" ({counts[anchor][metric]})" if few else ""))
            rows.append([names[anchor], *([variant] if len(means) > 1 else []), *cells])
    head = ["nvc against", *(["nvc with"] if len(means) > 1 else []), *METRIC_NAMES.values()]
    note = f"\n\n(n): mean over the n of {clips} of which both curves share half of their range of quality."
    return table(head, rows) + (note if some else "")


def _by_clip(rows: Sequence[dict[str, Any]], anchors: Sequence[str], names: dict[str, str]) -> str:
    body = [
        [row["clip"], *(_percents(row["bd_rate"][anchor][metric]["percent"] for metric in ("psnr_y", "ms_ssim"))
                        for anchor in anchors)]
        for row in rows
    ]  # fmt: skip
    return table(["", *(names[anchor] for anchor in anchors)], body)


def _efforts(rows: Sequence[dict[str, Any]], means: dict[str, dict[str, Any]]) -> list[str]:
    """BD-rate of each effort against the next lower one, on each clip and on average."""
    steps = [(name, before) for name, by_before in means.items() for before in by_before]
    if not steps:
        return []
    metrics = ("psnr_y", "psnr")
    body = [
        [row["clip"], *(_percents(row["others"].get(name, row)["against_before"][before][m]["percent"] for m in metrics)
                        for name, before in steps)]
        for row in rows
    ]  # fmt: skip
    body.append(["mean", *(_percents(means[name][before][m] for m in metrics) for name, before in steps)])
    words = "BD-rate of each effort against the next lower one, by PSNR-Y / PSNR-YUV."
    return ["### Effort by effort", words, table(["", *(f"{name} against {before}" for name, before in steps)], body)]


def _where_bits_go(rows: Sequence[dict[str, Any]]) -> list[str]:
    """What share of each clip motion and hyper-latents take at each quality, where points tell."""
    if not all("bits" in point for row in rows for point in row["nvc"]):
        return []
    body = []
    for row in rows:
        cells = []
        for bits in (point["bits"] for point in row["nvc"]):
            cells.append(" / ".join(f"{100 * bits[part] / sum(bits.values()):.0f} %" for part in ("motion", "hyper")))
        body.append([row["clip"], *cells])
    qualities = [f"quality {point['settings']['quality']}" for point in rows[0]["nvc"]]
    words = "Motion / hyper-latents; nearly all others are latents."
    return ["### Where bits go", words, table(["", *qualities], body)]


def _left_out(reasons: dict[str, str], names: dict[str, str]) -> list[str]:
    return [f"Left out: {names.get(name, name)}: {reason}." for name, reason in reasons.items()]


def _image(images: dict[str, str], stem: str, words: str) -> list[str]:
    return [f"![{words}]({images[stem]})"] if stem in images else []


def percent(value: float | None) -> str:
    """A BD-rate in words."""
    return "n/a" if value is None else f"{value:+.1f} %"


def _percents(values: Iterable[float | None]) -> str:
    return " / ".join(percent(value) for value in values)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; all columns but the first flush right."""
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
