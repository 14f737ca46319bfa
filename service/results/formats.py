"""Curves in the layouts of other programs: CompressAI's out, CompressAI's and DCVC's in, as anchors for BD-rates.

**CompressAI** (its `results/` folder, and what its `compressai.utils.plot` reads) has one file a codec, with one list
for each quantity, all in the order of the points:

    {"name": "x264", "description": "…", "results": {"bpp": […], "psnr-rgb": […], "ms-ssim-rgb": […], …}}

The lists may also stand at the top. A file is of a whole data set: each value is a mean over its clips. The same is
written here: the mean over the clips at each setting that all of them have.

**DCVC** (its `test_video.py`, and its `anchors/`) has one file a codec, by data set, sequence and rate point:

    {"UVG": {"Beauty_1920x1080_120fps_420_8bit_YUV.yuv": {"022": {"ave_all_frame_bpp": 0.057, "ave_all_frame_psnr":
     40.1, "ave_all_frame_psnr_y": 39.9, …}, …}, …}, …}

What is measured in RGB there is `psnr_rgb` and `ms_ssim_rgb_db` here, and never stands beside what is measured on luma:
the two differ by decibels. DCVC's PSNR of Y, U and V together has the weights 6:1:1, as here; CompressAI's has others
and is computed anew from the three planes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from metrics import ssim_db, weighted
from service.results.bd_rate_matrix import PERCEPTUAL, Document
from service.results.curves import MEAN, mean_curves

MAX_ANCHORS = 20        # files in one comparison
MAX_POINTS = 10_000     # of one file; DCVC's anchors have 700
MAX_NAME = 100


class LayoutError(Exception):
    """A file of no known layout, or one with a value that is none; the text names the file and the place."""

    field = "anchors"


# --- out -----------------------------------------------------------------------------------------------------------


def compressai(curves: Sequence[Document], name: str, clip: str | None, description: str,
               figures: Mapping[str, Mapping[str, Any]]) -> Document:
    """The curve `name` as one of CompressAI's files: of one clip, or the mean of all. `figures` are of runs, by id.
    Raises KeyError with the known names, where there is no such curve or clip."""
    mine = [curve for curve in curves if curve["curve"] == name and clip in (None, curve["clip"])]
    if not mine:
        raise KeyError(sorted({curve["curve"] for curve in curves}), sorted({curve["clip"] for curve in curves}))
    points = (mine if len(mine) == 1 else mean_curves(mine))[0]["points"]

    def times(kind: str) -> list[float | None]:
        of = [[figures.get(run, {}).get(kind) for run in point.get("runs", [point.get("run")])] for point in points]
        return [None if None in each else sum(filter(None, each)) / len(each) for each in of]

    lists: dict[str, list[Any]] = {
        "q": [next((point[aim] for aim in ("quality", "psnr_db") if point.get(aim) is not None), None)
              for point in points],
        "bpp": [point["bpp"] for point in points],
        "bitrate": [1000 * point["bitrate_mbps"] for point in points],      # kbit/s, as in CompressAI's video results
        "psnr-y": [point["psnr_y"] for point in points],
        "psnr-yuv-611": [point["psnr"] for point in points],
        "ssim-y": [share(point["ssim_db"]) for point in points],
        "ms-ssim-y": [share(point["ms_ssim_db"]) for point in points],
        **{name.replace("_", "-"): [point.get(name) for point in points] for name in PERCEPTUAL},
        "encoding_time": times("encode_s"), "decoding_time": times("decode_s"),
    }
    return {"name": name, "description": description,
            "results": {key: values for key, values in lists.items() if None not in values}}


def share(decibels: float | None) -> float | None:
    """The SSIM of which `metrics.ssim_db` makes so many decibels."""
    return None if decibels is None else 1 - 10 ** (-decibels / 10)


# --- in ------------------------------------------------------------------------------------------------------------


def read_anchor(file: str, document: Any) -> list[Document]:
    """The curves of a file of either layout: {"clip", "curve", "points"} with "bpp" or "bitrate_mbps" and qualities in
    dB in each point, by rate. "clip" is MEAN where the file is of a whole data set. Raises LayoutError."""
    if not isinstance(document, Mapping):
        raise LayoutError(f"{file}: expected a JSON object of CompressAI's or DCVC's layout")
    lists = document.get("results", document)
    if isinstance(lists, Mapping) and isinstance(lists.get("bpp", lists.get("bitrate")), list):
        name = document.get("name")
        return [_compressai(file, str(name)[:MAX_NAME] if name else _stem(file), lists)]
    curves = [_dcvc(file, clip, rates) for clip, rates in _sequences(document)]
    if not curves:
        raise LayoutError(f'{file}: expected "results" with a list "bpp" (CompressAI), or sequences with '
                          '"ave_all_frame_bpp" (DCVC)')
    if sum(len(curve["points"]) for curve in curves) > MAX_POINTS:
        raise LayoutError(f"{file}: more than {MAX_POINTS} points")
    return curves


def same_clip(one: str, other: str) -> bool:
    """Whether two names are of one clip: they differ in case and file suffix only."""
    return _stem(one).casefold() == _stem(other).casefold()


def _stem(name: str) -> str:
    return re.sub(r"\.(json|yuv|y4m|mkv|mp4|png)$", "", name.rpartition("/")[2], flags=re.IGNORECASE)[:MAX_NAME]


def _compressai(file: str, name: str, lists: Mapping[str, Any]) -> Document:
    keys = [key for key in lists if isinstance(lists[key], list) and key not in ("q", "qp")]
    rate = "bpp" if "bpp" in keys else "bitrate"
    count = len(lists[rate])
    if not 0 < count <= MAX_POINTS:
        raise LayoutError(f"{file}: {rate}: expected 1 to {MAX_POINTS} points, got {count}")
    for key in keys:
        if len(lists[key]) != count:
            raise LayoutError(f"{file}: {key}: expected as many values as {rate} has, {count}; got {len(lists[key])}")

    def value(index: int, *names: str) -> float | None:
        found = next((key for key in names if key in keys), None)
        return None if found is None else _number(f"{file}: {found}[{index}]", lists[found][index])

    points = []
    for index in range(count):
        y, u, v = (value(index, f"psnr-{plane}", f"{plane}_psnr", f"psnr_{plane}") for plane in "yuv")
        point = {
            "bpp": value(index, "bpp"), "psnr_y": y,
            "psnr": value(index, "psnr-yuv-611") if None in (y, u, v) else weighted(y, u, v),  # type: ignore[arg-type]
            "ssim_db": _decibels(value(index, "ssim-y")), "ms_ssim_db": _decibels(value(index, "ms-ssim-y")),
            "psnr_rgb": value(index, "psnr-rgb", "rgb_psnr", "psnr"),
            "ms_ssim_rgb_db": _decibels(value(index, "ms-ssim-rgb", "ms-ssim", "msssim")),
            **{name: value(index, name.replace("_", "-")) for name in PERCEPTUAL if name.replace("_", "-") in keys},
        }
        if (kilobits := value(index, "bitrate")) is not None:
            point["bitrate_mbps"] = kilobits / 1000
        points.append(point)
    return _curve(MEAN, name, points)


def _sequences(document: Mapping[str, Any], depth: int = 0) -> Iterator[tuple[str, list[Mapping[str, Any]]]]:
    """Each sequence's name and rate points, however deep they lie."""
    for name, inner in document.items():
        if not isinstance(inner, Mapping):
            continue
        rates = [point for point in inner.values() if isinstance(point, Mapping) and "ave_all_frame_bpp" in point]
        if rates:
            yield str(name)[:MAX_NAME], rates
        elif depth < 4:
            yield from _sequences(inner, depth + 1)


def _dcvc(file: str, clip: str, rates: Sequence[Mapping[str, Any]]) -> Document:
    points = []
    for point in rates:
        def value(name: str, of: Mapping[str, Any] = point) -> float | None:
            key = f"ave_all_frame_{name}"
            return _number(f"{file}: {clip}: {key}", of[key]) if key in of else None

        planes = "ave_all_frame_psnr_y" in point        # else the run was in RGB
        points.append({
            "bpp": value("bpp"), "psnr_y": value("psnr_y"), "psnr": value("psnr") if planes else None,
            "ssim_db": None, "ms_ssim_db": _decibels(value("msssim_y")),
            "psnr_rgb": None if planes else value("psnr"),
            "ms_ssim_rgb_db": None if planes else _decibels(value("msssim")),
        })
    return _curve(clip, _stem(file), points)


def _curve(clip: str, name: str, points: list[Document]) -> Document:
    points.sort(key=lambda point: point["bpp"] if point["bpp"] is not None else point["bitrate_mbps"])
    return {"clip": clip, "curve": name, "anchor": True, "points": points}


def _number(place: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not -1e18 < value < 1e18:   # nor is NaN
        raise LayoutError(f"{place}: expected a number, got {str(value)[:40]!r}")
    return float(value)


def _decibels(value: float | None, scale: Callable[[float], float] = ssim_db) -> float | None:
    return None if value is None else scale(value)


# --- both ----------------------------------------------------------------------------------------------------------


def beside(curves: Sequence[Document], anchors: Sequence[Document]) -> tuple[list[Document], list[str]]:
    """Our curves and the anchors' that are of the same clips, under our clips' names; the anchors' clips that we do not
    have. Where an anchor is of a whole data set, the means over all of our clips stand beside it."""
    mine = list(dict.fromkeys(curve["clip"] for curve in curves))
    taken = {curve["curve"] for curve in curves}
    rows: list[Document] = []
    unmatched: list[str] = []
    for anchor in anchors:
        name = anchor["curve"] if anchor["curve"] not in taken else f"{anchor['curve']} (file)"
        clips = [MEAN] if anchor["clip"] == MEAN else [clip for clip in mine if same_clip(clip, anchor["clip"])]
        rows += [{**anchor, "curve": name, "clip": clip} for clip in clips]
        if not clips:
            unmatched.append(anchor["clip"])
    whole = mean_curves(curves) if any(row["clip"] == MEAN for row in rows) else []
    known = {row["clip"] for row in rows}
    return [*rows, *whole, *(curve for curve in curves if curve["clip"] in known)], unmatched
